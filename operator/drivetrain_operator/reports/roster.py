"""Which roster does each job's coordinator get, and is it news to the one that asks?

The reconciler publishes what the plan decided; the reports server hands it out. A roster's revision grows with its
content and never otherwise, so a coordinator can keep one request open until something changed.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from datetime import datetime
from typing import Final

from drivetrain_api.report import Roster

PLAUSIBLE: Final = 2**52
"""Revisions are milliseconds and a few. Who says to have seen more is not outdone: no coordinator would take that."""
REMEMBERED: Final = 10_000
"""Uids of jobs that were deleted, which are remembered for their coordinators."""


class RosterBoard:
    """Current roster of every job, by the job's uid."""

    def __init__(self) -> None:
        self._revision = 0
        self._rosters: dict[str, Roster] = {}
        self._most: dict[str, int] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._deleted: OrderedDict[str, None] = OrderedDict()

    def lead(self, since: datetime) -> None:
        """Revisions begin at `since` in milliseconds, so that those of a new leader exceed its predecessor's."""
        self._revision = max(self._revision, int(since.timestamp() * 1000))

    def publish(self, job_uid: str, roster: Roster) -> None:
        """Make `roster` the current one; its own `revision` is ignored. Wakes those who wait if the content changed."""
        before = self._rosters.get(job_uid)
        if before is not None and roster.model_copy(update={"revision": before.revision}) == before:
            return
        self._most[job_uid] = max(self.most(job_uid), roster.target, len(roster.pods))
        self._revision += 1
        revision = self._revision if before is None else max(self._revision, before.revision + 1)
        self._rosters[job_uid] = roster.model_copy(update={"revision": revision})
        self._wake(job_uid)

    def most(self, job_uid: str) -> int:
        """The greatest number of pods that the job ever had here, or was to have. Its coordinator goes on to tell of
        members whose pods have ended."""
        return self._most.get(job_uid, 0)

    def current(self, job_uid: str) -> Roster | None:
        """The roster of a job, or None for a job that this process does not know (yet, or any more)."""
        return self._rosters.get(job_uid)

    def deleted(self, job_uid: str) -> None:
        """A watch told that the job was deleted. That some request did not find it would not be enough: an API server
        that has just started answers so, too, and the coordinator stops for good."""
        self._deleted[job_uid] = None
        while len(self._deleted) > REMEMBERED:
            self._deleted.popitem(last=False)

    def was_deleted(self, job_uid: str) -> bool:
        """Whether `deleted` was said of it."""
        return job_uid in self._deleted

    async def news(self, job_uid: str, seen: int, timeout: float) -> Roster | None:
        """The roster once its revision is not `seen`, or the unchanged one after `timeout` seconds."""
        current = self._rosters.get(job_uid)
        if current is not None and current.revision < seen <= PLAUSIBLE:
            # The leader before us had a clock that is ahead of ours: outdo it, or the coordinator will not listen. For
            # this job only, whose word it is.
            current = self._rosters[job_uid] = current.model_copy(update={"revision": seen + 1})
        if current is None or current.revision != seen:
            return current
        event = self._changed.setdefault(job_uid, asyncio.Event())
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            pass
        return self._rosters.get(job_uid)

    def forget(self, job_uid: str) -> None:
        """The job is gone; whoever waits is answered at once."""
        self._rosters.pop(job_uid, None)
        self._most.pop(job_uid, None)
        self._wake(job_uid)

    def _wake(self, job_uid: str) -> None:
        # The event is replaced, never cleared: everybody who waited on it is released exactly once.
        event = self._changed.pop(job_uid, None)
        if event is not None:
            event.set()
