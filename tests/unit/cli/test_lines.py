"""Whose line is it, in which order, and does a cut connection repeat or lose one?"""

from __future__ import annotations

import pytest

from drivetrain_cli.cluster import sortable
from drivetrain_cli.lines import Cursor, Line, merged, shown

OURS = '{{"time": "2026-01-01T00:00:00.250Z", "level": "info", "component": {}, "job": "job"}}'
"""A JSON line of Drivetrain's own."""


@pytest.mark.parametrize(
    ("text", "pods", "expect"),
    [
        ("[rank 1] loss 2", False, "[rank 1] loss 2"),
        ("[rank 1] loss 2", True, "[job-0-0] [rank 1] loss 2"),
        ("[worker 0] hello", False, "[job-0-0] hello"),
        ("[spare] hello", False, "[job-0-0 spare] hello"),
        ("launcher: connected", False, "[job-0-0] launcher: connected"),
        (
            OURS.format('"launcher", "message": "cut off", "pod": "a", "error": "a b"'),
            False,
            '[job-0-0] launcher: cut off  error="a b"',
        ),
        (OURS.format('"rank", "message": "ranks differ", "rank": 3'), False, "[rank 3] drivetrain: ranks differ"),
        (OURS.format('"rank", "message": "a\\nb", "\\u001b[2J": 1'), False, "[job-0-0] drivetrain: a\\nb  \\x1b[2J=1"),
        (
            OURS.format('"rank", "message": "step 1/2", "rank": 3, "stream": "stdout", "step": 1'),
            False,
            "[rank 3] step 1/2",
        ),
        (
            OURS.format('"launcher", "message": "a rank process died", "pod": "a", "step": 60'),
            False,
            "[job-0-0] launcher: a rank process died  step=60",
        ),
        ('{"loss": 2}', False, '[job-0-0] {"loss": 2}'),
        ("the user's [rank 1] text", False, "[job-0-0] the user's [rank 1] text"),
        ("", False, "[job-0-0] "),
    ],
)
def test_prefixes(text: str, pods: bool, expect: str) -> None:
    assert shown("job-0-0", text, pods=pods) == expect


def test_logs_merge_in_the_order_of_time_and_keep_their_own() -> None:
    logs = {
        "a": [("2026-01-01T00:00:01.5Z", "a1"), ("2026-01-01T00:00:03.0Z", "a2"), ("2026-01-01T00:00:03.0Z", "a3")],
        "b": [("2026-01-01T00:00:02.0Z", "b1"), ("2026-01-01T00:00:04.0Z", "b2")],
    }
    assert [line.text for line in merged(logs)] == ["a1", "b1", "a2", "a3", "b2"]
    assert merged(logs)[1] == Line("2026-01-01T00:00:02.0Z", "b", "b1")


LOG = [("01.1", "a"), ("01.2", "b"), ("01.2", "c"), ("01.2", "d"), ("02.0", "e")]


@pytest.mark.parametrize("cut", range(len(LOG) + 1))
@pytest.mark.parametrize("again", range(len(LOG) + 1))
def test_each_line_once_whatever_a_second_connection_repeats(cut: int, again: int) -> None:
    cursor, seen = Cursor(), []
    for time, text in LOG[:cut]:
        if cursor.new(time):
            seen.append(text)
    cursor.reconnected()
    if cut:
        assert cursor.since == LOG[cut - 1][0]
    # The server starts at the time asked for, or earlier (it knows whole seconds only), with all lines of that time.
    first = min(again, next((i for i, (time, _) in enumerate(LOG) if time == cursor.since), 0))
    first = next(i for i, (time, _) in enumerate(LOG) if time == LOG[first][0])
    for time, text in LOG[first:]:
        if cursor.new(time):
            seen.append(text)
    assert seen == [text for _, text in LOG]


@pytest.mark.parametrize(
    ("given", "expect"),
    [
        ("2026-01-01T00:00:01Z", "2026-01-01T00:00:01.000000000Z"),
        ("2026-01-01T00:00:01.5Z", "2026-01-01T00:00:01.500000000Z"),
        ("2026-01-01T00:00:01.123456789+02:00", "2026-01-01T00:00:01.123456789+02:00"),
    ],
)
def test_times_sort_as_text(given: str, expect: str) -> None:
    assert sortable(given) == expect
