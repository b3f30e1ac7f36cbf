"""Exceptions whose texts, constructors and attributes raise are of the same class on all ranks; training goes on."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from drivetrain import closing
from drivetrain.errors import PeerError
from drivetrain.run import Run
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, Net, Numbers, settings


class NoText(Exception):
    def __str__(self) -> NoReturn:
        raise RuntimeError("no text")


class NewFails(ValueError):
    def __new__(cls, *args: Any) -> Any:
        if len(args) != 2:
            raise ValueError("one argument is not enough")
        return super().__new__(cls, *args)


class Single(type):
    def __new__(cls, name: str, bases: tuple[type, ...], words: dict[str, Any]) -> Any:
        if len(bases) > 1:
            raise ValueError("single inheritance only")
        return super().__new__(cls, name, bases, words)


class OfSingle(Exception, metaclass=Single):
    pass


class NoChildren(Exception):
    def __init_subclass__(cls) -> None:
        raise TypeError("final")


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


class NoNotes(Exception):
    def add_note(self, text: str) -> NoReturn:
        raise RuntimeError("no notes")


class Slots(Exception):
    __slots__ = ("code",)


class Everywhere(BaseException):
    pass


LONG = type("長" * 40, (Exception,), {"__module__": __name__})
globals()[LONG.__name__] = LONG

ODD: dict[str, BaseException] = {
    "MemoryError": MemoryError("full"),
    "OSError": FileNotFoundError(2, "not there", "corpus"),
    "KeyError": KeyError("sample"),
    "UnicodeDecodeError": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no start byte"),
    "StopIteration": StopIteration(3),
    "SyntaxError": SyntaxError("bad", ("file", 1, 2, "text")),
    "ImportError": ModuleNotFoundError("no", name="corpus"),
    "AttributeError": AttributeError("none", name="x", obj=3),
    "group": ExceptionGroup("two", [ValueError("a"), ExceptionGroup("inner", [KeyError("b")])]),
    "group of all": BaseExceptionGroup("all", [asyncio.CancelledError("c")]),
    "cancelled": asyncio.CancelledError("away"),
    "own base": Everywhere("out"),
    "torch": torch.OutOfMemoryError("no memory"),
    "no text": NoText("a"),
    "__new__": NewFails("a", "b"),
    "metaclass": OfSingle("one"),
    "final": NoChildren("none"),
    "frozen": Frozen(3),
    "no notes": NoNotes("a"),
    "slots": Slots("a"),
    "long": LONG("語" * 2000),
    "surrogate": ValueError("\udcff"),
    "zero byte": ValueError("a\0b"),
}
TEXTS = {
    "no text": "no text: its __str__ raises RuntimeError",
    "group": "two (2 sub-exceptions)",
    "KeyError": "KeyError: 'sample'",
    "long": "語語語語",
}


def each_in_turn(pipe: Pipe) -> dict[str, tuple[str, str, str]]:
    """Rank 1 raises one a step. By name: class as `except` sees it, what it says, and its notes."""
    run = Run(settings(Case(steps=len(ODD) + 1)), None)
    run.prepare(model=Net("plain"), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Numbers())
    names = list(ODD)
    told = {}

    def forward(model: nn.Module, shard: Any) -> torch.Tensor:
        if pipe.rank == 1 and run.step_number < len(names):
            raise ODD[names[run.step_number]]
        return F.cross_entropy(model(shard[0]), shard[1])

    for batch in run.batches():
        try:
            run.step(batch, forward)
        except BaseException as error:  # noqa: BLE001
            name = names[batch.step]
            same = isinstance(error, type(ODD[name]))
            notes = "\n".join(error.__notes__)
            told[name] = (type(error).__name__ if same else f"no {type(error).__name__}", closing.text_of(error), notes)
    run.finish()
    return told


def test_every_class_is_caught_on_all_ranks() -> None:
    first, second = together(each_in_turn, 2)
    for name, error in ODD.items():
        kind = type(error).__name__
        assert second[name][0] == kind
        assert "This was rank 1, at run.step in test_odd_errors.py:" in second[name][2]
        assert first[name][0] == kind, first[name]
        assert re.match(r"rank 1, at run.step in test_odd_errors.py:\d+: ", first[name][1]), first[name]
        assert TEXTS.get(name, "") in first[name][1]
        assert first[name][2].startswith("On rank 1:")


def test_members_of_a_group_are_caught_too() -> None:
    made = closing._decoded(json.loads(closing._encoded(ODD["group"])), "rank 1: two")
    assert isinstance(made, ExceptionGroup)
    assert [type(each).__mro__[1] for each in made.exceptions] == [ValueError, KeyError]
    assert all(isinstance(each, PeerError) for each in made.exceptions)


@pytest.mark.parametrize("text", ["x" * 5000, "\N{GRINNING FACE}" * 5000, "\0" * 5000])
def test_any_text_fits(text: str) -> None:
    group = ExceptionGroup(text, [LONG(text) for _ in range(9)])
    for error in (LONG(text), group):
        data = closing._encoded(error)
        assert len(data) <= closing._BYTES
        assert json.loads(data)["message"]
