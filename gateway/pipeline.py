"""A Request's one path, its phases in order, written once. HTTP and gRPC both come here.

    authenticate → body → decode → local answer? → resolve → authorise → encode → dispatch → relay

Every request has one ending, whatever happens to it: `_Ending` is a context manager around the
whole path, so it runs at once when a client vanishes in the middle of a write.
"""

import asyncio
import random
import time
from collections.abc import Callable
from types import TracebackType

from gateway.dispatch import Dispatch, Flight
from gateway.errors import (
    ClientGone,
    Code,
    DeadlineExceeded,
    GatewayError,
    InvalidRequest,
    Unsupported,
)
from gateway.policies import auth, versioning
from gateway.protocols import headers as fields
from gateway.protocols.translation import Directions, Question, Translator
from gateway.types import (
    Asked,
    Call,
    Family,
    Form,
    Head,
    Headers,
    Limits,
    Message,
    Observer,
    Operation,
    Outcome,
    Request,
    Snapshot,
    Target,
    Tenant,
    View,
    Whole,
)

_KINDS = {Family.LLM: "an LLM", Family.CLASSIC: "a classic model"}
_TAKING = 1.0
"""Seconds beyond its deadline that a request may last while its client takes the answer."""


class Internal(GatewayError):
    """The gateway's own failure, as a caller sees it: no trace, an id to ask about."""


class _Ending:
    """The one ending: what became of a request is told once, on every way out."""

    def __init__(self, request: Request, observer: Observer, clock: Callable[[], float]) -> None:
        self.status = 0
        self.error: GatewayError | None = None
        self.phase = "received"
        self.elsewhere = 0.0
        self._request = request
        self._observer = observer
        self._clock = clock

    def __enter__(self) -> "_Ending":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        request = self._request
        gone = isinstance(self.error, ClientGone) or kind is asyncio.CancelledError
        grpc = request.operation.form is Form.TFS_GRPC
        status = self.status
        if gone:
            status = Code.CANCELLED if grpc else ClientGone.status
        seconds = self._clock() - request.received
        target = request.target
        self._observer.ended(
            Outcome(
                request_id=request.id,
                protocol=request.operation.protocol,
                operation=request.operation.name,
                tenant=request.tenant.name if request.tenant else "",
                model=target.model.name if target else "",
                version=str(target.version.number) if target else "",
                code=Code(status).name if grpc else str(status),
                seconds=seconds,
                overhead=max(seconds - self.elsewhere, 0.0),
                cancelled=self.phase if gone else "",
                error=self.error,
            )
        )


