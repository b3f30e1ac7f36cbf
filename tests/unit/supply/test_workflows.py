"""Hosted CI does what everybody can do here: it calls scripts that are there, and may do no more than it has to."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[3]
WORKFLOWS: Final = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS: Final = set(re.findall(r"^([a-z][-a-z]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
OTHERS: Final = ("docker", "echo", "gh")


def jobs(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load(file.read_text())["jobs"].values())


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_what_it_runs_is_there(file: Path) -> None:
    for step in (step for job in jobs(file) for step in job["steps"] if "run" in step):
        for line in step["run"].strip().splitlines():
            words = shlex.split(re.sub(r"^\w+=\$\(", "", line.strip()))
            if re.fullmatch(r"\w+=\S*", words[0]):
                continue
            if words[0] == "make":
                assert words[1] in TARGETS, line
            else:
                assert words[0] in OTHERS or (ROOT / words[0]).stat().st_mode & 0o100, line


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_it_may_do_no_more_than_it_has_to(file: Path) -> None:
    workflow = yaml.safe_load(file.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in file.read_text(), "strangers' code would see our secrets"
    for job in jobs(file):
        assert 0 < job["timeout-minutes"] <= 120
        for step in job["steps"]:
            assert "${{" not in step.get("run", ""), "what others wrote would be run"
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|[0-9a-f]{40})", step["uses"])
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


def test_the_checks_are_those_of_everybody() -> None:
    steps = [step.get("run") for job in jobs(ROOT / ".github/workflows/ci.yml") for step in job["steps"]]
    assert ".ci/run" in steps


def test_updates_are_asked_for_where_something_is() -> None:
    for update in yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]:
        for folder in update.get("directories", [update.get("directory")]):
            if update["package-ecosystem"] == "gomod":
                assert (ROOT / folder.lstrip("/") / "go.mod").exists(), folder
    wrappers = {f"/tests/cluster/go/{each.parent.name}" for each in (ROOT / "tests/cluster/go").glob("*/go.sum")}
    listed = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"][-1]["directories"]
    assert set(listed) == wrappers
