"""Does each of several workers get what only one of them made?"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.once import once


def test_it_is_made_once_and_again_only_after_a_failure(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    monkeypatch.setattr(tmp_path_factory, "_basetemp", tmp_path_factory.mktemp("run") / "popen-gw0")

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        once(tmp_path_factory, "costly", fail)

    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        time.sleep(0.2)  # the others come meanwhile

    with ThreadPoolExecutor(4) as pool:  # each opens the file for itself, so locks are as between processes
        folders = set(pool.map(lambda _: once(tmp_path_factory, "costly", make), range(4)))
    assert made == [*folders]
    assert once(tmp_path_factory, "costly", fail) == made[0]
    assert not list(made[0].iterdir()), "what the failure left is gone"
