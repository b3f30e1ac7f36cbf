"""How does a training script begin? `drivetrain.start()`."""

from __future__ import annotations

import os
from typing import Any

import torch

from drivetrain.launch.rank_link import RankLink
from drivetrain.run import Run
from drivetrain.settings import Settings
from drivetrain.snapshot.export import alone
from drivetrain.snapshot.hand.request import Request


def start(defaults: dict[str, Any] | None = None, *, snapshots: str | dict[str, Any] | None = None) -> Run:
    """Begin. `defaults` are used where the job says nothing: steps, global_batch, microbatches, seed, clip_norm, …

    `snapshots`, where the job says nothing of them: a folder that all ranks see, or a URL (s3://…), in which every step
    is kept, so that the next start goes on from the last one; or a dict with `storage` and more (docs/snapshots.md).

    Seeds torch with the job's seed, so that models built afterwards start alike. Raises `UsageError`.
    """
    link = RankLink.from_environment()
    settings = Settings.resolve(defaults or {}, snapshots)
    if (request := Request.from_environment()) is not None:
        settings = alone(settings, request)
    distributed = link is not None or int(os.environ.get("WORLD_SIZE", "1")) > 1
    if (distributed or settings.training.deterministic) and "OMP_NUM_THREADS" not in os.environ:
        # Like torchrun: several ranks on one machine would otherwise fight for all of its cores. And the number of
        # threads changes the bits of a sum, so a deterministic run alone must use what the ranks of a job use.
        torch.set_num_threads(1)
    if settings.training.deterministic:
        torch.use_deterministic_algorithms(True)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, torch refuses cuBLAS in this mode
    torch.manual_seed(settings.training.seed)
    if link is not None:
        link.wait_activated()
    return Run(settings, link)
