"""Does a URL have what the folder has, and a new pod's folder what the URL has?"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from drivetrain.results.copying import PIECE, Copying
from drivetrain.results.upkeep import Upkeep
from drivetrain.snapshot.errors import StorageError
from drivetrain.snapshot.storage.local import Local
from harness.patience import until
from unit.snapshot.memory import Changing


def content(folder: Path) -> dict[str, bytes]:
    """By name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_sent_comes_back_in_another_folder(tmp_path: Path) -> None:
    here, there, again = tmp_path / "here", tmp_path / "there", tmp_path / "again"
    (here / "a" / "b").mkdir(parents=True)
    (here / "model.pt").write_bytes(os.urandom(2 * PIECE + 17))
    (here / "a" / "b" / "state").write_bytes(b"x")
    (here / "empty").touch()
    (here / ".model.pt.17.tmp").write_bytes(b"half")
    assert Copying(here, Local(there)).send() == 3
    (here / ".model.pt.17.tmp").unlink()
    assert content(there) == content(here)
    again.mkdir()
    assert Copying(again, Local(there)).bring() == 3
    assert content(again) == content(here)


def test_only_what_has_changed_is_sent_again(tmp_path: Path) -> None:
    storage = Changing()
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("1")
    copying = Copying(tmp_path, storage)
    assert [copying.send(), copying.send()] == [2, 0]
    storage.objects["b"] = b"of another worker"
    (tmp_path / "a").write_text("22")
    assert copying.send() == 1
    assert storage.objects == {"a": b"22", "b": b"of another worker"}


def test_what_a_script_deletes_goes_there_too_and_what_it_never_had_stays(tmp_path: Path) -> None:
    storage = Changing()
    storage.objects = {"old": b"1", "../evil": b"1"}
    copying = Copying(tmp_path, storage)
    copying.bring()
    storage.objects["of another worker"] = b"1"
    (tmp_path / "new").write_text("1")
    (tmp_path / "old").unlink()
    copying.send()
    assert storage.objects.keys() == {"new", "of another worker", "../evil"}
    assert not (tmp_path.parent / "evil").exists()


def test_what_a_script_deletes_stays_if_another_worker_has_written_it_since(tmp_path: Path) -> None:
    storage = Changing()
    storage.objects = {"last.pt": b"1", "old.pt": b"1"}
    folders = [tmp_path / "a", tmp_path / "b"]
    a, b = (Copying(folder, storage) for folder in folders)
    for each in (a, b):
        each.bring()
    (folders[0] / "last.pt").write_text("of a")
    a.send()
    for name in ("last.pt", "old.pt"):
        (folders[1] / name).unlink()
    b.send()
    a.send()
    assert storage.objects == {"last.pt": b"of a"}
    (folders[0] / "last.pt").unlink()
    b.send()
    a.send()
    assert storage.objects == {}


def test_a_file_that_changed_while_it_was_sent_is_deleted_too(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("1")

    def grow(name: str) -> None:
        path.write_text("more")

    storage = Changing(grow)
    copying = Copying(tmp_path, storage)
    copying.send()
    path.unlink()
    copying.send()
    assert storage.objects == {}


@pytest.mark.parametrize("bad", ["a\udcff.log", "refused"])
def test_a_file_that_cannot_be_copied_keeps_no_other_one_away(tmp_path: Path, bad: str) -> None:
    def fault(name: str) -> str | None:
        name.encode()  # as stores do
        return "refuse" if name == "refused" else None

    storage = Changing(fault)
    for name in ("old", bad):
        (tmp_path / name).write_text("1")
    copying = Copying(tmp_path, storage)
    for _ in range(2):
        with pytest.raises(StorageError, match="cannot write refused" if bad == "refused" else r"copy 'a\\udcff.log'"):
            copying.send()
        (tmp_path / "old").unlink(missing_ok=True)
        (tmp_path / "z.pt").write_text("new")
    assert storage.objects == {"old": b"1", "z.pt": b"new"}
    (tmp_path / bad).unlink()
    copying.send()
    assert storage.objects == {"z.pt": b"new"}


@pytest.mark.parametrize(("call", "path"), [("open", "a/1"), ("stat", "a/1"), ("scandir", "a")])
def test_what_cannot_be_read_is_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, path: str) -> None:
    storage = Changing()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1").write_text("1")
    copying = Copying(tmp_path, storage)
    copying.send()
    (tmp_path / "a" / "1").write_text("22")
    (tmp_path / "b").write_text("1")
    real = getattr(os, call)

    def refused(given: str | os.PathLike[str] | int, *rest: Any, **more: Any) -> Any:
        # Modes do not stop root, as whom tests may run.
        if not isinstance(given, int) and Path(given) == tmp_path / path:
            raise PermissionError(errno.EACCES, "Permission denied", str(given))
        return real(given, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refused)
        with pytest.raises(StorageError, match=f"cannot copy '{path}': Permission denied"):
            copying.send()
    assert storage.objects == {"a/1": b"1", "b": b"1"}
    copying.send()
    assert storage.objects == {"a/1": b"22", "b": b"1"}


