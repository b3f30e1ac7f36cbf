"""Where does the root of trust live? In one Secret of the operator's own namespace, made by whoever comes first."""

from __future__ import annotations

import logging
from typing import Final

from drivetrain_operator.clock import Clock
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import AlreadyExists, NotFound
from drivetrain_operator.kube.resources import SECRETS
from drivetrain_operator.reports.credentials import Authority, BadRoot
from drivetrain_operator.reports.trust import Trust

log = logging.getLogger(__name__)

ROOT_SECRET: Final = "drivetrain-root"
"""Name of the Secret, in the operator's own namespace, that every token and certificate derives from."""


async def load_or_create(client: KubeClient, namespace: str, clock: Clock) -> Trust:
    """The roots of this installation. Replicas that start together agree: only one create can win.

    Raises KubeError, and BadRoot naming the Secret if it was damaged: then every job's tokens would be lost by making
    another, which is for a person to decide: see docs/operations.md.
    """
    for _ in range(3):
        try:
            stored = await client.get(SECRETS, ROOT_SECRET, namespace)
        except NotFound:
            try:
                stored = await client.create(
                    SECRETS, _secret(namespace, Trust(Authority.generate(clock.now()))), namespace
                )
            except AlreadyExists:
                continue  # another replica was faster; its answer is the one that counts
            log.info("root of trust created", extra={"namespace": namespace, "secret": ROOT_SECRET})
        try:
            return Trust.from_secret(stored.get("data") or {})
        except BadRoot as error:
            raise BadRoot(f"Secret {namespace}/{ROOT_SECRET}: {error}") from error
    raise BadRoot(f"Secret {namespace}/{ROOT_SECRET} is created and deleted by others all the time")


def _secret(namespace: str, trust: Trust) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": ROOT_SECRET,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "drivetrain-operator"},
        },
        "type": "Opaque",
        "immutable": True,
        "data": trust.to_secret(),
    }
