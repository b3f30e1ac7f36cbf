"""What a part of the check prints: PASS and FAIL lines for people, and figures for the last line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import torch

DEVICE: Final = torch.device(os.environ.get("DEVICE", "cuda"))
"""Where everything is computed. On "cpu" the same code runs, to try the check itself out."""

ON_GPU: Final = DEVICE.type == "cuda"


class Report:
    """The outcome of one part."""

    def __init__(self) -> None:
        self._failed = False

    def check(self, what: str, passed: bool, found: object = "") -> None:
        """One line."""
        self._failed = self._failed or not passed
        print(f"{'PASS' if passed else 'FAIL'}  {what}{f'  ({found})' if found != '' else ''}", flush=True)

    def skip(self, what: str, why: str) -> None:
        """A line for what was not tried."""
        print(f"SKIP  {what}  ({why})", flush=True)

    def figure(self, name: str, value: object) -> None:
        """One of the last line's; `check.sh` collects them in the file $FIGURES."""
        with Path(os.environ.get("FIGURES", os.devnull)).open("a") as file:
            file.write(f"{name}={value:.4g} " if isinstance(value, float) else f"{name}={value} ")

    def end(self) -> int:
        """The exit code."""
        return int(self._failed)