def test_no_name_in_the_storage_keeps_a_new_worker_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage, long, too_long = Changing(), "\N{CJK UNIFIED IDEOGRAPH-6A21}" * 84, "a" * 300
    bad = ["x/y", "x/y/z", "a\0b", too_long, f"{too_long}/a", "dir/", "/root", "../evil", ".half.tmp"]
    storage.objects = dict.fromkeys(["x", long, f"d/{long}", *bad], b"1")
    before = dict(storage.objects)
    copying = Copying(tmp_path, storage)
    copying.bring()
    copying.bring()
    found = content(tmp_path)
    assert found.keys() >= {long, f"d/{long}"}
    assert found.keys() & {"x", "x/y", "x/y/z"}
    assert len([each for each in caplog.messages if "cannot be a file here" in each]) == len(set(caplog.messages))
    assert "'a\\x00b' of memory cannot be a file here, and is left out" in caplog.text
    copying.send()
    assert storage.objects == before


def test_links_are_followed_within_the_folder_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage, real, here = Changing(), tmp_path / "real", tmp_path / "here"
    (real / "ck1").mkdir(parents=True)
    here.symlink_to(real)  # as mounts are where pods are processes
    (tmp_path / "secret").write_text("1")
    (here / "ck1" / "state").write_text("1")
    (here / "moved").write_text("1")
    copying = Copying(here, storage)
    copying.send()
    (here / "moved").rename(tmp_path / "elsewhere")
    (here / "moved").symlink_to(tmp_path / "elsewhere")
    (here / "p").symlink_to(tmp_path / "secret")
    (here / "last").symlink_to("ck1/state")
    (here / "latest").symlink_to("ck1")
    (here / "nowhere").symlink_to("none")
    (here / "circle").symlink_to("circle")
    copying.send()
    copying.send()
    assert storage.objects == dict.fromkeys(["ck1/state", "last", "moved"], b"1")
    assert sorted(caplog.messages) == [
        f"results: {here}/latest is a link to a folder, and is not followed",
        f"results: {here}/moved is a link out of the folder, and is not followed",
        f"results: {here}/p is a link out of the folder, and is not followed",
    ]


def test_a_pipe_in_a_files_place_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Changing()
    path = tmp_path / "a"
    path.write_text("1")
    real = os.open

    def late(given: str | os.PathLike[str], *rest: Any, **more: Any) -> int:
        """It is put there between the look and this."""
        if path == Path(given):
            path.unlink()
            os.mkfifo(path)
        return real(given, *rest, **more)

    copying = Copying(tmp_path, storage)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", late)
        assert copying.send() == 0
    assert copying.send() == 0
    assert storage.objects == {}


def test_what_is_being_written_waits_until_it_rests(tmp_path: Path) -> None:
    storage = Changing()
    (tmp_path / "a").write_text("1")
    now = time.time()
    copying = Copying(tmp_path, storage, lambda: now)
    assert copying.send(10.0) == 0
    now += 11
    assert copying.send(10.0) == 1


def test_a_file_that_changes_while_it_is_sent_is_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1" * 1000)

    def cut(name: str) -> None:
        if path.stat().st_size == 1000:
            path.write_bytes(b"short")

    storage = Changing(cut)
    copying = Copying(tmp_path, storage)
    copying.send()
    copying.send()
    assert storage.objects["a"] == b"short"


def test_a_storage_that_comes_back_gets_everything_in_the_end(tmp_path: Path) -> None:
    refused: list[str] = []

    def fault(name: str) -> str | None:
        refused.append(name)
        return "refuse" if len(refused) < 3 else None

    storage = Changing(fault)
    (tmp_path / "model.pt").write_bytes(b"weights")
    upkeep = Upkeep(Copying(tmp_path, storage), every_seconds=3600.0)
    upkeep.start()
    upkeep.end()
    until(lambda: upkeep.ended, "all is copied", 20.0, 0.02)
    assert upkeep.failure is None
    assert hashlib.sha256(storage.objects["model.pt"]).digest() == hashlib.sha256(b"weights").digest()
    assert len(refused) == 3


def test_a_storage_that_stays_away_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"weights")
    upkeep = Upkeep(Copying(tmp_path, Changing(lambda name: "refuse")), every_seconds=3600.0)
    upkeep.start()
    upkeep.end()
    until(lambda: bool(upkeep.failure), "it has tried", 20.0, 0.02)
    assert "cannot write model.pt: No space left" in (upkeep.failure or "")
    assert not upkeep.ended


def test_a_new_pod_does_not_begin_without_what_the_job_has(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the place of a folder")
    with pytest.raises(StorageError, match="cannot list"):
        Upkeep(Copying(tmp_path, Broken())).bring(0.0)


class Broken(Changing):
    """It does not even say what is there."""

    def list(self, prefix: str) -> dict[str, int]:
        raise StorageError("cannot list it: 403 AccessDenied")
