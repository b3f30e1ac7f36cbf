"""The work queue: who goes next, who never goes twice, and what happens in between. Time is virtual."""

import asyncio
import contextlib
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from drivetrain_operator.act.queue import Item, Priority, ShutDown, WorkQueue
from drivetrain_operator.clock import within
from drivetrain_operator.kube.backoff import Backoff
from unit.operator.virtual_clock import VirtualClock


@dataclass
class Observed:
    """A QueueObserver that keeps what it is told."""

    depths: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    works: list[float] = field(default_factory=list)
    adds: int = 0
    retries: int = 0

    def depth(self, ready: int) -> None:
        self.depths.append(ready)

    def added(self) -> None:
        self.adds += 1

    def retried(self) -> None:
        self.retries += 1

    def started(self, waited: float) -> None:
        self.waits.append(waited)

    def finished(self, worked: float) -> None:
        self.works.append(worked)


def build(clock: VirtualClock, *, floor: float = 1.0, observer: Observed | None = None) -> WorkQueue[str]:
    return WorkQueue(
        clock, random.Random(1), backoff=Backoff(base=0.5, cap=60.0), floor=floor, observer=observer or Observed()
    )


async def take(queue: WorkQueue[str], clock: VirtualClock) -> Item[str] | None:
    """What `get` gives without time passing."""
    task = asyncio.ensure_future(queue.get())
    await clock.settle()
    if task.done():
        return task.result()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return None


async def take_key(queue: WorkQueue[str], clock: VirtualClock) -> str | None:
    item = await take(queue, clock)
    return item.key if item else None


ORDERS = {
    "in the order of adding": ([("a", 10, 0), ("b", 10, 0)], ["a", "b"]),
    "once however often added": ([("a", 10, 0), ("a", 10, 0), ("b", 10, 0), ("a", 10, 0)], ["a", "b"]),
    "failures before resync": ([("r", 0, 0), ("n", 10, 0), ("f", 20, 0)], ["f", "n", "r"]),
    "the highest priority wins": ([("r", 0, 0), ("a", 0, 0), ("a", 20, 0)], ["a", "r"]),
    "a later low priority does not lower": ([("r", 10, 0), ("a", 20, 0), ("a", 0, 0)], ["a", "r"]),
    "the earliest time wins": ([("a", 10, 60), ("a", 10, 0)], ["a"]),
    "a later time does not postpone": ([("a", 10, 0), ("a", 10, 60)], ["a"]),
    "not before its time": ([("a", 20, 60), ("b", 0, 0)], ["b"]),
}


@pytest.mark.parametrize(("adds", "expected"), ORDERS.values(), ids=ORDERS.keys())
async def test_order(adds: list[tuple[str, int, float]], expected: list[str]) -> None:
    clock = VirtualClock()
    queue = build(clock)
    for key, priority, after in adds:
        queue.add(key, priority=priority, after=after)
    taken = []
    while (found := await take_key(queue, clock)) is not None:
        taken.append(found)
    assert taken == expected


async def test_a_waiting_worker_gets_a_key_when_its_delay_is_over_and_not_sooner() -> None:
    clock = VirtualClock()
    observer = Observed()
    queue = build(clock, observer=observer)
    queue.add("a", after=5)
    worker = asyncio.ensure_future(queue.get())
    await clock.advance(4.9)
    assert not worker.done()
    await clock.advance(0.2)
    assert worker.done()
    assert worker.result().key == "a"
    assert observer.waits == [0.0]


async def test_two_workers_never_hold_one_key_and_a_change_during_the_work_is_not_lost() -> None:
    clock = VirtualClock()
    queue = build(clock)
    queue.add("a")
    assert await take_key(queue, clock) == "a"
    queue.add("a", priority=Priority.FAILURE)
    assert await take_key(queue, clock) is None
    queue.done("a")
    again = await take(queue, clock)
    assert again is not None
    assert (again.key, again.priority) == ("a", Priority.FAILURE)
    queue.done("a")
    assert await take_key(queue, clock) is None


async def test_back_off_doubles_up_to_its_cap_and_forget_ends_it() -> None:
    clock = VirtualClock()
    queue = build(clock)
    delays = []
    for _ in range(12):
        queue.add("a")
        await clock.advance(60)
        assert await take_key(queue, clock) == "a"
        delays.append(queue.retry("a"))
        queue.done("a")
    for n, delay in enumerate(delays):
        step = min(60.0, 0.5 * 2**n)
        assert step / 2 < delay <= step
    assert queue.failures("a") == 12
    queue.forget("a")
    assert queue.failures("a") == 0
    assert queue.retry("a") <= 0.5


async def test_events_cannot_make_a_failing_key_run_hot() -> None:
    """A pass that writes and then fails wakes itself through the watch; without the floor it would spin."""
    clock = VirtualClock()
    queue = build(clock, floor=1.0)
    queue.add("a")
    passes = 0
    for _ in range(1000):
        if await take_key(queue, clock) == "a":
            passes += 1
            queue.add("a", priority=Priority.FAILURE)  # its own write, seen by the watch
            queue.retry("a")
            queue.add("a", priority=Priority.FAILURE)
            queue.done("a")
        await clock.advance(0.01)
    assert 8 <= passes <= 16, "10 s: a few quick tries, then about one a second"


