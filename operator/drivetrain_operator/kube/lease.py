"""Which of several operator processes acts? The holder of one Lease.

The rules that make two leaders impossible while clocks tick at the same rate:
- A holder counts from when it *sent* its last successful renewal and stops leading `renew_deadline` (10 s) after it.
- A candidate counts from when it *saw* the Lease change and takes it no sooner than `duration` (15 s) after that.
So 5 s lie between the end of one and the begin of the next. No time stamp in the Lease is ever compared with a local
clock: nodes disagree about the time of day, and the official client's election stores local time as UTC.

What stays possible: a process that is stopped (SIGSTOP, a frozen VM) may finish one request after it woke up, before
it looks at the clock. Status writes carry a resourceVersion and deletes a uid for that reason. And whoever deletes the
Lease object by hand lets a *new* candidate in at once, while the holder notices at its next renewal (2 s).
"""

import logging
import random
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NoReturn

from drivetrain_operator.clock import Clock, within
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import AlreadyExists, Conflict, KubeError, NotFound
from drivetrain_operator.kube.resources import LEASES, Object

logger = logging.getLogger(__name__)


class LeadershipLost(Exception):
    """This process must stop acting at once: end it. The message says why."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds; the same for every candidate of one Lease."""

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0
    request: float = 4.0
    """Limit of one request, so that one that hangs leaves time for another before the deadline."""

    def __post_init__(self) -> None:
        if not 0 < self.retry < self.renew_deadline < self.duration or not self.request < self.renew_deadline:
            raise ValueError(f"need retry < renew_deadline < duration and request < renew_deadline, got {self}")


@dataclass(frozen=True, slots=True)
class _Seen:
    """A state of the Lease, and when we saw it for the first time on our monotonic clock."""

    version: str
    holder: str
    duration: float
    transitions: int
    at: float


_TERMS: Final = Terms()


