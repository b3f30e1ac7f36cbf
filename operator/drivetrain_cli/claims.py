"""Is the claim there that a job's results go to? On the embedded plane it is a folder and costs nothing: it is made."""

from __future__ import annotations

import contextlib
import sys
from typing import Final

from drivetrain_cli.cluster import EMBEDDED, Cluster
from drivetrain_operator.kube.errors import AlreadyExists
from drivetrain_operator.kube.resources import Object, Resource

CLAIMS: Final = Resource("", "v1", "persistentvolumeclaims", True, "PersistentVolumeClaim")
_SIZE: Final = "1Gi"
"""Which means nothing there."""


async def make_claims(cluster: Cluster, job: Object) -> None:
    """Those of spec.storage and spec.snapshots, on the embedded plane. Elsewhere their owner decides what they cost."""
    if cluster.name != EMBEDDED:
        return
    spec = job["spec"]
    places = [spec.get("storage") or {}, (spec.get("snapshots") or {}).get("storage") or {}]
    for name in dict.fromkeys(each["persistentVolumeClaim"] for each in places if "persistentVolumeClaim" in each):
        claim = {
            "apiVersion": CLAIMS.api_version,
            "kind": CLAIMS.kind,
            "metadata": {"name": name, "namespace": cluster.namespace},
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": _SIZE}}},
        }
        with contextlib.suppress(AlreadyExists):
            await cluster.client.create(CLAIMS, claim, cluster.namespace)
            print(f"PersistentVolumeClaim {cluster.namespace}/{name} created: here it is a folder", file=sys.stderr)
