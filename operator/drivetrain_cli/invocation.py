"""How is this program called here? So that the commands which it tells people to try can be copied as they are."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]


def command() -> str:
    """`drivetrain`, `kubectl drivetrain`, or what stands for it in a checkout where nothing is installed."""
    if Path(sys.argv[0]).name == "kubectl-drivetrain":
        return "kubectl drivetrain"
    if shutil.which("drivetrain"):
        return "drivetrain"
    script = _CHECKOUT / "scripts" / "drivetrain"
    if script.exists():
        return min(os.path.relpath(script), str(script), key=len)
    return f"{Path(sys.executable).name} -m drivetrain_cli"


def example() -> str:
    """A script to try."""
    script = _CHECKOUT / "examples" / "charlm" / "train.py"
    return min(os.path.relpath(script), str(script), key=len) if script.exists() else "train.py"
