"""What Drivetrain itself prints in a rank: beside what the script prints, and never through its `logging`.

`note` writes `drivetrain: …` to stderr, `line` a line of the training as it stands to stdout. With
`DRIVETRAIN_LOG_FORMAT=json` both are JSON objects, which the launcher passes on without the rank's prefix. What is
below `DRIVETRAIN_LOG_LEVEL` is left out.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import Final

from drivetrain.launch.environment import ENV_PROCESS
from drivetrain_api import constants
from drivetrain_api.logline import LEVELS, SEPARATOR, LogFormat, as_json, escaped, of_pod, stamp

about: Final[dict[str, object]] = {}
"""What is true of this process as a whole: its `rank`, and the `step` that all members hold."""

_LIMIT: Final = 4000
"""Bytes of a message as JSON: the launcher takes a line of 8 KiB for one."""


def note(text: str, *, level: str = "info") -> None:
    """What people should know of."""
    _say("stderr", "drivetrain: ", text, level)


def line(text: str) -> None:
    """How training goes on."""
    _say("stdout", "", text, "info")


def _say(stream: str, prefix: str, text: str, level: str) -> None:
    # A level that does not exist has ended the launcher; without one, it hides nothing.
    least = os.environ.get(constants.ENV_LOG_LEVEL, "")
    if least in LEVELS and LEVELS.index(level) < LEVELS.index(least):
        return
    if os.environ.get(constants.ENV_LOG_FORMAT) == LogFormat.JSON:
        whole = _as_json(text, level, stream)
    else:
        whole = prefix + "\n".join(map(escaped, text.split("\n")))
    with suppress(OSError, ValueError):  # nobody reads any more, or the script has closed it
        print(whole, file=getattr(sys, stream), flush=True)


def _as_json(text: str, level: str, stream: str) -> str:
    fields: dict[str, object] = {"time": stamp(time.time()), "level": level, "component": "rank"}
    fields |= {**of_pod(os.environ), "stream": stream}
    while len(as_json({"message": text})) > _LIMIT:
        text = text[: len(text) // 2] + "…"
    # Outside of a pod there is no launcher that would take the mark off.
    mark = SEPARATOR if ENV_PROCESS in os.environ else ""
    return mark + as_json({**fields, **about, "message": text})
