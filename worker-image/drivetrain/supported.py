"""Which Python, torch and pydantic Drivetrain runs with. Imports nothing, so that a launcher can ask."""

from __future__ import annotations

from typing import Final

OLDEST_PYTHON: Final = (3, 10)
OLDEST_TORCH: Final = (2, 11)
"""Of scripts that call `drivetrain.start()`. Others run with whatever torch they are written for."""
NEWEST_TORCH: Final = (2, 15)
"""That was tried."""
OLDEST_PYDANTIC: Final = (2, 11)
"""Where an image has one of its own, which its scripts may need: ranks have the same."""


def torch_range() -> str:
    """For messages."""
    return "{}.{} to {}.{}".format(*OLDEST_TORCH, *NEWEST_TORCH)
