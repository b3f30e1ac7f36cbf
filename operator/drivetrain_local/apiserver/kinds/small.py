"""What is special about namespaces, leases, endpoint slices and events? A line or two each."""

from __future__ import annotations

from drivetrain_local.apiserver import errors
from drivetrain_local.apiserver.errors import FieldError
from drivetrain_local.apiserver.kinds.base import Kind
from drivetrain_local.objects import Obj, dig


class Namespaces(Kind):
    """A namespace holds the finalizer `kubernetes` in its spec until `gc.py` has emptied it."""

    def prepare_create(self, obj: Obj) -> None:
        obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"].get("name", "")
        obj["spec"] = {"finalizers": ["kubernetes"]}
        obj["status"] = {"phase": "Active"}


class Leases(Kind):
    """Only the two rules that an election can break."""

    def validate(self, obj: Obj) -> list[FieldError]:
        found = []
        for field in ("leaseDurationSeconds", "leaseTransitions"):
            value = dig(obj, "spec", field)
            if value is not None and value < (1 if field == "leaseDurationSeconds" else 0):
                bound = "0" if field == "leaseDurationSeconds" else "or equal to 0"
                found.append(errors.bad_value(f"spec.{field}", value, f"must be greater than {bound}"))
        return found


class EndpointSlices(Kind):
    """Address type is required and fixed; ports without a name get the empty one."""

    def prepare_create(self, obj: Obj) -> None:
        # Kubernetes prints null, at which the official Python client raised until its version 36.
        obj.setdefault("endpoints", [])
        for port in obj.get("ports") or []:
            port.setdefault("name", "")
            port.setdefault("protocol", "TCP")

    def prepare_update(self, new: Obj, old: Obj) -> None:
        self.prepare_create(new)

    def validate(self, obj: Obj) -> list[FieldError]:
        found = []
        if not obj.get("addressType"):
            found.append(errors.required("addressType"))
        elif obj["addressType"] not in ("IPv4", "IPv6", "FQDN"):
            found.append(errors.not_supported("addressType", obj["addressType"], ["FQDN", "IPv4", "IPv6"]))
        for index, endpoint in enumerate(obj.get("endpoints") or []):
            if not endpoint.get("addresses"):
                detail = "must contain at least 1 address"
                found.append(errors.required(f"endpoints[{index}].addresses", detail))
        return found

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        if new.get("addressType") != old.get("addressType"):
            return [errors.bad_value("addressType", new.get("addressType"), "field is immutable")]
        return []


class Events(Kind):
    """What an event is about may be left out, but not missing."""

    def prepare_create(self, obj: Obj) -> None:
        obj.setdefault("involvedObject", {})

    def prepare_update(self, new: Obj, old: Obj) -> None:
        self.prepare_create(new)
