"""Helm itself, without a cluster: what does the chart make of these values, and what does it refuse?"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from cluster import binaries

CHART: Final = Path(__file__).parents[2] / "charts" / "drivetrain"
NAMESPACE: Final = "drivetrain-system"
MONITORING: Final = ("--api-versions", "monitoring.coreos.com/v1")
"""As of a cluster with the Prometheus operator."""
Json = dict[str, Any]
Objects = dict[tuple[str, str], Json]
"""By kind and name; outside of the release's namespace `namespace/name`."""


@functools.cache
def program() -> str:
    """The helm that `make cluster` has, too: built once by Go, from the Go proxy. Without Go, the one on PATH."""
    if binaries.missing("helm") and shutil.which("go") is None:
        found = shutil.which("helm")
        if found is None:
            pytest.skip("the chart is rendered by helm: install helm, or Go, which builds it")
        return found
    return str(binaries.build("helm") / "helm")


def helm(*arguments: str, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """Run it; `values` beside those of the chart."""
    given = ("--values", "-") if values is not None else ()
    return subprocess.run(
        [program(), *arguments, *given],
        input=json.dumps(values) if values is not None else None,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def rendered(values: Mapping[str, Any] | None = None, *flags: str, chart: Path = CHART) -> Objects:
    """All objects of a release called `drivetrain`; without the CRD, which takes a second to read."""
    done = helm("template", "drivetrain", str(chart), "--namespace", NAMESPACE, *flags, values=values or {})
    assert done.returncode == 0, done.stderr
    found: Objects = {}
    for text in done.stdout.split("\n---\n"):
        if "kind: CustomResourceDefinition" in text:
            continue
        each = yaml.load(text, Loader=Strict)
        if each:
            name, where = each["metadata"]["name"], each["metadata"].get("namespace", NAMESPACE)
            key = each["kind"], name if where == NAMESPACE else f"{where}/{name}"
            assert key not in found, f"{key} stands twice"
            found[key] = each
    return found


def refusal(values: Mapping[str, Any], *flags: str, chart: Path = CHART) -> str:
    """What it says where it refuses them; empty: it would not."""
    done = helm("template", "drivetrain", str(chart), "--namespace", NAMESPACE, *flags, values=values)
    return "" if done.returncode == 0 else done.stderr


def deployment(objects: Objects) -> Json:
    """The operator's pod: a PodTemplateSpec."""
    pod: Json = objects["Deployment", "drivetrain-operator"]["spec"]["template"]
    return pod


def container(objects: Objects) -> Json:
    """The operator's container."""
    found: Json = deployment(objects)["spec"]["containers"][0]
    return found


def nested(path: str, value: Any) -> Json:
    """`a.b`, 1 → {a: {b: 1}}."""
    for name in reversed(path.split(".")):
        value = {name: value}
    found: Json = value
    return found


def at(found: Any, path: Sequence[str | int]) -> Any:
    """What stands there in an object."""
    for each in path:
        found = found[each]
    return found


class Strict(yaml.CSafeLoader):
    """A key that stands twice is an error, as for the API server."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(names) == len(set(names)), f"a key stands twice: {names}{node.start_mark}"
        return super().construct_mapping(node, deep)
