"""PURE: which cards do a job's workers compute on, by what node agents report: what they may be limited to, and what is
in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from drivetrain_api.power import DeviceReport, NodeReport
from drivetrain_energy.power.caps import Limits
from drivetrain_operator.energy.capped import Placed


@dataclass(frozen=True, slots=True)
class Cards:
    """Of one job, on all nodes that have a worker of it."""

    limits: Limits
    cap: float | None
    """The highest in force, whoever set it; None: a card has none, or nobody computes on any, and it is not counted
    on."""


def cards(job: Placed, reports: Mapping[str, NodeReport]) -> Cards | None:
    """None: caps of this job are nobody's to set, as it has no workers, or on nodes without agent or cards."""
    found: list[DeviceReport] = []
    own: list[DeviceReport] = []
    pods = {pod.uid for pod in job.pods}
    for node in {pod.node for pod in job.pods}:
        devices = reports[node].devices if node in reports else ()
        if not devices:
            return None
        computing = [device for device in devices if not pods.isdisjoint(device.pods)]
        found += computing or devices
        own += computing
    takes = limits(found)
    return Cards(takes, _highest(_held(device) for device in own)) if takes is not None else None


def drawn(nodes: Iterable[str], reports: Mapping[str, NodeReport]) -> float | None:
    """Watts of the nodes, cards and hosts; None: not all of it is measured."""
    watts = 0.0
    for node in nodes:
        report = reports.get(node)
        if report is None or report.host_watts is None or not report.devices:
            return None
        each = [device.watts for device in report.devices]
        known = [value for value in each if value is not None]
        if len(known) < len(each):
            return None
        watts += report.host_watts + sum(known)
    return watts or None


def limits(devices: Iterable[DeviceReport]) -> Limits | None:
    """A cap that all of them take; what the largest has is none."""
    devices = list(devices)
    least = max((max(device.least, 1.0) for device in devices), default=0.0)
    most = max((device.most for device in devices), default=0.0)
    return Limits(least, most) if 0 < least <= most else None


def _held(device: DeviceReport) -> float | None:
    """What it may draw now: where an administrator has limited it to less than our cap, there is no cap of ours."""
    limit = device.limit if device.limit is not None and device.limit < device.most else None
    return min((each for each in (device.cap, limit) if each is not None), default=None)


def _highest(caps: Iterable[float | None]) -> float | None:
    known = list(caps)
    found = [cap for cap in known if cap is not None]
    return max(found) if found and len(found) == len(known) else None


__all__ = ["Cards", "cards", "drawn", "limits"]
