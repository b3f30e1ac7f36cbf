"""How much electricity have this job's launchers told of in this term? Sums that only grow, by component and source.

A launcher tells what it has measured since it began, and how much of that was counted in earlier terms: so the same
joule is counted once, whoever is replaced. Of a device that several launchers tell of, because they share it, each
second counts once. What cannot be is cut or left out, and counted.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from drivetrain_api.bounds import MAX_SECONDS
from drivetrain_api.energy import (
    MAX_METER_JOULES,
    WATTS_AT_MOST,
    WORKERS_TELL,
    Component,
    EnergyAsked,
    EnergyCounted,
    EnergyTold,
    Meter,
    Metered,
)

JITTER_SECONDS: Final = 10.0
"""A launcher's word may be so much older than it is when it comes."""
LENT_SECONDS: Final = 1.5
_COMPONENTS: Final = frozenset(map(str, Component))
_SOURCES: Final = frozenset(map(str, WORKERS_TELL))

_Key = tuple[str, str, str]


@dataclass(slots=True)
class _Heard:
    """What one launcher's meters stood at when it was heard last."""

    boot: str
    at: float
    seconds: float
    joules: dict[_Key, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Device:
    """Of what seconds of it are counted already, by whichever launcher."""

    began: float = math.inf
    until: float = -math.inf
    """As if it was all of the time from `began` on."""

    def part(self, passed: float, now: float) -> float:
        """Of the last `passed` seconds, the part that is not counted yet; it is now. Words come a little early or late:
        a second or so is lent."""
        if passed <= 0:
            return 0.0
        start = now - passed
        earlier = min(passed, max(0.0, self.began - start)) if math.isfinite(self.began) else 0.0
        self.began = min(self.began, start)
        self.until = max(self.until, start - LENT_SECONDS if math.isfinite(self.until) else start)
        rest = min(passed - earlier, max(0.0, now + LENT_SECONDS - self.until))
        self.until += rest
        return (earlier + rest) / passed


@dataclass(slots=True)
class Drawn:
    """Of this term."""

    began: float = 0.0
    """When the term did, by this clock."""
    counted: EnergyCounted | None = None
    """Up to where earlier terms were counted when this one began."""
    asks: bool = False
    """The operator has said so."""
    joules: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    """By component and source."""
    worker_seconds: float = 0.0
    seconds: float = 0.0
    refused: int = 0
    _until: float = -math.inf
    """At least one launcher measured until then."""
    _heard: dict[str, _Heard] = field(default_factory=dict)
    """By pod."""
    _devices: dict[str, _Device] = field(default_factory=dict)

    def hear(self, pod: str, boot: str, told: Metered, now: float) -> None:
        """A launcher tells what it has measured."""
        if not told.readable:
            self.refused += 1
            return
        heard = self._heard.get(pod)
        known = heard is not None and heard.boot == boot
        if heard is None or not known:
            heard = self._heard[pod] = _Heard(boot, now, self._sane(told.seconds_before, told.seconds))
        passed = self._passed(heard, told.seconds, now, known=known)
        for meter in told.meters:
            self._add(heard, meter, passed, now)
        self.worker_seconds += passed
        self.seconds += max(0.0, now - max(self._until, now - passed))
        self._until = now
        heard.at = now

    def counts_from(self, counted: EnergyCounted | None) -> bool:
        """The operator's first roster says up to where others have counted. Whether it is the first."""
        if self.asks:
            return False
        self.asks, self.counted = True, counted
        return True

    def asked(self, now: float) -> EnergyAsked | None:
        """What launchers are asked."""
        return EnergyAsked(uptime=max(0.0, now - self.began), counted=self.counted) if self.asks else None

    def told(self) -> EnergyTold | None:
        """For a report; None as long as no launcher has told anything."""
        if not self._heard and not self.refused:
            return None
        joules: dict[str, dict[str, float]] = {}
        for (component, source), value in self.joules.items():
            joules.setdefault(component, {})[source] = round(value, 3)
        return EnergyTold(
            joules=joules,
            worker_seconds=round(self.worker_seconds, 3),
            seconds=round(self.seconds, 3),
            refused=self.refused,
            uptime=round(max(0.0, self._until - self.began), 3),
        )

    def _passed(self, heard: _Heard, seconds: float, now: float, *, known: bool) -> float:
        """Seconds that it measured since it was heard last; not more than have passed here, where that is known."""
        told = seconds if math.isfinite(seconds) and 0 <= seconds <= MAX_SECONDS else heard.seconds
        passed = max(0.0, told - heard.seconds)
        heard.seconds = max(heard.seconds, told)
        most = now - heard.at + JITTER_SECONDS if known else math.inf
        self.refused += passed > most or told != seconds
        return min(passed, most)

    def _add(self, heard: _Heard, meter: Meter, passed: float, now: float) -> None:
        if meter.component not in _COMPONENTS or meter.source not in _SOURCES:
            return  # a newer image knows more
        if not (math.isfinite(meter.joules) and 0 <= meter.joules <= MAX_METER_JOULES):
            self.refused += 1
            return
        key = meter.component, meter.source, meter.device
        before = heard.joules.get(key)
        if before is None:
            before = self._sane(meter.before, meter.joules)
        gained = meter.joules - before
        heard.joules[key] = max(before, meter.joules)
        most = WATTS_AT_MOST[meter.component] * passed
        if not 0 <= gained <= most:
            self.refused += 1
        part = self._devices.setdefault(meter.device, _Device()).part(passed, now) if meter.device else 1.0
        self.joules[meter.component, meter.source] += min(max(0.0, gained), most) * part

    def _sane(self, value: float, most: float) -> float:
        """Between 0 and `most`; what is not is refused, and stands for `most`, so that nothing is counted for it."""
        if math.isfinite(value) and 0 <= value <= most:
            return value
        self.refused += 1
        return most if math.isfinite(most) else 0.0


__all__ = ["Drawn"]
