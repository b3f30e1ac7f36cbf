"""Where was a rank that must die? It answers, or does not, or is gone: the end comes once, and soon."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drivetrain.launch import inquest, procfs, stacks
from drivetrain.launch.inquest import Inquest


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[procfs.ProcStat]:
    """Some process of ours, and little patience."""
    monkeypatch.setattr(inquest, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(inquest, "DUMP_SECONDS", 0.05)
    with subprocess.Popen(["sleep", "60"]) as process:
        found = procfs.stat(process.pid)
        assert found is not None
        yield found
        process.kill()


def twice(asked: Inquest) -> None:
    asked.answered("in main")
    asked.answered("later")


CASES: list[tuple[str, Callable[[Inquest], None], int, str]] = [
    ("answers", lambda asked: asked.answered("in main"), 0, "in main"),
    ("answers twice", twice, 0, "in main"),
    ("does not answer", lambda asked: None, 0, "no answer within 0.05 s about where its threads are"),
    ("is gone, and another has its pid", lambda asked: None, 1, "it was gone before it could be asked"),
]


@pytest.mark.parametrize(("name", "happens", "ticks", "found"), CASES, ids=[case[0] for case in CASES])
async def test_it_ends_once_with_what_is_known(
    child: procfs.ProcStat, name: str, happens: Callable[[Inquest], None], ticks: int, found: str
) -> None:
    sent: list[object] = []
    noted: list[str] = []
    over: asyncio.Queue[str] = asyncio.Queue()
    asked = Inquest(sent.append)
    asked.begin(child.pid, child.start_ticks + ticks, over.put_nowait)
    asked.begin(child.pid, child.start_ticks + ticks, noted.append)
    happens(asked)
    said = await asyncio.wait_for(over.get(), 20)
    assert said.startswith(found)
    assert (len(sent), noted, over.empty()) == (1, [said], True)


async def test_nothing_follows_when_it_dies_meanwhile(child: procfs.ProcStat) -> None:
    over: list[str] = []
    asked = Inquest(lambda message: None)
    asked.begin(child.pid, child.start_ticks, over.append)
    asked.close()
    await asyncio.sleep(0.2)
    assert over == []


async def test_one_that_is_stopped_is_not_asked_for_stacks(child: procfs.ProcStat) -> None:
    """The signal would wait until it goes on."""
    os.kill(child.pid, signal.SIGSTOP)
    async with asyncio.timeout(20):
        while "State:\tT" not in Path(f"/proc/{child.pid}/status").read_text():
            await asyncio.sleep(0.01)
    over: asyncio.Queue[str] = asyncio.Queue()
    asked = Inquest(lambda message: None)
    asked.dump_fd = 2
    asked.begin(child.pid, child.start_ticks, over.put_nowait, answers=False)
    said = await asyncio.wait_for(over.get(), 20)
    assert (
        said
        == "no sign of life, so no answer about where its threads are: the process is stopped by a signal (state T)"
    )
    os.kill(child.pid, signal.SIGCONT)
    assert (await asyncio.to_thread(procfs.stat, child.pid)) is not None  # and no signal has ended it


def test_where_it_says_that_its_dump_is_there_is_a_pipe() -> None:
    reading, writing = os.pipe()
    try:
        assert stacks.read_dump(os.getpid(), reading) == ""
    finally:
        os.close(reading)
        os.close(writing)
