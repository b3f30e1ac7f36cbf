"""Which tests does a worker of pytest run in a row, and which first?

Tests of a file that share something costly (a reference training, a measurement) go to one worker together: each worker
would make it for itself otherwise. (`xdist_group` would say so, but pytest 9 ignores the name that it writes.) These,
and what starts whole jobs, come first and everything small last, so that no worker waits long for the other's end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

IN_ONE_PIECE = (
    "tests/e2e/",
    "tests/storage/",
    "tests/unit/runtime/test_payload.py",
    "tests/unit/runtime/test_compress.py",
)
"""Files, or folders of them: a file of these is one piece of work."""


def piece_of(name: str) -> str:
    """The piece of work that a test belongs to; most are pieces of their own."""
    path = name.partition("::")[0]
    return path if path.startswith(IN_ONE_PIECE) else name


def scheduler(config: pytest.Config, log: Callable[..., object]) -> LoadScopeScheduling:
    """For `--dist loadgroup`."""
    from xdist.scheduler import LoadScopeScheduling

    class Pieces(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            return piece_of(nodeid)

    config.option.loadscopereorder = True  # pieces of many tests first
    return Pieces(config, log)
