"""How does an error on one rank end an operation for all? As the same error, at the same place of the script.

Whoever fails says so with what it exchanges anyway, or in the next membership. Then all tell what happened to them, and
all raise what happened to the lowest rank that failed: that rank its own exception, the others one of the same class
that says where it comes from. So `except torch.OutOfMemoryError` means the same on all ranks.
"""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from typing import Any, Final

import torch

from drivetrain.comm.transport import Transport
from drivetrain.errors import Interrupted, PeerError

_BYTES: Final = 4096
_MESSAGE_CHARS: Final = 1200
_TRACE_CHARS: Final = 1600


class Closed(Exception):
    """Control flow, like `Interrupted`. All ranks know that the operation failed on some of them, and are here."""

    def __init__(self, own: Exception | None) -> None:
        """`own`: this rank's error, if it has one."""
        super().__init__()
        self.own = own


def common_error(transport: Transport, own: Exception | None, where: str) -> Exception:
    """What all ranks are to raise. All ranks call this, at least one with an error. `where`: at which operation.

    Raises `Interrupted`.
    """
    message = torch.zeros(_BYTES, dtype=torch.uint8)
    if own is not None:
        data = _encoded(own)
        message[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    table = [bytes(each.numpy().tobytes()).rstrip(b"\0") for each in transport.all_gather(message)]
    rank = next(rank for rank, each in enumerate(table) if each)
    if rank == transport.rank:
        assert own is not None
        own.add_note(f"This was rank {rank}, at {where}; all ranks have got it.")
        return own
    return _decoded(json.loads(table[rank]), rank, where, own)


def _encoded(error: Exception) -> bytes:
    kind = type(error)
    trace = "".join(traceback.format_exception(error))[-_TRACE_CHARS:]
    told = {
        "module": kind.__module__,
        "name": kind.__qualname__,
        "message": str(error)[:_MESSAGE_CHARS],
        "trace": trace,
    }
    data = json.dumps(told).encode()
    if len(data) > _BYTES:  # much of it is not ASCII
        told |= {"trace": "", "message": told["message"][: _MESSAGE_CHARS // 4]}
        data = json.dumps(told).encode()
    return data[:_BYTES]


def _decoded(told: dict[str, Any], rank: int, where: str, own: Exception | None) -> Exception:
    text = f"rank {rank}, at {where}: {told['name']}: {told['message']}"
    kind = _class(str(told["module"]), str(told["name"]))
    made: Exception = PeerError(text)
    if kind is not None:
        with contextlib.suppress(TypeError):  # two that cannot be combined: then only what it says
            both: Any = type(kind.__name__, (PeerError, kind), {"__module__": kind.__module__})
            made = both.__new__(both, text)
    made.args = (text,)
    made.add_note(f"On rank {rank}:\n{told['trace']}")
    made.__context__ = own
    return made


def _class(module: str, name: str) -> type[Exception] | None:
    """An exception class that this process knows, too. Nothing is imported for it."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return (
        found
        if isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, Interrupted)
        else None
    )
