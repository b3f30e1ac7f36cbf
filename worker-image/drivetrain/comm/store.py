"""The rendezvous store that a process group is built with: writes go to the coordinator, reads are local.

gloo sets one key a rank and then reads everybody's. The coordinator pushes the whole table as soon as every member
has set its key, so forming a group costs one round trip, needs no server in a rank and no second port.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from torch._C._distributed_c10d import Store

from drivetrain.comm.wait import Interrupt
from drivetrain.errors import CommFault


class LinkStore(Store):
    """A `torch.distributed.Store` for one membership epoch.

    `put` sends (key, value) towards the coordinator; `feed` is called from the link thread with each table. The first
    table means that every member has acknowledged the epoch; until then a read waits without a limit of its own,
    because members may first have to finish a long step. From then on peers have `deadline_seconds`.
    """

    def __init__(
        self, put: Callable[[str, bytes], None], interrupt: Interrupt, deadline_seconds: float, share: bytes = b""
    ) -> None:
        """`share`: goes before each value, so that the members have a `secret` without a message more."""
        super().__init__()
        self._share = share
        self._shares = {share}
        self._put = put
        self._interrupt = interrupt
        self._deadline = deadline_seconds
        self._entries: dict[str, bytes] = {}
        self._tabled: float | None = None
        self._news = threading.Condition()

    def feed(self, entries: dict[str, bytes]) -> None:
        """Take a table in. Entries are never changed or removed within an epoch."""
        with self._news:
            self._shares.update(value[: len(self._share)] for value in entries.values())
            self._entries.update({key: value[len(self._share) :] for key, value in entries.items()})
            self._tabled = self._tabled or time.monotonic()
            self._news.notify_all()

    def set(self, key: str, value: bytes | str) -> None:
        """Send the key to all members. Returns at once; the value is readable here immediately."""
        data = value.encode() if isinstance(value, str) else bytes(value)
        with self._news:
            self._entries[key] = data
        self._put(key, self._share + data)

    def get(self, key: str) -> bytes:
        """Return the value, waiting for it."""
        self.wait([key])
        return self._entries[key]

    def multi_get(self, keys: Sequence[str]) -> list[bytes]:
        """Return the values in the order of `keys`, waiting for all of them."""
        self.wait(list(keys))
        return [self._entries[key] for key in keys]

    def multi_set(self, keys: Sequence[str], values: Sequence[bytes | str]) -> None:
        """Set several keys."""
        for key, value in zip(keys, values, strict=True):
            self.set(key, value)

    def check(self, keys: Sequence[str]) -> bool:
        """Say whether all keys are here, without waiting."""
        return all(key in self._entries for key in keys)

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """Wait for all keys. Raises `MembershipOver`, or `CommFault` naming the missing keys."""
        with self._news:
            while not self.check(keys):
                self._pause(keys, timeout.total_seconds() if timeout else self._deadline)

    def secret(self, world: int) -> bytes:
        """What only the members of this epoch know, and those that their entries go through: made of a share of each
        of them. Raises `MembershipOver`, or `CommFault` when a peer's is not there."""
        with self._news:
            while len(self._shares) < world:
                self._pause([], self._deadline)
            if len(self._shares) != world:
                raise CommFault(f"rendezvous: {len(self._shares)} shares of {world} peers")
            return hashlib.sha256(b"".join(sorted(self._shares))).digest()

    def wait_tabled(self) -> None:
        """Wait until every member has acknowledged the epoch."""
        with self._news:
            while self._tabled is None:
                self._pause([], self._deadline)

    def _pause(self, missing: Sequence[str], seconds: float) -> None:
        self._interrupt.check()
        if self._tabled is not None and time.monotonic() > self._tabled + min(seconds, self._deadline):
            names = [key for key in missing if key not in self._entries]
            raise CommFault(f"rendezvous: no peer set {names[:3]} within {seconds:.0f} s")
        # A membership that ends does not notify this condition; 20 ms bounds how late it is seen, and only the helper
        # thread that forms a group ever waits here, never the training thread.
        self._news.wait(0.02)

    def set_timeout(self, timeout: timedelta) -> None:
        """Bound later reads."""
        self._deadline = timeout.total_seconds()
