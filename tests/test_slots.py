"""Slots and queues under any order of events, against a model of what they must hold."""

import asyncio
from typing import Any

import pytest
from calls import backend, call
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.dispatch import Slots
from gateway.errors import DeadlineExceeded, Overloaded
from gateway.types import Backend

BACKENDS = [backend(name) for name in "abc"]
BOUNDS = {"x": 1, "y": 2, "z": 2}
MAX_QUEUE = 4
POOLS = st.lists(st.sampled_from(BACKENDS), min_size=1, max_size=3, unique_by=lambda b: b.id)
MODELS = st.sampled_from(sorted(BOUNDS))
PICK = st.integers(0, 1000)


class Taken:
    """One take: waiting, holding, or over."""

    def __init__(self, order: int, model: str, able: list[Backend]) -> None:
        self.order = order
        self.model = model
        self.able = {one.id for one in able}
        self.task: asyncio.Task[Backend] | None = None
        self.left = False

    @property
    def waits(self) -> bool:
        return self.task is not None and not self.task.done()


class SlotsMachine(RuleBasedStateMachine):
    """Takes, releases, cancels and lets deadlines pass; `run` lets tasks wake in between."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.slots = Slots()
        self.counts = self.slots.counts()
        self.all: list[Taken] = []
        self.holding: list[tuple[Taken, Backend]] = []
        self.woken: list[Taken] = []

    def teardown(self) -> None:
        for taken in self.all:
            if taken.task is not None:
                taken.task.cancel()
        self._run(5)
        for _, held in self.holding:
            self.slots.release(held)
        assert not any(self.counts.values()), self.counts
        assert not any(self.slots.waiting(model, 1) for model in BOUNDS)
        self.loop.close()

    def _run(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.loop.run_until_complete(asyncio.sleep(0))

    @rule(
        model=MODELS,
        able=POOLS,
        overdue=st.sampled_from([False, False, False, True]),
        steps=st.integers(0, 4),
    )
    def take(self, model: str, able: list[Backend], overdue: bool, steps: int) -> None:
        taken = Taken(len(self.all), model, able)
        self.all.append(taken)

        async def work() -> Backend:
            seconds = -1.0 if overdue else 1000.0
            bounds = {"max_inflight": BOUNDS[model], "max_queue": MAX_QUEUE}
            asked = call(able, model=model, seconds=seconds, **bounds)
            got = await self.slots.take(asked, able)
            self.holding.append((taken, got))
            self.woken.append(taken)
            return got

        taken.task = self.loop.create_task(work())
        self._run(steps)

    @precondition(lambda self: self.holding)
    @rule(pick=PICK)
    def release(self, pick: int) -> None:
        _, held = self.holding.pop(pick % len(self.holding))
        self.slots.release(held)

    @precondition(lambda self: any(taken.waits for taken in self.all))
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        waiting = [taken for taken in self.all if taken.waits]
        taken = waiting[pick % len(waiting)]
        assert taken.task is not None
        taken.left = True
        taken.task.cancel()

    @rule(steps=st.integers(1, 4))
    def run(self, steps: int) -> None:
        self._run(steps)

    @rule()
    def settle(self) -> None:
        """When all is still: what is counted is held, and nobody waits for what is free."""
        self._run(10)
        for one in BACKENDS:
            held = sum(got.id == one.id for _, got in self.holding)
            assert self.slots.inflight(one.id) == held == self.counts.get(one.id, 0)
        for taken in self.all:
            if taken.waits:
                for name in taken.able:
                    assert self.slots.inflight(name) >= BOUNDS[taken.model]
        for model in BOUNDS:
            waiting = sum(taken.waits for taken in self.all if taken.model == model)
            assert self.slots.waiting(model, 1) == waiting

    @invariant()
    def bounds_hold(self) -> None:
        assert all(0 <= count <= max(BOUNDS.values()) for count in self.counts.values())
        for taken, got in self.holding:
            assert got.id in taken.able
        for one in BACKENDS:
            assert 0 <= self.slots.inflight(one.id) <= max(BOUNDS.values())
        for model in BOUNDS:
            assert self.slots.waiting(model, 1) <= MAX_QUEUE

    @invariant()
    def nobody_is_overtaken(self) -> None:
        """Of those of one model that may go to the same backends, the earlier goes first."""
        for woken in self.woken:
            for other in self.all:
                same = (other.model, other.able) == (woken.model, woken.able)
                assert not (same and other.order < woken.order and self._still(other))
        self.woken.clear()

    def _still(self, taken: Taken) -> bool:
        return taken.waits and not taken.left and not self._overdue(taken)

    def _overdue(self, taken: Taken) -> bool:
        assert taken.task is not None
        return taken.task.cancelling() > 0  # its deadline ends it now

    @invariant()
    def ends_are_the_known_ones(self) -> None:
        for taken in self.all:
            if taken.task is not None and taken.task.done() and not taken.task.cancelled():
                error: Any = taken.task.exception()
                assert error is None or isinstance(error, Overloaded | DeadlineExceeded)


SlotsMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None, derandomize=True
)
test_slots: Any = pytest.mark.filterwarnings("error")(SlotsMachine.TestCase)
