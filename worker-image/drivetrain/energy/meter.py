"""Joules since this launcher began, which only grow, and how much of them was counted in earlier terms.

A thread of its own reads them about once a second: a driver that hangs must not hang the launcher. What was told, and
when, is remembered for an hour. So when a coordinator is replaced, its successor can be told exactly what the operator
has counted, which knows that as a moment by the clock of the one before.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from drivetrain.energy.gain import Gain, Source, Unreadable
from drivetrain_api.energy import EnergyAsked, EnergyCounted, Meter, Metered

log = logging.getLogger(__name__)

PERIOD_SECONDS: Final = 1.0
REMEMBERED: Final = 3600
TERMS: Final = 16
"""Whose clocks are known."""

_Key = tuple[str, str, str]


class _Stand(NamedTuple):
    """What was measured."""

    at: float = 0.0
    """Until then, by this launcher's clock."""
    seconds: float = 0.0
    joules: tuple[float, ...] = ()
    """Of the meters, in the order in which they came."""

    def of(self, meter: int) -> float:
        """0 of one that came later."""
        return self.joules[meter] if meter < len(self.joules) else 0.0


class _Told(NamedTuple):
    term: int
    at: float
    """When, by this launcher's clock."""
    stand: _Stand


class _Term(NamedTuple):
    began: float
    """By this launcher's clock."""
    before: _Stand
    """What was counted before it."""


class EnergyMeter:
    """Of one launcher. `start()` once; `asked` and `told` from the launcher's thread."""

    def __init__(
        self,
        sources: Callable[[], Sequence[Source]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`sources` is called in the meter's thread: drivers take their time to load."""
        self._make = sources
        self._sources: Sequence[Source] | None = None
        self._clock = clock
        self._meters: dict[_Key, int] = {}
        self._now: _Stand | None = None
        self._lock = threading.Lock()
        self._news = False
        self._failed: set[str] = set()
        self._term: int | None = None
        """Of the coordinator that asked last; None: none did."""
        self._terms: dict[int, _Term] = {}
        self._told: deque[_Told] = deque(maxlen=REMEMBERED)
        self._before = _Stand()
        self._due = threading.Event()

    def start(self) -> None:
        """Begin to measure."""
        threading.Thread(target=self._run, name="energy", daemon=True).start()

    def hurry(self) -> None:
        """Look at once: the launcher is about to end."""
        self._due.set()

    def _run(self) -> None:
        while True:
            self.look()
            self._due.wait(PERIOD_SECONDS)
            self._due.clear()

    def look(self) -> None:
        """Read all sources once."""
        if self._sources is None:
            self._sources = self._made()
        at, before = self._clock(), self._now or _Stand()
        passed = max(0.0, at - before.at) if self._now is not None else 0.0
        gains = [gain for source in self._sources for gain in self._read(source, passed)]
        with self._lock:
            joules = [*before.joules]
            for gain in gains:
                meter = self._meters.setdefault((str(gain.component), str(gain.source), gain.device), len(joules))
                joules += [0.0] * (meter + 1 - len(joules))
                joules[meter] += gain.joules
            self._now = _Stand(at, before.seconds + passed, tuple(joules))
            self._news = True

    def asked(self, term: int, asked: EnergyAsked | None) -> None:
        """The coordinator of this term wants to be told, or, with None, not yet."""
        if asked is None:
            self._term = None
            return
        if term not in self._terms:
            self._before = self._counted(asked.counted)
            self._terms[term] = _Term(self._clock() - asked.uptime, self._before)
            while len(self._terms) > TERMS:
                del self._terms[min(self._terms)]
        self._term, self._news = term, True

    def told(self, *, whole: bool) -> Metered | None:
        """For the coordinator that has asked; None if nothing was read since, unless `whole` is wanted."""
        with self._lock:
            now = self._now
            if self._term is None or now is None or not (self._news or whole):
                return None
            self._news = False
            meters = [*self._meters.items()]
        self._told.append(_Told(self._term, self._clock(), now))
        before = self._before
        return Metered(
            seconds=round(now.seconds, 3),
            seconds_before=round(before.seconds, 3),
            meters=[
                Meter(
                    component=component,
                    source=source,
                    device=device,
                    joules=round(now.of(meter), 3),
                    before=round(before.of(meter), 3),
                )
                for (component, source, device), meter in meters
            ],
        )

    def _counted(self, counted: EnergyCounted | None) -> _Stand:
        """What had been told when it was counted last."""
        if counted is None:
            # What the coordinator before was told may be lost: better than to count it twice.
            return self._told[-1].stand if self._told else self._before
        if (term := self._terms.get(counted.term)) is None:
            return self._before  # nothing of this launcher was counted in that term
        mine = [told for told in self._told if told.term == counted.term]
        if at := bisect_right(mine, term.began + counted.uptime, key=lambda told: told.at):
            return mine[at - 1].stand
        # Nothing until then, or nobody remembers: then as if all that is forgotten had been counted.
        return mine[0].stand if mine and len(self._told) == REMEMBERED else term.before

    def _made(self) -> Sequence[Source]:
        try:
            return self._make()
        except (Unreadable, OSError) as error:
            log.warning("electricity is not measured", extra={"reason": repr(error)})
            return ()

    def _read(self, source: Source, passed: float) -> Sequence[Gain]:
        try:
            return list(source.read(passed))
        except (Unreadable, OSError) as error:
            name = type(source).__name__
            if name not in self._failed:  # said once: it may fail for ever
                self._failed.add(name)
                log.warning("electricity cannot be read", extra={"reading": name, "reason": repr(error)})
            return ()


__all__ = ["PERIOD_SECONDS", "EnergyMeter"]
