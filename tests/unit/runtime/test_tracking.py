"""A tracker that fails, is slow or hangs holds up nothing and gets every step once; what it does not get is counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from drivetrain.position import Position, StepResult
from drivetrain.telemetry.feed import Feed, History
from drivetrain.telemetry.trackers.tracker import Life, Point, Standing, Subject, Tracker
from drivetrain.telemetry.tracking import Tracking

SUBJECT = Subject("uid", "job")
LIFE = Life("a", 0)


@dataclass
class Fake:
    """A tracker as faulty as a case wants it."""

    name: str = "Fake"
    written: list[int] = field(default_factory=list)
    opened: int = 0
    error: Exception = field(default_factory=lambda: ConnectionError("no such host"))
    failures: int = 0
    """Calls of `write` that fail from now on, after having written one step."""
    finished: bool = False
    gate: threading.Event = field(default_factory=threading.Event)
    """Nothing is written before it is set."""

    def __post_init__(self) -> None:
        self.gate.set()

    def open(self, life: Life) -> Standing:
        self.opened += 1
        last = self.written[-1] if self.written else life.first
        return Standing(last, repeated=life.token == "b" and last > life.first)

    def write(self, points: Sequence[Point]) -> None:
        self.gate.wait()
        if self.failures:
            self.failures -= 1
            self.written.append(points[0].step)
            raise self.error
        self.written += [each.step for each in points]

    def close(self, *, finished: bool) -> None:
        self.finished = finished


@dataclass
class Fed:
    """A history, and a tracker that gets it."""

    fake: Fake
    most: int = 1000
    life: Life = LIFE
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.history = History(self.most)

    def begin(self) -> Feed:
        feed = Feed(self.fake, self.history, self.life, first_wait=0.01, say=self.said.append)
        feed.start()
        return feed

    def add(self, *steps: int) -> None:
        for step in steps:
            self.history.add(Point(step, 0.0, {"loss": 1.0}))


def eventually(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not there():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_failure_is_told_once_and_every_step_is_written_once() -> None:
    fed = Fed(Fake(failures=3))
    feed = fed.begin()
    fed.add(*range(1, 50))
    fed.history.end(finished=True)
    feed.finish(time.monotonic() + 20)
    assert fed.fake.written == list(range(1, 50))
    assert fed.fake.opened == 4
    assert fed.fake.finished
    assert len(fed.said) == 2
    assert fed.said[0].endswith("ConnectionError: no such host")
    assert fed.said[1].startswith("goes on at step")


def test_another_kind_of_error_is_told_too() -> None:
    """A server that comes up, and then refuses the key."""
    fed = Fed(Fake(failures=1))
    feed = fed.begin()
    fed.add(1)
    eventually(lambda: fed.fake.failures == 0)
    fed.fake.error, fed.fake.failures = PermissionError("no key"), 2
    fed.add(2, 3, 4)
    fed.history.end(finished=True)
    feed.finish(time.monotonic() + 20)
    assert fed.fake.written == [1, 2, 3, 4]
    told = [each.rpartition(": ")[2] for each in fed.said if each.startswith("failed")]
    assert told[:1] == ["no such host"]
    assert told.count("no key") == 1


def test_steps_that_a_hanging_tracker_does_not_get_are_counted() -> None:
    fed = Fed(Fake(), most=10)
    fed.fake.gate.clear()
    feed = fed.begin()
    fed.add(1)
    eventually(lambda: fed.fake.opened == 1)
    began = time.monotonic()
    fed.add(*range(2, 102))
    assert time.monotonic() - began < 1.0, "whoever trains has waited"
    feed.finish(time.monotonic() + 0.01)
    assert fed.said == ["did not get 101 steps"]
    fed.fake.gate.set()
    fed.history.end(finished=True)
    feed.finish(time.monotonic() + 20)
    assert fed.fake.written == [1, *range(92, 102)]
    assert fed.said[1:] == [
        "is too slow or does not answer: the oldest steps are dropped from now on",
        "did not get 90 steps",
    ]


def test_whoever_takes_over_writes_what_is_missing() -> None:
    fed = Fed(Fake(written=[1, 2, 3]))
    fed.add(2, 3, 4, 5)
    feed = fed.begin()
    fed.add(6)
    fed.history.end(finished=True)
    feed.finish(time.monotonic() + 20)
    assert fed.fake.written == [1, 2, 3, 4, 5, 6]
    assert fed.said == []


def test_steps_that_are_repeated_and_cannot_be_replaced_are_told() -> None:
    fed = Fed(Fake(written=[1, 2, 3, 4]), life=Life("b", 2))
    fed.add(3, 4, 5)
    feed = fed.begin()
    fed.history.end(finished=True)
    feed.finish(time.monotonic() + 20)
    assert fed.fake.written == [1, 2, 3, 4, 5]
    (said,) = fed.said
    assert said.startswith("has steps 3 to 4 already")
    assert said.endswith("those of before the job went back to step 2 stay")


def test_steps_that_nobody_has_any_more_are_told() -> None:
    fed = Fed(Fake(written=[1, 2]))
    fed.add(6, 7)
    feed = fed.begin()
    fed.history.end(finished=True)
    feed.finish(time.monotonic() + 20)
    assert fed.fake.written == [1, 2, 6, 7]
    assert fed.said == ["has nothing of steps 3 to 5: the process that was to write them is gone"]


def test_only_rank_zero_writes_and_a_rank_that_was_it_stops() -> None:
    fake = Fake()
    trackers: list[Tracker] = [fake]
    tracking = Tracking(lambda subject: trackers, SUBJECT, Position())
    for step in range(5):
        tracking.step(StepResult(step, 1.0), {}, leads=False)
    assert fake.opened == 0
    tracking.step(StepResult(5, 1.0), {}, leads=True)
    eventually(lambda: fake.written == [1, 2, 3, 4, 5, 6])
    tracking.step(StepResult(6, 1.0), {}, leads=False)
    tracking.end(5.0, leads=False, finished=True)
    assert 8 not in fake.written
    assert fake.opened == 1


def test_a_rank_that_becomes_rank_zero_after_the_last_step_writes_it() -> None:
    fake = Fake()
    trackers: list[Tracker] = [fake]
    tracking = Tracking(lambda subject: trackers, SUBJECT, Position())
    tracking.step(StepResult(0, 1.0), {}, leads=False)
    tracking.end(5.0, leads=False, finished=True)
    assert fake.written == []
    tracking.end(5.0, leads=True, finished=True)
    assert fake.written == [1]