class Pipeline:
    """The path. `snapshot` gives the world as it is now; a request keeps the one it met."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        dispatch: Dispatch,
        observer: Observer,
        limits: Limits,
        translators: Directions,
    ) -> None:
        self._snapshot = snapshot
        self._translators = translators
        self._dispatch = dispatch
        self._observer = observer
        self._limits = limits
        self._clock = time.monotonic  # the loop's own ticks in milliseconds
        self._views_of = Snapshot()
        self._views: dict[str, View] = {}

    async def handle(self, request: Request) -> None:
        """Answer a request, well or with an error in its protocol's shape."""
        with _Ending(request, self._observer, self._clock) as ending:
            try:
                await self._serve(request, ending)
            except GatewayError as error:
                await self._refuse(request, ending, error)
            except Exception as error:  # noqa: BLE001 - the last resort: told, then answered
                self._observer.failed(request.id, error)
                internal = Internal(f"the gateway failed; its log has request {request.id}")
                await self._refuse(request, ending, internal)

    async def refuse(self, request: Request, error: GatewayError) -> None:
        """Answer a request that a listener could not even route."""
        with _Ending(request, self._observer, self._clock) as ending:
            await self._refuse(request, ending, error)

    async def _serve(self, request: Request, ending: _Ending) -> None:
        snapshot, operation = self._snapshot(), request.operation
        request.tenant = auth.authenticate(snapshot.tenants, fields.key(request.headers))
        ending.phase = "body"
        body = await request.incoming.body()
        asked = operation.front.decode(operation, request.ref, body, self._limits)
        view = self._view(snapshot, request.tenant)
        if asked.ref is not None:
            _authorise(request, snapshot, view, asked)
        if operation.local is not None:
            _check_exists(view, asked)
            answer = operation.local(asked, view)
            if answer is not None:
                await self._whole(request, ending, answer)
                return
        target = self._resolve(request, view, asked)
        translator = self._translator(operation, target)
        if not operation.about:
            versioning.check_ready(target.version)
        sent_on = _sent_on(request)
        if translator is None:
            message = operation.front.encode(operation, asked, target, sent_on)
            await self._relay(request, ending, self._call(request, asked, target, message))
        else:
            question = translator.ask(operation, asked, target, sent_on)
            call = self._call(request, asked, target, question.message)
            await self._relay_translated(request, ending, call, question)

    def _view(self, snapshot: Snapshot, tenant: Tenant | None) -> View:
        """Return what a tenant may see; worked out once per Snapshot."""
        if snapshot is not self._views_of:
            self._views_of, self._views = snapshot, {}
        name = tenant.name if tenant else ""
        view = self._views.get(name)
        if view is None:
            view = self._views[name] = View(auth.visible(tenant, snapshot.models))
        return view

    def _resolve(self, request: Request, view: View, asked: Asked) -> Target:
        if asked.ref is None:
            raise InvalidRequest("no model is named", param="model")
        model = versioning.find_model(view.models, asked.ref)
        target = versioning.resolve(model, asked.ref, random.random())
        request.target = target
        return target

    def _translator(self, operation: Operation, target: Target) -> Translator | None:
        """Return what asks a version's backends in their form; None where that is the client's.

        Raises where nothing does.
        """
        if operation.form in target.version.forms:
            return None
        for form in sorted(target.version.forms):
            translator = self._translators.get((operation.form, form))
            if translator is not None and operation.name in translator.operations:
                return translator
        raise _no_way(operation, target)

    def _call(self, request: Request, asked: Asked, target: Target, message: Message) -> Call:
        total = target.model.timeouts.total
        seconds = total if request.timeout is None else min(request.timeout, total)
        return Call(target, message, request.received + seconds, asked.stream)

    async def _relay(self, request: Request, ending: _Ending, call: Call) -> None:
        ending.phase = "queue"
        async with self._dispatch.open(call) as flight:
            ending.elsewhere = flight.queued + flight.upstream
            ending.phase = "answer"
            ending.status = flight.head.status
            await request.reply.start(self._decorated(request, flight, flight.head))
            began = self._clock()
            try:
                await _pieces(request, flight, call.deadline)
            finally:
                ending.elsewhere += self._clock() - began

    async def _relay_translated(
        self, request: Request, ending: _Ending, call: Call, question: Question
    ) -> None:
        """Read the whole answer, and give it in the client's own form."""
        ending.phase = "queue"
        async with self._dispatch.open(call) as flight:
            ending.elsewhere = flight.queued + flight.upstream
            ending.phase = "answer"
            parts = []
            while piece := await flight.read():
                parts.append(piece)
            answer = question.answer(flight.head, b"".join(parts))
            ending.status = answer.head.status
            await request.reply.start(self._decorated(request, flight, answer.head))
            await request.reply.finish(answer.body)

    def _decorated(self, request: Request, flight: Flight, head: Head) -> Head:
        """Add the gateway's own fields to a backend's head."""
        gateway = self._clock() - request.received - flight.queued - flight.upstream
        timing = (
            f"gateway;dur={gateway * 1e3:.3f}, queue;dur={flight.queued * 1e3:.3f}, "
            f"upstream;dur={flight.upstream * 1e3:.3f}"
        )
        ours = (
            *_identity(request),
            (b"server-timing", timing.encode()),
        )
        return Head(head.status, fields.sent_back(head.headers) + ours, head.detail, head.trailers)

    async def _whole(self, request: Request, ending: _Ending, answer: Whole) -> None:
        head = answer.head
        ending.status = head.status
        decorated = Head(head.status, head.headers + _identity(request), head.detail)
        await request.reply.start(decorated)
        await request.reply.finish(answer.body)

    async def _refuse(self, request: Request, ending: _Ending, error: GatewayError) -> None:
        ending.error = error
        if isinstance(error, ClientGone):
            request.reply.abort()
            return
        if not request.reply.started:
            await self._whole(request, ending, request.operation.front.error(error))
            return
        if request.reply.at_event_end:
            await request.reply.piece(request.operation.front.cut(error))
        request.reply.abort()


async def _pieces(request: Request, flight: Flight, deadline: float) -> None:
    """Send an answer on; a client that reads too slowly holds its slot until the deadline only."""
    reply = request.reply
    try:
        async with asyncio.timeout_at(deadline + _TAKING):  # a late backend is found out first
            while piece := await flight.read():
                await reply.piece(piece)
            await reply.finish()
    except TimeoutError:
        raise DeadlineExceeded("the answer was not taken within the time allowed") from None


def _sent_on(request: Request) -> Headers:
    """Return the fields that travel on; the id always does, so that logs can be matched."""
    headers = fields.sent_on(request.headers)
    if fields.first(headers, b"x-request-id") is not None:
        return headers
    return (*headers, (b"x-request-id", request.id.encode()))


def _authorise(request: Request, snapshot: Snapshot, view: View, asked: Asked) -> None:
    """Refuse a model that exists but is not this caller's; an unknown one is found out later."""
    if asked.ref is None or asked.ref.name in view.models:
        return
    model = snapshot.models.get(asked.ref.name)
    if model is not None:
        auth.authorise(request.tenant, model)


def _check_exists(view: View, asked: Asked) -> None:
    """Raise `NotFound` for a reference to what is not there, or not to be seen."""
    ref = asked.ref
    if ref is None:
        return
    model = versioning.find_model(view.models, ref)
    if ref.version is not None or ref.label is not None:
        versioning.resolve(model, ref, 0.0)


def _no_way(operation: Operation, target: Target) -> GatewayError:
    model, version = target.model, target.version
    spoken = ", ".join(sorted(version.forms))
    if operation.protocol == "tensorflow_serving" and model.family == "classic":
        return Unsupported(
            f"{version} is served in the form {spoken} only, and {operation.name} is not "
            "translated; ask in that form, or give its backends an address for this one"
        )
    return InvalidRequest(
        f"{model.name} is {_KINDS[model.family]} and has no {operation.name}; "
        f"its backends speak {spoken}",
        param="model",
    )


def _identity(request: Request) -> Headers:
    own = (b"x-request-id", request.id.encode())
    if request.target is None:
        return (own,)
    return (own, (b"x-isthmus-model", str(request.target.version).encode()))
