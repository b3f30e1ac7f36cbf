"""No answer whatever makes an adapter raise anything but its own errors, or a signal that is none.

Each provider's document is mangled at a random place, by something that a server could send; then it is judged.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Mapping
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivetrain_energy.feeds import Ports
from drivetrain_energy.feeds.adapter import Adapter
from drivetrain_energy.feeds.errors import FeedError
from drivetrain_energy.feeds.judge import judge
from drivetrain_energy.feeds.openadr import OpenAdrFeed
from drivetrain_energy.feeds.providers import adapter, measured
from drivetrain_energy.feeds.reading import Reading
from drivetrain_energy.feeds.transport import Answer, Request
from drivetrain_energy.signals.signal import Measure
from harness.often import often
from unit.energy.feeds.providers import ALL, OPENADR, Provider
from unit.energy.feeds.server import NOW, SECRETS, Cluster, Files
from unit.energy.feeds.test_faults import sound

ODD: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 1e308, -1e308, float("nan"), float("inf"), float("-inf"), 0, -0.0, 1e-320]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        [
            "2026-11-30T03:00Z", "2026-11-30", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-11-30T25:00Z",
            "2026-11-30T03:00:00+23:59", "2026-11-30T03:00:00.123456789Z", "-2026-11-30T03:00Z", "P9999Y", "PT",
            "PT-1H", "PT1H", "1_000", "٣", "0x10", "nan", "inf", "1e999", "null", "",
        ]
    ),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
)  # fmt: skip


class Said:
    """HTTP without a network: one status, one body, some headers."""

    def __init__(self, provider: Provider, status: int, headers: Mapping[str, str], body: bytes, token: bytes) -> None:
        self.answer = Answer(status, headers, body)
        self.token = Answer(200, {}, token)
        self.paths = ("/login", "/auth/token")

    async def send(self, request: Request) -> Answer:
        return self.token if request.url.endswith(self.paths) else self.answer


def paths(found: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places in a document."""
    inner = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    return [path, *(place for key, each in inner for place in paths(each, (*path, key)))]


def put(found: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    found[path[0]] = put(found[path[0]], path[1:], value)
    return found


def mangled(data: st.DataObject, document: Any) -> bytes:
    """With up to three places changed, and perhaps cut."""
    if isinstance(document, bytes):
        lines = document.decode().splitlines()
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, len(lines) - 1))
            lines[place] = data.draw(st.text(max_size=40) | ODD.map(lambda odd: f"2026-11-30T04:00Z,{odd}"))
        body = "\n".join(lines).encode("utf-8", "surrogatepass")
    else:
        document = copy.deepcopy(document)
        for _ in range(data.draw(st.integers(1, 3))):
            document = put(document, data.draw(st.sampled_from(paths(document))), data.draw(ODD))
        body = json.dumps(document).encode()
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(body))))
    return body if cut is None else body[:cut]


async def tried(feed: Adapter) -> Reading | FeedError:
    try:
        return await feed.fetch("Z", NOW)
    except FeedError as error:
        return error


@pytest.mark.parametrize("provider", ALL, ids=lambda each: each.name)
@settings(max_examples=often(300, 60), deadline=None)
@given(data=st.data())
def test_it_ends_in_a_signal_or_in_an_error_of_its_own(provider: Provider, data: st.DataObject) -> None:
    number = data.draw(st.sampled_from([2, 8]))
    document = provider.document(provider.points(number), provider.zone)
    body = mangled(data, document)
    token = data.draw(
        st.sampled_from([b'{"token": "t", "access_token": "t", "expires_in": 60}', b"", b"null", b'{"token": "a\\nb"}'])
        | ODD.map(lambda odd: json.dumps({"token": odd, "access_token": odd, "expires_in": odd}).encode())
    )
    status = data.draw(st.sampled_from([200, 200, 200, 200, 401, 429, 500, 302, 999]))
    headers = data.draw(
        st.dictionaries(
            st.sampled_from(["date", "retry-after", "age"]),
            st.text(max_size=40) | st.sampled_from(["Mon, 30 Nov 2026 03:20:00 GMT", "Mon, 30 Nov 99999 03:20:00 GMT"]),
        )
    )
    ports = Ports(Said(provider, status, headers, body, token), Files(SECRETS), Files(), Cluster())
    if provider.local:
        provider.put(ports, body)
    source = provider.source("http://it")
    of = measured(source)
    assert of is not None
    feed = adapter(source, ports)
    found = asyncio.run(tried(feed))
    if isinstance(found, FeedError):
        assert str(found)
        assert found.retry_after is None or 0 <= found.retry_after <= 86400
    else:
        sound(judge(found, "Z", of[0], "it", of[1], NOW))


@settings(max_examples=often(300, 60), deadline=None)
@given(data=st.data())
def test_limits_are_limits_or_an_error(data: st.DataObject) -> None:
    payload = {"payloadType": "IMPORT_CAPACITY_LIMIT", "units": data.draw(st.sampled_from(["KW", "PERCENT", None]))}
    document = OPENADR.document(OPENADR.points(4), "site")
    text = json.dumps(document).replace('"GHG"', '"IMPORT_CAPACITY_LIMIT"')
    events = json.loads(text)
    events[0]["payloadDescriptors"] = [payload]
    body = mangled(data, events)
    ports = Ports(Said(OPENADR, 200, {}, body, b'{"access_token": "t"}'), Files(SECRETS), Files(), Cluster())
    feed = adapter(OPENADR.source("http://it", measure="limit", simple=[1, 0.5]), ports)
    assert isinstance(feed, OpenAdrFeed)
    try:
        limits = asyncio.run(feed.limits(NOW))
    except FeedError:
        return
    for limit in limits:
        assert limit.start < limit.end
        assert (limit.watts is None) != (limit.share is None)
        assert limit.watts is None or 0 <= limit.watts < float("inf")
        assert limit.share is None or 0 <= limit.share <= 1


def test_the_bytes_of_any_file_are_read_or_refused() -> None:
    for provider in ALL:
        for body in (
            b"\x00" * 1000,
            b"\xff" * 1000,
            b'"' * 1000,
            b"[" * 1000,
            b"{" * 1000,
            b"timestamp,g_per_kwh\n\x00",
        ):
            ports = Ports(Said(provider, 200, {}, body, b'{"token": "t"}'), Files(SECRETS), Files(), Cluster())
            if provider.local:
                provider.put(ports, body)
            source = provider.source("http://it")
            try:
                reading = asyncio.run(adapter(source, ports).fetch("Z", NOW))
            except FeedError:
                continue
            sound(judge(reading, "Z", Measure.AVERAGE, "it", "g/kWh", NOW))
