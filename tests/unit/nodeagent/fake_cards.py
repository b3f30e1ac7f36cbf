"""Cards that live in a folder, and a library in place of NVIDIA's that reads and writes them (fake_nvml.c)."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parent / "fake_nvml.c"


def build(folder: Path) -> Path | None:
    """The library; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = folder / "libfake-nvml.so"
    new = folder / f"libfake-nvml.{os.getpid()}.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(new), str(SOURCE)], check=True, timeout=60)
    new.replace(library)
    return library


@dataclass(frozen=True)
class Cards:
    """`count` cards of 100 to 400 W."""

    root: Path
    library: Path

    def add(
        self, index: int = 0, *, limit: float = 400, least: float = 100, most: float = 400, default: float = 400
    ) -> None:
        numbers = {"limit": limit, "least": least, "most": most, "default": default, "watts": 312.5, "joules": 5000.25}
        for name, value in numbers.items():
            self._write(index, name, round(value * 1000))
        self._write(index, "celsius", 61)

    def limit(self, index: int = 0) -> float:
        """Watts that are in force."""
        return int((self.root / f"gpu{index}" / "limit").read_text()) / 1000

    def set_limit(self, watts: float, index: int = 0) -> None:
        """As somebody else does it."""
        self._write(index, "limit", round(watts * 1000))

    def slow(self, reasons: int, index: int = 0) -> None:
        """NVML's bits of why its clocks are lower than they might be."""
        self._write(index, "reasons", reasons)

    def compute(self, *pids: int, index: int = 0) -> None:
        """Whose processes are on it."""
        (self.root / f"gpu{index}" / "pids").write_text("".join(f"{pid}\n" for pid in pids))

    def fault(self, kind: str, call: str, value: int) -> None:
        """`die`, `die_after` (at the value-th call) or `refuse` (with the value)."""
        (self.root / kind).write_text(f"{call} {value}\n")

    def mend(self) -> None:
        for kind in ("die", "die_after", "refuse"):
            (self.root / kind).unlink(missing_ok=True)

    def _write(self, index: int, name: str, value: int) -> None:
        folder = self.root / f"gpu{index}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{value}\n")
