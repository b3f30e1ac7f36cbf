"""Imported by the server that ranks are forked from: what most ranks would load, compile and look through, done once.

A rank of a test lives for a second. Without this it would spend half of it on imports, on compiling kernels and on its
first full garbage collection, which visits (and so copies) every object of torch. Nothing here computes: a process that
has used torch's thread pools must not be forked.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import pkgutil

import torch
import torch._dynamo  # the first optimizer would
import torch.distributed.pipelining
import torch.utils.data

import drivetrain
import drivetrain.run
from drivetrain.compress.quantized import Quantized


def load_everything() -> None:
    """All modules of the training side, and those of tests that most ranks are made of. Integrations need what they
    integrate with."""
    for found in pkgutil.walk_packages(drivetrain.__path__, "drivetrain."):
        if found.name.split(".")[1] not in ("launch", "integrations"):
            importlib.import_module(found.name)
    for name in ("pytest", "encodings.idna", "unit.runtime.text", "unit.runtime.training"):
        importlib.import_module(name)


load_everything()
for bits, block in ((8, 256), (4, 128)):
    Quantized(bits, block)._native(torch.empty(0))
gc.collect()
gc.freeze()  # what is here now lives as long as a rank: no collection need look at it
atexit.register(gc.unfreeze)  # or some libraries say that they leak
