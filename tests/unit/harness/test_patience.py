"""A limit of patience is the same on a slow machine; what hangs is ended by it; what never rests, by the clock."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness import patience
from harness.activity import Stillness
from harness.commands import ended, ran
from harness.patience import OutOfPatience, Patience, patiently, until

WORK = "while True: pass"
SLEEP = "import time; time.sleep(600)"
BORN_ELSEWHERE = "import os\nif os.fork(): os._exit(0)\nos.setsid()\nprint(os.getpid(), flush=True)\nwhile True: pass"
"""Its parent is not ours: only the mark in its environment tells whose it is."""


@contextmanager
def child(code: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            yield process
        finally:
            process.kill()


def stood_still(seconds: float) -> float:
    """Which share of the next `seconds` nothing was done, as this process sees it, which sleeps meanwhile."""
    still, began = Stillness(), time.monotonic()
    time.sleep(seconds)
    spent = still.seconds()
    return spent / (time.monotonic() - began)


def test_a_stopwatch_stands_still_while_a_process_of_the_test_works() -> None:
    with child(WORK):
        assert stood_still(0.6) < 0.2  # also where ten others want the processor: it counts who waits for it
    with child(SLEEP):
        until(lambda: stood_still(0.3) > 0.5, "a process that sleeps is still", 60)


def test_a_process_that_left_its_family_still_counts() -> None:
    with subprocess.Popen([sys.executable, "-c", BORN_ELSEWHERE], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        parent.wait()
        try:
            assert stood_still(0.6) < 0.2
        finally:
            os.kill(orphan, signal.SIGKILL)


def test_work_that_takes_longer_than_the_limit_is_waited_for() -> None:
    busy = "import time; end = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass"
    with child(busy) as process:
        assert ended(process, 0.7) == 0


def test_what_hangs_is_ended_at_the_limit_and_its_words_are_told() -> None:
    began = time.monotonic()
    with pytest.raises(OutOfPatience, match=r"the end of .*said\nI wait(.|\n)*not within 0.5 s in which no process"):
        ran([sys.executable, "-c", "print('I wait', flush=True); import time; time.sleep(600)"], 0.5)
    assert time.monotonic() - began < 30


def test_what_never_rests_is_ended_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_CLOCK", 2)
    with child(WORK), pytest.raises(OutOfPatience, match="nothing ends here"):
        until(lambda: False, "nothing ends here", 0.6)


async def test_inside_a_loop_it_cancels_and_says_what() -> None:
    async def wait() -> None:
        async with patiently(0.3, "a word"):
            await asyncio.Event().wait()

    with pytest.raises(OutOfPatience, match=r"a word: not within 0\.3 s"):
        await wait()


async def test_a_timeout_of_what_is_inside_is_not_taken_for_ours() -> None:
    async def fail() -> None:
        async with patiently(60):
            raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own") as caught:
        await fail()
    assert not isinstance(caught.value, OutOfPatience)


def test_nothing_is_looked_at_before_a_second_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "Stillness", None)  # to make one would fail
    assert Patience(60).left() == 1.0
