"""Does each of several workers get what only one of them made?"""

from __future__ import annotations

import multiprocessing
import os
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

    def work() -> None:
        once(tmp_path_factory, "costly", lambda folder: (folder / f"by-{os.getpid()}").touch())

    processes = [multiprocessing.get_context("fork").Process(target=work) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    folder = once(tmp_path_factory, "costly", fail)
    assert [each.name.split("-")[0] for each in folder.iterdir()] == ["by"]
