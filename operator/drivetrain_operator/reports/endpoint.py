"""How do coordinators reach the leader, and nobody else? By a Service without selector, whose EndpointSlice it writes.

Readiness cannot do this, because both replicas have to be ready. The slice belongs to the Service, so it goes with it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from typing import Final

from drivetrain_operator.clock import Clock
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import AlreadyExists, KubeError
from drivetrain_operator.kube.resources import ENDPOINTSLICES, SERVICES, Object

log = logging.getLogger(__name__)


async def service_url(client: KubeClient, namespace: str, service: str) -> str:
    """`https://address:port` of the reports Service. An address, not a name: job pods need no DNS then."""
    found = await client.get(SERVICES, service, namespace)
    address, port = _address(found), found["spec"]["ports"][0]["port"]
    return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"


async def point_at(client: KubeClient, namespace: str, service: str, pod_ip: str, port: int) -> None:
    """Make `pod_ip`:`port` the only endpoint of the Service. Does nothing if it is so already. Raises KubeError."""
    owner = await client.get(SERVICES, service, namespace)
    slice_ = _slice(owner, pod_ip, port)
    try:
        await client.create(ENDPOINTSLICES, slice_, namespace)
    except AlreadyExists:
        known = await client.get(ENDPOINTSLICES, service, namespace)
        if all(known.get(part) == slice_[part] for part in ("endpoints", "ports")):
            return
        patch = {"endpoints": slice_["endpoints"], "ports": slice_["ports"]}
        await client.merge_patch(ENDPOINTSLICES, service, patch, namespace)
    log.info("reports Service points at this replica", extra={"service": service, "address": pod_ip, "port": port})


class LeaderAddress:
    """Where the leader listens, as the EndpointSlice says; asked for at most every `SECONDS`."""

    SECONDS: Final = 2.0

    def __init__(self, client: KubeClient, clock: Clock, namespace: str, service: str) -> None:
        self._client = client
        self._clock = clock
        self._namespace = namespace
        self._service = service
        self._known: str | None = None
        self._asked = float("-inf")
        self._lock = asyncio.Lock()

    async def url(self) -> str | None:
        """`https://address:port`; None if nobody knows."""
        async with self._lock:
            if self._clock.monotonic() - self._asked >= self.SECONDS:
                try:
                    found = await self._client.get(ENDPOINTSLICES, self._service, self._namespace, timeout=self.SECONDS)
                    self._known = _named_in(found)
                except KubeError as error:
                    log.debug("the leader's address is not known", extra={"error": str(error)})
                self._asked = self._clock.monotonic()
            return self._known


def _named_in(slice_: Object) -> str | None:
    try:
        address, port = slice_["endpoints"][0]["addresses"][0], slice_["ports"][0]["port"]
    except (KeyError, IndexError, TypeError):
        return None
    return f"https://[{address}]:{port}" if ":" in str(address) else f"https://{address}:{port}"


def _address(service: Object) -> str:
    address: str = service["spec"].get("clusterIP") or ""
    if address in ("", "None"):
        raise _Headless(service["metadata"]["name"])
    return address


class _Headless(KubeError):
    def __init__(self, name: str) -> None:
        super().__init__(f"Service {name} has no clusterIP, which coordinators need; see --reports-service")


def _slice(service: Object, pod_ip: str, port: int) -> Object:
    metadata = service["metadata"]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {
                "kubernetes.io/service-name": metadata["name"],
                "endpointslice.kubernetes.io/managed-by": "drivetrain-operator",
            },
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Service", "name": metadata["name"], "uid": metadata["uid"]}
            ],
        },
        "addressType": f"IPv{ipaddress.ip_address(pod_ip).version}",
        "endpoints": [{"addresses": [pod_ip], "conditions": {"ready": True}}],
        # The name has to equal the Service port's, or the slice counts for none of them.
        "ports": [{"name": service["spec"]["ports"][0].get("name", ""), "port": port, "protocol": "TCP"}],
    }
