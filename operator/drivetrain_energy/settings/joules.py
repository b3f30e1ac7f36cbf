"""Which Prometheus knows what pods draw, and by which exporters? Off without the section."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from drivetrain_energy.settings.model import Name, Part
from drivetrain_energy.settings.reached import Reached

MetricName = Annotated[str, Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]{0,127}$")]
LabelName = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,127}$")]


LabelValue = Annotated[str, Field(pattern=r"^[^\"\\\x00-\x1f\x7f\ufffd]{1,128}$")]
Labels = Annotated[dict[LabelName, LabelValue], Field(max_length=8)]
_LABELS: Final = (
    "Labels that its series have, such as job: who else may have something scraped can say anything of anybody."
)


class Dcgm(Part):
    """NVIDIA's dcgm-exporter, which maps GPUs to pods (`kubernetes: true`, the chart's default)."""

    metric: MetricName = Field(
        default="DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", description="A counter of each GPU, in thousandths of a joule."
    )
    pod_label: LabelName | None = Field(
        default=None, description="Who has the GPU. Default: exported_pod where there is one, else pod."
    )
    namespace_label: LabelName | None = Field(default=None, description="The same of its namespace.")
    uuid_label: LabelName = Field(default="UUID", description="Which GPU it is.")
    labels: Labels = Field(default={}, description=_LABELS)

    @model_validator(mode="after")
    def _both(self) -> Dcgm:
        if (self.pod_label is None) != (self.namespace_label is None):
            raise ValueError("podLabel and namespaceLabel belong together")
        return self


class Kepler(Part):
    """Kepler, with metrics of pods (0.10 and later), or of containers (before)."""

    exports: Literal["pods", "containers"] = Field(
        default="pods",
        description="pods: kepler_pod_cpu_joules_total; containers: kepler_container_package_joules_total and "
        "kepler_container_dram_joules_total.",
    )
    pod_label: LabelName = Field(default="pod_name", description="Whose joules they are.")
    namespace_label: LabelName | None = Field(
        default=None,
        description="The same of its namespace. Default: pod_namespace; of containers container_namespace.",
    )
    labels: Labels = Field(default={}, description=_LABELS)


class JoulesSource(Reached):
    """A Prometheus that scrapes them."""

    name: Name = Field(description="By which logs and metrics call it.")
    provider: Literal["prometheus"]
    dcgm: Dcgm | None = Field(default=None, description="GPUs; {} is enough. Default: not asked for.")
    kepler: Kepler | None = Field(default=None, description="Processors and memory; {} is enough. Default: as dcgm.")
    look_seconds: int = Field(default=300, ge=15, le=900, description="Between two looks, for all jobs together.")

    @model_validator(mode="after")
    def _asks(self) -> JoulesSource:
        if self.dcgm is None and self.kepler is None:
            raise ValueError("dcgm or kepler is needed: which exporter does it scrape?")
        return self


__all__ = ["Dcgm", "JoulesSource", "Kepler"]
