"""What a script says of training itself, in place of a job: judged and resolved as if it stood in `spec.training`.

A script uses the names of `RuntimeTraining` (`global_batch`, not `batch.global`). Here is which field each of them is,
so that bounds, types and rules are written down once, with the spec.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from drivetrain_api.resolve import MIN_VIRTUAL_SHARDS, to_runtime_training
from drivetrain_api.rules import training_violations
from drivetrain_api.runtime import RuntimeTraining
from drivetrain_api.training import Training

_MEGABYTE: Final = 1 << 20
_MOST_SHARDS: Final = 1 << 16

_FIELDS: Final[dict[str, str]] = {
    "steps": "steps",
    "seed": "seed",
    "global_batch": "batch.global",
    "microbatches": "batch.microbatches",
    "data_workers": "data.workers",
    "clip_norm": "clipNorm",
    "bucket_bytes": "parallel.bucketMegabytes",
    "zero": "parallel.zero",
    "tensor": "parallel.tensor",
    "pipeline": "parallel.pipeline",
    "optimizer": "optimizer",
    "learning_rate": "learningRate",
    "precision": "precision",
    "compression": "compression",
    "balance_every": "balance.every",
    "tracking": "tracking",
    "verify": "verify",
    "deterministic": "deterministic",
}
"""By a script's name: where it stands in `spec.training`. Fields of sections have the same names, in camelCase."""


class WrongDefaults(ValueError):
    """What a script says cannot be; the message names the field as the script knows it."""


def runtime_training(given: Mapping[str, Any]) -> RuntimeTraining:
    """Settings from what a script, or a script and a job, have said. Raises `WrongDefaults`."""
    spec: dict[str, Any] = {}
    for name, path in _FIELDS.items():
        value = _as_spec(name, given.get(name))
        if value is not None:
            _put(spec, path.split("."), value)
    shards = given.get("virtual_shards", MIN_VIRTUAL_SHARDS)
    if not isinstance(shards, int) or not 1 <= shards <= _MOST_SHARDS:
        raise WrongDefaults(f"virtual_shards: must be an integer from 1 to {_MOST_SHARDS}, got {shards!r}")
    try:
        training = Training.model_validate_json(json.dumps(spec))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"]))
        raise WrongDefaults(f"{_named(path)}: {first['msg']}, got {first['input']!r}") from None
    except TypeError as error:
        raise WrongDefaults(f"only numbers, texts, booleans and dicts of them can be said: {error}") from None
    for message in training_violations(training):
        raise WrongDefaults(_in_script_names(message))
    found = to_runtime_training(training, shards)
    return found.model_copy(update={"bucket_bytes": given["bucket_bytes"]}) if "bucket_bytes" in given else found


def _as_spec(name: str, value: Any) -> Any:
    """A value as the spec would have it; None: it is not said."""
    if isinstance(value, BaseModel):  # from a job, with all fields: those say something that are not as they always are
        fields = type(value).model_fields
        said = {key: each for key, each in value.model_dump().items() if each != fields[key].default}
        value = said or None
    if isinstance(value, Mapping):
        value = {to_camel(key): each for key, each in value.items() if each is not None}
        if name == "pipeline" and value.get("chunks") == 1:  # a spec says nothing then
            del value["chunks"]
    if name == "bucket_bytes" and isinstance(value, int) and not isinstance(value, bool):
        return -(-value // _MEGABYTE)
    return value


def _put(spec: dict[str, Any], path: list[str], value: Any) -> None:
    *sections, last = path
    for each in sections:
        spec = spec.setdefault(each, {})
    spec[last] = value


def _paths() -> Iterator[tuple[str, str]]:
    """Of all fields: in the spec, and as a script knows it."""
    for name, path in _FIELDS.items():
        yield path, name
        section = RuntimeTraining.model_fields[name].annotation
        for each in (section, *getattr(section, "__args__", ())):
            if isinstance(each, type) and issubclass(each, BaseModel):
                yield from ((f"{path}.{to_camel(field)}", f"{name}.{field}") for field in each.model_fields)


def _named(path: str) -> str:
    return dict(_paths()).get(path, path)


def _in_script_names(message: str) -> str:
    for path, name in sorted(_paths(), key=lambda each: -len(each[0])):
        message = message.replace(f"spec.training.{path}", name)
    return message
