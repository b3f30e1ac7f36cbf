"""The CustomResourceDefinition, made from the models: `python -m drivetrain_api.crd`, committed under crds/.

pydantic writes JSON Schema; a CRD wants a structural OpenAPI v3 schema. The difference is: references inlined, no
titles, `X | None` is X, exclusive bounds as flags, whole numbers as int64, defaults of parents `{}` (the API server
fills in the children's own), and no defaults at all in status, where absence means something.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from pydantic import BaseModel

from drivetrain_api.constants import GROUP, KIND, PLURAL, SHORT_NAME, VERSION
from drivetrain_api.rules import RULES
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import TrainingJobStatus

Json = dict[str, Any]

COLUMNS: Final[tuple[tuple[str, str, str, str, int], ...]] = (
    ("Phase", "string", ".status.phase", "Pending, Running, Waiting, Suspended, Succeeded or Failed.", 0),
    ("Progress", "string", ".status.progress.summary", "Part of training.steps that is done.", 0),
    ("Step", "integer", ".status.progress.step", "Steps that every member has committed.", 0),
    ("ETA", "string", ".status.progress.eta", "Time that the rest will take at this pace.", 0),
    ("Restarts", "integer", ".status.restarts", "Incidents that were ever charged to recovery.maxRestarts.", 0),
    ("Ready", "string", ".status.workers.summary", "Workers that take part, of those wanted.", 0),
    ("Age", "date", ".metadata.creationTimestamp", "Time since the job was created.", 0),
    ("Budget", "string", ".status.budget.summary", "Incidents that count against recovery.maxRestarts now.", 1),
    ("Durable", "integer", ".status.progress.durableStep", "Steps that the job can go back to from storage.", 1),
    ("Loss", "number", ".status.progress.loss", "Loss of the last step told.", 1),
    ("Goodput", "string", ".status.goodput.summary", "Productive part of the time since the job was created.", 1),
    ("kWh", "string", ".status.energy.used.kwh", "Electricity that its workers drew.", 1),
    ("gCO2e", "string", ".status.energy.used.grams", "Grams of CO2 equivalent that generating it emitted.", 1),
    ("Reason", "string", ".status.reason", "Why the job is in this phase.", 1),
)
"""Name, type, path, description, priority (1: only with -o wide)."""


def custom_resource_definition() -> Json:
    """The whole object."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": [SHORT_NAME],
                "categories": ["all"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.workers",
                            "statusReplicasPath": ".status.workers.current",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [_column(*column) for column in COLUMNS],
                    "schema": {"openAPIV3Schema": schema()},
                }
            ],
        },
    }


def schema() -> Json:
    """The structural schema of a TrainingJob, with its CEL rules."""
    root: Json = {
        "type": "object",
        "description": "A distributed PyTorch training whose survivors never restart.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this object's schema."},
            "kind": {"type": "string", "description": "TrainingJob."},
            "metadata": {"type": "object"},
            "spec": structural(TrainingJobSpec),
            "status": _without_defaults(structural(TrainingJobStatus)),
        },
    }
    for rule in RULES:
        node = root
        for step in rule.path.split(".") if rule.path else ():
            node = node["properties"][step]
        node.setdefault("x-kubernetes-validations", []).append({"rule": rule.cel, "message": rule.message})
    return root


def structural(model: type[BaseModel]) -> Json:
    """The structural schema of one model."""
    found = model.model_json_schema(by_alias=True)
    node: Json = _node(found, found.pop("$defs", {}))
    return node


def _node(source: Json, definitions: Json) -> Json:
    node = dict(source)
    if "$ref" in node:
        # What stands beside the reference (description, default) is about this use and wins.
        node = {**definitions[node.pop("$ref").rsplit("/", 1)[1]], **node}
    if "anyOf" in node:
        (choice,) = (option for option in node.pop("anyOf") if option.get("type") != "null")
        if node.get("default", ...) is None:
            del node["default"]
        return _node({**choice, **node}, definitions)
    for flag, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if flag in node:
            node[bound], node[flag] = node[flag], True
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if node.get("type") == "integer":
        node["format"] = "int64"
    for unwanted in ("title", "propertyNames"):
        node.pop(unwanted, None)
    if node.get("additionalProperties") is True:
        del node["additionalProperties"]
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            node[key] = _node(node[key], definitions)
    if "properties" in node:
        node["properties"] = {name: _node(child, definitions) for name, child in node["properties"].items()}
        if "default" in node:
            node["default"] = {}
    return _ordered(node)


def _without_defaults(node: Json) -> Json:
    found = {key: value for key, value in node.items() if key != "default"}
    if "properties" in found:
        found["properties"] = {name: _without_defaults(child) for name, child in found["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = _without_defaults(found[key])
    return found


def _ordered(node: Json) -> Json:
    first = ("type", "format", "description", "default", "enum")
    rest = [key for key in node if key not in (*first, "required", "properties", "items")]
    return {key: node[key] for key in (*first, *rest, "required", "properties", "items") if key in node}


def _column(name: str, type_: str, path: str, description: str, priority: int) -> Json:
    column: Json = {"name": name, "type": type_, "jsonPath": path, "description": description}
    return column | {"priority": priority} if priority else column


def as_yaml() -> str:
    """What is committed under crds/."""
    import yaml  # only where files are generated: launchers import this package and must not need it

    head = "# Generated by `make generate` from operator/drivetrain_api. Do not edit.\n"
    return head + yaml.safe_dump(custom_resource_definition(), sort_keys=False, width=110, allow_unicode=True)


if __name__ == "__main__":
    sys.stdout.write(as_yaml())
