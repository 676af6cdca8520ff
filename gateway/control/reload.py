"""HandleReloadConfigRequest through the gateway: adding or removing one model leaves the others.

A server replaces all that it serves by what it is sent (tensorflow/serving,
`apis/model_service.proto`). Here a request names what changes, and the rest is filled in from what
is known of each server: the file that it was started with, and the reloads that went through
since. Where a model is seen to be served whose entry is not known, nothing is sent: it would go.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from gateway.control.registry import Registry
from gateway.control.world import Place, place
from gateway.errors import (
    Code,
    DeadlineExceeded,
    FailedPrecondition,
    Unavailable,
    Unsupported,
    UpstreamError,
    UpstreamInvalid,
    shown,
)
from gateway.protocols import model_config
from gateway.protocols.tensorflow_serving_grpc import RELOAD
from gateway.protocols.wire import Wire, messages
from gateway.types import (
    Adapter,
    Asked,
    Backend,
    Call,
    Form,
    Head,
    Headers,
    Message,
    Model,
    State,
    Target,
    Version,
    View,
    Whole,
)

_SERVED = frozenset({State.START, State.LOADING, State.AVAILABLE})
_OK = Head(Code.OK)


@dataclass(slots=True)
class _Known:
    """What is known of a server: its entries, and which models left it by a reload from here."""

    entries: dict[str, bytes]
    gone: set[str] = field(default_factory=set)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def after(self, changes: Mapping[str, bytes | None]) -> dict[str, bytes]:
        """Return all entries once the changes are made; None removes one."""
        every = {**self.entries, **changes}
        return {name: entry for name, entry in every.items() if entry is not None}


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a request changes on one server: entries by the names that the server has for them."""

    backend: Backend
    model: Model
    changes: dict[str, bytes | None] = field(default_factory=dict)


