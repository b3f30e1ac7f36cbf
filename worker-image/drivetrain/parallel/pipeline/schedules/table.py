"""Which pipeline schedules are there? To add one: a file beside this with a `Schedule`, and a line here."""

from __future__ import annotations

from typing import Final

from drivetrain.parallel.pipeline.schedules.action import Schedule
from drivetrain.parallel.pipeline.schedules.gpipe import gpipe
from drivetrain.parallel.pipeline.schedules.interleaved import interleaved
from drivetrain.parallel.pipeline.schedules.one_forward_one_backward import one_forward_one_backward
from drivetrain.parallel.pipeline.schedules.zero_bubble import zero_bubble
from drivetrain_api.choices import ScheduleName

SCHEDULES: Final[dict[ScheduleName, Schedule]] = {
    "gpipe": gpipe,
    "1f1b": one_forward_one_backward,
    "interleaved": interleaved,
    "zerobubble": zero_bubble,
}
