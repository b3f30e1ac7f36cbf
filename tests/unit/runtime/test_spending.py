"""What does a rank's thread spend its time on?"""

from __future__ import annotations

import threading

import pytest

from drivetrain.telemetry.spending import Spending
from drivetrain_api.holdup import Stage


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_step_is_split(clock: Clock) -> None:
    spending = Spending(clock)
    clock.now += 1  # the script's beginning
    spending.operation("step")
    with spending.during(Stage.DATA):
        clock.now += 2
    clock.now += 4
    spending.blocked(True)
    clock.now += 8
    spending.blocked(False)
    with spending.during(Stage.SNAPSHOT):
        clock.now += 16
    spending.operation("script")
    clock.now += 32
    assert spending.told() == {"other": 33, "data": 2, "work": 4, "waiting": 8, "snapshot": 16}


def test_waiting_for_a_save_is_a_save(clock: Clock) -> None:
    spending = Spending(clock)
    spending.operation("save")
    spending.blocked(True)
    clock.now += 3
    spending.blocked(False)
    spending.operation("evaluate")
    spending.blocked(True)
    clock.now += 5
    assert spending.told() == {"snapshot": 3, "other": 5}


def test_what_another_thread_does_meanwhile_is_not_the_scripts(clock: Clock) -> None:
    """Of several collectives at a time, helpers wait for some."""
    spending = Spending(clock)
    spending.operation("step")

    def helper() -> None:
        spending.blocked(True)
        with spending.during(Stage.DATA):
            clock.now += 3

    thread = threading.Thread(target=helper)
    thread.start()
    thread.join()
    assert spending.told() == {"work": 3}


def test_an_error_ends_what_it_ends(clock: Clock) -> None:
    spending = Spending(clock)
    spending.operation("step")

    def read() -> None:
        with spending.during(Stage.DATA):
            clock.now += 3
            raise OSError("unreadable")

    with pytest.raises(OSError, match="unreadable"):
        read()
    clock.now += 1
    assert spending.told() == {"data": 3, "work": 1}
