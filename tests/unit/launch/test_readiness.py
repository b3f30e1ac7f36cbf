"""The file by which Kubernetes knows that a worker takes part."""

from __future__ import annotations

from pathlib import Path

from drivetrain.launch.readiness import Readiness, ready_file
from drivetrain_api.constants import ENV_POD_ROOT


def test_it_is_there_once_the_worker_has_taken_part(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    path.touch()  # by a container before this one
    readiness = Readiness(path)
    assert not path.exists()
    readiness.tell(takes_part=False)
    assert not path.exists()
    readiness.tell(takes_part=True)
    assert path.exists()
    readiness.tell(takes_part=False)
    assert path.exists()


def test_a_read_only_file_system_costs_no_training(tmp_path: Path) -> None:
    Readiness(tmp_path / "no such folder" / "ready").tell(takes_part=True)


def test_it_lies_where_the_pod_has_its_files() -> None:
    assert str(ready_file({})) == "/tmp/drivetrain-ready"
    assert str(ready_file({ENV_POD_ROOT: "/x/pod/"})) == "/x/pod/tmp/drivetrain-ready"
