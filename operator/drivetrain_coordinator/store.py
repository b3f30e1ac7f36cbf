"""Rendezvous keys of one epoch: what to tell whom, and when.

Ranks put the addresses of their group here; every `Table` carries all of them, so each `get` of a rank is local. Called
by the membership machine with its clock; it never waits and never sends anything itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from drivetrain_api.messages import EpochId, Table

MAX_KEYS_PER_MEMBER = 256
"""A rank that puts more keys than this is broken; its further keys are dropped so that it cannot exhaust our memory."""


class Rendezvous:
    """Keys that the members of one epoch put, and who has put since the last table went out."""

    def __init__(self, epoch: EpochId, members: Iterable[str], flush_seconds: float) -> None:
        self._epoch = epoch
        self.members = frozenset(members)
        self._flush_seconds = flush_seconds
        self._entries: dict[str, str] = {}
        self._puts: dict[str, int] = {}
        self._since_flush: set[str] = set()
        self._last_put: float | None = None

    def put(self, process: str, key: str, value: str, now: float) -> bool:
        """Keep one key. False if it was refused (no member, too many keys) or is no news (a repeated message)."""
        if process not in self.members or self._entries.get(key) == value:
            return False
        count = self._puts.get(process, 0)
        if count >= MAX_KEYS_PER_MEMBER:
            return False
        self._puts[process] = count + 1
        self._entries[key] = value
        self._since_flush.add(process)
        self._last_put = now
        return True

    def due_at(self) -> float | None:
        """When the next table should go out; None while there is no news.

        At once when all members have put again (nobody is left to wait for), else shortly after the last put, so that
        keys which come in a burst share one table.
        """
        if self._last_put is None:
            return None
        if self._since_flush >= self.members:
            return self._last_put
        return self._last_put + self._flush_seconds

    def table(self) -> Table:
        """All keys so far; the news in them counts as told."""
        self._since_flush.clear()
        self._last_put = None
        return Table(epoch=self._epoch, entries=dict(self._entries))
