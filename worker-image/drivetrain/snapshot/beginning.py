"""From which state does a job begin that has none? From its own last durable step, or another job's; and who reads
another's says so there, so that it stays until it was read."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from drivetrain import say
from drivetrain.errors import UsageError
from drivetrain.snapshot.errors import Missing, StorageError
from drivetrain.snapshot.found import Found, Point, Unreadable
from drivetrain.snapshot.frames import sealed
from drivetrain.snapshot.names import RUNS, pin_name
from drivetrain.snapshot.storage import Storage, write_own
from drivetrain_api.runtime import RuntimeBranch

T = TypeVar("T")
_LOOK_SECONDS: Final = 30.0
"""A storage that cannot be read at a job's start is tried for so long."""
_ATTEMPTS: Final = 5
"""To read what somebody deletes or has damaged meanwhile."""


def persistently(work: Callable[[], T]) -> T:
    """Do it, for a while also where the storage does not answer. Raises `StorageError`."""
    until, wait = time.monotonic() + _LOOK_SECONDS, 0.5
    while True:
        try:
            return work()
        except StorageError:
            if time.monotonic() > until:
                raise
        time.sleep(wait)
        wait = min(5.0, 2 * wait)


def looked_at(storage: Storage) -> Found:
    """What lies there. Raises `StorageError`."""
    return persistently(lambda: Found.of(storage))


def best(found: Found, least: float, most: float, restore: Callable[[Found, Point], None]) -> Point | None:
    """Restore the last step from `least` to `most` that can be, going around what is damaged; None if there is none.

    Raises `StorageError` if a restore has ended half-way and there is no other: this process has parts of a state.
    """
    half = False
    for _ in range(_ATTEMPTS):
        point = found.verified(most)
        if point is None or point.step < least:
            break
        try:
            restore(found, point)
        except (Unreadable, Missing):  # deleted or damaged since it was verified
            found, half = looked_at(found.storage), True
        else:
            tell_damage(found)
            return point
    tell_damage(found)
    if half:
        raise StorageError(f"{found.storage}: what was being restored is gone, and no other step can be gone back to")
    return None


def tell_damage(found: Found) -> None:
    """On stderr, each object that is not as it was written."""
    for name, what in found.damaged.items():
        say.note(f"snapshots: {found.storage}/{name}: {what}", level="warning")


@dataclass(slots=True)
class Pin:
    """While it is there, nothing goes that whoever has set it needs."""

    storage: Storage
    reader: str
    name: str | None = None

    def on(self, run: int, step: int) -> None:
        """From this step on. Raises `StorageError`."""
        name = pin_name(run, step, secrets.token_hex(8))
        text = sealed({"run": run, "step": step, "reader": self.reader})
        persistently(lambda: write_own(self.storage, name, [text]))
        self.off()
        self.name = name

    def off(self) -> None:
        """It was read. What cannot be deleted counts for some hours (prune.py)."""
        name, self.name = self.name, None
        if name is not None:
            try:
                self.storage.delete([name])
            except StorageError as error:
                say.note(f"snapshots: {name} stays: {error}", level="warning")


def folder_of(parent: Storage, job: str, reader: str = "") -> str:
    """The folder of a job's snapshots among those of others. `job`: its name, or that of the folder. `reader`: whoever
    asks: its own folder is not another job's, though its name may be (a job that was deleted and made again).

    Raises `UsageError` that says which there are, `StorageError`.
    """
    pattern = re.compile(rf"^{re.escape(job)}(-[0-9a-f]{{8}})?/{re.escape(RUNS)}")
    found = {name.partition("/")[0] for name in persistently(lambda: parent.list(job)) if pattern.match(name)}
    found.discard(reader.removeprefix(f"{parent}/"))
    if job in found:
        return job
    if len(found) != 1:
        there = f"several jobs had the name: say which of {', '.join(sorted(found))}" if found else "it has none there"
        raise UsageError(f"spec.restoreFrom.job {job}: snapshots are looked for in {parent}, and {there}")
    return found.pop()


def branched(
    branch: RuntimeBranch,
    storage_at: Callable[[str], Storage],
    reader: str,
    restore: Callable[[Found, Point], None],
) -> tuple[Pin, dict[str, Any]]:
    """Restore another job's step. Returns what keeps it there, and what is written of where this job comes from.

    Raises `UsageError` if there is no such step, `StorageError`.
    """
    place = f"{branch.storage}/{folder_of(storage_at(branch.storage), branch.job, reader)}"
    pin = Pin(storage_at(place), reader)
    pin.on(0, 0)
    try:
        found = looked_at(pin.storage)
        wanted = float("inf") if branch.step is None else branch.step

        def exactly(found: Found, point: Point) -> None:
            if branch.step is not None and point.step != branch.step:
                raise UsageError(_no_such_step(branch, found))
            pin.on(point.base.run, point.base.step)
            restore(found, point)

        point = best(found, 0, wanted, exactly)
        if point is None:
            raise UsageError(_no_such_step(branch, found))
    except BaseException:
        pin.off()
        raise
    return pin, {"storage": place, "step": point.step}


def _no_such_step(branch: RuntimeBranch, found: Found) -> str:
    spans = [f"{first} to {last}" for first, last in found.reachable()]
    there = f"those it has are {', '.join(spans)}" if spans else "it has none that can be restored"
    wanted = "any step" if branch.step is None else f"step {branch.step}"
    return f"spec.restoreFrom: {wanted} of job {branch.job} is not in {found.storage}: {there}"
