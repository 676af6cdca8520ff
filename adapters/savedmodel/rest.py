"""The REST front: an ASGI application over the manager.

Plain ASGI and nothing else, since batching is measured against this server. Bodies are bounded in
size, depth and the time they may take to arrive; decoding, prediction and encoding run together in
one prediction thread, so a request changes threads once.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from adapters.savedmodel import inference
from adapters.savedmodel.examples import read_examples
from adapters.savedmodel.json_reader import read_object, signature_name
from adapters.savedmodel.json_tensors import read_predict
from adapters.savedmodel.json_writer import write_classes, write_predict, write_values
from adapters.savedmodel.manager import Manager
from adapters.savedmodel.routes import Target, parse
from adapters.savedmodel.signature import Servable
from adapters.savedmodel.status import Code, ServingError
from adapters.savedmodel.versions import VersionState

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

TIMEOUT = (
    30.0  # seconds for a body to arrive, and again for its answer; TensorFlow Serving's default
)
_TOO_LARGE = 413
_GATEWAY_TIMEOUT = 504
_DROP_FACTOR = (
    4  # how many times the limit is read and dropped before the connection is closed on the sender
)


class _Refused(Exception):
    """The body is not wanted to its end; the connection closes after the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class _Gone(Exception):
    """The client left before its body was complete."""


class RestApp:
    """ASGI application.

    Args:
        manager: lends the models.
        max_body: bytes of a request body; a longer one gets 413.
        max_depth: brackets open at once in a body; a deeper one gets 400.
    """

    def __init__(self, manager: Manager, max_body: int, max_depth: int) -> None:
        self._manager = manager
        self._max_body = max_body
        self._max_depth = max_depth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; see the ASGI specification."""
        if scope["type"] != "http":
            return
        headers = [(b"content-type", b"application/json")]
        try:
            status, body = 200, await self._answer(scope, receive)
        except ServingError as error:
            status, body = error.http_status, _error(error.message)
        except _Refused as refusal:
            status, body = refusal.status, _error(refusal.message)
            headers.append((b"connection", b"close"))
        except _Gone:
            return
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> bytes:
        method: str = scope["method"]
        target = parse(method, scope["raw_path"].decode("latin-1"))
        if target.verb == "status":
            return self._status(target)
        if target.verb == "metadata":
            return self._metadata(target)
        return await self._infer(target, await self._read_body(scope, receive))

    async def _infer(self, target: Target, body: bytes) -> bytes:
        verb = _VERBS[target.verb]
        depth = self._max_depth
        try:
            async with asyncio.timeout(TIMEOUT):
                try:
                    handle = self._manager.acquire(target.model, target.version, target.label)
                except ServingError:
                    self._manager.require_ready()
                    # A body that can't be read is told before a model that is not there.
                    await self._manager.aside(lambda: verb.check(read_object(body, depth)))
                    raise
                return await self._manager.run(
                    handle, lambda: verb.answer(handle.servable, read_object(body, depth))
                )
        except TimeoutError:
            raise ServingError(Code.DEADLINE_EXCEEDED, f"no answer within {TIMEOUT:g} s") from None

    def _status(self, target: Target) -> bytes:
        # A label is not looked at here: all versions are told, as by TensorFlow Serving.
        rows = self._manager.states(target.model, target.version)
        return _dump(
            {"model_version_status": [_state(number, row) for number, row in rows.items()]}
        )

    def _metadata(self, target: Target) -> bytes:
        handle = self._manager.acquire(target.model, target.version, target.label)
        try:
            spec = {"name": handle.model, "signature_name": "", "version": str(handle.version)}
            definitions = {"signature_def": handle.servable.metadata()}
        finally:
            handle.release()
        return _dump({"model_spec": spec, "metadata": {"signature_def": definitions}})

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        pieces = _pieces(receive)
        try:
            async with asyncio.timeout(TIMEOUT):
                length = next(
                    (value for name, value in scope["headers"] if name == b"content-length"), b"0"
                )
                if int(length) > self._max_body:
                    await self._drop(pieces)
                return await self._collect(pieces)
        except TimeoutError:
            raise _Refused(
                _GATEWAY_TIMEOUT, f"the body did not arrive within {TIMEOUT:g} s"
            ) from None

    async def _collect(self, pieces: AsyncIterator[bytes]) -> bytes:
        kept: list[bytes] = []
        size = 0
        async for piece in pieces:
            size += len(piece)
            if size > self._max_body:
                await self._drop(pieces)
            kept.append(piece)
        return kept[0] if len(kept) == 1 else b"".join(kept)

    async def _drop(self, pieces: AsyncIterator[bytes]) -> None:
        """Reads on for a while and keeps nothing, so that a client which only sends first gets to
        see the answer.

        Raises:
            _Refused: always.
        """
        size = 0
        async for piece in pieces:
            size += len(piece)
            if size > _DROP_FACTOR * self._max_body:
                break
        raise _Refused(
            _TOO_LARGE,
            f"the request body is larger than {self._max_body} bytes; send fewer rows, "
            "or raise --max-body",
        )


def predict(servable: Servable, document: dict[str, Any]) -> bytes:
    """One predict request from a parsed body to bytes; runs in a prediction thread.

    Raises:
        ServingError: whatever is wrong with the body, its tensors or the model's answer.
    """
    request = read_predict(document, servable.signatures)
    inference.check_predict(servable, request.signature)
    return write_predict(servable.run(request.signature, request.inputs), request.row)


def classify(servable: Servable, document: dict[str, Any]) -> bytes:
    """One classify request; see `predict`."""
    request = read_examples(document)
    answer = inference.classify(servable, request.signature, request.examples)
    return write_classes(answer.labels, answer.scores)


def regress(servable: Servable, document: dict[str, Any]) -> bytes:
    """One regress request; see `predict`."""
    request = read_examples(document)
    return write_values(inference.regress(servable, request.signature, request.examples))


@dataclass(frozen=True, slots=True)
class _Verb:
    """`answer` serves a body; `check` reads as much of it as needs no model."""

    answer: Callable[[Servable, dict[str, Any]], bytes]
    check: Callable[[dict[str, Any]], object]


_VERBS: Mapping[str, _Verb] = {
    "predict": _Verb(predict, signature_name),
    "classify": _Verb(classify, read_examples),
    "regress": _Verb(regress, read_examples),
}


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        more = message.get("more_body", False)
        yield message.get("body", b"")


def _state(number: int, row: VersionState) -> dict[str, Any]:
    status = {"error_code": row.code.name, "error_message": row.message}
    return {"version": str(number), "state": row.state.name, "status": status}


def _error(message: str) -> bytes:
    return _dump({"error": message})


def _dump(value: object) -> bytes:
    # A message may quote what the client sent, lone surrogates included.
    return json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "replace")
