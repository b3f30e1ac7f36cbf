"""From bytes to events: lines in any pieces, and everything that is no event."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivetrain_operator.kube import watch
from drivetrain_operator.kube.errors import Forbidden, Gone, ServerError, Unreachable, WatchSilent
from unit.operator.wire_server import bookmark, event, expired, pod


@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), min_size=1).filter(str.strip), max_size=8
    ),
    cuts=st.lists(st.integers(0, 400)),
)
def test_lines_do_not_depend_on_the_pieces(texts: list[str], cuts: list[int]) -> None:
    whole = b"".join(text.encode() + b"\n" for text in texts)
    lines = watch.Lines()
    found: list[bytes] = []
    places = sorted({min(c, len(whole)) for c in cuts} | {0, len(whole)})
    for start, end in itertools.pairwise(places):
        found.extend(lines.feed(whole[start:end]))
    lines.end()
    assert found == [text.encode() for text in texts if text.encode().strip()]


def test_a_stream_that_ends_inside_a_line_is_cut() -> None:
    lines = watch.Lines()
    assert list(lines.feed(b'{"type": "AD')) == []
    with pytest.raises(Unreachable, match="after 12 bytes"):
        lines.end()


def test_a_line_without_end_does_not_eat_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MAX_LINE", 1000)
    lines = watch.Lines()
    for _ in range(10):
        assert list(lines.feed(b"x" * 100)) == []
    with pytest.raises(Unreachable, match="longer than"):
        list(lines.feed(b"x"))


NO_EVENTS = [
    b"hello",
    b"[]",
    b"null",
    b"{}",
    b'{"type": "ADDED"}',
    b'{"type": "ADDED", "object": {"metadata": {}}}',
    b"\xff",
]


@pytest.mark.parametrize("line", NO_EVENTS)
def test_what_is_no_event_breaks_the_watch(line: bytes) -> None:
    with pytest.raises(Unreachable, match="no event"):
        watch.parse(line)


def error(code: int) -> bytes:
    return json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "m"}}).encode()


@pytest.mark.parametrize(
    ("line", "kind"), [(expired(), Gone), (error(403), Forbidden), (error(500), ServerError), (error(0), ServerError)]
)
def test_error_events_are_raised(line: bytes, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        watch.parse(line)


async def pieces_of(*pieces: bytes, hang: bool = False) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if hang:
        await asyncio.sleep(3600)


async def test_events_end_with_the_stream() -> None:
    body = event("ADDED", pod("a", 5)) + bookmark(9)
    found = [e async for e in watch.events(pieces_of(body[:30], body[30:]), inactivity=1)]
    assert [(e.type, e.resource_version) for e in found] == [("ADDED", "5"), ("BOOKMARK", "9")]


async def test_silence_is_an_error() -> None:
    events = watch.events(pieces_of(event("ADDED", pod("a", 5)), hang=True), inactivity=0.05)
    assert (await anext(events)).type == "ADDED"
    with pytest.raises(WatchSilent, match=r"0\.05 s"):
        await anext(events)


async def test_a_burst_lets_others_run() -> None:
    """Ten thousand events that are already in the buffer must not hold up a lease renewal."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    burst = b"".join(event("MODIFIED", pod("a", n)) for n in range(1, 2001))
    count = 0
    async for _ in watch.events(pieces_of(burst), inactivity=1):
        count += 1
    task.cancel()
    assert count == 2000
    assert turns >= 2000 // 64
