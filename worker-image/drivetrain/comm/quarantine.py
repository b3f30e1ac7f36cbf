"""Where tensors of abandoned operations stay until nothing can write into them any more, and groups until they may go.

A peer that was frozen in the middle of an all-reduce and wakes up later completes the operation: its bytes land in our
tensor, whatever that memory is used for by then (measured: 67–100 % of a reused tensor overwritten). So an abandoned
operation keeps its tensors here until its future is done. gloo completes that future only after the operation's own
buffers are unregistered, which happens when its peers are dead or have sent everything.

A group has a rule of its own: destroying it joins its threads. The callback of a failed operation runs on one of them,
and if it holds the last reference, that thread joins itself and ends the process ("Resource deadlock avoided": a
survivor died so in 2 of 20 kills during a promotion). So every group is kept here until nobody else knows it.

And no group may outlive the interpreter. gloo's thread enters Python once more after the callback that tells of an
operation's end, to let go of it; if Python is already ending, that is the end of the thread, which C++ answers with
"terminate called without an active exception" (seen in 2 of 40 ranks that ended right after their last all-reduce).

A forked child must not destroy a group at all: it would wait for threads that only its parent has.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch


@dataclass(frozen=True, slots=True)
class Held:
    """One abandoned operation: what it may still write to, and what tells when it is over."""

    done: Callable[[], bool]
    group: object
    """Which group it belongs to; destroying that would wait for the operation."""
    tensors: tuple[torch.Tensor, ...]
    keep_alive: tuple[object, ...]
    since: float = field(default_factory=time.monotonic)


class Quarantine:
    """All abandoned operations of this process."""

    def __init__(self) -> None:
        self._held: list[Held] = []

    def hold(
        self, done: Callable[[], bool], group: object, tensors: Sequence[torch.Tensor], *keep_alive: object
    ) -> None:
        """Keep `tensors`, and what else the operation needs, until it is `done()`."""
        self._held.append(Held(done, group, tuple(tensors), keep_alive))

    def sweep(self) -> int:
        """Let go of everything whose operation is over; return how many are left."""
        self._held = [held for held in self._held if not held.done()]
        destroy_unused_groups()
        return len(self._held)

    def stuck_groups(self, older_than_seconds: float) -> int:
        """How many groups have an operation that was abandoned so long ago and is not over."""
        before = time.monotonic() - older_than_seconds
        return len({id(held.group) for held in self._held if held.since < before})


_OUT_OF_PYTHON_SECONDS: Final = 0.05
"""For the threads of groups that a script still holds: all that can be done for them is to leave Python to them."""

_groups: list[Any] = []
_lock = threading.Lock()


def _keep_for_ever() -> None:
    for group in _groups:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))


os.register_at_fork(after_in_child=_keep_for_ever)


def keep_group(group: Any) -> None:
    """From now on only `destroy_unused_groups` drops the last reference to this group."""
    with _lock:
        _groups.append(group)


def destroy_unused_groups() -> threading.Thread | None:
    """Destroy the groups that nobody else holds, on a thread of its own (returned): it waits for theirs."""
    unused: list[Any] = []
    with _lock:
        for index in reversed(range(len(_groups))):
            if sys.getrefcount(_groups[index]) == 2:  # this list, and the argument of the call
                unused.append(_groups.pop(index))
    if not unused:
        return None
    thread = threading.Thread(target=unused.clear, name="drivetrain-destroy-groups", daemon=True)
    thread.start()
    return thread


def destroy_groups(seconds: float) -> None:
    """Destroy all groups that can be, because the process ends; returns after `seconds` at the latest."""
    thread = destroy_unused_groups()
    if thread is not None:
        thread.join(seconds)
    if _groups:
        time.sleep(_OUT_OF_PYTHON_SECONDS)
