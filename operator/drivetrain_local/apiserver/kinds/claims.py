"""What is special about a PersistentVolumeClaim? Here it is a folder of this machine, so it is bound once it is made.

The node agent makes the folder when a pod first mounts it. How much it may hold, and who may mount it at once, is
written down and not enforced.
"""

from __future__ import annotations

from typing import Final

from drivetrain_local.apiserver import errors
from drivetrain_local.apiserver.errors import FieldError
from drivetrain_local.apiserver.kinds.base import Kind
from drivetrain_local.objects import Obj, dig

_MODES: Final = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_MAY_CHANGE: Final = ("resources", "volumeAttributesClassName")


class PersistentVolumeClaims(Kind):
    """Bound from the start; its spec stays."""

    def prepare_create(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("volumeMode", "Filesystem")
        obj["status"] = {
            "phase": "Bound",
            "accessModes": list(spec.get("accessModes") or []),
            "capacity": dict(dig(spec, "resources", "requests", default={})),
        }
        spec.setdefault("volumeName", f"pvc-{obj['metadata'].get('uid') or obj['metadata'].get('name', '')}")

    def validate(self, obj: Obj) -> list[FieldError]:
        found = []
        modes = dig(obj, "spec", "accessModes") or []
        if not modes:
            found.append(errors.required("spec.accessModes", "at least 1 access mode is required"))
        found += [errors.not_supported("spec.accessModes", mode, list(_MODES)) for mode in modes if mode not in _MODES]
        if "storage" not in (dig(obj, "spec", "resources", "requests") or {}):
            found.append(errors.required("spec.resources[storage]"))
        return found

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        if _fixed(new) == _fixed(old):
            return []
        why = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        return [errors.forbidden_field("spec", why)]


def _fixed(obj: Obj) -> Obj:
    return {name: value for name, value in (obj.get("spec") or {}).items() if name not in _MAY_CHANGE}
