"""`python -m drivetrain.snapshot`: what it says of real snapshots, whole and damaged, what it deletes and writes."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from drivetrain.snapshot.beginning import Pin
from drivetrain.snapshot.errors import SnapshotError
from drivetrain.snapshot.export import write
from drivetrain.snapshot.found import Found
from drivetrain.snapshot.hand.command import FAILED, OK, USAGE, main
from drivetrain.snapshot.hand.survey import Survey
from drivetrain.snapshot.hand.table import told
from drivetrain.snapshot.storage.local import Local
from drivetrain_api.constants import ENV_SPEC
from drivetrain_api.runtime import RuntimeSnapshots, RuntimeSpec
from unit.runtime.together import Pipe, together
from unit.snapshot import example
from unit.snapshot.memory import Memory
from unit.snapshot.test_example import EXPECTED, FOLDER

SCRIPT = Path(__file__).with_name("example.py")
BASE_1 = "base/000001/0000000001-000001.000001/"
STEP_12 = "log/000002/000001.000001/0000000008-0000000015.r1of3.seg"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Snapshots that real ranks have written: see `write_example.py`."""
    return Path(shutil.copytree(FOLDER, tmp_path / "snapshots"))


def flip(path: Path, at: float = 0.5) -> None:
    """A bit, somewhere in the middle."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 4
    path.write_bytes(data)


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(each) for each in arguments])
    streams = capsys.readouterr()
    return code, streams.out, streams.err


def test_a_person_reads_runs_bases_and_steps(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "list", folder)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == OK
    assert "Steps that can be gone back to: 1 to 16" in lines
    assert any(line.startswith("2 run 1, step 8 8 to 15 3 ") for line in lines)
    assert any(line.startswith("5 1 5 to 16 11 2 ") for line in lines)


def test_a_program_reads_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "list", folder, "-o", "json")
    found: dict[str, Any] = json.loads(out)
    assert code == OK
    assert (found["newest"], found["steps"], found["verified"]) == (16, [[1, 16]], False)
    assert found["bytes"] == sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
    written = (folder / BASE_1 / "manifest.json").stat().st_mtime
    assert [each["written"] for each in found["bases"] if each["step"] == 1] == [written]


def test_in_a_pod_of_a_job_its_own_are_meant(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = RuntimeSpec(snapshots=RuntimeSnapshots(storage=str(folder)))
    monkeypatch.setenv(ENV_SPEC, spec.model_dump_json())
    assert said(capsys, "list")[1].startswith(f"{folder}: 51 objects")
    monkeypatch.delenv(ENV_SPEC)
    code, _, err = said(capsys, "list")
    assert (code, "STORAGE" in err) == (USAGE, True)


def test_a_storage_without_times_and_without_objects_is_shown() -> None:
    assert "No step can be gone back to." in told(Survey.of(Found.of(Memory())))
    memory = Memory()
    for name in Local(FOLDER).list(""):
        memory.objects[name] = (FOLDER / name).read_bytes()
    survey = Survey.of(Found.of(memory))
    assert {each.written for each in survey.bases} == {None}


def test_of_a_job_whose_first_base_is_not_whole_it_is_said_what_that_means(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "full copy" not in said(capsys, "list", folder)[1]
    for manifest in folder.glob("base/*/*/manifest.json"):
        manifest.unlink()
    out = said(capsys, "list", folder)[1]
    assert "No step can be gone back to.\nSteps are written, but they lead on from a full copy" in out
    assert f"{BASE_1}: " in out
    assert out.rstrip().endswith("of a full copy that is not whole")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def lose(path: Path) -> None:
    path.unlink()


DAMAGE: dict[str, tuple[Callable[[Path], None], str, str, int]] = {
    "a bit of a base": (flip, f"{BASE_1}r0of2.0000.pack", f"{BASE_1}: its sha256 differs", 16),
    "a lost pack": (lose, f"{BASE_1}r1of2.0000.pack", f"{BASE_1}: there is no", 16),
    "a bit of a manifest": (flip, f"{BASE_1}manifest.json", f"{BASE_1}manifest.json: its checksum differs", 16),
    "a bit of a segment": (flip, STEP_12, f"{STEP_12}: the checksum of record", 8),
    "a torn segment": (cut, STEP_12, f"{STEP_12}: it is torn", 8),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_found_and_named(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, name, wanted, newest = DAMAGE[case]
    for base in ("0000000009", "0000000010", "0000000015"):  # so that damage of a segment is in the way
        shutil.rmtree(next(folder.glob(f"base/000002/{base}-*")))
    assert said(capsys, "verify", folder)[0] == OK
    damage(folder / name)
    assert said(capsys, "verify", folder)[0] == FAILED
    code, out, _ = said(capsys, "verify", folder, "-o", "json")
    found = json.loads(out)
    assert code == FAILED
    assert next(f"{name}: {what}" for name, what in found["damaged"].items()).startswith(wanted)
    assert (found["newest"], found["promised"]) == (newest, 16)


def test_nothing_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "verify", tmp_path / "none")[0] == FAILED
    (tmp_path / "file").write_text("")
    code, _, err = said(capsys, "list", tmp_path / "file" / "below")
    assert code in (OK, FAILED)
    assert "Traceback" not in err


def test_pruning_says_what_goes_and_leaves_what_is_needed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, dry, _ = said(capsys, "prune", folder, "--keep", 2, "--dry-run")
    assert code == OK
    assert f"{BASE_1}manifest.json" in dry
    assert len(Local(folder).list("")) == 51
    pin = Pin(Local(folder), "test")
    pin.on(1, 5)
    assert "1 readers have pins here" in said(capsys, "prune", folder, "--keep", 2)[2]
    assert Survey.of(Found.of(Local(folder))).steps == ((5, 16),), "somebody reads from step 5 on"
    said(capsys, "prune", folder, "--keep", 2, "--unpin")
    assert not Local(folder).list("pins/")
    assert Survey.of(Found.of(Local(folder))).steps == ((10, 16),)
    assert said(capsys, "verify", folder)[0] == OK
    assert said(capsys, "prune", folder, "--keep", 2)[1].startswith("0 objects")


def test_a_damaged_base_is_none_that_is_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(folder / "base/000002/0000000015-000001.000001/r2of3.0000.pack")
    said(capsys, "prune", folder, "--keep", 1)
    assert Survey.of(Found.of(Local(folder))).steps == ((10, 16),)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["prune", ".", "--keep", "0"], "want a number of at least 1"),
        (["prune", "."], "--keep"),
        (["export", ".", "--to", "x"], "after --"),
        (["list", ".", "--", "python"], "only export runs a script"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments)
    except SystemExit as error:
        code = int(str(error.code))
    assert code == USAGE
    assert told in capsys.readouterr().err


# --- export: the script is run, and what it writes is read by others -------------------------------------------------


def read(pipe: Pipe, dcp: str, safetensors: str) -> list[tuple[int, str]]:
    """What torch and safetensors alone make of the files, in a process of its own: step and digest."""
    from safetensors.torch import load_file
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    dcp_to_torch_save(dcp, f"{dcp}.pt")
    found = torch.load(f"{dcp}.pt", weights_only=True)
    told = []
    for weights in (found["model"], load_file(safetensors)):
        model = example.Net()
        model.load_state_dict(weights)
        made, names = example.optimizer(model), dict(model.named_parameters())
        for group, kept in zip(made.param_groups, found["optimizer"]["param_groups"], strict=True):
            assert [id(names[each]) for each in kept["params"]] == [id(each) for each in group["params"]]
            group |= {key: value for key, value in kept.items() if key != "params"}
        for name, state in found["optimizer"]["state"].items():
            made.state[names[name]] = state
        told.append((found["step"], example.sha256(model, made, None)))
    return told


def written(pipe: Pipe, folder: Path, to: Path) -> str:
    """What the tool's script does, without a process of its own; what is said of a step that is not there."""
    os.environ |= {"SNAPSHOTS": str(folder), "WORLD_SIZE": "1"}
    run = example.begin()[0]
    assert run._made is not None
    example.go_back(run, Local(folder), 7)
    write(to, "safetensors", run._made.strategy, 7)
    with pytest.raises(SnapshotError) as error:
        example.go_back(run, Local(folder), 0)
    return str(error.value)


