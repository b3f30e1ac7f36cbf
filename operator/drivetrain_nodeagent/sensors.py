"""What Linux tells of a node's processors: energy by RAPL (/sys/class/powercap), temperatures by hwmon
(/sys/class/hwmon).

Neither is there in most virtual machines. RAPL wants root, and its counters go round.
"""

from __future__ import annotations

from pathlib import Path

_MOST_SENSORS = 256
_SANE_CELSIUS = (-40.0, 150.0)


class Rapl:
    """Joules since we began, by zone: `package-0`, `dram-0`. Parts of a package (core, uncore) are in it already."""

    def __init__(self, sys: Path) -> None:
        self._zones = {
            name: path for path in _folders(sys / "class" / "powercap", "intel-rapl:*") if (name := _zone(path))
        }
        self._last: dict[str, int] = {}
        self._joules: dict[str, float] = {}

    def read(self) -> dict[str, float]:
        """All zones that can be read. Called at least once a minute, or a round of a counter is missed."""
        for name, path in self._zones.items():
            value = _number(path / "energy_uj")
            if value is None:
                continue
            if name in self._last:
                step = value - self._last[name]
                if step < 0:
                    step += (_number(path / "max_energy_range_uj") or 0) + 1
                # A counter that was reset, and no range to tell by: nothing is known of that stretch.
                self._joules[name] = self._joules.get(name, 0.0) + max(0, step) / 1e6
            else:
                self._joules.setdefault(name, 0.0)
            self._last[name] = value
        return dict(self._joules)


def hottest(sys: Path) -> float | None:
    """Degrees of the hottest sensor."""
    inputs = [path for chip in _folders(sys / "class" / "hwmon", "hwmon*") for path in sorted(chip.glob("temp*_input"))]
    values = [value / 1000 for path in inputs[:_MOST_SENSORS] if (value := _number(path)) is not None]
    # Some chips have inputs to which nothing is connected.
    sane = [value for value in values if _SANE_CELSIUS[0] <= value <= _SANE_CELSIUS[1]]
    return max(sane, default=None)


def cgroup(proc: Path, pid: int) -> str | None:
    """Of a process; None: it is gone."""
    try:
        return (proc / str(pid) / "cgroup").read_text()
    except OSError:
        return None


def _zone(path: Path) -> str | None:
    """A name for a zone that counts what no other does; None for a part of another."""
    package, _, part = path.name.removeprefix("intel-rapl:").partition(":")
    try:
        name = (path / "name").read_text().strip()
    except OSError:
        return None
    if not part:
        return name if name.startswith("package") else None  # psys has the packages in it
    return f"dram-{package}" if name == "dram" else None


def _folders(parent: Path, pattern: str) -> list[Path]:
    return sorted(parent.glob(pattern)) if parent.is_dir() else []


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


__all__ = ["Rapl", "cgroup", "hottest"]
