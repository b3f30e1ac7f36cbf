"""Does an operator look after this job now? Asked of its Lease, which `status.keeper` names.

The time that its holder wrote is compared with the API server's own, never with this machine's, and before anything is
concluded from that the Lease is looked at once more.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

from drivetrain_cli.cluster import Cluster
from drivetrain_cli.stale import Look, away
from drivetrain_operator.kube.errors import KubeError
from drivetrain_operator.kube.resources import Object

LOOK_AGAIN_SECONDS: Final = 4.0
"""An operator renews its Lease every two seconds."""
EVERY_SECONDS: Final = 15.0


async def attended(cluster: Cluster, job: Object) -> str | None:
    """A sentence if none does; None also if that cannot be known, as without permission to read the Lease."""
    lease = str(((job.get("status") or {}).get("keeper") or {}).get("operator") or "")
    namespace, slash, name = lease.partition("/")
    if not slash:
        return None
    try:
        first = await _look(cluster, namespace, name)
        if first.overdue is None:
            return None
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
        return away(lease, first, await _look(cluster, namespace, name))
    except KubeError:
        return None  # not there is no proof either: an operator without leader election has no Lease


async def _look(cluster: Cluster, namespace: str, name: str) -> Look:
    body, date = await cluster.lease(namespace, name)
    lease = json.loads(body)
    spec = lease.get("spec") or {}
    renewed = spec.get("renewTime")
    return Look(
        version=str(lease["metadata"].get("resourceVersion") or ""),
        holder=str(spec.get("holderIdentity") or ""),
        renewed=datetime.fromisoformat(renewed) if renewed else None,
        duration=float(spec.get("leaseDurationSeconds") or 0),
        at=parsedate_to_datetime(date) if date else None,
    )


class Attendance:
    """The answer, asked for again and again in the background."""

    def __init__(self) -> None:
        self.missing: str | None = None
        """A sentence while no operator looks after the job: the first one, for it grows older."""
        self.job: Object = {}

    async def watch(self, cluster: Cluster) -> None:
        """Ask for ever."""
        while True:
            found = await attended(cluster, self.job)
            self.missing = self.missing or found if found is not None else None
            await asyncio.sleep(EVERY_SECONDS)
