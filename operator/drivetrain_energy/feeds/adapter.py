"""What all providers have in common: settings in, one reading of one zone out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from drivetrain_energy.feeds.reading import Reading
from drivetrain_energy.feeds.transport import Answer, ConfigMaps, Folder, Http, Request, checked, document, skew


@dataclass(frozen=True, slots=True)
class Ports:
    """Through which feeds see the outside."""

    http: Http
    secrets: Folder
    traces: Folder
    config_maps: ConfigMaps


class Adapter(Protocol):
    """One provider. Raises FeedError, and nothing else whatever the provider answers."""

    async def fetch(self, zone: str, now: float) -> Reading: ...


@dataclass(frozen=True, slots=True)
class Told:
    """JSON, and by how much the clock of who told it is ahead."""

    found: Any
    skew: float


async def get(
    http: Http,
    url: str,
    params: Mapping[str, str],
    now: float,
    headers: Mapping[str, str] | None = None,
    *,
    secret: bool = False,
    ca: str | None = None,
) -> Told:
    """GET of a JSON document. Raises FeedError."""
    answer = await http.send(Request(url, params, {"Accept": "application/json", **(headers or {})}, ca=ca))
    return told(answer, now, secret=secret)


def told(answer: Answer, now: float, *, secret: bool = False) -> Told:
    """An answer's JSON, if it is one to read. Raises FeedError. `secret`: nothing of it may be said."""
    return Told(document(checked(answer, now).body, secret=secret), skew(answer, now))


def joined(base: str, path: str) -> str:
    """An address below another."""
    return f"{base.rstrip('/')}/{path.lstrip('/')}"


__all__ = ["Adapter", "Ports", "Told", "get", "joined", "told"]
