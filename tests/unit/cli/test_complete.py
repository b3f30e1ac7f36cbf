"""What is offered at the cursor, and do the shells' scripts ask for it?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from drivetrain_cli import complete
from drivetrain_cli.completion import SCRIPTS
from drivetrain_cli.main import make_parser
from harness.served import served
from unit.api.cases import job

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("words", "some", "none"),
    [
        ([""], ["list", "status", "scale"], ["--help", "__complete"]),
        (["s"], ["status", "scale", "suspend", "snapshots"], ["list"]),
        (["list", "--"], ["--all-namespaces", "--selector", "--output"], ["-A"]),
        (["list", "-o", ""], ["wide", "json", "yaml", "name"], []),
        (["list", "--output="], ["--output=wide"], ["wide"]),
        (["completion", ""], ["bash", "zsh", "fish"], []),
        (["snapshots", "lm", "re"], ["restore"], ["list"]),
        (["run", ""], [":files"], []),
        (["run", "--image", ""], [], ["train.py"]),
        (["scale", "lm", ""], [], [":files"]),
        (["nonsense", ""], ["list"], []),
    ],
)
def test_candidates(words: list[str], some: list[str], none: list[str]) -> None:
    found = [word for word, _ in complete.candidates(make_parser(), words)]
    assert [each for each in some if each not in found] == []
    assert [each for each in none if each in found] == []


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["status", ""], ["lm", "words"]),
        (["status", "--watch", "w"], ["words"]),
        (["delete", "lm", ""], ["lm", "words"]),
        (["logs", "-n", "team", ""], ["theirs"]),
        (["logs", "--namespace=team", "-f", ""], ["theirs"]),
        (["scale", "w"], ["words"]),
    ],
)
def test_names_of_jobs_come_from_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], names: list[str]
) -> None:
    with served(tmp_path) as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig))
        api.post("/api/v1/namespaces", {"metadata": {"name": "team"}})
        for name in ("lm", "words"):
            api.put(job(name))
        theirs = job("theirs")
        theirs["metadata"]["namespace"] = "team"
        api.put(theirs)
        assert [word for word, _ in complete.candidates(make_parser(), words)] == names


def test_without_a_cluster_there_is_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    assert complete.candidates(make_parser(), ["status", ""]) == []


def test_kubectl_is_told_in_its_own_manner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["kubectl_complete-drivetrain", "sus"])
    assert complete.kubectl() == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == ["suspend", ":4"]


def program(folder: Path) -> dict[str, str]:
    """An environment with `drivetrain` on PATH."""
    path = folder / "bin"
    path.mkdir()
    (path / "drivetrain").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m drivetrain_cli "$@"\n')
    (path / "drivetrain").chmod(0o755)
    paths = {"PATH": f"{path}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT / 'operator'}"}
    return {**os.environ, **paths, "HOME": str(folder), "KUBECONFIG": str(folder / "nothing")}


def asked(shell: str, code: str, folder: Path) -> list[str]:
    """What a shell prints that has sourced our script."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    (folder / "script").write_text(SCRIPTS[shell])
    done = subprocess.run(
        [shell, "-c", code], env=program(folder), cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    return [line.split("\t")[0] for line in done.stdout.splitlines()]


def test_bash(tmp_path: Path) -> None:
    code = """source ./script
COMP_WORDS=(drivetrain list -o ""); COMP_CWORD=3; _drivetrain; printf '%s\\n' "${COMPREPLY[@]}"
COMP_WORDS=(drivetrain run scr); COMP_CWORD=2; _drivetrain; printf '%s\\n' "${COMPREPLY[@]}" """
    assert asked("bash", code, tmp_path) == ["wide", "name", "json", "yaml", "script"]


def test_fish(tmp_path: Path) -> None:
    assert asked("fish", 'source ./script; complete -C "drivetrain list -o "', tmp_path) == [
        "json",
        "name",
        "wide",
        "yaml",
    ]


def test_zsh_reads_the_script(tmp_path: Path) -> None:
    code = (
        "_describe() { print -l -- ${(P)2}; }; source ./script; words=(drivetrain list -o ''); CURRENT=4; _drivetrain"
    )
    assert asked("zsh", code, tmp_path) == ["wide:wide", "name:name", "json:json", "yaml:yaml"]
