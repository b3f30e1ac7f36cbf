"""PURE: what pods need to know of the operator that made them. Comes from the operator's settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Platform:
    """Where coordinators come from, and whom they report to."""

    operator_image: str
    """Image of the coordinator: the operator's own."""
    reports_url: str
    """`https://host:port` of the operator's reports Service."""
    image_pull_secrets: tuple[str, ...] = ()
    """For the coordinator's image, in the job's namespace."""
    worker_template: Mapping[str, Any] = field(default_factory=dict)
    """PodTemplateSpec that this cluster wants merged over every worker pod, before the job's own."""
    coordinator_template: Mapping[str, Any] = field(default_factory=dict)
    """The same for coordinators."""
