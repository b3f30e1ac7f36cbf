"""Where was a rank that must die? It answers, or does not, or is gone: the end comes once, and soon."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator

import pytest

from drivetrain.launch import inquest, procfs
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
    asked = Inquest(sent.append, noted.append)
    asked.begin(child.pid, child.start_ticks + ticks, lambda: over.put_nowait(asked.found))
    happens(asked)
    said = await asyncio.wait_for(over.get(), 20)
    assert said.startswith(found)
    assert (len(sent), noted, over.empty()) == (1, [said], True)


async def test_nothing_follows_when_it_dies_meanwhile(child: procfs.ProcStat) -> None:
    over: list[str] = []
    asked = Inquest(lambda message: None, over.append)
    asked.begin(child.pid, child.start_ticks, lambda: over.append("over"))
    asked.close()
    await asyncio.sleep(0.2)
    assert (over, asked.found) == ([], "")