class LeaderElector:
    """Takes and keeps one Lease. `identity` must differ for every process that ever ran, also of one pod.

    Needs `get`, `create` and `patch` on leases. Use: `await acquire()`, act while `await keep()` runs beside it,
    end the process when that raises `LeadershipLost`, and on a clean stop, after the last effect, `await release()`.
    """

    def __init__(
        self,
        client: KubeClient,
        clock: Clock,
        rng: random.Random,
        *,
        namespace: str,
        name: str,
        identity: str,
        terms: Terms = _TERMS,
    ) -> None:
        self._client = client
        self._clock = clock
        self._rng = rng
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._terms = terms
        self._seen: _Seen | None = None
        self._renewed_at: float | None = None
        self._contacted = False

    @property
    def is_leader(self) -> bool:
        """Whether this process may act now. Reads the clock, so it turns False even while the loop is stuck."""
        return self._renewed_at is not None and self._clock.monotonic() - self._renewed_at < self._terms.renew_deadline

    @property
    def holder(self) -> str | None:
        """Identity of the last holder that was seen; None if none was."""
        return (self._seen.holder or None) if self._seen else None

    @property
    def contacted(self) -> bool:
        """Whether the API server ever answered: the readiness of a candidate."""
        return self._contacted

    async def acquire(self) -> None:
        """Returns once this process leads. Tries for as long as it takes."""
        while True:
            try:
                if await self._try():
                    logger.info("became leader", extra={"lease": self._name, "identity": self._identity})
                    return
            except (KubeError, TimeoutError) as error:
                logger.warning("lease not available", extra={"lease": self._name, "error": str(error)})
            # Jitter: two candidates that wake together collide on every try.
            await self._clock.sleep(self._terms.retry * (1.0 + 0.2 * self._rng.random()))

    async def keep(self) -> NoReturn:
        """Renews for as long as possible; then raises `LeadershipLost`, at the latest at the renew deadline."""
        error: BaseException | None = None
        while True:
            if self._renewed_at is None:
                raise LeadershipLost("not leading")
            deadline = self._renewed_at + self._terms.renew_deadline
            wait = min(self._terms.retry, deadline - self._clock.monotonic())
            if wait > 0:
                await self._clock.sleep(wait)
            left = deadline - self._clock.monotonic()
            if left <= 0:
                self._renewed_at = None
                raise LeadershipLost(f"not renewed for {self._terms.renew_deadline:g} s: {error}")
            try:
                if not await self._try(limit=left):
                    self._renewed_at = None
                    raise LeadershipLost(f"{self.holder} holds the lease")
            except NotFound:
                self._renewed_at = None
                raise LeadershipLost("the lease was deleted") from None
            except (KubeError, TimeoutError) as failed:
                error = failed
                logger.warning("lease not renewed", extra={"lease": self._name, "error": str(failed)})

    async def release(self) -> None:
        """Lets the next candidate in at once. Call it when nothing acts any more. Never raises."""
        if self._renewed_at is None or self._seen is None:
            return
        self._renewed_at = None
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro_time(self._clock.now())}
        try:
            await self._write(spec, self._seen.version, self._terms.request)
        except (KubeError, TimeoutError) as error:
            logger.warning("lease not released", extra={"lease": self._name, "error": str(error)})

    async def _try(self, limit: float | None = None) -> bool:
        """One attempt to take or renew. True: leading. Raises what the API raised, and `TimeoutError`."""
        request = min(self._terms.request, limit) if limit is not None else self._terms.request
        leading = self._renewed_at is not None
        if not leading or self._seen is None:
            if not await self._look(request):
                return await self._create(request)
            if not self._free():
                return False
        assert self._seen is not None  # _look has set it
        sent = self._clock.monotonic()
        try:
            lease = await self._write(self._claim(self._seen), self._seen.version, request)
        except Conflict:
            # Somebody wrote: another candidate, or we ourselves in a request whose answer was lost. If it was us, the
            # next write decides; if not, we do not lead (any more).
            if not await self._look(request) or self._seen.holder != self._identity:
                return False
            sent = self._clock.monotonic()
            lease = await self._write(self._claim(self._seen), self._seen.version, request)
        self._remember(lease)
        self._renewed_at = sent
        return True

    async def _create(self, limit: float) -> bool:
        if self._seen is not None and not self._expired(self._seen):
            return False  # deleted by hand under a holder that may not have noticed yet
        now = _micro_time(self._clock.now())
        body = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": self._spec(now) | {"acquireTime": now, "leaseTransitions": 0},
        }
        sent = self._clock.monotonic()
        try:
            create = self._client.create(LEASES, body, self._namespace, timeout=limit)
            lease = await within(self._clock, limit, create)
        except AlreadyExists:
            return False
        self._remember(lease)
        self._renewed_at = sent
        return True

    async def _look(self, limit: float) -> bool:
        """Reads the Lease; False if there is none."""
        try:
            lease = await within(
                self._clock, limit, self._client.get(LEASES, self._name, self._namespace, timeout=limit)
            )
        except NotFound:
            self._contacted = True
            return False
        self._remember(lease)
        return True

    async def _write(self, spec: Object, version: str, limit: float) -> Object:
        patch = self._client.merge_patch(
            LEASES, self._name, {"spec": spec}, self._namespace, resource_version=version, timeout=limit
        )
        return await within(self._clock, limit, patch)

    def _remember(self, lease: Object) -> None:
        self._contacted = True
        version = lease["metadata"]["resourceVersion"]
        if self._seen is not None and self._seen.version == version:
            return  # unchanged: what counts is when we saw it first
        spec = lease.get("spec") or {}
        self._seen = _Seen(
            version=version,
            holder=spec.get("holderIdentity") or "",
            duration=max(self._terms.duration, float(spec.get("leaseDurationSeconds") or 0)),
            transitions=int(spec.get("leaseTransitions") or 0),
            at=self._clock.monotonic(),
        )

    def _free(self) -> bool:
        seen = self._seen
        return seen is not None and (seen.holder in ("", self._identity) or self._expired(seen))

    def _expired(self, seen: _Seen) -> bool:
        return seen.holder == "" or self._clock.monotonic() - seen.at >= seen.duration

    def _claim(self, seen: _Seen) -> Object:
        now = _micro_time(self._clock.now())
        spec = self._spec(now)
        if seen.holder != self._identity:
            spec |= {"acquireTime": now, "leaseTransitions": seen.transitions + 1}
        return spec

    def _spec(self, now: str) -> Object:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._terms.duration),
            "renewTime": now,
        }


def _micro_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
