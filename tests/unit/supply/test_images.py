"""What is claimed of both images, and of what builds them, is in their files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[3]
DOCKERFILES: Final = {"operator": "Dockerfile", "worker": "worker-image/Dockerfile"}
BAKE: Final = (ROOT / "docker-bake.hcl").read_text()


def target(name: str) -> str:
    found = re.search(rf'^target "{name}" {{\n(.*?)^}}', BAKE, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[1]


@pytest.mark.parametrize(("image", "file"), DOCKERFILES.items())
def test_an_image_says_what_it_is_and_runs_as_nobody_in_particular(image: str, file: str) -> None:
    text = (ROOT / file).read_text()
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["1000:1000"]
    assert re.findall(r"^FROM (.*)$", text, re.MULTILINE) == ["${PYTHON_IMAGE}"], "one base, which is given"
    labels = dict(re.findall(r'org\.opencontainers\.image\.([\w.]+)="([^"]*)"', text))
    assert labels["title"] == f"drivetrain-{image}"
    assert labels["licenses"] == "Apache-2.0"
    given = set(re.findall(r"^ARG (\w+)", text.partition("\nLABEL ")[0].rpartition("\nUSER ")[2], re.MULTILINE))
    assert {re.sub(r"\W", "", labels[name]) for name in ("version", "revision", "created", "base.name")} == given
    assert all("--require-hashes" in line for line in re.findall(r"pip install .*?--requirement", text, re.DOTALL))


@pytest.mark.parametrize(("image", "file"), DOCKERFILES.items())
def test_a_release_builds_it_for_its_platforms_with_all_arguments(image: str, file: str) -> None:
    assert f'dockerfile = "{file}"' in target(image)
    assert "linux/amd64" in target(image)
    assert f'tags       = ["${{REGISTRY}}/drivetrain-{image}:${{VERSION}}"]' in target(image)
    arguments = set(re.findall(r"^    (\w+) +=", target("common"), re.MULTILINE))
    assert arguments == set(re.findall(r"^ARG (\w+)", (ROOT / file).read_text(), re.MULTILINE))
    assert set(re.findall(r'^variable "(\w+)"', BAKE, re.MULTILINE)) == {*arguments, "REGISTRY"}
    assert 'attest = ["type=sbom", "type=provenance,mode=max"]' in target("common")


def test_the_chart_says_the_platforms_that_are_built() -> None:
    platforms = re.findall(r'"(linux/\w+)"', target("operator"))
    assert f"platforms: [{', '.join(platforms)}]" in (ROOT / "charts" / "drivetrain" / "Chart.yaml").read_text()
