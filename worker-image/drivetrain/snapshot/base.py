"""How does a base become durable? Piece by piece, beside training. Knows nothing of torch.

Each rank has a share of the parameters, which it hands over in units: elements of a parameter with the optimizer's
state of them, as they are when a step begins. A unit may be handed over some steps after the first one: whoever
restores puts it in its place when the replay has come to that step. So training never stops for a full copy.

When all of a rank's share is written, and was read back, the rank says so. When all ranks have, and all elements of all
parameters are there, the speaker writes the manifest: only then is there a base.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from drivetrain.snapshot.background import Background, persistently, say
from drivetrain.snapshot.codec import pack
from drivetrain.snapshot.errors import Damaged, Missing, StorageError
from drivetrain.snapshot.frames import Builder, sealed, unsealed
from drivetrain.snapshot.keys import Key, Seat
from drivetrain.snapshot.names import BaseName
from drivetrain.snapshot.storage import Storage, write_own
from drivetrain.snapshot.units import Unit

PACK_BYTES: Final = 128 << 20
_LOOK_SECONDS: Final = (0.2, 5.0)
"""Between two looks for other ranks' shares: at first, and at most."""
_TELL_SECONDS: Final = 60.0
"""After which it is told whose share has not come: that rank tells nobody what its storage says."""
_WAIT_SECONDS: Final = 900.0
"""For a share of another rank; then there is no base, and the next one is tried."""


@dataclass(slots=True)
class _Share:
    """What this rank has written of a base."""

    name: BaseName
    seat: Seat
    builder: Builder
    packs: list[dict[str, Any]] = field(default_factory=list)
    units: list[list[Any]] = field(default_factory=list)
    last: int = 0


