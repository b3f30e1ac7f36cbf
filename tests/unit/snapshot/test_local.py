"""A folder as storage: objects are there as a whole, or not at all, and once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from drivetrain.snapshot.errors import Exists, Missing, StorageError
from drivetrain.snapshot.storage import Dated, Storage
from drivetrain.snapshot.storage.local import Local
from storage.contract import StorageContract
from storage.contract_log import LogContract
from unit.snapshot.memory import Changing


class TestLocal(StorageContract, LogContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return Local(tmp_path / "deep" / "down")


class TestMemory(StorageContract, LogContract):
    """What other tests rest on."""

    @pytest.fixture
    def storage(self) -> Storage:
        return Changing()


def test_folders_that_are_empty_go(tmp_path: Path) -> None:
    storage = Local(tmp_path / "deep" / "down")
    storage.create("log/1/a.seg", [b"abc"])
    storage.delete(["log/1/a.seg", "log/1/none"])
    assert not (tmp_path / "deep" / "down" / "log").exists()


def test_what_is_beside_the_folder_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "runs").write_text("x")
    storage = Local(tmp_path / "mine")
    storage.create("runs/000001.json", [b"{}"])
    assert list(storage.list("")) == ["runs/000001.json"]


def test_where_there_are_no_links_it_is_written_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    storage = Local(tmp_path)
    storage.create("a", [b"1"])
    with pytest.raises(Exists):
        storage.create("a", [b"2"])
    assert storage.read("a") == b"1"
    assert storage.list("") == {"a": 1}


def test_errors_name_the_path_and_the_cause(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*/file/runs/1: Not a directory \(ENOTDIR\)"):
        Local(tmp_path / "file").create("runs/1", [b""])


def test_what_killed_writers_leave_is_swept_by_the_next_one(tmp_path: Path) -> None:
    """By the storage's clock, which is two days behind this machine's here."""
    first = Local(tmp_path)
    first.create("log/a", [b"1"])
    now = time.time() - 2 * 86400
    old, young, other = (tmp_path / "log" / name for name in (".tmp-1-a", ".tmp-2-b", "tmp-3"))
    for path, age in ((old, 3700), (young, 3500), (other, 9999)):
        path.write_bytes(b"torn")
        os.utime(path, (now - age, now - age))
    first.create("log/b", [b"1"])
    assert old.exists(), "once for each folder, before there were any"
    next_ = Local(tmp_path)
    real = os.fstat

    def behind(number: int) -> os.stat_result:
        found = list(real(number))
        return os.stat_result(found, {"st_mtime": now})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("drivetrain.snapshot.storage.local.os.fstat", behind)
        next_.create("log/c", [b"1"])
    assert (old.exists(), young.exists(), other.exists()) == (False, True, True)


def test_leftovers_do_not_keep_a_folder_that_is_pruned(tmp_path: Path) -> None:
    storage = Local(tmp_path)
    storage.create("base/1/a", [b"1"])
    left = tmp_path / "base" / "1" / ".tmp-1-a"
    left.write_bytes(b"torn")
    os.utime(left, (0, 0))
    storage.create("runs/1", [b"1"])
    storage.delete(["base/1/a"])
    assert not (tmp_path / "base").exists()


def test_when_objects_were_written_is_known(tmp_path: Path) -> None:
    storage = Local(tmp_path)
    storage.create("a/b", [b"1"])
    os.utime(tmp_path / "a" / "b", (5, 7))
    assert storage.modified("a/") == {"a/b": 7.0}
    assert isinstance(storage, Dated)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """Whoever may write to a shared folder may put anything there."""
    storage = Local(tmp_path)
    storage.create("log/one", [b"one"])
    os.mkfifo(tmp_path / "log" / "pipe")
    (tmp_path / "log" / "itself").symlink_to("itself")
    (tmp_path / "log" / "nowhere").symlink_to("lost")
    assert storage.list("log/") == {"log/one": 3}
    with pytest.raises(StorageError, match="it is no file"):
        storage.read("log/pipe")
    with pytest.raises(StorageError, match="EISDIR"):
        storage.read("log")
    with pytest.raises(StorageError, match="ELOOP"):
        storage.read("log/itself")
    with pytest.raises(Missing):
        storage.read("log/nowhere")
