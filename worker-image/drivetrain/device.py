"""Which device does this process train on, and what lies where?

One rule: what leaves the process (to other ranks, to a file) is in the processor's memory, and what arrives goes to the
kind of device that it came from. gloo, checksums and pickles so never see another device's memory; NCCL (comm/nccl.py)
is the one exception.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from drivetrain.errors import StateMismatch


def claim() -> torch.device | None:
    """This rank's GPU, from now on the current one; None if there is none.

    With more ranks than GPUs in a pod they share them. It is made the current one because streams and events belong to
    that, whatever device a tensor is on.
    """
    if not torch.cuda.is_available():
        return None
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def is_here(tensor: torch.Tensor) -> bool:
    """Whether it is in the processor's memory."""
    return tensor.device.type == "cpu"


def at_home(tensor: torch.Tensor, kind: str | torch.device) -> torch.Tensor:
    """A tensor that has arrived, on this process's device of this kind ("cpu", "cuda"), or on this very one. Raises
    `StateMismatch` if there is none."""
    try:
        return tensor.to(kind)
    except (RuntimeError, AssertionError) as error:  # the latter from a torch without CUDA
        raise StateMismatch(f"a peer's state is on {kind}, which this rank has not: {error}") from error


def from_file(storage: Any, place: str) -> Any:
    """For `torch.load`: what was on a GPU goes to this process's, if it has one; all else to the processor's memory."""
    return storage.cuda() if place.startswith("cuda") and torch.cuda.is_available() else storage


def settle(device: torch.device) -> None:
    """Wait until a device has done all that it was given: before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def mark(tensor: torch.Tensor) -> Callable[[], None]:
    """Returns what waits until all is done that uses this tensor now: before another thread writes into it."""
    if not tensor.is_cuda:
        return lambda: None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(tensor.device))
    return event.synchronize
