"""How often does a test do what it does again and again?

By hand as often as its claim says; where DRIVETRAIN_TESTS=brief, as .ci/run has it, for which every change waits, as
often as it takes to find what is broken.
"""

from __future__ import annotations

import os


def often(full: int, brief: int) -> int:
    """One of both."""
    return brief if os.environ.get("DRIVETRAIN_TESTS") == "brief" else full
