"""The committed CRD is the generated one, and has what kubectl and an API server look for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drivetrain_api.crd import as_yaml, custom_resource_definition, schema
from drivetrain_api.reference import reference
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import TrainingJobStatus

ROOT = Path(__file__).parents[3]


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], f"{path}[]")


def test_committed_is_generated() -> None:
    committed = (ROOT / "crds" / "drivetrain.dev_trainingjobs.yaml").read_text()
    assert committed == as_yaml(), "run: make generate"


def test_committed_reference_is_generated() -> None:
    assert (ROOT / "docs" / "reference" / "api.md").read_text() == reference(), "run: make generate"


def test_columns() -> None:
    columns = custom_resource_definition()["spec"]["versions"][0]["additionalPrinterColumns"]
    short = [c["name"].upper() for c in columns if not c.get("priority")]
    assert short == ["PHASE", "PROGRESS", "STEP", "ETA", "RESTARTS", "READY", "AGE"]
    assert [c["name"].upper() for c in columns if c.get("priority")] == [
        "BUDGET",
        "DURABLE",
        "LOSS",
        "GOODPUT",
        "KWH",
        "GCO2E",
        "REASON",
    ]


@pytest.mark.parametrize(
    "path",
    [
        *(c["jsonPath"] for c in custom_resource_definition()["spec"]["versions"][0]["additionalPrinterColumns"]),
        ".spec.workers",
        ".status.workers.current",
        ".status.selector",
    ],
)
def test_paths_lead_somewhere(path: str) -> None:
    node = schema()
    for step in path.removeprefix(".").split("."):
        if step == "metadata":
            return
        node = node["properties"][step]
    assert node["type"] in ("string", "integer", "number")


def test_structural() -> None:
    """What the API server calls structural: a type everywhere, no references, no unions, no nulls."""
    for path, node in nodes(schema()):
        assert isinstance(node.get("type"), str), path
        assert not {"$ref", "$defs", "anyOf", "oneOf", "allOf", "title", "const"} & set(node), path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert node.get("default", ...) is not None, path


def test_status_has_no_defaults() -> None:
    assert not [path for path, node in nodes(schema()["properties"]["status"]) if "default" in node]


def test_pod_template_is_kept_as_it_is() -> None:
    template = schema()["properties"]["spec"]["properties"]["podTemplate"]
    assert template["x-kubernetes-preserve-unknown-fields"] is True
    assert "properties" not in template


def test_fields_are_exactly_those_that_something_reads() -> None:
    assert [f.alias or name for name, f in TrainingJobSpec.model_fields.items()] == [
        "image",
        "command",
        "script",
        "runtime",
        "runtimeFrom",
        "workers",
        "elastic",
        "gpusPerWorker",
        "gpuResource",
        "processesPerWorker",
        "podTemplate",
        "coordinator",
        "network",
        "training",
        "recovery",
        "snapshots",
        "storage",
        "restoreFrom",
        "energy",
        "suspend",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    ]


def test_an_empty_status_can_be_read() -> None:
    assert TrainingJobStatus.model_validate({}) == TrainingJobStatus()
    assert TrainingJobStatus.model_validate({"fromTheFuture": 1}) == TrainingJobStatus()