class Bases:
    """Those that one rank writes a share of, one at a time."""

    def __init__(self, storage: Storage, most_bytes: int) -> None:
        self._storage = storage
        self._share: _Share | None = None
        self._seat: Seat | None = None
        """Of the newest; those of other memberships are given up."""
        self._handed_over = True
        self._begun: BaseName | None = None
        """The newest."""
        self._wrong: BaseName | None = None
        """This one and those before it never become complete: what they have may be wrong."""
        self.thread = Background("drivetrain-base", most_bytes)
        self.complete: BaseName | None = None
        """The newest that this rank, as the speaker, has written the manifest of."""
        self.complete_from = 0
        """The first step that one can go on with from that."""
        self.written_bytes = 0
        self.failure: str | None = None
        self.on_complete: Callable[[BaseName], None] = lambda name: None
        """Called in the thread, on the speaker."""

    def begin(self, name: BaseName, seat: Seat, small: bytes) -> None:
        """A share of a new base begins; one that is not complete is given up. `small`: of the speaker, what belongs to
        the base beside parameters."""
        if not self._handed_over:
            self.thread.put(self._give_up, 0, anyway=True)
        self._seat, self._handed_over, self._begun = seat, False, name
        self.thread.put(lambda: self._begin(name, seat, small), len(small), anyway=True)

    def abandon(self) -> None:
        """What has begun and is not complete never will be, also if all was handed over; nobody waits for other ranks'
        shares of it."""
        self._wrong = self._begun

    def skip(self, name: BaseName, seat: Seat) -> None:
        """This rank has no share of this one."""
        share = _Share(name, seat, self._builder(name, seat))
        self.thread.put(lambda: self._say_over(share), 0, anyway=True)

    def room(self, size: int) -> bool:
        """Whether a unit of so many bytes may be handed over now."""
        return self.thread.room(size)

    def add(self, unit: Unit) -> None:
        """One more unit; whoever can wait for room does."""
        self.thread.put(lambda: self._add(unit), unit.bytes, anyway=True)

    def finish(self, sizes: Mapping[str, int], last: int) -> None:
        """The share is handed over, the last of it before step `last`. `sizes`: of the speaker, elements of all
        parameters."""
        self._handed_over = True
        self.thread.put(lambda: self._finish(sizes, last), 0, anyway=True)

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _begin(self, name: BaseName, seat: Seat, small: bytes) -> None:
        self._share = share = _Share(name, seat, self._builder(name, seat))
        if small:
            kind, packed = pack(small)
            share.builder.add({"kind": "small", "small": [kind, len(small)]}, [packed])

    def _builder(self, name: BaseName, seat: Seat) -> Builder:
        return Builder(
            {"of": "base", "run": name.run, "step": name.step, "epoch": name.epoch}
            | {"rank": seat.rank, "world": seat.world}
        )

    def _add(self, unit: Unit) -> None:
        share = self._share
        if share is None or self._is_over(share):
            return
        header, parts = unit.encoded()
        share.builder.add({"kind": "unit", **header}, parts)
        share.units.append([*unit.key.told(), unit.step])
        if share.builder.size >= PACK_BYTES:
            try:
                self._write(share)
            except StorageError as error:
                self.failure, self._share = str(error), None
            share.builder = self._builder(share.name, share.seat)

    def _write(self, share: _Share) -> None:
        name = share.name.pack(share.seat.rank, share.seat.world, len(share.packs))
        chunks = share.builder.end()
        hasher = hashlib.sha256()
        for chunk in chunks:
            hasher.update(chunk)
        if not self._persist(share, lambda: write_own(self._storage, name, chunks)):
            self._share = None
            return
        self.written_bytes += share.builder.size
        found = self._storage.read(name)
        if hashlib.sha256(found).hexdigest() != hasher.hexdigest():
            self.failure = f"{self._storage}: what was written as {name} reads back as something else"
            self._share = None
            return
        share.packs.append({"name": name, "bytes": share.builder.size, "sha256": hasher.hexdigest()})

    def _finish(self, sizes: Mapping[str, int], last: int) -> None:
        share = self._share
        if share is None or self._is_over(share):
            return
        try:
            self._write(share)
            if self._share is None:
                return
            self._share = None
            name = share.name.share(share.seat.rank, share.seat.world)
            text = sealed({"packs": share.packs, "units": share.units, "last": last})
            if self._persist(share, lambda: write_own(self._storage, name, [text])) and share.seat.speaks:
                self._complete(share, sizes)
        except (StorageError, Damaged) as error:
            self.failure = str(error)

    def _give_up(self) -> None:
        """The share will not be whole: whoever waits for it need not."""
        share, self._share = self._share, None
        if share is not None:
            self._say_over(share)

    def _say_over(self, share: _Share) -> None:
        if not self._is_over(share):
            name = share.name.share(share.seat.rank, share.seat.world)
            self._persist(share, lambda: write_own(self._storage, name, [sealed({"over": True})]))

    def _complete(self, share: _Share, sizes: Mapping[str, int]) -> None:
        """Wait for the shares of all ranks, and write the manifest."""
        shares, sums = [], []
        for rank in range(share.seat.world):
            text = self._share_of(share, rank)
            if text is None:
                return
            shares.append(unsealed(text))
            if "over" in shares[-1]:
                return
            sums.append(hashlib.sha256(text).hexdigest())
        missing = uncovered([Key.read(unit[:5]) for each in shares for unit in each["units"]], sizes)
        if missing:
            self.failure = f"the base of step {share.name.step} lacks {missing}"
            return
        manifest = {
            "run": share.name.run,
            "epoch": share.name.epoch,
            "first": share.name.step,
            "last": max(each["last"] for each in shares),
            "world": share.seat.world,
            "shares": sums,
            "bytes": sum(pack["bytes"] for each in shares for pack in each["packs"]),
        }
        text = sealed(manifest)
        if self._is_over(share):
            return
        if self._persist(share, lambda: write_own(self._storage, share.name.manifest, [text])):
            self.complete, self.complete_from = share.name, manifest["last"]
            self.on_complete(share.name)

    def _share_of(self, share: _Share, rank: int) -> bytes | None:
        """What another rank says of its share; None if that does not come."""
        name, began, wait = share.name.share(rank, share.seat.world), time.monotonic(), _LOOK_SECONDS[0]
        late = f"rank {rank} has not written its share of the base of step {share.name.step}: see its log"
        while True:
            try:
                found = self._storage.read(name)
                if self.failure == late:
                    self.failure = None
                return found
            except Missing:
                if time.monotonic() - began > _TELL_SECONDS:
                    self.failure = late
            except StorageError as error:
                self.failure = str(error)
            until = time.monotonic() + wait
            while time.monotonic() < until:
                if self._is_over(share) or time.monotonic() - began > _WAIT_SECONDS:
                    return None
                time.sleep(0.05)
            wait = min(_LOOK_SECONDS[1], 1.5 * wait)

    def _is_over(self, share: _Share) -> bool:
        wrong = self._wrong
        return share.seat != self._seat or self.thread.ended or (wrong is not None and share.name <= wrong)

    def _persist(self, share: _Share, work: Callable[[], None]) -> bool:
        def failed(message: str) -> None:
            say(message, self.failure)
            self.failure = message

        done = persistently(work, failed, lambda: self._is_over(share))
        if done:
            self.failure = None
        return done


def uncovered(keys: Sequence[Key], sizes: Mapping[str, int]) -> str:
    """Name of a parameter that these keys are not all of; empty if they are all of all. `sizes`: elements by name."""
    by_name: dict[str, list[Key]] = {}
    for key in keys:
        by_name.setdefault(key.name, []).append(key)
    for name, size in sizes.items():
        of = max((each.part[2] for each in by_name.get(name, ()) if each.part), default=1)
        for index in range(of):
            at = 0
            mine = [each for each in by_name.get(name, ()) if (each.part[1] if each.part else 0) == index]
            for each in sorted(mine, key=lambda each: each.first):
                if each.first > at:
                    break
                at = max(at, each.last)
            if at < size // of:
                return name
    return ""
