"""What is too much for a message between ranks, for who writes and who reads it alike."""

from __future__ import annotations

import os
from typing import Final

DEPTH: Final = 200
"""Of containers in one another."""
VALUES: Final = 1 << 26
"""Each counted as often as it is referred to: a few bytes could say a list of lists of lists of the same."""
SKELETON: Final = 1 << 32
"""Bytes."""


def memory_bytes() -> int:
    """Of this machine: no state that arrives is larger."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
