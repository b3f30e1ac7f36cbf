"""Which address does a Service get?

Each ClusterIP is a loopback address from the plane's own range, on which the service proxy of the node process
listens. There is no DNS: clients use the address.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from itertools import islice

from drivetrain_local.address import RESERVED_HOSTS
from drivetrain_local.apiserver import errors
from drivetrain_local.apiserver.errors import FieldError
from drivetrain_local.apiserver.kinds.base import Kind
from drivetrain_local.objects import Obj, dig


class Services(Kind):
    """Services of type ClusterIP, headless ones and ExternalName; node ports and load balancers are not served."""

    def __init__(self, cidr: str) -> None:
        self._cidr = cidr
        # As they are asked for: 65,000 texts at once would take longer than all else at a server's start.
        self._unused = map(str, islice(ipaddress.ip_network(cidr).hosts(), RESERVED_HOSTS, None))
        self._released: deque[str] = deque()
        self._taken: set[str] = set()

    def prepare_create(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        _defaults(spec)
        if spec["type"] == "ClusterIP" and not spec.get("clusterIP"):
            spec["clusterIP"] = self._free()
        if spec.get("clusterIP") not in (None, "", "None"):
            if spec["clusterIP"] in self._taken:
                detail = "failed to allocate IP " + spec["clusterIP"] + ": provided IP is already allocated"
                finding = errors.bad_value("spec.clusterIPs", [spec["clusterIP"]], detail)
                raise errors.invalid("Service", "", obj["metadata"].get("name", ""), [finding])
            self._taken.add(spec["clusterIP"])
        if spec.get("clusterIP"):
            spec["clusterIPs"] = [spec["clusterIP"]]
            spec.setdefault("ipFamilies", ["IPv4"])
            spec.setdefault("ipFamilyPolicy", "SingleStack")
        obj["status"] = {"loadBalancer": {}}

    def prepare_update(self, new: Obj, old: Obj) -> None:
        spec = new.setdefault("spec", {})
        _defaults(spec)
        for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if not spec.get(field) and field in old["spec"]:
                spec[field] = old["spec"][field]

    def validate(self, obj: Obj) -> list[FieldError]:
        spec = obj["spec"]
        found = []
        if spec["type"] not in ("ClusterIP", "ExternalName"):
            raise errors.not_here(f"a Service of type {spec['type']}")
        if not spec.get("ports") and spec.get("clusterIP") != "None" and spec["type"] == "ClusterIP":
            found.append(errors.required("spec.ports"))
        for index, port in enumerate(spec.get("ports") or []):
            number = port.get("port", 0)
            if not 0 < number < 65536:
                found.append(
                    errors.bad_value(f"spec.ports[{index}].port", number, "must be between 1 and 65535, inclusive")
                )
            if len(spec["ports"]) > 1 and not port.get("name"):
                found.append(errors.required(f"spec.ports[{index}].name"))
        return found

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        before, after = dig(old, "spec", "clusterIP"), dig(new, "spec", "clusterIP")
        if before and before != after:
            return [errors.bad_value("spec.clusterIPs[0]", [after], "may not change once set")]
        return []

    def released(self, obj: Obj) -> None:
        address = dig(obj, "spec", "clusterIP", default="")
        if address in self._taken:
            self._taken.discard(address)
            self._released.append(address)

    def _free(self) -> str:
        """The next one that nobody had; else the one that has been free for longest."""
        for address in self._unused:
            if address not in self._taken:  # a Service may have asked for it by name
                return address
        while self._released:
            if (address := self._released.popleft()) not in self._taken:
                return address
        raise errors.ApiError(500, "InternalError", f"service range {self._cidr} is full")


def _defaults(spec: Obj) -> None:
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec["type"] == "ClusterIP":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
