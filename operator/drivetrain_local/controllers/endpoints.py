"""Which addresses stand behind a Service? Pure: ready pods for a selector, EndpointSlices without one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from drivetrain_local.apiserver.selectors import matches_labels
from drivetrain_local.objects import Obj, dig, meta


@dataclass(frozen=True)
class Route:
    """One listening port of a Service and where it leads; sorted, so that equal routes compare equal."""

    address: str
    port: int
    backends: tuple[tuple[str, int], ...]


def routes(services: Iterable[Obj], pods: Iterable[Obj], slices: Iterable[Obj]) -> dict[tuple[str, int], Route]:
    """All TCP routes by (cluster IP, port). A port without a ready backend has no route: connecting is refused."""
    pods, slices = list(pods), list(slices)
    found = {}
    for service in services:
        address = dig(service, "spec", "clusterIP")
        if address in (None, "", "None"):
            continue
        for port in dig(service, "spec", "ports", default=[]):
            if port.get("protocol", "TCP") != "TCP":
                continue
            if selector := dig(service, "spec", "selector"):
                backends = _from_pods(service, selector, port, pods)
            else:
                backends = _from_slices(service, port, slices)
            if backends:
                found[address, port["port"]] = Route(address, port["port"], tuple(sorted(backends)))
    return found


def _from_pods(service: Obj, selector: dict[str, str], port: Obj, pods: list[Obj]) -> set[tuple[str, int]]:
    unready_too = bool(dig(service, "spec", "publishNotReadyAddresses"))
    found = set()
    for pod in pods:
        address = dig(pod, "status", "podIP")
        if meta(pod).get("namespace") != meta(service).get("namespace") or not address:
            continue
        if not matches_labels(selector, meta(pod).get("labels") or {}):
            continue
        if dig(pod, "status", "phase") in ("Succeeded", "Failed") or meta(pod).get("deletionTimestamp"):
            continue
        ready = any(
            c["type"] == "Ready" and c["status"] == "True" for c in dig(pod, "status", "conditions", default=[])
        )
        target = _target(pod, port)
        if (ready or unready_too) and target:
            found.add((address, target))
    return found


def _target(pod: Obj, port: Obj) -> int:
    """targetPort as a number; a name is looked up among the pod's ports, 0 where it is not there."""
    wanted = port.get("targetPort") or port["port"]
    if isinstance(wanted, int):
        return wanted
    for container in pod["spec"]["containers"]:
        for declared in container.get("ports") or []:
            if declared.get("name") == wanted:
                return int(declared["containerPort"])
    return 0


def _from_slices(service: Obj, port: Obj, slices: list[Obj]) -> set[tuple[str, int]]:
    found = set()
    for endpoints in slices:
        labels = meta(endpoints).get("labels") or {}
        if meta(endpoints).get("namespace") != meta(service).get("namespace"):
            continue
        if labels.get("kubernetes.io/service-name") != meta(service)["name"]:
            continue
        for offered in endpoints.get("ports") or []:
            if (offered.get("name") or "") != (port.get("name") or "") or not offered.get("port"):
                continue
            for endpoint in endpoints.get("endpoints") or []:
                if dig(endpoint, "conditions", "ready", default=True):
                    found |= {(address, offered["port"]) for address in endpoint.get("addresses", [])}
    return found
