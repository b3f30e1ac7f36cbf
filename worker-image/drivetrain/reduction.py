"""How do members come to one result of a reduction? They add up: number by number, or by name (an evaluation)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from drivetrain.closing import Closed
from drivetrain.comm.told import told_by_all
from drivetrain.comm.transport import Transport
from drivetrain.errors import Interrupted
from drivetrain.found import Found, together
from drivetrain.identity import Kind
from drivetrain.stranded import ends_the_process


def nothing(kind: Kind, size: int) -> list[float]:
    """What a member brings that has no part in it. `size`: how many numbers are added up."""
    return Found().packed() if kind is Kind.EVALUATE else [0.0] * size


def reduce(
    transport: Transport | None, kind: Kind, size: int, contribute: Callable[[], list[float]] | None, *, in_band: bool
) -> list[float]:
    """Everybody's result; `contribute`: this member's part, if it has one. Raises `Closed` on all if that fails on one;
    the error itself where it cannot be told `in_band`. Raises `Interrupted`."""
    if transport is None:
        return contribute() if contribute is not None else nothing(kind, size)
    failure: BaseException | None = None
    mine: list[float] | None = None
    try:
        mine = contribute() if contribute is not None else nothing(kind, size)
    except Interrupted:
        raise
    except BaseException as error:
        if not in_band or ends_the_process(error):
            raise
        failure = error
    result = reduced(transport, kind, size, mine)
    if result is None:
        raise Closed(failure)
    return result


def reduced(transport: Transport, kind: Kind, size: int, mine: list[float] | None) -> list[float] | None:
    """Everybody's result of what each brings; None if a member brings None, which has failed. All members call this.
    Raises `Interrupted`."""
    if kind is Kind.EVALUATE:
        found = told_by_all(transport, mine, "names and values of Loss(metrics=...)")
        return None if None in found else together(found)
    told = torch.tensor([*(mine or [0.0] * size), float(mine is None)], dtype=torch.float64)
    transport.all_reduce(told).wait()
    *sums, failed = told.tolist()
    return None if failed else sums
