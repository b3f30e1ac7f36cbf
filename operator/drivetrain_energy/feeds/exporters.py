"""PURE: what do dcgm-exporter and Kepler call what they export, and in which units?

NVIDIA/dcgm-exporter (`etc/default-counters.csv`, `internal/pkg/transformation`): a series for each GPU and pod that has
it, in mJ since the driver was loaded; labels `pod` and `namespace`, which are `exported_*` where Prometheus has labels
of its own by these names; parts of a GPU (MIG) have GPU_I_ID, and no counter of their own.

Kepler (`docs/user/metrics.md` and, before 0.10, `pkg/metrics/consts`): joules of each pod since Kepler saw it first, by
zone; of containers, by mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from drivetrain_api.energy import Component, EnergySource
from drivetrain_energy.settings.joules import Dcgm, Kepler

Labels = Mapping[str, str]

ZONES: Final = {"package": Component.CPU, "dram": Component.DRAM}
"""Of Kepler. Cores are parts of a package, and the platform (psys) has all of it."""
OF_CONTAINERS: Final = {
    "kepler_container_package_joules_total": Component.CPU,
    "kepler_container_dram_joules_total": Component.DRAM,
}
PARTS: Final = ("GPU_I_ID", "dra_mig_device_uuid")
"""Labels of parts of a GPU."""


@dataclass(frozen=True, slots=True)
class Exporter:
    """How one is asked."""

    source: EnergySource
    selector: str
    """Of its series, without braces: label matchers."""
    id_label: str
    """By which counters are told apart and asked for."""
    holders: tuple[tuple[str, str], ...]
    """Labels of pod and namespace; the first ones that a counter has count. The last ones may be Prometheus' own, of
    the exporter."""
    unit: float
    """Joules."""
    stale: float
    """A counter that others of the job are ahead of by so many seconds has ended."""

    def counter(self, labels: Labels) -> tuple[str, ...] | None:
        """Which one it is, whoever scraped it, and who has it; None: it is not to be counted."""
        if any(labels.get(part) for part in PARTS) or self.component(labels) is None:
            return None
        name = labels.get(self.id_label, "")
        return (name, *(labels.get(each, "") for each in ("__name__", "zone", "mode", "node_name"))) if name else None

    def component(self, labels: Labels) -> Component | None:
        """What draws."""
        if self.source is EnergySource.DCGM:
            return Component.GPU
        return OF_CONTAINERS.get(labels.get("__name__", "")) or ZONES.get(labels.get("zone", ""))

    def holder(self, labels: Labels) -> tuple[int, str, str] | None:
        """By which of `holders`, and namespace and name of the pod; None: nobody."""
        for rank, (pod, namespace) in enumerate(self.holders):
            if labels.get(pod) and labels.get(namespace):
                return rank, labels[namespace], labels[pod]
        return None


def dcgm(given: Dcgm) -> Exporter:
    """The one of GPUs."""
    named = (given.pod_label, given.namespace_label)
    holders = (
        ((named[0], named[1]),)
        if named[0] is not None and named[1] is not None
        else (("exported_pod", "exported_namespace"), ("pod", "namespace"))
    )
    parts = ",".join(f'{part}=""' for part in PARTS)
    return Exporter(
        EnergySource.DCGM,
        f'__name__="{given.metric}",{parts}{_of(given.labels)}',
        given.uuid_label,
        holders,
        1e-3,
        stale=900.0,
    )


def kepler(given: Kepler) -> Exporter:
    """The one of processors and memory."""
    if given.exports == "pods":
        selector, id_label, namespace = (
            '__name__="kepler_pod_cpu_joules_total",zone=~"package|dram"', "pod_id", "pod_namespace",
        )  # fmt: skip
    else:
        selector, id_label = f'__name__=~"{"|".join(OF_CONTAINERS)}"', "container_id"
        namespace = "container_namespace"
    holders = ((given.pod_label, given.namespace_label or namespace),)
    return Exporter(EnergySource.KEPLER, selector + _of(given.labels), id_label, holders, 1.0, stale=300.0)


def _of(labels: Labels) -> str:
    return "".join(f',{name}="{value}"' for name, value in labels.items())


__all__ = ["PARTS", "Exporter", "dcgm", "kepler"]
