"""Which flag sets which field of spec.training? One for each, made from the API's own models."""

from __future__ import annotations

import argparse
import re
import textwrap
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from drivetrain_api.training import Training

Json = dict[str, Any]
_SHORT: Final[Mapping[str, str]] = {
    "batch.global": "batch",
    "batch.microbatches": "microbatches",
    "optimizer.name": "optimizer",
    "compression.method": "compression",
    "parallel.tensor": "tensor",
    "parallel.zero": "zero",
    "parallel.pipeline.stages": "pipeline-stages",
    "parallel.pipeline.schedule": "pipeline-schedule",
    "parallel.pipeline.chunks": "pipeline-chunks",
    "parallel.bucketMegabytes": "bucket-megabytes",
    "tracking.tensorboard.folder": "tensorboard",
    "tracking.mlflow.uri": "mlflow",
    "tracking.mlflow.experiment": "mlflow-experiment",
    "tracking.wandb.project": "wandb",
    "tracking.wandb.folder": "wandb-folder",
    "tracking.wandb.entity": "wandb-entity",
}
"""What people call them; all others are named by their path."""


@dataclass(frozen=True, slots=True)
class TrainingFlag:
    """One leaf of spec.training."""

    path: str
    """Below spec.training, such as batch.global."""
    kind: type
    choices: tuple[str, ...]
    many: bool
    """A list: given with commas."""
    text: str

    @property
    def flag(self) -> str:
        """As it is typed."""
        return "--" + _SHORT.get(self.path, re.sub(r"(?<=[a-z0-9])([A-Z])|\.", _dash, self.path).lower())

    @property
    def name(self) -> str:
        """Where argparse puts it."""
        return "training_" + self.path.replace(".", "_")


def training_flags() -> tuple[TrainingFlag, ...]:
    """All, in the order of the API."""
    return tuple(_leaves(Training, ""))


def add_training(parser: argparse.ArgumentParser) -> None:
    """The flags in a group of their own."""
    group = parser.add_argument_group("the training (default: what the script itself says)")
    for each in training_flags():
        if each.kind is bool:
            group.add_argument(each.flag, dest=each.name, action="store_true", default=None, help=each.text)
            continue
        group.add_argument(
            each.flag,
            dest=each.name,
            type=_list_of(each.kind) if each.many else each.kind,
            choices=each.choices or None,
            metavar=None if each.choices else "A,B" if each.many else {int: "N", float: "X"}.get(each.kind, "NAME"),
            help=each.text,
        )


def training_of(arguments: argparse.Namespace) -> Json:
    """spec.training of what was given."""
    found: Json = {}
    for each in training_flags():
        value = getattr(arguments, each.name)
        if value is None:
            continue
        *parents, leaf = each.path.split(".")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return found


def _leaves(model: type[BaseModel], above: str) -> Iterator[TrainingFlag]:
    for field_name, info in model.model_fields.items():
        path = f"{above}{info.alias or field_name}"
        kind = _bare(info.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _leaves(kind, f"{path}.")
        elif get_origin(kind) is Literal:
            yield TrainingFlag(path, str, tuple(get_args(kind)), many=False, text=_text(info))
        elif get_origin(kind) is list:
            yield TrainingFlag(path, _bare(get_args(kind)[0]), (), many=True, text=_text(info))
        else:
            yield TrainingFlag(path, kind, (), many=False, text=_text(info))


def _bare(annotation: Any) -> Any:
    """Without Annotated and None."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        (kind,) = (each for each in get_args(annotation) if each is not type(None))
        return _bare(kind)
    return annotation


def _text(info: FieldInfo) -> str:
    """Its first sentence, as far as a line or two hold it; `kubectl explain` has the rest."""
    first = re.split(r"(?<!al)\.\s", info.description or "", maxsplit=1)[0].rstrip(".")
    return textwrap.shorten(first, 150, placeholder=" …").replace("%", "%%")


def _list_of(kind: type) -> Any:
    def parsed(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",")]

    parsed.__name__ = f"list of {kind.__name__}"
    return parsed


def _dash(match: re.Match[str]) -> str:
    return f"-{match[1] or ''}"
