"""Gradients on CUDA go by NCCL; everything else (state, positions, scripts' groups) stays on gloo.

NEVER RUN ON A GPU: written from torch's source; `tests/gpu/check.sh` is what runs it. What it must get right: NCCL's
`wait` only orders streams, so an optimizer's kernels may be queued before anybody knows whether the collective
succeeded, and an abort then lets them run on half of a gradient. Hence the host confirms each reduction by its event
before `wait` returns. The event is on a stream of its own: backward's kernels do not queue behind the collective.

NCCL is used only if every rank has a GPU to itself, which all of them find out together: two ranks of one communicator
on one GPU are an error in NCCL, and a rank that went another way than the others would wait for ever.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import torch
from torch._C._distributed_c10d import AllreduceOptions, PrefixStore, Store

from drivetrain.comm.quarantine import Quarantine
from drivetrain.comm.wait import Interrupt
from drivetrain.errors import CommFault
from drivetrain.telemetry.flight import UNRECORDED, Calls, State

if TYPE_CHECKING:
    from drivetrain.comm.transport import Transport

_POLL_SECONDS: Final = 50e-6
_QUARANTINE_POLL_SECONDS: Final = 0.05
_CLOSE_SECONDS: Final = 5.0
_TIMEOUT: Final = timedelta(hours=24)
"""NCCL's own watchdog ends the process; detecting a stuck job is the coordinator's business."""

_ENVIRONMENT: Final = {
    # torch's watchdog would end this process when a peer dies, instead of telling it.
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
    # Its monitor asks the store from a thread of its own, and ends the process if that takes long.
    "TORCH_NCCL_ENABLE_MONITORING": "0",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "0",
}
_NAME_BYTES: Final = 16


class NcclPending:
    """One all-reduce in flight on the device."""

    def __init__(
        self,
        link: Nccl,
        work: Any,
        tensors: Sequence[torch.Tensor],
        blocked: Callable[[bool], None],
        calls: Calls = UNRECORDED,
    ) -> None:
        self._link = link
        self._work = work
        self._tensors = tensors
        self._blocked = blocked
        self._calls = calls
        self._ticket = calls.begin("all-reduce", tensors[-1].nbytes, tensors[-1].dtype)
        with torch.cuda.stream(link.confirming):
            work.wait()  # orders this stream behind it; host and backward go on
            self._event = torch.cuda.Event()
            self._event.record()

    @property
    def done(self) -> bool:
        """The device is through with it."""
        return bool(self._event.query())

    def wait(self) -> None:
        """Return when the host knows that the sum is in the tensor. Raises `MembershipOver` or `CommFault`."""
        self._blocked(True)
        self._calls.wait(self._ticket)
        state = State.ABANDONED
        try:
            while not self.done:
                self._link.interrupt.check()
                error = self._work.exception()
                if error is not None:
                    state = State.FAILED
                    raise CommFault(f"NCCL all-reduce: {error}")
                time.sleep(_POLL_SECONDS)
            state = State.DONE
        except RuntimeError as error:
            state = State.FAILED
            raise CommFault(f"NCCL all-reduce: {error}") from error
        finally:
            self._blocked(False)
            self._calls.end(self._ticket, state)
        self._link.interrupt.check()

    def abandon(self, quarantine: Quarantine) -> None:
        """Abort the communicator, and keep the tensors until the device is through with them."""
        if self.done:
            return
        self._link.abort()
        over = threading.Event()

        def watch() -> None:
            try:
                while not self._event.query():
                    time.sleep(_QUARANTINE_POLL_SECONDS)
            except RuntimeError:
                return  # the device is in error: nothing of it may be used again, so the quarantine stays
            over.set()

        quarantine.hold(over.is_set, self._link, self._tensors, self._work)
        threading.Thread(target=watch, name="drivetrain-nccl-quarantine", daemon=True).start()


class Nccl:
    """The communicator of one membership on one device."""

    def __init__(self, group: Any, device: torch.device, interrupt: Interrupt) -> None:
        self._group = group
        self._aborting: threading.Thread | None = None
        self.interrupt = interrupt
        self.confirming = torch.cuda.Stream(device)
        """Waits for collectives, one after the other, and does nothing else."""

    def all_reduce(
        self, tensor: torch.Tensor, blocked: Callable[[bool], None], calls: Calls = UNRECORDED
    ) -> NcclPending:
        """Start summing `tensor` over all ranks, in place."""
        self.interrupt.check()
        try:
            return NcclPending(self, self._group.allreduce([tensor], AllreduceOptions()), [tensor], blocked, calls)
        except RuntimeError as error:
            raise CommFault(f"NCCL all-reduce: {error}") from error

    def abort(self) -> None:
        """End everything in flight. Any number of times; in a thread, because it may wait for the device."""
        if self._aborting is None:
            self._aborting = threading.Thread(target=self._group.abort, name="drivetrain-nccl-abort", daemon=True)
            self._aborting.start()

    def close(self) -> None:
        """The process ends: abort, and wait for that, but not for ever."""
        self.abort()
        assert self._aborting is not None
        self._aborting.join(_CLOSE_SECONDS)


def connect_nccl(store: Store, transport: Transport, deadline_seconds: float) -> Nccl | None:
    """Connect all ranks of `transport`, which call this at the same place; None unless each has a GPU to itself.

    Raises `MembershipOver` or `CommFault`.
    """
    if transport.world == 1 or not torch.distributed.is_nccl_available():
        return None
    table = transport.all_gather(_name_of_gpu())
    names = {bytes(each.tolist()) for each in table}
    if bytes(_NAME_BYTES) in names or len(names) < transport.world:
        return None
    return open_nccl(store, transport.rank, transport.world, transport.interrupt, deadline_seconds)


def open_nccl(store: Store, rank: int, world: int, interrupt: Interrupt, deadline_seconds: float) -> Nccl:
    """A communicator of so many ranks, on their current devices. Raises `MembershipOver` or `CommFault`."""
    device = torch.device("cuda", torch.cuda.current_device())
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)

    def connect() -> Any:
        from torch._C._distributed_c10d import ProcessGroupNCCL

        options = ProcessGroupNCCL.Options()
        options._timeout = _TIMEOUT
        group = ProcessGroupNCCL(PrefixStore("nccl", store), rank, world, options)
        group.eager_connect_single_device(device)
        return group

    return Nccl(interrupt.call(connect, deadline_seconds, "connecting NCCL"), device, interrupt)


def _name_of_gpu() -> torch.Tensor:
    """What tells this rank's GPU from all others, in 16 bytes; zeros if it has none."""
    if not torch.cuda.is_available():
        return torch.zeros(_NAME_BYTES, dtype=torch.uint8)
    unique = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    return torch.tensor(list(hashlib.sha256(unique.encode()).digest()[:_NAME_BYTES]), dtype=torch.uint8)
