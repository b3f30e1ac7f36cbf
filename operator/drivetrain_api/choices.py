"""What a job may choose by name, in its spec and so in its processes."""

from __future__ import annotations

from typing import Literal

RuntimeName = Literal["auto", "drivetrain", "torchrun"]
RuntimeSource = Literal["auto", "image", "operator"]
OptimizerName = Literal["lamb", "lars", "adamw", "sgd"]
RateScaling = Literal["none", "linear", "sqrt"]
CompressionName = Literal["bf16", "int8", "int4", "powersgd", "topk", "auto"]
FloatName = Literal["fp32", "bf16", "fp16"]
ScheduleName = Literal["gpipe", "1f1b", "interleaved", "zerobubble"]
Reach = Literal["any", "job"]
VerifyName = Literal["firstStep"]
SnapshotPrecision = Literal["exact", "bf16"]
WhenSlow = Literal["skip", "wait"]
Addressing = Literal["path", "virtual"]
