"""What the operator tells node agents, and they it: ConfigMaps in the operator's namespace, with a key for each node.

Each way has a fixed number of them, and a node's name says in which its key stands. One alone would be full with some
hundred nodes, and rewritten as a whole with each report of each of them; one a node could not be named in a Role.
"""

from __future__ import annotations

import zlib
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

SHARDS: Final = 16
"""As many as the chart makes."""
CAPS_CONFIGMAPS: Final = tuple(f"drivetrain-power-caps-{n}" for n in range(SHARDS))
"""Written by the operator: by node, the JSON of `NodeCaps`."""
REPORTS_CONFIGMAPS: Final = tuple(f"drivetrain-power-reports-{n}" for n in range(SHARDS))
"""Written by the agents: by node, the JSON of `NodeReport`."""
MAX_DEVICES: Final = 64
MAX_PODS_A_NODE: Final = 512
MAX_HOURS: Final = 1.0
"""A cap holds no longer than that unless it is renewed, whatever `until` says: clocks differ, and operators die."""

Watts = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Uid = Annotated[str, Field(min_length=1, max_length=64)]


def shard(node: str) -> int:
    """In which of the ConfigMaps of each way a node's key stands."""
    return zlib.crc32(node.encode()) % SHARDS


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class NodeCaps(_Told):
    """Caps of the pods of one node. A card is capped while processes compute on it, all of pods that are named here."""

    until: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Seconds since the epoch: then all caps end, unless this is renewed."""
    pods: Annotated[dict[Uid, Watts], Field(max_length=MAX_PODS_A_NODE)] = {}
    """By the pod's uid, of each of its cards."""


class DeviceReport(_Told):
    """One card."""

    uuid: Annotated[str, Field(max_length=96)]
    name: Annotated[str, Field(max_length=96)] = ""
    least: Watts
    most: Watts
    """What it may be limited to."""
    watts: Watts | None = None
    celsius: Annotated[float, Field(ge=-273, le=1000, allow_inf_nan=False)] | None = None
    cap: Watts | None = None
    """In force because of us."""
    limit: Watts | None = None
    """In force, whoever set it."""
    slowed: bool = False
    """By heat, or by its board: its clocks are lower than anybody has set."""
    pods: Annotated[tuple[Uid, ...], Field(max_length=MAX_PODS_A_NODE)] = ()
    """Whose processes compute on it."""


class NodeReport(_Told):
    """What an agent sees. A report that is older than two minutes is of an agent that is gone."""

    at: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Seconds since the epoch, by the node's clock."""
    devices: Annotated[tuple[DeviceReport, ...], Field(max_length=MAX_DEVICES)] = ()
    host_watts: Watts | None = None
    """Of processors and memory, where RAPL tells."""
    host_celsius: Annotated[float, Field(ge=-273, le=1000, allow_inf_nan=False)] | None = None
    """The hottest sensor of the node itself."""


__all__ = [
    "CAPS_CONFIGMAPS",
    "MAX_HOURS",
    "REPORTS_CONFIGMAPS",
    "SHARDS",
    "DeviceReport",
    "NodeCaps",
    "NodeReport",
    "shard",
]
