"""Gradients on CUDA go by NCCL; everything else (state, positions, scripts' groups) stays on gloo.

NEVER RUN: written on machines without a GPU, from torch's source. What it must get right: NCCL's `wait` only orders
streams, so an optimizer's kernels may be queued before anybody knows whether the collective succeeded, and an abort
then lets them run on half of a gradient. Hence the host confirms each reduction by its event before `wait` returns.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

import torch
from torch._C._distributed_c10d import AllreduceOptions, PrefixStore, Store

from drivetrain.comm.quarantine import Quarantine
from drivetrain.comm.wait import Interrupt
from drivetrain.errors import CommFault

_POLL_SECONDS: Final = 50e-6
_QUARANTINE_POLL_SECONDS: Final = 0.05
_TIMEOUT: Final = timedelta(hours=24)
"""NCCL's own watchdog ends the process; detecting a stuck job is the coordinator's business."""


class NcclPending:
    """One all-reduce in flight on the device."""

    def __init__(self, link: Nccl, work: Any, tensors: Sequence[torch.Tensor], blocked: Callable[[bool], None]) -> None:
        self._link = link
        self._work = work
        self._tensors = tensors
        self._blocked = blocked
        work.wait()  # orders the current stream behind it; the host goes on
        self._event = torch.cuda.Event()
        self._event.record()

    @property
    def done(self) -> bool:
        """The device is through with it."""
        return bool(self._event.query())

    def wait(self) -> None:
        """Return when the host knows that the sum is in the tensor. Raises `MembershipOver` or `CommFault`."""
        self._blocked(True)
        try:
            while not self.done:
                self._link.interrupt.check()
                error = self._work.exception()
                if error is not None:
                    raise CommFault(f"NCCL all-reduce: {error}")
                time.sleep(_POLL_SECONDS)
        except RuntimeError as error:
            raise CommFault(f"NCCL all-reduce: {error}") from error
        finally:
            self._blocked(False)
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

    def __init__(self, group: Any, interrupt: Interrupt) -> None:
        self._group = group
        self._aborted = False
        self.interrupt = interrupt

    def all_reduce(self, tensor: torch.Tensor, blocked: Callable[[bool], None]) -> NcclPending:
        """Start summing `tensor` over all ranks, in place."""
        self.interrupt.check()
        try:
            return NcclPending(self, self._group.allreduce([tensor], AllreduceOptions()), [tensor], blocked)
        except RuntimeError as error:
            raise CommFault(f"NCCL all-reduce: {error}") from error

    def abort(self) -> None:
        """End everything in flight. Any number of times; in a thread, because it may wait for the device."""
        if not self._aborted:
            self._aborted = True
            threading.Thread(target=self._group.abort, name="drivetrain-nccl-abort", daemon=True).start()


def connect_nccl(store: Store, rank: int, world: int, interrupt: Interrupt, deadline_seconds: float) -> Nccl | None:
    """Connect all ranks, each on the device of its LOCAL_RANK; None without CUDA, or alone.

    Raises `MembershipOver` or `CommFault`.
    """
    if world == 1 or not torch.cuda.is_available() or not torch.distributed.is_nccl_available():
        return None
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))  # as `Run.prepare` chooses it

    def connect() -> Any:
        from torch._C._distributed_c10d import ProcessGroupNCCL

        options = ProcessGroupNCCL.Options()
        options._timeout = _TIMEOUT
        group = ProcessGroupNCCL(PrefixStore("nccl", store), rank, world, options)
        group.eager_connect_single_device(device)
        return group

    return Nccl(interrupt.call(connect, deadline_seconds, "connecting NCCL"), interrupt)
