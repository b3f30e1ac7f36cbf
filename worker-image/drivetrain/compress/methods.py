"""Which method does `training.compression.method` name? A new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from drivetrain.compress.auto import Auto
from drivetrain.compress.codec import Codec
from drivetrain.compress.elementwise import Elementwise
from drivetrain.compress.half import Half
from drivetrain.compress.method import Method
from drivetrain.compress.powersgd import PowerSgd
from drivetrain.compress.quantized import Quantized
from drivetrain.compress.topk import TopK
from drivetrain.parallel.layout import Layout
from drivetrain_api.choices import CompressionName
from drivetrain_api.runtime import RuntimeCompression

CODECS: Final[dict[CompressionName, Codec]] = {
    "bf16": Half(),
    "int8": Quantized(bits=8, block=256),
    "int4": Quantized(bits=4, block=128),
}


def _codec(settings: RuntimeCompression, layout: Layout, like: torch.Tensor) -> Method:
    return Elementwise(CODECS[settings.method], like)


def _auto(settings: RuntimeCompression, layout: Layout, like: torch.Tensor) -> Method:
    return Auto({str(name): codec for name, codec in CODECS.items()}, like, settings.max_error)


def _powersgd(settings: RuntimeCompression, layout: Layout, like: torch.Tensor) -> Method:
    return PowerSgd([slot.parameter.shape for slot in layout.slots], like, settings.rank)


def _topk(settings: RuntimeCompression, layout: Layout, like: torch.Tensor) -> Method:
    return TopK(like, settings.density, settings.momentum)


_METHODS: Final[dict[CompressionName, Callable[[RuntimeCompression, Layout, torch.Tensor], Method]]] = {
    "bf16": _codec,
    "int8": _codec,
    "int4": _codec,
    "auto": _auto,
    "powersgd": _powersgd,
    "topk": _topk,
}


def method_of(settings: RuntimeCompression, layout: Layout) -> Method:
    """The method for gradients of this layout."""
    like = torch.empty(layout.gradients, dtype=layout.dtype, device=layout.device)
    return _METHODS[settings.method](settings, layout, like)