def test_a_step_is_exported_and_others_read_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A replay of sparse gradients and momentum; both formats have the bits that the ranks had when they wrote
    `example-1.json`."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("WORLD_SIZE", "7")  # of whoever calls the tool under torchrun
    before = {name: (folder / name).read_bytes() for name in Local(folder).list("")}
    dcp, safetensors = tmp_path / "seven", tmp_path / "seven.safetensors"
    code, out, err = said(capsys, "export", folder, "--step", 7, "--to", dcp, "--", sys.executable, SCRIPT)
    assert (code, err) == (OK, "")
    assert out.startswith("step 7: ")
    assert "step 0 cannot be gone back to" in together(written, 1, folder, safetensors)[0]
    assert together(read, 1, str(dcp), str(safetensors)) == [[(7, EXPECTED[7][1])] * 2]
    assert {name: (folder / name).read_bytes() for name in Local(folder).list("")} == before


def test_what_cannot_be_exported_is_said_and_leaves_nothing(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: object) -> str:
        assert main(["export", *map(str, arguments)]) == FAILED
        return capfd.readouterr().err

    to, script = tmp_path / "out", [sys.executable, "-c", "pass"]
    assert "nothing was written" in refused(folder, "--to", to, "--", *script)
    assert "No such file" in refused(folder, "--to", to, "--", "no-such-command")
    assert "there is no folder" in refused(folder, "--to", to / "below" / "x", "--", *script)
    assert "is there already" in refused(folder, "--to", folder, "--", *script)
    assert list(tmp_path.iterdir()) == [folder]
