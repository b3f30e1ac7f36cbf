"""Prometheus and promtool: those on PATH, or those of Debian's package, unpacked into the cache and not installed."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

_CACHE = Path(os.environ.get("DRIVETRAIN_CACHE") or Path.home() / ".cache" / "drivetrain")


def promtool() -> str:
    """Its path. Skips the test where there is none."""
    found = program("promtool")
    if found is None:
        pytest.skip("rules and queries are checked by promtool: install prometheus")
    return found


def program(name: str) -> str | None:
    """Path of `prometheus` or `promtool`; None where it is neither here nor to be had."""
    found = shutil.which(name)
    if found is not None:
        return found
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return None
    folder = _CACHE / "prometheus-deb"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock-prometheus-deb").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # ends with whoever holds it
        if not (folder / "usr" / "bin" / name).exists():
            _unpack(folder)
    return str(folder / "usr" / "bin" / name)


def _unpack(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        subprocess.run(["apt-get", "download", "prometheus"], cwd=name, check=True, capture_output=True, timeout=100)
        (package,) = Path(name).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, Path(name) / "root"], check=True, capture_output=True, timeout=60)
        shutil.rmtree(folder, ignore_errors=True)
        (Path(name) / "root").rename(folder)
