"""PURE: what pods need to know of the operator that made them. Comes from the operator's settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from drivetrain_api.constants import REPORTS_PORT

_URL: Final = re.compile(r"https://(?P<host>\[[^]]*]|[^:/]*)(?::(?P<port>[0-9]+))?(?:/.*)?")
_ADDRESS: Final = re.compile(r"\[.*]|[0-9.]+")


@dataclass(frozen=True, slots=True)
class Neighbours:
    """With whom outside of a job its pods have to do, even if it is shut off from all others."""

    reports_port: int = REPORTS_PORT
    """Where the operator listens."""
    by_name: bool = False
    """It is found by a name: name servers have to be reached."""
    scrapers: tuple[Mapping[str, Any], ...] = ()
    """NetworkPolicyPeers that may read coordinators' metrics; none: everybody may."""


@dataclass(frozen=True, slots=True)
class Platform:
    """Where coordinators come from, and whom they report to."""

    operator_image: str
    """Image of the coordinator: the operator's own."""
    reports_url: str
    """`https://host:port` of the operator's reports Service."""
    image_pull_secrets: tuple[str, ...] = ()
    """For the coordinator's image and that of the workers' runtime, in the job's namespace."""
    worker_template: Mapping[str, Any] = field(default_factory=dict)
    """PodTemplateSpec that this cluster wants merged over every worker pod, before the job's own."""
    coordinator_template: Mapping[str, Any] = field(default_factory=dict)
    """The same for coordinators."""
    scrapers: tuple[Mapping[str, Any], ...] = ()
    """NetworkPolicyPeers that may read the metrics of coordinators; none: everybody may."""
    runtime_image: str = ""
    """From which an init container brings workers their runtime; empty: none does."""

    worker_env: Mapping[str, str] = field(default_factory=dict)
    """Variables of every worker that templates may set otherwise."""
    coordinator_env: Mapping[str, str] = field(default_factory=dict)
    """The same of coordinators."""

    @property
    def neighbours(self) -> Neighbours:
        """Of every job."""
        url = _URL.fullmatch(self.reports_url)
        if url is None:
            return Neighbours(by_name=True, scrapers=self.scrapers)
        return Neighbours(int(url["port"] or 443), _ADDRESS.fullmatch(url["host"]) is None, self.scrapers)
