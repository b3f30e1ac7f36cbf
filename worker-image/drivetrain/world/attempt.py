"""Which attempt of torchrun is this? A name that all ranks of it know, and that no earlier attempt had.

torchrun may keep one store over its restarts, so keys need the attempt's name in front of them. Its restart count is no
such name: an agent whose own rank failed counts a restart, one that only heard of it does not, and their ranks would
wait for each other under different keys until the time-out.
"""

from __future__ import annotations

import hashlib
import time
import uuid

from torch._C._distributed_c10d import Store

_POLL_SECONDS = 0.01


def agree(store: Store, rank: int, world: int, limit_seconds: float) -> str:
    """Call with the same `world` in all of its ranks. Raises TimeoutError when some of them do not come.

    Every rank leaves a mark that nobody had before. Rank 0 calls the roll of the marks until every rank has found its
    own in it and has answered; what was left behind by an earlier attempt is overwritten, or answers to another roll.
    """
    mark = uuid.uuid4().hex
    store.set(f"mark/{rank}", mark)
    end = time.monotonic() + limit_seconds
    while time.monotonic() < end:
        if rank == 0:
            roll = ",".join(_get(store, f"mark/{each}") for each in range(world))
            store.set("roll", roll)
            if all(_get(store, f"answer/{each}") == _name(roll) for each in range(1, world)):
                store.set("go", _name(roll))
                return _name(roll)
        else:
            roll = _get(store, "roll")
            marks = roll.split(",")
            if len(marks) == world and marks[rank] == mark:
                store.set(f"answer/{rank}", _name(roll))
                if _get(store, "go") == _name(roll):
                    return _name(roll)
        time.sleep(_POLL_SECONDS)
    raise TimeoutError(f"not all of {world} ranks have come within {limit_seconds:.0f} s (this is rank {rank})")


def _get(store: Store, key: str) -> str:
    return store.get(key).decode() if store.check([key]) else ""


def _name(roll: str) -> str:
    return hashlib.sha256(roll.encode()).hexdigest()[:16]
