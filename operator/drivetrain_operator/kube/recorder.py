"""Tells people what happened, as Kubernetes Events, without ever holding up or failing who tells.

`record` only notes; `run` posts in the background. The same event on the same object is one Event with a count, under
a name that follows from what it says, so that a restarted operator counts on instead of beginning anew. Repetitions
are collected while an object is over its rate, so that a crash loop costs the API server a few writes a minute.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NoReturn

from drivetrain_operator.clock import Clock, within
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import AlreadyExists, KubeError, NotFound
from drivetrain_operator.kube.event import EventType
from drivetrain_operator.kube.resources import EVENTS, Object

logger = logging.getLogger(__name__)

MAX_REMEMBERED: Final = 4096
MAX_MESSAGE: Final = 1024
"""What the API server takes."""
_Key = tuple[str, str, str, str]
"""uid of the object, type, reason, message."""
_ATTEMPTS: Final = 4
_REQUEST_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """What an event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, obj: Object) -> "ObjectRef":
        """The reference of an object as the API server gave it."""
        meta = obj["metadata"]
        return cls(obj["apiVersion"], obj["kind"], meta.get("namespace", ""), meta["name"], meta["uid"])


@dataclass(frozen=True, slots=True)
class Rate:
    """Posts that one object may cause: `burst` at once, then one each `seconds`."""

    burst: int = 25
    seconds: float = 10.0


@dataclass(slots=True)
class _Noted:
    """One event, and how often it happened since it was posted last."""

    about: ObjectRef
    type: EventType
    reason: str
    message: str
    first: datetime
    last: datetime
    unposted: int = 0
    posted: int = 0
    attempts: int = 0
    not_before: float = 0.0

    @property
    def name(self) -> str:
        text = "\0".join((self.about.uid, self.type, self.reason, self.message))
        return f"{self.about.name[:200]}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


_RATE: Final = Rate()


class Recorder:
    """Posts Events from one background task. Needs `create` and `patch` on events."""

    def __init__(
        self,
        client: KubeClient,
        clock: Clock,
        *,
        instance: str,
        component: str = "drivetrain-operator",
        rate: Rate = _RATE,
        dropped: Callable[[str], None] | None = None,
    ) -> None:
        """`instance` names this process; `dropped` is told the reason of each event that nobody will see."""
        self._client = client
        self._clock = clock
        self._instance = instance
        self._component = component
        self._rate = rate
        self._dropped = dropped or (lambda reason: None)
        self._noted: OrderedDict[_Key, _Noted] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._due: OrderedDict[_Key, None] = OrderedDict()
        self._wake = asyncio.Event()

    def record(self, about: ObjectRef, type: EventType, reason: str, message: str) -> None:
        """Notes one occurrence. Never blocks, never raises."""
        message = message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
        key = (about.uid, type, reason, message)
        now = self._clock.now()
        noted = self._noted.get(key)
        if noted is None:
            noted = self._noted[key] = _Noted(about, type, reason, message, first=now, last=now)
            self._shrink()
        self._noted.move_to_end(key)
        noted.unposted += 1
        noted.last = now
        self._due[key] = None
        self._wake.set()

    async def run(self) -> NoReturn:
        """Posts what was noted, until cancelled."""
        while True:
            self._wake.clear()
            wait = await self._post_due()
            if wait is None:
                await self._wake.wait()
                continue
            with contextlib.suppress(TimeoutError):
                await within(self._clock, wait, self._wake.wait())

    async def flush(self) -> None:
        """Posts what is due now, once: for a clean stop. The caller sets the limit."""
        await self._post_due()

    async def _post_due(self) -> float | None:
        """Posts all that may be posted; returns seconds until more may, None if nothing waits for that."""
        soonest: float | None = None
        for key in list(self._due):
            noted = self._noted.get(key)
            if noted is None:
                self._due.pop(key, None)
                continue
            wait = max(noted.not_before - self._clock.monotonic(), self._wait_for_token(noted.about.uid))
            if wait > 0:
                soonest = wait if soonest is None else min(soonest, wait)
                continue
            self._due.pop(key, None)
            self._buckets[noted.about.uid].tokens -= 1
            await self._post_one(key, noted)
        return soonest

    async def _post_one(self, key: _Key, noted: _Noted) -> None:
        counted = noted.unposted
        try:
            await self._post(noted, counted)
        except KubeError as error:
            noted.attempts += 1
            if error.retryable and noted.attempts < _ATTEMPTS:
                noted.not_before = self._clock.monotonic() + 2.0**noted.attempts
                self._due[key] = None
                return
            # Nobody waits for an event: it is counted as dropped, and what it tells stands in status as well.
            logger.warning("event dropped", extra={"reason": noted.reason, "error": str(error)})
            self._dropped(noted.reason)
        else:
            noted.posted += counted
        noted.attempts = 0
        noted.unposted -= counted

    async def _post(self, noted: _Noted, counted: int) -> None:
        if noted.posted == 0:
            try:
                await self._client.create(
                    EVENTS, self._body(noted, counted), noted.about.namespace, timeout=_REQUEST_SECONDS
                )
                return
            except AlreadyExists:
                # Posted by an operator before us. We may not read events, but a patch answers with the object.
                noted.posted = int((await self._patch(noted, {})).get("count") or 1)
        try:
            await self._patch(noted, {"count": noted.posted + counted})
        except NotFound:  # events live for an hour: it begins anew
            noted.posted = 0
            noted.first = noted.last
            await self._client.create(
                EVENTS, self._body(noted, counted), noted.about.namespace, timeout=_REQUEST_SECONDS
            )

    async def _patch(self, noted: _Noted, change: Object) -> Object:
        patch = {"lastTimestamp": _time(noted.last), **change}
        return await self._client.merge_patch(
            EVENTS, noted.name, patch, noted.about.namespace or "default", timeout=_REQUEST_SECONDS
        )

    def _body(self, noted: _Noted, counted: int) -> Object:
        about = noted.about
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": noted.name, "namespace": about.namespace},
            "involvedObject": {
                "apiVersion": about.api_version,
                "kind": about.kind,
                "namespace": about.namespace,
                "name": about.name,
                "uid": about.uid,
            },
            "type": noted.type,
            "reason": noted.reason,
            "message": noted.message,
            "firstTimestamp": _time(noted.first),
            "lastTimestamp": _time(noted.last),
            "count": counted,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
        }

    def _wait_for_token(self, uid: str) -> float:
        now = self._clock.monotonic()
        bucket = self._buckets.setdefault(uid, _Bucket(float(self._rate.burst), now))
        self._buckets.move_to_end(uid)
        bucket.tokens = min(float(self._rate.burst), bucket.tokens + (now - bucket.at) / self._rate.seconds)
        bucket.at = now
        return max(0.0, (1.0 - bucket.tokens) * self._rate.seconds)

    def _shrink(self) -> None:
        """Forgets the oldest, so that a year of jobs does not stay in memory."""
        while len(self._noted) > MAX_REMEMBERED:
            key, noted = self._noted.popitem(last=False)
            if self._due.pop(key, 0) is None:
                self._dropped(noted.reason)
        while len(self._buckets) > MAX_REMEMBERED:
            self._buckets.popitem(last=False)


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
