"""TensorFlow Serving, and whatever else serves its REST or gRPC API."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from urllib.parse import quote

from google.protobuf.message import DecodeError

from adapters import probing
from adapters.probing import ProbeFailedError, Prober
from adapters.transport import HttpClients
from adapters.transport_grpc import GrpcClients
from gateway.errors import Code, UpstreamError
from gateway.protocols import wire
from gateway.types import (
    Answer,
    Backend,
    Call,
    Family,
    Form,
    Message,
    Seen,
    State,
    Timeouts,
)

_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
_REST_STATE = {state.value: state for state in State}

States = Mapping[int | None, State]


class TensorFlowServing:
    """`types.Adapter` for TF Serving: models with numbered versions and their states."""

    family = Family.CLASSIC
    address_keys = {"grpc": Form.TFS_GRPC, "rest": Form.TFS_REST}  # noqa: RUF012 - read only
    timeouts = Timeouts(connect=1.0, first_piece=30.0, idle=30.0, total=30.0)

    def __init__(self) -> None:
        self._http = HttpClients()
        self._grpc = GrpcClients()
        self._prober = Prober()
        self._wire = wire.load()
        self._states = {int(self._wire.State[state]): state for state in State}

    def open(
        self, backend: Backend, call: Call, timeouts: Timeouts
    ) -> AbstractAsyncContextManager[Answer]:
        """Send a call in its own form. Raises `UpstreamError`."""
        form = call.message.form
        address = backend.addresses[form]
        if form is Form.TFS_GRPC:
            client = self._grpc.to(address, backend.tls)
            return client.exchange(call.message, backend.headers, timeouts, call.deadline)
        http = self._http.to(address, backend.tls)
        return http.exchange(call.message, backend.headers, timeouts, call.deadline, call.stream)

    async def probe(self, backend: Backend, served: frozenset[str]) -> Seen:
        """Ask for the status of each model wanted; every address of the backend must answer."""
        found: dict[str, States] = {}
        try:
            for name in served:
                found[name] = await self._status(backend, name)
        except ProbeFailedError as error:
            return Seen(False, str(error))
        return Seen(True, served=found)

    async def close(self) -> None:
        """Close every connection."""
        self._http.close()
        await self._grpc.close()
        await self._prober.close()

    async def _status(self, backend: Backend, name: str) -> States:
        states: States = {}
        for form in sorted(backend.addresses):
            ask = self._grpc_status if form is Form.TFS_GRPC else self._rest_status
            try:
                states = await ask(backend, name)
            except ProbeFailedError as error:
                if not error.missing:
                    raise
                return {}  # the server lives, without this model
        return states

    async def _rest_status(self, backend: Backend, name: str) -> States:
        url = f"{backend.addresses[Form.TFS_REST]}/v1/models/{quote(name, safe='')}"
        try:
            answer = await self._prober.get_json(backend, url)
            return {
                int(entry["version"]): _REST_STATE[entry["state"]]
                for entry in answer["model_version_status"]
            }
        except (KeyError, TypeError, ValueError, OverflowError):
            raise ProbeFailedError(f"{url} answered no status of versions") from None

    async def _grpc_status(self, backend: Backend, name: str) -> States:
        address = backend.addresses[Form.TFS_GRPC]
        asked = self._wire.GetModelStatusRequest()
        asked.model_spec.name = name
        message = Message(Form.TFS_GRPC, "grpc", _STATUS, (), asked.SerializeToString())
        deadline = asyncio.get_running_loop().time() + probing.SECONDS
        client = self._grpc.to(address, backend.tls)
        try:
            async with client.exchange(message, backend.headers, self.timeouts, deadline) as answer:
                if answer.head.status != Code.OK:
                    code = Code(answer.head.status)
                    why = f"{address} answered {code.name}: {answer.head.detail}"
                    raise ProbeFailedError(why, code is Code.NOT_FOUND)
                status = self._wire.GetModelStatusResponse.FromString(await answer.read())
        except UpstreamError as error:
            raise ProbeFailedError(f"{address} {error.message}") from None
        except DecodeError:
            raise ProbeFailedError(f"{address} answered no status of versions") from None
        return {
            entry.version: self._states[entry.state]
            for entry in status.model_version_status
            if entry.state in self._states
        }


ADAPTER = TensorFlowServing
