"""Is a script's author told where a file went, and that it will be lost?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from drivetrain.results.folder import output_folder, to_read, to_write, where_mounted
from drivetrain.results.lasting import judged, parse, what_ends_it
from drivetrain.results.told import Told

MOUNTINFO = """\
1 0 0:50 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/x
2 1 0:51 / /proc rw - proc proc rw
3 1 8:1 /var/lib/kubelet/pods/ab/volumes/kubernetes.io~empty-dir/tmp /tmp rw,relatime - ext4 /dev/sda1 rw
4 1 0:60 / /dev/shm rw - tmpfs shm rw
5 1 0:61 /export/team /var/lib/drivetrain/storage rw - nfs4 10.0.0.1:/export rw
6 1 8:1 /srv/data /mnt/my\\040data rw,relatime - ext4 /dev/sda1 rw
7 5 8:1 /var/lib/kubelet/pods/ab/volumes/kubernetes.io~empty-dir/x /var/lib/drivetrain/storage/x rw - ext4 /dev/sda1 rw
8 1 0:62 / /mnt/gone rw - tmpfs none rw
9 1 0:63 / /mnt/gone rw - nfs4 10.0.0.1:/b rw
"""


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/workspace/model.pt", "the container's own file system"),
        ("/tmp/model.pt", "an emptyDir volume (/tmp)"),
        ("/tmpfile", "the container's own file system"),
        ("/dev/shm/model.pt", "in memory (/dev/shm)"),
        ("/var/lib/drivetrain/storage/a/model.pt", None),
        ("/var/lib/drivetrain/storage/x/model.pt", "an emptyDir volume"),
        ("/mnt/my data/model.pt", None),
        ("/mnt/gone/model.pt", None),
    ],
)
def test_what_goes_with_a_pod_is_told_by_its_mounts(path: str, why: str | None) -> None:
    found = judged(path, parse(MOUNTINFO))
    assert (found is None) == (why is None)
    assert (why or "") in (found or "")


def a_pod(folder: Path, **more: str) -> dict[str, str]:
    """The environment of one that is a plain process, with a volume that outlives it at /storage."""
    root = folder / "pod" / "rootfs"
    for place in (root, folder / "claim", folder / "pod" / "volumes" / "tmp"):
        place.mkdir(parents=True, exist_ok=True)
    for name, target in (("storage", folder / "claim"), ("tmp", folder / "pod" / "volumes" / "tmp")):
        if not (root / name).exists():
            (root / name).symlink_to(target)
    return {"DRIVETRAIN_POD_ROOT": str(root), "DRIVETRAIN_JOB": "lm", "DRIVETRAIN_JOB_UID": "u", **more}


def test_where_pods_are_processes_mounts_are_links_below_their_root(tmp_path: Path) -> None:
    pod = a_pod(tmp_path)
    assert where_mounted("/storage/a/b", pod).resolve() == tmp_path / "claim" / "a" / "b"
    assert where_mounted("/home/me", pod) == Path("/home/me")
    assert where_mounted("/storage/a", {}) == Path("/storage/a")
    assert where_mounted("/tmp/a", pod) == Path("/tmp/a")
    inside = str(where_mounted("/storage/a", pod))
    assert str(where_mounted(inside, pod)) == inside


@pytest.mark.parametrize(("place", "goes"), [("storage", False), ("tmp", True), ("workspace", True)])
def test_and_what_goes_with_them_is_beside_it(tmp_path: Path, place: str, goes: bool) -> None:
    pod = a_pod(tmp_path)
    path = Path(pod["DRIVETRAIN_POD_ROOT"]) / place / "model.pt"
    assert (what_ends_it(path, pod) is not None) == goes


def test_a_folder_that_is_copied_to_a_url_is_none_that_goes(tmp_path: Path) -> None:
    pod = a_pod(tmp_path, DRIVETRAIN_OUTPUT_DIR=f"{tmp_path}/pod/rootfs/tmp/out")
    folder = output_folder(pod)
    assert folder is not None
    assert what_ends_it(folder / "model.pt", pod) is None


def test_relative_paths_are_in_the_jobs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    there = {"DRIVETRAIN_OUTPUT_DIR": str(tmp_path / "out")}
    assert to_write("a/model.pt", there) == tmp_path / "out" / "a" / "model.pt"
    assert to_write("/elsewhere/model.pt", there) == Path("/elsewhere/model.pt")
    assert to_write("model.pt", {}) == Path("model.pt")
    Path("model.pt").write_text("came with the image")
    assert to_read("model.pt", there) == Path("model.pt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.pt").write_text("was saved")
    assert to_read("model.pt", there) == tmp_path / "out" / "model.pt"


def said(told: Told, paths: list[Path], capsys: pytest.CaptureFixture[str]) -> list[str]:
    for step, path in enumerate(paths):
        told.saved(path, step)
    return capsys.readouterr().err.splitlines()


def test_where_a_file_went_is_said_once_for_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pod = a_pod(tmp_path)
    pod["DRIVETRAIN_OUTPUT_DIR"] = f"{pod['DRIVETRAIN_POD_ROOT']}/storage/job"
    saved = to_write("model.pt", pod)
    there = tmp_path / "claim" / "job"  # where it is when the pod is gone
    lines = said(Told(pod), [saved, saved, saved.with_name("b.pt")], capsys)
    assert lines == [
        f"drivetrain: run.save: step 0 is in {there}/model.pt; fetch it with: drivetrain get lm:model.pt .",
        f"drivetrain: run.save: step 2 is in {there}/b.pt; fetch it with: drivetrain get lm:b.pt .",
    ]


def test_what_will_be_lost_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pod: Mapping[str, str] = a_pod(tmp_path)
    folder = Path(pod["DRIVETRAIN_POD_ROOT"]) / "workspace"
    (line,) = said(Told(pod), [folder / "a.pt", folder / "b.pt"], capsys)
    assert "is lost with it: set spec.storage" in line
    assert said(Told({}), [folder / "a.pt"], capsys) == []  # no job
