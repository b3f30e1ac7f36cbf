"""Tells node agents their caps: a key for each node, in the ConfigMap that its agent watches.

Caps end by themselves after minutes, and are renewed before: an operator that dies leaves nothing capped for ever,
and its successor, which reads what stands there and orders by the same statuses, leaves nobody uncapped. Written only
when something differs or is to be renewed, and never over what another has written since it was read.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from drivetrain_api.power import CAPS_CONFIGMAPS, NodeCaps, shard
from drivetrain_operator.clock import Clock
from drivetrain_operator.energy.capped import Caps
from drivetrain_operator.kube.backoff import Backoff
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import Conflict, KubeError
from drivetrain_operator.kube.resources import CONFIGMAPS, Object

log = logging.getLogger(__name__)

HOLD_SECONDS: Final = 300.0
"""So long a cap holds that nobody renews."""
RENEW_SECONDS: Final = 180.0
"""It is renewed when it would hold no longer than this."""
AHEAD_SECONDS: Final = 60.0
"""Caps that hold so much longer than ours were told by a clock that is ahead: told anew, by ours."""
READ_SECONDS: Final = 60.0
"""So often it is read again: a person may have changed it."""
TIMEOUT_SECONDS: Final = 5.0


class ToldCaps:
    """Of one leader."""

    def __init__(
        self, client: KubeClient, namespace: str, clock: Clock, rng: random.Random, *, enabled: bool = True
    ) -> None:
        """Without `enabled` nobody is told anything."""
        self.enabled = enabled
        self._parts = [_Part(client, namespace, clock, rng, name) for name in CAPS_CONFIGMAPS]

    async def tell(self, wanted: Caps) -> None:
        """Caps of all nodes; those of others end. Raises nothing: it is tried again at the next call, with a pause that
        grows."""
        if not self.enabled:
            return
        of: list[Caps] = [{} for _ in self._parts]
        for node, pods in wanted.items():
            of[shard(node)][node] = pods
        await asyncio.gather(*(part.tell(caps) for part, caps in zip(self._parts, of, strict=True)))


class _Part:
    """One of the ConfigMaps."""

    def __init__(self, client: KubeClient, namespace: str, clock: Clock, rng: random.Random, name: str) -> None:
        self._client = client
        self._namespace = namespace
        self._clock = clock
        self._rng = rng
        self._name = name
        self._there: tuple[str, Mapping[str, str]] | None = None
        """Version and entries, as they were read or written last."""
        self._read_at = 0.0
        self._backoff = Backoff(base=1.0, cap=30.0)
        self._failures = 0
        self._not_before = 0.0

    async def tell(self, wanted: Caps) -> None:
        """Caps of its nodes."""
        if self._clock.monotonic() < self._not_before:
            return
        try:
            await self._tell(wanted)
        except KubeError as error:
            self._there = None
            self._failures += 1
            delay = self._backoff.delay(self._failures, self._rng)
            self._not_before = self._clock.monotonic() + delay
            log.warning(
                "node agents cannot be told their caps",
                extra={"configmap": self._name, "error": str(error), "delay": round(delay, 1)},
            )
        else:
            self._failures = 0

    async def _tell(self, wanted: Caps) -> None:
        for attempt in (1, 2):
            version, entries = await self._current()
            patch = changes(entries, wanted, self._clock.now().timestamp())
            if not patch:
                return
            try:
                written = await self._client.merge_patch(
                    CONFIGMAPS,
                    self._name,
                    {"data": patch},
                    self._namespace,
                    resource_version=version,
                    timeout=TIMEOUT_SECONDS,
                )
            except Conflict:
                self._there = None
                if attempt == 2:
                    raise
                continue
            self._keep(written)
            log.info("node agents are told caps", extra={"nodes": len(wanted), "changed": len(patch)})
            return

    async def _current(self) -> tuple[str, Mapping[str, str]]:
        if self._there is None or self._clock.monotonic() - self._read_at >= READ_SECONDS:
            found = await self._client.get(CONFIGMAPS, self._name, self._namespace, timeout=TIMEOUT_SECONDS)
            self._read_at = self._clock.monotonic()
            return self._keep(found)
        return self._there

    def _keep(self, configmap: Object) -> tuple[str, Mapping[str, str]]:
        data = configmap.get("data")
        entries = {str(node): str(text) for node, text in data.items()} if isinstance(data, dict) else {}
        self._there = str(configmap["metadata"]["resourceVersion"]), entries
        return self._there


def changes(entries: Mapping[str, str], wanted: Caps, now: float) -> dict[str, str | None]:
    """PURE: what has to be written, by node; None removes. `entries` are what stands there."""
    patch: dict[str, str | None] = {node: None for node in entries if node not in wanted}
    for node, pods in wanted.items():
        known = _parsed(entries.get(node))
        left = known.until - now if known is not None else 0.0
        if known is None or known.pods != pods or not RENEW_SECONDS < left <= HOLD_SECONDS + AHEAD_SECONDS:
            patch[node] = NodeCaps(until=round(now + HOLD_SECONDS), pods=pods).model_dump_json()
    return patch


def _parsed(text: str | None) -> NodeCaps | None:
    if text is None:
        return None
    try:
        return NodeCaps.model_validate_json(text)
    except ValidationError:
        return None


__all__ = ["HOLD_SECONDS", "RENEW_SECONDS", "ToldCaps", "changes"]
