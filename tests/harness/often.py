"""How often does a test do what it does again and again?

By hand as often as its claim says; where DRIVETRAIN_ROUNDS=few, as .ci/run has it, for which every change waits, as
often as it takes to find what is broken.
"""

from __future__ import annotations

import os
from typing import Final

VARIABLE: Final = "DRIVETRAIN_ROUNDS"


def often(full: int, few: int) -> int:
    """One of both."""
    return few if os.environ.get(VARIABLE) == "few" else full
