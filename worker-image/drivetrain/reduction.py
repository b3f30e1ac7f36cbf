"""How do members come to one result of a reduction? They add up: number by number, or by name (an evaluation)."""

from __future__ import annotations

import torch

from drivetrain.comm.told import told_by_all
from drivetrain.comm.transport import Transport
from drivetrain.found import Found, together
from drivetrain.identity import Kind


def nothing(kind: Kind, size: int) -> list[float]:
    """What a member brings that has no part in it. `size`: how many numbers are added up."""
    return Found().packed() if kind is Kind.EVALUATE else [0.0] * size


def reduced(transport: Transport, kind: Kind, size: int, mine: list[float] | None) -> list[float] | None:
    """Everybody's result of what each brings; None if a member brings None, which has failed. All members call this.
    Raises `Interrupted`."""
    if kind is Kind.EVALUATE:
        found = told_by_all(transport, mine)
        return None if None in found else together(found)
    told = torch.tensor([*(mine or [0.0] * size), float(mine is None)], dtype=torch.float64)
    transport.all_reduce(told).wait()
    *sums, failed = told.tolist()
    return None if failed else sums
