"""How many watts may a power domain draw now? What a person or a program wrote into a ConfigMap, or a feed tells.

The ConfigMap is not the chart's: `kubectl create configmap drivetrain-power-limits --from-literal=hall-1=75%`, and
`kubectl delete` when it is over; or `'hall-1=75% until 2026-12-01T18:00:00Z'`, which ends by itself and is planned
with. An entry that cannot be read is said, and the one before it holds: a typing error in an emergency is no leave to
draw more.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from drivetrain_api.energy_spec import moment
from drivetrain_energy.power.demand import watts_of
from drivetrain_energy.settings import PowerDomain
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import KubeError, NotFound
from drivetrain_operator.kube.resources import CONFIGMAPS

log = logging.getLogger(__name__)

SHOWN: Final = 40
"""Characters of an entry, in the status of each job of the domain."""


@dataclass(frozen=True, slots=True)
class Limited:
    """What a domain is told to keep to."""

    watts: float
    why: str
    until: float | None = None
    """When it ends, in seconds since 1970; None: nobody says."""


class WrittenLimits:
    """Entries of the ConfigMap, by domain. While the API server does not answer, the last ones hold."""

    def __init__(self, client: KubeClient, namespace: str, name: str) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._said: dict[str, str] = {}
        """What is wrong with each domain's entry, and ("") with reading at all."""
        self._readable: dict[str, str] = {}
        """The last entry of each domain that was."""
        self.entries: Mapping[str, str] = {}
        self.known = not name
        """Whether the API server has ever said what there is."""

    async def look(self) -> None:
        """Read it again. Raises nothing."""
        if not self._name:
            return
        try:
            found = await self._client.get(CONFIGMAPS, self._name, self._namespace, timeout=5.0)
        except NotFound:
            self.entries, self.known = {}, True
            return
        except KubeError as error:
            self._tell("", f"ConfigMap {self._name}: {error}")
            return
        self.known = True
        self._said.pop("", None)
        data = found.get("data")
        self.entries = {str(k): str(v) for k, v in data.items()} if isinstance(data, dict) else {}

    def of(self, domain: PowerDomain, whole: float, now: float) -> Limited | None:
        """`whole`: watts that it draws, or may draw, without a limit."""
        entry = self.entries.get(domain.name)
        if entry is None:
            self._readable.pop(domain.name, None)
            self._said.pop(domain.name, None)
            return None
        try:
            watts, until = read(entry, whole)
            self._said.pop(domain.name, None)
        except ValueError as error:
            self._tell(domain.name, f"ConfigMap {self._name}, {domain.name}: {error}")
            entry = self._readable.get(domain.name)
            if entry is None:
                return None
            watts, until = read(entry, whole)
        self._readable[domain.name] = entry
        if until is not None and until <= now:
            return None
        return Limited(watts, f"ConfigMap {self._name} limits {domain.name} to {entry.strip()[:SHOWN]}", until)

    def _tell(self, of: str, problem: str) -> None:
        """Once, until it is another."""
        if self._said.get(of) != problem:
            log.error("a limit of power cannot be read", extra={"error": problem})
        self._said[of] = problem


def read(entry: str, whole: float) -> tuple[float, float | None]:
    """`75%`, `12000`, or either with `until` and a time: its watts, and its end in seconds since 1970. ValueError if it
    is none of those."""
    amount, *rest = entry.split() or [entry]
    if not rest:
        return watts_of(amount, whole), None
    if len(rest) != 2 or rest[0] != "until":
        raise ValueError(f"a limit is such as 75%, 12000 or 75% until 2026-12-01T18:00:00Z, not {entry[:SHOWN]!r}")
    return watts_of(amount, whole), _end(rest[1])


def _end(text: str) -> float:
    try:
        end = moment(text)
    except ValueError:
        end = None
    if end is None or end.tzinfo is None:
        raise ValueError(
            f"the end of a limit is a time with its zone, such as 2026-12-01T18:00:00Z, not {text[:SHOWN]!r}"
        )
    return end.timestamp()


__all__ = ["Limited", "WrittenLimits", "read"]