class Reloads:
    """The `types.Control` of reloads. One for the process: it remembers what went through."""

    def __init__(self, wire: Wire, registry: Registry, adapters: Mapping[str, Adapter]) -> None:
        self._wire = wire
        self._registry = registry
        self._adapters = adapters
        self._servers: dict[Place, _Known] = {}

    async def __call__(self, asked: Asked, view: View, deadline: float, headers: Headers) -> Whole:
        """Reload every server of the models named; OK once all of them said so.

        Reloads of one server wait for each other. Raises `FailedPrecondition`, `Unsupported`,
        `Unavailable`, `DeadlineExceeded` before anything is sent, and `UpstreamError`.
        """
        request = model_config.read_reload(self._wire, asked.body)
        plans = self._plans(request, view)
        async with AsyncExitStack() as turns:
            try:
                async with asyncio.timeout_at(deadline):
                    for where in sorted(plans):  # in one order everywhere, so that none deadlocks
                        await turns.enter_async_context(self._known(plans[where].backend).turn)
                    await self._registry.look_again(plan.backend for plan in plans.values())
            except TimeoutError:
                raise DeadlineExceeded(
                    "other reloads of these servers took all of the time allowed"
                ) from None
            for plan in plans.values():
                self._check_nothing_lost(plan, view)
            answers = await asyncio.gather(
                *(
                    self._reload(plan, request, deadline, headers)
                    for _, plan in sorted(plans.items())
                ),
                return_exceptions=True,
            )
            await self._registry.look_again(plan.backend for plan in plans.values())
        return self._together(answers)

    def _plans(self, request: messages.ReloadConfigRequest, view: View) -> dict[Place, _Plan]:
        plans: dict[Place, _Plan] = {}
        for entry in request.config.model_config_list.config:
            model = view.models[entry.name]
            backends = [b for b in model.backends if Form.TFS_GRPC in b.addresses]
            if not backends:
                raise Unsupported(
                    f"{model.name} has no backend with a gRPC address, which reloads need"
                )
            for backend in backends:
                plan = plans.setdefault(place(backend), _Plan(backend, model))
                name = _name_there(model, backend)
                if name in plan.changes:
                    raise FailedPrecondition(
                        f"two of the models named are {shown(name)!r} at one backend; name one"
                    )
                plan.changes[name] = self._renamed(entry, name)
        return plans

    def _renamed(self, entry: messages.ModelConfig, name: str) -> bytes | None:
        if not entry.base_path:
            return None
        copy = type(entry)()
        copy.CopyFrom(entry)
        copy.name = name
        return copy.SerializeToString()

    def _known(self, backend: Backend) -> _Known:
        known = self._servers.get(place(backend))
        if known is None:
            entries = dict(model_config.entries(self._wire, backend.model_config))
            known = self._servers[place(backend)] = _Known(entries)
        return known

    def _check_nothing_lost(self, plan: _Plan, view: View) -> None:
        known, seen = self._known(plan.backend), self._registry.seen(plan.backend)
        if seen is None or not seen.up:
            raise Unavailable(
                f"{plan.model.name}: one of its backends does not answer, so what it serves is not "
                "known; nothing was changed, try again once it does",
                headers=((b"retry-after", b"1"),),
            )
        safe = known.entries.keys() | known.gone | plan.changes.keys()
        lost = [
            name
            for name, states in seen.served.items()
            if name not in safe and not _SERVED.isdisjoint(states.values())
        ]
        if lost:
            raise FailedPrecondition(
                f"{plan.model.name}: one of its backends serves {_told(lost, plan.backend, view)} "
                "too, whose entry is not known here, and a reload would unload it; nothing was "
                "changed. Set model_config_file on the backend in the gateway's configuration, or "
                "name that model in the request as well"
            )

    async def _reload(
        self,
        plan: _Plan,
        request: messages.ReloadConfigRequest,
        deadline: float,
        headers: Headers,
    ) -> tuple[Head, messages.ReloadConfigResponse]:
        known = self._known(plan.backend)
        wanted = known.after(plan.changes)
        body = model_config.write_reload(self._wire, wanted, request.metric_names)
        try:
            head, answer = await self._send(plan, body, deadline, headers)
        except UpstreamError as error:
            named = type(error)(f"{plan.model.name}: the backend {error.message}")
            named.backend = plan.backend.id
            raise named from None
        if head.status == Code.OK:
            known.entries = wanted
            removed = {name for name, entry in plan.changes.items() if entry is None}
            known.gone = (known.gone | removed) - wanted.keys()
        return head, answer

    async def _send(
        self, plan: _Plan, body: bytes, deadline: float, headers: Headers
    ) -> tuple[Head, messages.ReloadConfigResponse]:
        """Ask one server, beside all queues: a reload takes no slot from those it serves."""
        backend, model = plan.backend, plan.model
        version = Version(model.name, 0, model.served_name, (backend,), backend.forms)
        message = Message(Form.TFS_GRPC, "grpc", RELOAD, headers, body)
        call = Call(Target(model, version, False), message, deadline)
        async with self._adapters[backend.adapter].open(backend, call, model.timeouts) as reply:
            text = b""
            while piece := await reply.read():
                text += piece
        if reply.head.status != Code.OK:
            return Head(reply.head.status, detail=reply.head.detail), self._empty()
        answer = model_config.read_answer(self._wire, text)
        number = answer.status.error_code
        try:
            return Head(Code(number), detail=answer.status.error_message), answer
        except ValueError:
            raise UpstreamInvalid(f"answered with the code {number}, which is none") from None

    def _empty(self) -> messages.ReloadConfigResponse:
        return self._wire.ReloadConfigResponse()

    def _together(
        self, answers: list[tuple[Head, messages.ReloadConfigResponse] | BaseException]
    ) -> Whole:
        """Return the first error there is, else OK with the metrics of all servers added up."""
        increases: defaultdict[str, int] = defaultdict(int)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            head, response = answer
            if head.status != Code.OK:
                return Whole(head, b"")
            for metric in response.metric:
                increases[metric.name] += metric.int64_value_increase
        whole = self._empty()
        whole.status.SetInParent()
        for name, increase in increases.items():
            whole.metric.add(name=name, int64_value_increase=increase)
        return Whole(_OK, whole.SerializeToString())


def _names_there(model: Model, backend: Backend) -> set[str]:
    named = {v.served_name for v in model.versions.values() if backend in v.backends}
    return named | ({model.served_name} if backend in model.pool else set())


def _name_there(model: Model, backend: Backend) -> str:
    named = _names_there(model, backend)
    if len(named) > 1:
        raise FailedPrecondition(
            f"{model.name} has several names at one backend ({', '.join(sorted(named))}), and a "
            "reload changes one; send it to that server itself"
        )
    return named.pop()


def _told(lost: list[str], backend: Backend, view: View) -> str:
    """Name models that a caller may know of; others are no more than that."""
    may_know = {model.name: model for model in view.models.values()}
    known = sorted(
        name
        for name, model in may_know.items()
        if not _names_there(model, backend).isdisjoint(lost)
    )
    return ", ".join(known) or "another model"
