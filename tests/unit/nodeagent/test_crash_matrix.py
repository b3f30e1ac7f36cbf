"""kill -9 between any two lines of what sets and gives back limits, and at each call of NVML: the next start finds it.

The library in NVIDIA's place is ours (fake_nvml.c); the kill, the files and the process are real.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from drivetrain_nodeagent.guardian import guard, restore
from unit.nodeagent.fake_cards import Cards

CALLS = ("nvmlDeviceGetPowerManagementLimit", "nvmlDeviceSetPowerManagementLimit")


def capping(cards: Cards, journal: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unit.nodeagent.capping", str(cards.library), str(journal), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_killed_at_any_line(cards: Cards, tmp_path: Path) -> None:
    cards.add(limit=350)
    journal = tmp_path / "journal" / "limits.json"
    lines = capping(cards, journal).stdout.strip()
    assert cards.limit() == 300
    restore(journal, str(cards.library))
    assert cards.limit() == 350
    done = capping(cards, journal, lines, str(cards.root / "gpu0" / "limit"))
    assert done.returncode == 0, done.stderr
    found = [line.split() for line in done.stdout.splitlines()]
    assert len(found) == int(lines) > 100
    assert [at for at, _, after in found if after != "350000"] == []
    assert len([at for at, before, _ in found if before != "350000"]) > 20  # else nothing was at stake


@pytest.mark.parametrize("kind", ["die", "die_after"])
@pytest.mark.parametrize("call", CALLS)
def test_killed_in_a_call(cards: Cards, tmp_path: Path, kind: str, call: str) -> None:
    journal = tmp_path / "limits.json"
    for nth in range(1, 30):
        cards.add(limit=350)
        cards.fault(kind, call, nth)
        done = capping(cards, journal)
        cards.mend()
        if done.returncode == 0:
            assert nth > 3
            return
        restore(journal, str(cards.library))
        assert cards.limit() == 350, f"killed at call {nth}"
    raise AssertionError("it never came to its end")


def test_killed_while_it_gives_back(cards: Cards, tmp_path: Path) -> None:
    cards.add(limit=350)
    journal = tmp_path / "limits.json"
    capping(cards, journal)
    code = (
        "from pathlib import Path; from drivetrain_nodeagent.guardian import restore;"
        f"restore(Path({str(journal)!r}), {str(cards.library)!r})"
    )
    for kind in ("die", "die_after"):
        cards.fault(kind, CALLS[1], 1)
        done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
        assert done.returncode == -9
        cards.mend()
    restore(journal, str(cards.library))
    assert cards.limit() == 350


def test_an_agent_that_is_killed_has_its_limits_given_back_at_once(cards: Cards, tmp_path: Path) -> None:
    """By the guardian, without anybody starting anything."""
    cards.add(limit=350)
    journal = tmp_path / "limits.json"
    cards.fault("die_after", CALLS[1], 2)
    command = [sys.executable, "-m", "unit.nodeagent.capping", str(cards.library), str(journal)]
    run = (
        "import sys; from pathlib import Path; from drivetrain_nodeagent.guardian import guard;"
        f"sys.exit(guard({command!r}, Path({str(journal)!r}), {str(cards.library)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", run], check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 128 + 9
    assert "its power limits were given back" in done.stderr
    assert cards.limit() == 350


def test_what_an_earlier_one_left_is_given_back_before_the_next_begins(cards: Cards, tmp_path: Path) -> None:
    cards.add(limit=350)
    journal = tmp_path / "limits.json"
    capping(cards, journal)
    assert cards.limit() == 300
    limit = str(cards.root / "gpu0" / "limit")
    look = f"import pathlib, sys; sys.exit(int(pathlib.Path({limit!r}).read_text()) != 350000)"
    assert guard([sys.executable, "-c", look], journal, str(cards.library)) == 0
