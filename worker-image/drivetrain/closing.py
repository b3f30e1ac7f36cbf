"""How does an error on one rank end an operation for all? As the same error, at the same place of the script.

Whoever fails says so with what it exchanges anyway, or in the next membership. Then all tell what happened to them, and
all raise what happened to the lowest rank that failed: that rank its own exception, the others one of the same class
that says where it comes from. So `except torch.OutOfMemoryError` means the same on all ranks.

Exceptions are the script's: their texts, constructors and attributes may raise, and nothing here relies on them.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import sys
import traceback
from typing import Any, Final

import torch

from drivetrain.comm.transport import Transport
from drivetrain.errors import CommFault, Interrupted, PeerError

_BYTES: Final = 4096
_SIZES: Final = ((1200, 5), (300, 1), (30, 0))
"""Characters of a message, and members of an exception group: the first that fits; the last always does."""
_TRACE_CHARS: Final = 1600
_NAME_CHARS: Final = 100
_GROUP: Final[Any] = getattr(builtins, "BaseExceptionGroup", ())
"""Python 3.10 has none, and then nothing is one."""
_HEAP_TYPE: Final = 1 << 9
"""Of `__flags__`: a class that was made by a class statement, or by torch's C++."""


class Closed(Exception):
    """Control flow, like `Interrupted`. All ranks know that the operation failed on some of them, and are here."""

    def __init__(self, own: BaseException | None) -> None:
        """`own`: this rank's error, if it has one."""
        super().__init__()
        self.own = own


def common_error(transport: Transport, own: BaseException | None, where: str) -> BaseException:
    """What all ranks are to raise. All ranks call this, at least one with an error. `where`: at which operation.

    Raises `Interrupted`.
    """
    message = torch.zeros(_BYTES, dtype=torch.uint8)
    if own is not None:
        data = _encoded(own)
        message[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    table = [bytes(each.numpy().tobytes()).rstrip(b"\0") for each in transport.all_gather(message)]
    rank = next((rank for rank, each in enumerate(table) if each), transport.rank)
    if rank == transport.rank:
        if own is None:
            raise CommFault("no rank has said what has failed")
        _note(own, f"This was rank {rank}, at {where}; all ranks have got it.")
        return own
    try:
        told = json.loads(table[rank])
        error = _decoded(told, f"rank {rank}, at {where}: {told['name']}: {told['message']}")
        trace = str(told["trace"])
    except (ValueError, KeyError, TypeError, RecursionError) as fault:
        raise CommFault(f"what rank {rank} said of its error cannot be read") from fault
    _note(error, f"On rank {rank}:\n{trace}")
    _CONTEXT.__set__(error, own)
    return error


def _encoded(error: BaseException) -> bytes:
    """At most `_BYTES` of JSON."""
    trace = "".join(traceback.format_exception(error))[-_TRACE_CHARS:]
    for chars, leaves in _SIZES:  # what is not ASCII takes up to twelve bytes
        data = json.dumps({**_told(error, chars, leaves), "trace": trace}).encode()
        if len(data) <= _BYTES:
            break
        trace = ""
    return data


def _told(error: BaseException, chars: int, leaves: int) -> dict[str, Any]:
    kind = type(error)
    return {
        "module": str(kind.__module__)[:_NAME_CHARS],
        "name": kind.__qualname__[:_NAME_CHARS],
        "message": text_of(error)[:chars],
        "leaves": [_told(each, chars, 0) for each in _leaves(error)[:leaves]],
    }


def text_of(error: BaseException) -> str:
    """What it says, or that it cannot."""
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001
        return f"(no text: its __str__ raises {type(failure).__name__})"


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, _GROUP):
        return []
    return [leaf for each in error.exceptions for leaf in (_leaves(each) or [each])]


def _decoded(told: dict[str, Any], text: str) -> BaseException:
    """One that `except` takes for what the other rank has raised, as nearly as can be."""
    kind = _class(str(told["module"]), str(told["name"]))
    if kind is None:
        return PeerError(text)
    leaves = [_decoded(each, f"{each['name']}: {each['message']}") for each in told.get("leaves", ())]
    arguments = (text, leaves or [PeerError(text)]) if issubclass(kind, _GROUP) else (text,)
    # Without the constructors of the script's classes, which may ask for anything: the one of Python's own below them.
    new = next(each for each in kind.__mro__ if not each.__flags__ & _HEAP_TYPE).__new__
    for each in (_of_a_peer(kind), kind):
        with contextlib.suppress(Exception):
            assert each is not None
            made: BaseException = new(each, *arguments)
            _ARGUMENTS.__set__(made, (text,))
            return made
    return PeerError(text)


def _of_a_peer(kind: type[BaseException]) -> type[BaseException] | None:
    """A class of both kinds. None if it cannot be, and for what `except Exception` does not catch."""
    with contextlib.suppress(Exception):  # its metaclass may refuse, and its __init_subclass__
        if issubclass(kind, Exception):
            words = {"__module__": kind.__module__, "__str__": PeerError.__str__}
            return type(kind.__name__, (kind, PeerError), words)
    return None


def _class(module: str, name: str) -> type[BaseException] | None:
    """An exception class that this process knows, too. Nothing is imported for it, and nobody asked: a module's
    `__getattr__` may import what it is asked for."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    usable = isinstance(found, type) and issubclass(found, BaseException) and not issubclass(found, Interrupted)
    return found if usable else None


def _note(error: BaseException, text: str) -> None:
    """As `add_note`, which a class may override, or forbid by being frozen."""
    with contextlib.suppress(Exception):
        object.__setattr__(error, "__notes__", [*getattr(error, "__notes__", ()), text])


_ARGUMENTS: Final[Any] = BaseException.__dict__["args"]
_CONTEXT: Final[Any] = BaseException.__dict__["__context__"]
