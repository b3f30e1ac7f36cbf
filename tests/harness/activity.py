"""What have a test's processes done? The one clock that a limit of a test may watch.

A limit on the clock of the wall says how fast the machine is: a job that is worked on is ended because a neighbour has
the processor. What hangs is known by something else: none of its processes runs, waits for a processor or for the disk.
`Stillness` counts the seconds of which that is true, so they are the same on a fast machine and on one that is ten
times as slow, and what sleeps on purpose takes the time that it says.

The test's processes are this one, those that carry its mark in their environment, and all that descends from them.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

MARK = "DRIVETRAIN_TESTS"
"""The variable that `mark` puts into the environment of whatever a test starts."""
_DISK = "D"


_also: set[bytes] = set()


def mark() -> None:
    """From here on everything that this process starts is known to be a test's."""
    os.environ[MARK] = str(os.getpid())


def also(variable: str) -> None:
    """What has this variable in its environment, whoever started it, is worked with by this test too."""
    _also.add(variable.encode())


@dataclass(frozen=True)
class _Process:
    """A line of /proc/PID/stat: enough to tell processes apart and to know what they wait for."""

    pid: int
    started: int
    parent: int
    state: str


@dataclass
class _Family:
    """Whose is a process? Remembered, because it never changes, and reading an environment takes a while."""

    ours: dict[tuple[int, int], bool] = field(default_factory=dict)

    def members(self) -> list[_Process]:
        """All living processes of this test."""
        alive = {found.pid: found for name in os.listdir("/proc") if name.isdecimal() and (found := _read(int(name)))}
        known = {(each.pid, each.started): False for each in alive.values()}
        self.ours = {key: is_ours for key, is_ours in self.ours.items() if key in known}
        return [each for each in alive.values() if self._is_ours(each, alive)]

    def _is_ours(self, process: _Process, alive: dict[int, _Process]) -> bool:
        key = (process.pid, process.started)
        if key not in self.ours:
            parent = alive.get(process.parent)
            self.ours[key] = (
                process.pid == os.getpid()
                or _carries_mark(process.pid)
                or (parent is not None and self._is_ours(parent, alive))
            )
        return self.ours[key]


class Stillness:
    """A stopwatch that stands still while a process of this test works. Starts when it is made."""

    def __init__(self) -> None:
        self._family = _Family()
        self._at = time.monotonic()
        self._seconds = 0.0
        self._busy = self._look()[0]

    def seconds(self) -> float:
        """Seconds since the start in which nothing was done. Ask once a second or so: what lies between two looks is
        taken together, and what began and ended between them is not seen."""
        busy, waits_for_disk = self._look()
        now = time.monotonic()
        elapsed = now - self._at
        worked = sum(ns - self._busy.get(thread, 0) for thread, ns in busy.items()) / 1e9
        self._busy, self._at = busy, now
        if not waits_for_disk:
            self._seconds += max(0.0, elapsed - worked)
        return self._seconds

    def _look(self) -> tuple[dict[tuple[int, int, int], int], bool]:
        """Nanoseconds in which each thread ran or waited to run, and whether any process waits for the disk."""
        busy: dict[tuple[int, int, int], int] = {}
        members = self._family.members()
        for process in members:
            for thread, nanoseconds in _threads(process.pid).items():
                busy[process.pid, process.started, thread] = nanoseconds
        return busy, any(process.state == _DISK for process in members)


def _read(pid: int) -> _Process | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # the name before it may hold anything
    except OSError:
        return None
    return _Process(pid, int(fields[19]), int(fields[1]), fields[0].decode())


def _carries_mark(pid: int) -> bool:
    """Nobody's environment can be read in the middle of an exec; then the parent tells whose it is."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:
        return False
    mine = f"{MARK}={os.getpid()}".encode()
    return any(each == mine or each.partition(b"=")[0] in _also for each in variables)


def _threads(pid: int) -> dict[int, int]:
    """Nanoseconds in which each thread ran or stood in a queue for it (schedstat's first two numbers)."""
    found: dict[int, int] = {}
    try:
        for name in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{name}/schedstat") as file:
                ran, queued, _ = file.read().split()
            found[int(name)] = int(ran) + int(queued)
    except (OSError, ValueError):
        pass  # it ended while we looked, or this kernel does not count
    return found