async def test_an_event_still_shortens_a_long_back_off_to_the_floor() -> None:
    clock = VirtualClock()
    queue = build(clock, floor=1.0)
    for _ in range(10):
        queue.retry("a")
    await clock.advance(1.0)
    queue.add("a")
    assert await take_key(queue, clock) == "a"


async def test_a_cancelled_worker_does_not_take_a_wake_up_with_it() -> None:
    clock = VirtualClock()
    queue = build(clock)
    first, second = asyncio.ensure_future(queue.get()), asyncio.ensure_future(queue.get())
    await clock.settle()
    queue.add("a")  # wakes the first
    first.cancel()
    await clock.settle()
    assert second.done()
    assert second.result().key == "a"


async def test_shut_down_ends_all_workers_and_drops_what_waits() -> None:
    clock = VirtualClock()
    queue = build(clock)
    queue.add("busy")
    assert await take_key(queue, clock) == "busy"
    workers = [asyncio.ensure_future(queue.get()) for _ in range(3)]
    await clock.settle()
    queue.add("later", after=5)
    queue.shut_down()
    await clock.advance(10)
    for worker in workers:
        with pytest.raises(ShutDown):
            await worker
    queue.add("too late")
    assert len(queue) == 0
    idle = asyncio.ensure_future(queue.idle())
    await clock.settle()
    assert not idle.done()
    queue.done("busy")
    await idle


async def test_health_sees_a_key_that_nobody_takes_and_a_worker_that_is_stuck() -> None:
    clock = VirtualClock()
    queue = build(clock)
    assert (queue.oldest_wait(), queue.longest_work()) == (0.0, 0.0)
    queue.add("a")
    queue.add("b", after=100)
    assert await take_key(queue, clock) == "a"
    queue.add("c")
    await clock.advance(30)
    assert queue.oldest_wait() == pytest.approx(30.0)
    assert queue.longest_work() == pytest.approx(30.0)


async def test_within_tells_its_own_limit_from_a_cancellation() -> None:
    clock = VirtualClock()
    slow = asyncio.ensure_future(within(clock, 5, clock.sleep(60)))
    await clock.advance(5)
    with pytest.raises(TimeoutError):
        await slow
    cancelled = asyncio.ensure_future(within(clock, 5, clock.sleep(60)))
    await clock.settle()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled


KEYS = st.sampled_from("abcd")


class QueueMachine(RuleBasedStateMachine):
    """Any sequence of calls, against a model of four lines: what is due, what is free, who is highest."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = VirtualClock()
        self.observer = Observed()

        async def start() -> WorkQueue[str]:
            return build(self.clock, observer=self.observer)

        self.queue = self.runner.run(start())
        self.waiting: dict[str, tuple[float, int]] = {}
        self.floor: dict[str, float] = {}
        self.working: set[str] = set()

    def teardown(self) -> None:
        self.runner.close()

    def _add(self, key: str, priority: int, due: float) -> None:
        due = max(due, self.floor.get(key, 0.0))
        if key in self.waiting:
            old_due, old_priority = self.waiting[key]
            due, priority = min(due, old_due), max(priority, old_priority)
        self.waiting[key] = (due, priority)

    @rule(key=KEYS, priority=st.sampled_from(list(Priority)), after=st.sampled_from([0.0, 0.5, 3.0, 40.0]))
    def add(self, key: str, priority: int, after: float) -> None:
        async def act() -> None:
            self.queue.add(key, priority=priority, after=after)

        self.runner.run(act())
        self._add(key, priority, self.clock.time + after)

    @rule(seconds=st.sampled_from([0.1, 0.5, 2.0, 30.0]))
    def advance(self, seconds: float) -> None:
        self.runner.run(self.clock.advance(seconds))

    @rule()
    def get(self) -> None:
        free = {k: v for k, v in self.waiting.items() if v[0] <= self.clock.time and k not in self.working}
        item = self.runner.run(take(self.queue, self.clock))
        if not free:
            assert item is None
            return
        assert item is not None
        assert item.key in free, "due, and nobody else has it"
        assert item.priority == free[item.key][1] == max(priority for _, priority in free.values())
        assert item.waited == pytest.approx(self.clock.time - free[item.key][0])
        del self.waiting[item.key]
        self.working.add(item.key)

    @precondition(lambda self: self.working)
    @rule(data=st.data(), ok=st.booleans())
    def done(self, data: st.DataObject, ok: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))

        async def act() -> None:
            if ok:
                self.queue.forget(key)
                self.floor.pop(key, None)
            else:
                delay = self.queue.retry(key)
                self.floor[key] = self.clock.time + min(delay, 1.0)
                if key in self.waiting:
                    due, priority = self.waiting.pop(key)
                    self._add(key, max(priority, Priority.NORMAL), max(due, self.floor[key]))
                    self._add(key, Priority.NORMAL, self.clock.time + delay)
                else:
                    self._add(key, Priority.NORMAL, self.clock.time + delay)
            self.queue.done(key)

        self.runner.run(act())
        self.working.remove(key)

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.queue) == len(self.waiting)
        ready = sum(due <= self.clock.time for due, _ in self.waiting.values())
        self.runner.run(self.clock.settle())
        assert (self.observer.depths or [0])[-1] == ready


QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestQueueMachine = QueueMachine.TestCase
