"""What does the demo show on a terminal, and what where there is none?"""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from drivetrain_cli.demo.screen import Plain, Snapshot, Terminal

NOW = Snapshot(
    step=60,
    steps=120,
    loss=2.345678,
    samples_per_second=1234.5,
    phase="Running",
    workers="3/3",
    membership="1.2",
    members={0: 100, 1: 101, 2: 102},
    killed=frozenset({101}),
)
FACTS = ["step 60/120", "loss 2.346", "1,234 samples/s", "workers 3/3", "membership 1.2, world 3", "Running"]


def test_plain_lines_have_every_fact_and_do_not_flood() -> None:
    out = io.StringIO()
    screen = Plain(out)
    for _ in range(100):
        screen.update(NOW)
    assert out.getvalue().splitlines() == ["  " + "  ".join(FACTS)]


@pytest.mark.parametrize("width", [60, 120])
def test_terminal_shows_every_fact_and_who_was_killed(width: int) -> None:
    out = io.StringIO()
    screen = Terminal(Console(file=out, force_terminal=True, width=width, color_system=None))
    screen.update(NOW)
    screen.say("[rank 1] is no markup")
    screen.close()
    text = out.getvalue()
    assert [
        fact for fact in [*FACTS[:4], "pid 100", "pid 102", "killed", "[rank 1] is no markup"] if fact not in text
    ] == []


def test_nothing_is_known_yet() -> None:
    out = io.StringIO()
    Plain(out).update(Snapshot(step=0, steps=120))
    assert out.getvalue() == "  step 0/120\n"
