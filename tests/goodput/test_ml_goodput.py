"""Does Google's ML Goodput come to the same numbers, told of the same history? It is told when each step began, and
counts for itself; our coordinator is told what launchers tell, and the operator's ledger sums up.

The library keeps its marks in Google Cloud Logging. Here they stay in a list.
"""

from __future__ import annotations

import datetime
import random
from pathlib import Path
from typing import Any

import pytest
from ml_goodput_measurement.src.goodput import BadputType, GoodputCalculator, GoodputRecorder

from drivetrain_api.goodput import Category
from drivetrain_api.messages import Form
from drivetrain_coordinator.membership import Identity, Machine
from drivetrain_operator.plan.ledger import Ledger, Told, counted
from unit.coordinator.bench import Bench, only_form

EPOCH = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Log:
    """In the place of Cloud Logging."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def write_cloud_logging_entry(self, entry: dict[str, Any]) -> None:
        self.entries.append(entry)

    def read_cloud_logging_entries(self, *_: object, **__: object) -> tuple[list[dict[str, Any]], tuple[Any, str]]:
        """All of them, once."""
        found, self.entries = self.entries, []
        return found, (datetime.datetime.now(datetime.UTC), "last")

    def flush(self) -> None:
        pass


class History:
    """One job, told to both."""

    def __init__(self, log: Log) -> None:
        self.random = random.Random(7)
        self.recorder = GoodputRecorder("lm", "log", logging_enabled=True, cloud_logger=log)
        self.bench = Bench()
        self.bench.now = 0.0
        self.bench.machine = Machine(Identity("job", "ns", "job", 1, 1), now=0.0)
        self.ledger = Ledger(standing=Category.STARTING)
        self.step = 0
        self.spent = {"a1": {"work": 0.0}, "b1": {"work": 0.0}}

    @property
    def time(self) -> datetime.datetime:
        return EPOCH + datetime.timedelta(seconds=self.bench.now)

    def pass_(self, seconds: float) -> None:
        """Nothing but time."""
        self.bench.wait(seconds, heard="ab")
        self.report()

    def report(self) -> None:
        """One of five is lost."""
        if self.random.random() < 0.2:
            return
        report = self.bench.machine.report(1)
        spent = {each: (report.spent or {}).get(each, 0.0) for each in Category}
        told = Told(self.bench.now - report.untold_seconds, 1, spent)
        self.ledger = counted(self.ledger, told, self.bench.now, None)

    def train(self, steps: int, *names: str, seconds: float = 1.0) -> None:
        """So many steps."""
        for _ in range(steps):
            self.recorder.record_step_start_time(self.step, self.time)
            self.bench.now += seconds
            for name in names:
                self.spent[name]["work"] += seconds
                self.bench.change(name, step=self.step, spent=dict(self.spent[name]))
            self.step += 1
            self.report()

    def form(self, form: Form, seconds: float) -> None:
        """A group forms, with what it has to restore."""
        self.recorder.record_training_preparation_start_time(self.time)
        self.bench.enter(form)
        self.pass_(seconds)
        self.recorder.record_training_preparation_end_time(self.time)
        self.bench.stand(form, step=self.step - 1)

    def end(self) -> None:
        self.recorder.record_job_end_time(self.time)
        self.ledger = counted(self.ledger, None, self.bench.now, None, closes=True)


def test_the_same_history_comes_to_the_same_numbers(tmp_path: Path) -> None:
    """60 s until its pods run, 200 steps, a loss of everything that costs 80 of them, 280 more, a recovery of 20 s
    without a lost step, 100 more."""
    log = Log()
    history = History(log)
    bench, recorder = history.bench, history.recorder
    recorder.record_job_start_time(history.time)
    recorder.record_tpu_init_start_time(history.time)
    bench.roster("ab", 2, 2)
    history.pass_(60)
    recorder.record_tpu_init_end_time(history.time)
    history.form(only_form(bench.ready("a1", "b1")), 10)
    history.train(200, "a1", "b1")

    # All is lost, and training goes back to a save.
    went_back = history.step - 80
    bench.roster("ab", 2, 2, trained=history.step)
    bench.die("a1")
    bench.die("b1")
    history.pass_(30)
    recorder.record_job_start_time(history.time)
    history.step = went_back
    history.spent |= {"a2": {"work": 0.0}, "b2": {"work": 0.0}}
    form = only_form(bench.ready("a2", "b2"))
    assert form.fresh
    history.form(form, 10)
    history.train(280, "a2", "b2")

    # A rank is lost, and the other one goes on with what both had.
    began = history.time
    recorder.record_custom_badput_event_start_time(began, "RECOVERING")
    bench.roster("ab", 1, 1, trained=200)
    form = only_form(bench.die("b2"))
    bench.enter(form)
    history.pass_(20)
    bench.stand(form, step=history.step - 1)
    recorder.record_custom_badput_event_end_time(history.time, "RECOVERING")
    history.train(100, "a2")
    history.end()

    calculator = GoodputCalculator("lm", "log", cloud_logger=log, cache_dir=str(tmp_path))
    theirs, badput, _ = calculator.get_job_goodput(include_badput_breakdown=True)
    ours, wall = history.ledger.seconds, bench.now
    assert sum(ours.values()) == pytest.approx(wall, rel=0.001)
    assert 100 * ours[Category.PRODUCTIVE] / wall == pytest.approx(theirs, abs=1)

    def share(*categories: Category) -> float:
        return 100 * sum(ours.get(each, 0.0) for each in categories) / wall

    assert share(Category.STARTING) == pytest.approx(badput[BadputType.TPU_INITIALIZATION], abs=1)
    assert share(Category.REDONE) == pytest.approx(badput[BadputType.WASTED_PROGRESS_FROM_DISRUPTION], abs=1)
    # What it takes to come back is several of theirs: until the restart, its preparation, and what we told them of.
    custom = badput[BadputType.CUSTOM_BADPUT_EVENTS]
    assert isinstance(custom, dict)
    theirs_back = (
        badput[BadputType.INFRASTRUCTURE_RECOVERY_FROM_DISRUPTION]
        + badput[BadputType.TRAINING_PREP]
        + sum(custom.values())
    )
    assert share(Category.FORMING, Category.RECOVERING) == pytest.approx(theirs_back, abs=1)
