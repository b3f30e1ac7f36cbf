"""Are workers steered to nodes by energy, and by what? Off without the section."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from drivetrain_energy.settings.domains import Label
from drivetrain_energy.settings.model import Part

LabelKey = Annotated[
    str, Field(pattern=r"^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?$")
]


class Efficiency(Part):
    """Nodes on which the same work takes more energy, or less."""

    node_selector: dict[str, Label] = Field(
        min_length=1, description="Their labels, as in {nvidia.com/gpu.product: NVIDIA-A100-SXM4-80GB}."
    )
    energy: float = Field(gt=0, le=100, description="Joules of a step there, over those that jobs' profiles say.")


class Placement(Part):
    """Workers prefer nodes where their work takes the least; `{}` turns it on."""

    weight: int = Field(
        default=100,
        ge=1,
        le=100,
        description="Of all that is preferred. Where a job's podTemplate prefers nodes itself, it is less than each of "
        "the template's own weights.",
    )
    topology_key: LabelKey = Field(
        default="topology.kubernetes.io/zone",
        max_length=317,
        description="Label of nodes that are near each other: a job is kept in one such place where that costs little.",
    )
    max_temperature_c: float | None = Field(
        default=None,
        ge=40,
        le=110,
        alias="maxTemperatureC",
        description="Nodes that node agents report at it are kept off. Default: the power domain's; without one, heat "
        "is not looked at.",
    )
    efficiency: tuple[Efficiency, ...] = Field(
        default=(), max_length=100, description="The first one that fits a node counts. Default: all nodes are alike."
    )


__all__ = ["Efficiency", "Placement"]
