"""What of a spec an operator goes by while a job runs, or has ended: read also of a spec that cannot be used.

A release may bring a rule that a stored job breaks. Nothing is created for it then; but that its user wants it to rest,
to end in time and to be deleted stands there all the same, field by field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from drivetrain_api.model import SpecModel
from drivetrain_api.spec import Elastic, Recovery, TrainingJobSpec

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wishes:
    """As the fields of the same names, with their defaults."""

    suspend: bool = False
    active_deadline_seconds: int | None = None
    ttl_seconds_after_finished: int | None = None
    max_restarts: int = Recovery().max_restarts
    restart_window_seconds: int = Recovery().restart_window_seconds
    no_progress_seconds: int | None = None
    min_workers: int | None = None
    """None: all are needed."""


def wishes(spec: TrainingJobSpec) -> Wishes:
    """Of a spec that can be used."""
    return Wishes(
        suspend=spec.suspend,
        active_deadline_seconds=spec.active_deadline_seconds,
        ttl_seconds_after_finished=spec.ttl_seconds_after_finished,
        max_restarts=spec.recovery.max_restarts,
        restart_window_seconds=spec.recovery.restart_window_seconds,
        no_progress_seconds=spec.recovery.no_progress_seconds,
        min_workers=spec.elastic.min_workers if spec.elastic is not None else None,
    )


def wishes_of(raw: object) -> Wishes:
    """Of any stored spec: what cannot be a field's value is as if it were not said."""
    spec = raw if isinstance(raw, Mapping) else {}
    said = {name: _said(spec, name) for name in _FIELDS}
    return Wishes(**{name: value for name, value in said.items() if value is not None})


def _adapter(field: FieldInfo) -> TypeAdapter[Any]:
    return TypeAdapter(field.rebuild_annotation())


_SECTIONS: Final[tuple[tuple[tuple[str, ...], type[SpecModel], tuple[str, ...]], ...]] = (
    ((), TrainingJobSpec, ("suspend", "active_deadline_seconds", "ttl_seconds_after_finished")),
    (("recovery",), Recovery, ("max_restarts", "restart_window_seconds", "no_progress_seconds")),
    (("elastic",), Elastic, ("min_workers",)),
)
_FIELDS: Final[dict[str, tuple[tuple[str, ...], TypeAdapter[Any]]]] = {
    name: ((*section, model.model_fields[name].alias or name), _adapter(model.model_fields[name]))
    for section, model, names in _SECTIONS
    for name in names
}
"""Where each stands in a spec, and what it may be."""


def _said(spec: Json, name: str) -> Any:
    """The value of this field, if there is one within its bounds; else None."""
    path, kind = _FIELDS[name]
    found: Any = spec
    for step in path:
        found = found.get(step) if isinstance(found, Mapping) else None
    try:
        return kind.validate_python(found, strict=True) if found is not None else None
    except ValidationError:
        return None
