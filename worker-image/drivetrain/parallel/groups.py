"""What is a script told whose forward function uses torch.distributed, which is not initialised? How to get a group."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from drivetrain.errors import UsageError
from drivetrain.parallel.loss import Forward, Output


def telling_of_groups(forward: Forward) -> Forward:
    """The same function, with an error that says so."""

    @functools.wraps(forward)
    def call(model: nn.Module, shard: Any) -> Output:
        try:
            return forward(model, shard)
        except (ValueError, RuntimeError) as error:
            if "process group has not been initialized" not in str(error):
                raise
            raise UsageError(
                "forward: it uses torch.distributed, which has no group here: with prepare(process_group=True) it has "
                "one in run.step, and run.process_group makes one where all ranks ask for it"
            ) from error

    return call
