"""PURE: what is wrong with a job's pod templates, and what is suspicious?"""

from __future__ import annotations

import functools

from drivetrain_api.spec import TrainingJobSpec
from drivetrain_operator.render.coordinator import coordinator_template_problem
from drivetrain_operator.render.pod import worker_template_problem
from drivetrain_operator.render.shape import unknown_fields


def template_problem(spec: TrainingJobSpec) -> str | None:
    """Why the job's pods cannot be made, as far as that shows without the API server: a path, and what is wrong."""
    return _problem(_Same(spec))


class _Same:
    """A spec that equals itself only. Specs are frozen, but their templates have no hash."""

    def __init__(self, spec: TrainingJobSpec) -> None:
        self.spec = spec

    def __hash__(self) -> int:
        return id(self.spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.spec is self.spec


@functools.lru_cache(maxsize=64)
def _problem(of: _Same) -> str | None:
    return worker_template_problem(of.spec) or coordinator_template_problem(of.spec)


def unknown(spec: TrainingJobSpec) -> list[str]:
    """Paths of fields that no pod has, as far as this release knows."""
    templates = {"spec.podTemplate": spec.pod_template, "spec.coordinator.podTemplate": spec.coordinator.pod_template}
    return [f"{root}.{path}" for root, template in templates.items() for path in unknown_fields(template)]
