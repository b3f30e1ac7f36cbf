"""Who uses this machine's cluster? One at a time: its bridge, addresses and cgroups exist once a machine.

The lock is the kernel's, on an open file, so it ends with whoever holds it, however that ends. `scripts/e2e` holds it
for all that it runs and says so in the environment.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cluster.errors import InUse

HELD = "DRIVETRAIN_CLUSTER_LOCKED"
"""Set where a parent has the lock for us."""


def lock_file() -> Path:
    """Of the machine, not of a user or a cache; DRIVETRAIN_CLUSTER_LOCK is for tests of the lock."""
    return Path(os.environ.get("DRIVETRAIN_CLUSTER_LOCK", "/run/drivetrain-cluster.lock"))


@contextlib.contextmanager
def alone(what: str) -> Iterator[None]:
    """Nobody else changes the cluster meanwhile. Raises InUse at once, naming who does, if somebody else is at it."""
    if os.environ.get(HELD) or os.geteuid() != 0:  # without root nothing can be changed; that is said elsewhere
        yield
        return
    with lock_file().open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InUse(
                f"this machine's cluster is in use by {file.read().strip() or 'somebody'}; "
                "there can be one at a time: wait until that ends, or end it (kill PID; it clears up)"
            ) from None
        file.truncate(0)
        file.write(f"`{what}` (pid {os.getpid()}, in {os.getcwd()}, since {time.strftime('%H:%M:%S')})\n")
        file.flush()
        os.environ[HELD] = str(os.getpid())
        try:
            yield
        finally:
            del os.environ[HELD]
            file.truncate(0)
