"""Sets and gives back power limits, so that a crash between any two lines leaves none behind.

A limit that somebody else sets meanwhile (an administrator, another tool) is his: it is not taken back, and ours is
set only where it is lower.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from drivetrain_nodeagent.errors import NvmlError
from drivetrain_nodeagent.journal import Entry, Journal
from drivetrain_nodeagent.nvml import Device, Nvml

logger = logging.getLogger(__name__)

SAME_WATTS = 0.5
"""Drivers round."""


class Limits:
    """The limits of one node's cards. A card that refuses is left as it is, and asked again the next time."""

    def __init__(self, nvml: Nvml, journal: Journal) -> None:
        self._nvml = nvml
        self._journal = journal

    def restore(self, devices: list[Device]) -> None:
        """Give back everything that the journal has; of cards that are gone, forget it."""
        here = {device.uuid: device for device in devices}
        for uuid in self._journal.entries():
            if uuid in here:
                self._try(here[uuid], None)
            else:
                logger.warning("a card whose limit was changed is gone", extra={"device": uuid})
                self._journal.write(uuid, None)

    def apply(self, devices: list[Device], wanted: Mapping[str, float]) -> dict[str, float | None]:
        """Limit those that `wanted` names, by uuid, in watts; give the others back. Returns what is in force by us."""
        for device in devices:
            self._try(device, wanted.get(device.uuid))
        return {device.uuid: self._in_force(device) for device in devices}

    def _try(self, device: Device, watts: float | None) -> None:
        try:
            if watts is None:
                self._give_back(device)
            else:
                self._limit(device, watts)
        except NvmlError as error:
            logger.error("a power limit cannot be changed", extra={"device": device.uuid, "why": str(error)})

    def _limit(self, device: Device, watts: float) -> None:
        current = self._nvml.limit(device)
        known = self._journal.get(device.uuid)
        former = known.former if known is not None and _is_ours(known, current) else current
        new = min(max(watts, device.least), device.most, former)
        if _same(new, former):
            self._give_back(device)
            return
        if known is not None and _same(new, current):
            return
        # The one that is in force now, too: the next line may be the last that we do.
        ours = (current, new) if current != former else (new,)
        self._journal.write(device.uuid, Entry(former, ours))
        self._nvml.set_limit(device, new)

    def _give_back(self, device: Device) -> None:
        known = self._journal.get(device.uuid)
        if known is None:
            return
        current = self._nvml.limit(device)
        if _is_ours(known, current):
            self._nvml.set_limit(device, min(max(known.former, device.least), device.most))
        elif not _same(current, known.former):
            logger.warning("somebody else has changed a power limit; it stays", extra={"device": device.uuid})
        self._journal.write(device.uuid, None)

    def _in_force(self, device: Device) -> float | None:
        known = self._journal.get(device.uuid)
        if known is None:
            return None
        try:
            current = self._nvml.limit(device)
        except NvmlError:
            return None
        return current if _is_ours(known, current) else None


def _is_ours(known: Entry, watts: float) -> bool:
    return any(_same(watts, ours) for ours in known.ours)


def _same(watts: float, other: float) -> bool:
    return abs(watts - other) < SAME_WATTS


__all__ = ["Limits"]
