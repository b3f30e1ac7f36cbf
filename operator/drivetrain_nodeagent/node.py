"""One look at the node: who is on which card, which limits follow, and what is drawn. Blocking; called in a thread of
its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from drivetrain_api.power import DeviceReport, NodeCaps, NodeReport
from drivetrain_nodeagent.errors import NvmlError
from drivetrain_nodeagent.limits import Limits
from drivetrain_nodeagent.nvml import Device, Nvml
from drivetrain_nodeagent.sensors import Rapl, cgroup, hottest
from drivetrain_nodeagent.wanted import Owners, pods_of, wanted


@dataclass(frozen=True, slots=True)
class Look:
    """What one found."""

    report: NodeReport
    gpu_joules: dict[str, float] = field(default_factory=dict)
    """Since the driver was loaded, by card's uuid."""
    host_joules: dict[str, float] = field(default_factory=dict)
    """Since the agent was started, by zone."""


class Node:
    """This machine. Without NVIDIA's driver (`nvml` is None), its processors only."""

    def __init__(
        self, nvml: Nvml | None, limits: Limits | None, sys: Path, proc: Path, now: Callable[[], float]
    ) -> None:
        self._nvml = nvml
        self._limits = limits
        self._devices = nvml.devices() if nvml is not None else []
        self._rapl = Rapl(sys)
        self._sys, self._proc, self._now = sys, proc, now
        self._before: tuple[float, float] | None = None

    def look(self, caps: NodeCaps | None, told: float) -> Look:
        """Put in force what was said at `told`, and see what there is."""
        now = self._now()
        owners = self._owners()
        in_force: dict[str, float | None] = {}
        if self._limits is not None:
            in_force = self._limits.apply(self._devices, wanted(caps, told, now, owners))
        joules = self._rapl.read()
        report = NodeReport(
            at=now,
            devices=tuple(self._device(device, owners, in_force.get(device.uuid)) for device in self._devices),
            host_watts=self._host_watts(now, sum(joules.values()) if joules else None),
            host_celsius=hottest(self._sys),
        )
        counted = {device.uuid: self._nvml.joules(device) for device in self._devices if self._nvml is not None}
        return Look(report, {uuid: value for uuid, value in counted.items() if value is not None}, joules)

    def _owners(self) -> Owners:
        found = {}
        for device in self._devices:
            assert self._nvml is not None
            try:
                pids = self._nvml.processes(device)
            except NvmlError:  # not known whose it is, so it is nobody's: no limit of ours stays
                pids = []
            found[device.uuid] = pods_of(cgroup(self._proc, pid) for pid in pids)
        return found

    def _device(self, device: Device, owners: Owners, cap: float | None) -> DeviceReport:
        assert self._nvml is not None
        return DeviceReport(
            uuid=device.uuid,
            name=device.name,
            least=device.least,
            most=device.most,
            watts=self._nvml.watts(device),
            celsius=self._nvml.celsius(device),
            cap=cap,
            limit=self._limit(device),
            slowed=self._nvml.slowed(device),
            pods=tuple(sorted(pod for pod in owners[device.uuid] if pod is not None)),
        )

    def _limit(self, device: Device) -> float | None:
        assert self._nvml is not None
        try:
            return self._nvml.limit(device)
        except NvmlError:
            return None

    def _host_watts(self, now: float, joules: float | None) -> float | None:
        before, self._before = self._before, None if joules is None else (now, joules)
        if before is None or joules is None or now <= before[0]:
            return None
        return round((joules - before[1]) / (now - before[0]), 1)


__all__ = ["Look", "Node"]
