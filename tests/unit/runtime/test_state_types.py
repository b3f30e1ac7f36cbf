"""Of which types may state be? All of these come back from a file and from a peer; what cannot is named when saved."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import pathlib
import random
import uuid
import zoneinfo
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from torch import nn

from drivetrain.checkpoint import load_checkpoint, save_checkpoint
from drivetrain.errors import StateMismatch, UsageError
from drivetrain.position import Position
from drivetrain.run import Run
from drivetrain.settings import Settings
from drivetrain.state import digest, dump_skeleton, flatten, load_skeleton, unflatten
from drivetrain_api.runtime import RuntimeTraining
from unit.runtime.together import Pipe, together

BERLIN: Final = zoneinfo.ZoneInfo("Europe/Berlin")
RECORD: Final = np.dtype([("a", "f4"), ("b", "i8", (2,))])

VALUES: Final[dict[str, Any]] = {
    # plain
    "none": None,
    "numbers": [True, 1, -1.5, float("nan"), float("-inf"), -0.0, 1 + 2j],
    "large ints": [2**63, 2**127 + 1, -(2**5000)],
    "text": ["", "ä", "\ud800"],
    "bytes": [b"", b"a", bytes(range(256)), bytearray(), bytearray(b"x")],
    "ranges": [range(3, 9, 2), slice(1, None)],
    # containers
    "nested": {"a": [({"b": (1, [2])},)], "c": {}, "d": [], "e": ()},
    "keys": {1: 1, (1, (2, "a")): 2, None: 3, b"k": 4, 1.5: 5, pathlib.PurePosixPath("p"): 6, np.int64(7): 7},
    "a key of ours": {"drivetrain.type": "deque"},
    "defaultdict": [collections.defaultdict(int, a=1), collections.defaultdict(list, {(1, 2): [3]})],
    "defaultdict without": collections.defaultdict(None, a=1),
    "OrderedDict": collections.OrderedDict(b=1, a=2),
    "Counter": collections.Counter("aab"),
    "deque": [collections.deque([1, torch.ones(2), {"a": 1}], 5), collections.deque(), collections.deque([1])],
    "sets": [{1, 2}, set(), frozenset({"a", (1, frozenset({2}))}), {pathlib.PurePosixPath("x")}],
    # values of the standard library
    "paths": [pathlib.Path("a/b"), pathlib.PurePosixPath("/x"), pathlib.PureWindowsPath("c:\\x")],
    "days": [datetime.date(2020, 1, 2), datetime.datetime(2020, 1, 2, 3, 4, 5, 6), datetime.timedelta(-1, 2, 3)],
    "zones": [datetime.UTC, datetime.timezone(datetime.timedelta(hours=2), "X"), BERLIN],
    "moments": [
        datetime.datetime(2020, 10, 25, 2, 30, fold=1, tzinfo=BERLIN),
        datetime.time(1, 2, tzinfo=datetime.UTC),
    ],
    "exact": [decimal.Decimal("1.10"), decimal.Decimal("NaN"), fractions.Fraction(1, 3), uuid.UUID(int=5)],
    "random": random.Random(1).getstate(),
    # numpy
    "arrays": [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(3.5), np.zeros((0, 3)), np.arange(10)[::2]],
    "order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "dtypes": [np.ones(2, name) for name in ("bool", "i1", "u8", "f2", ">i4", "c8", "longdouble")],
    "texts": [np.array(["ab", "c"]), np.array([b"x"]), np.array([""])],
    "times": [np.array(["2020-01-01", "NaT"], "M8[D]"), np.timedelta64(3, "s")],
    "records": [np.zeros(3, RECORD), np.zeros(1, RECORD)[0]],
    "objects": np.array([[1, "a"], [None, {"b": torch.ones(1)}]], dtype=object),
    "scalars": [np.uint8(3), np.float64(0.1), np.bool_(True), np.complex64(1j), np.str_("t"), np.bytes_(b"b")],
    "dtype": np.dtype("f4"),
    "numpy's generators": [np.random.RandomState(1).get_state(), np.random.default_rng(1).bit_generator.state],
    # torch
    "tensors": [
        torch.zeros(0),
        torch.tensor(1),
        *(torch.ones(2, dtype=each) for each in (torch.bfloat16, torch.uint16)),
    ],
    "views": [torch.arange(6).view(2, 3).t(), torch.ones(2, dtype=torch.complex64).conj(), torch.ones(1).expand(3)],
    "parameters": [nn.Parameter(torch.ones(2)), nn.Buffer(torch.ones(2))],
    "types": [torch.float32, torch.float8_e4m3fn, torch.device("cpu"), torch.Size([1, 2])],
    "generator": [torch.Generator().manual_seed(3), torch.Generator().manual_seed(3).get_state()],
    "state dict": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).state_dict(),
}


def types_of(node: Any) -> Any:
    """The types of a tree, and the attributes of its containers."""
    if isinstance(node, dict):
        inside = {repr(key): types_of(value) for key, value in node.items()}
        attributes = repr(vars(node)) if hasattr(node, "__dict__") else ""
        return type(node), inside, getattr(node, "default_factory", None), attributes
    if isinstance(node, torch.Tensor):
        return torch.Tensor, node.dtype, node.shape
    if isinstance(node, np.ndarray):
        order = node.ndim > 1 and node.flags.f_contiguous
        return np.ndarray, node.dtype, node.shape, order, node.flags.writeable
    if isinstance(node, (list, tuple, collections.deque)):
        return type(node), [types_of(each) for each in node], getattr(node, "maxlen", None)
    return type(node)


def same(one: Any, other: Any) -> None:
    """Equal to the last bit, and of the same types."""
    assert types_of(one) == types_of(other)
    assert digest(one) == digest(other)


@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_back_from_a_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.pt"
    state = {"model": {"weight": torch.ones(1)}, "stats": {"value": VALUES[name]}}
    save_checkpoint(path, state, Position(step=4).dump())
    torch.load(path, weights_only=True)  # also without us
    same(load_checkpoint(path)[0]["stats"]["value"], VALUES[name])


@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_back_from_a_peer(name: str) -> None:
    skeleton, tensors = flatten(VALUES[name])
    same(unflatten(load_skeleton(dump_skeleton(skeleton)), [each.clone() for each in tensors]), VALUES[name])


def test_equal_digests_mean_equal_values() -> None:
    digests = [digest(value) for value in VALUES.values()]
    assert len(set(digests)) == len(digests)


class Colour(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


Pair = collections.namedtuple("Pair", "a b")


@dataclasses.dataclass
class Point:
    x: Any = 1


class Text(str):
    pass


class Names(dict[str, int]):
    pass


def circle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


REFUSED: Final[dict[str, tuple[Any, str]]] = {
    "an enum": (Colour.RED, "hand over its value"),
    "an int enum": (Number.ONE, "hand over its value"),
    "a named tuple": (Pair(1, 2), r"hand over tuple\(it\)"),
    "a dataclass": (Point(), "dataclasses.asdict"),
    "a function": (circle, "the function .*circle"),
    "a class": (Point, "the class .*Point"),
    "a subclass of str": (Text("a"), "an object of .*Text"),
    "a subclass of dict": (Names(a=1), "an object of .*Names"),
    "a factory": (collections.defaultdict(lambda: 3), "its default factory the function .*<lambda>"),
    "a partial factory": (collections.defaultdict(functools.partial(int)), "its default factory"),
    "a masked array": (np.ma.array([1], mask=[True]), r"numpy\.asarray"),
    "a record array": (np.recarray(1, RECORD), r"numpy\.asarray"),
    "a module": (nn.Linear(1, 1), "an object of torch.nn.modules.linear.Linear"),
    "itself": (circle(), r"\[0\]: contains itself"),
    "a tensor of a class": (nn.UninitializedParameter(), "hand over a plain tensor"),
    "a key": ({Number.ONE: 3}, r" \(the key <Number.ONE: 1>\)"),
    "in an object array": (np.array([None, Colour.RED], dtype=object), r"\[1\]: an object of"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_not_be_read_is_not_saved(tmp_path: Path, name: str) -> None:
    value, told = REFUSED[name]
    path = tmp_path / "model.pt"
    save_checkpoint(path, {"model": {}}, Position(step=1).dump())
    state = {"model": {}, "stats": {"seen": [0, 1, 2, value]}}
    with pytest.raises(UsageError, match=r"run\.save: register\('stats'\)\['seen'\]\[3\].*" + told):
        save_checkpoint(path, state, Position(step=2).dump())
    assert load_checkpoint(path)[1]["step"] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["model.pt"]


def test_what_was_written_is_read_before_it_takes_the_old_files_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(path, {"model": {}}, Position(step=1).dump())
    for encoded, told in ((lambda part, _: [Point()], "read back"), (lambda part, _: {}, "as something else")):
        monkeypatch.setattr("drivetrain.plain._encoded", encoded)
        with pytest.raises(UsageError, match=told):
            save_checkpoint(path, {"model": {"a": 1}}, Position(step=2).dump())
    assert load_checkpoint(path)[1]["step"] == 1


def test_a_file_of_the_format_before_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"format": "drivetrain.checkpoint/1", "state": {"model": {"a": (1, 2)}}, "position": {"step": 3}}, path)
    assert load_checkpoint(path) == ({"model": {"a": (1, 2)}}, {"step": 3})


def test_a_type_of_a_later_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    state = {"model": {"a": {"drivetrain.type": "Quaternion"}}}
    torch.save({"format": "drivetrain.checkpoint/2", "state": state, "position": {"step": 3}}, path)
    with pytest.raises(StateMismatch, match="'Quaternion'"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (collections.deque([1]), [1]),
        (collections.deque([1], 2), collections.deque([1], 3)),
        ({1, 2}, [1, 2]),
        ({1}, frozenset({1})),
        (collections.defaultdict(int), {}),
        (collections.defaultdict(int), collections.defaultdict(list)),
        (np.float64(1.0), 1.0),
        (np.float64(1.0), np.float32(1.0)),
        (np.arange(3000), np.where(np.arange(3000) == 1500, 0, np.arange(3000))),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros(2), torch.zeros(2)),
        (np.array([1, None], object), np.array([1, 2], object)),
        (np.ma.array([1], mask=[False]), np.ma.array([1], mask=[True])),
        (Path("a"), "a"),
        (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
        (Point(1), Point(2)),
        (Point(1), {"x": 1}),
        (Number.ONE, 1),
        (Text("a"), "a"),
        (torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)),
    ],
)
def test_what_looks_alike_has_another_digest(one: Any, other: Any) -> None:
    assert digest(one) != digest(other)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Point(torch.ones(2)),
        lambda: np.arange(5.0),
        lambda: [Colour.RED, circle, Pair(1, 2), functools.partial(max, 1)],
        lambda: collections.UserDict(a=torch.ones(1)),
    ],
)
def test_a_digest_is_the_same_wherever_a_value_lies(make: Any) -> None:
    assert digest(make()) == digest(make())


def test_a_digest_does_not_depend_on_the_order_of_a_set() -> None:
    one = {f"name {number}" for number in range(50)}
    other = {f"name {number}" for number in range(49, -1, -1)}
    assert list(one) != list(other)
    assert digest([one, frozenset(one)]) == digest([other, frozenset(other)])


class Stats:
    """Registered state that keeps what it is given."""

    def __init__(self, value: dict[str, Any]) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return self.value

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state


class Versioned(nn.Linear):
    """A layer whose state has a version."""

    _version = 7
    loaded: Any = None

    def _load_from_state_dict(self, state: Any, prefix: str, local_metadata: Any, *rest: Any) -> None:
        type(self).loaded = local_metadata.get("version")
        super()._load_from_state_dict(state, prefix, local_metadata, *rest)


def trained(pipe: Pipe, path: Path, steps: int) -> tuple[Any, Any, str]:
    torch.set_num_threads(1)
    stats = Stats(dict(VALUES) if pipe.rank == 0 and not path.exists() else {})
    run = Run(Settings(RuntimeTraining(steps=steps, global_batch=4), steps, 4, expected_world=2), None)
    data = torch.ones(8, 2)
    optimizer = torch.optim.SGD
    run.prepare(model=Versioned(2, 1), optimizer=lambda p: optimizer(p, 0.1), data=data, resume=path)
    run.register("stats", stats)
    for batch in run.batches():
        run.step(batch, lambda model, x: model(x).sum())
    sha = run.state_sha256()
    run.save(path)
    run.finish()
    return types_of(stats.value), Versioned.loaded, sha


def test_newcomers_and_resumed_jobs_get_the_types_that_others_had(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    expected = types_of(dict(VALUES))
    begun = together(trained, 2, path, 1)
    resumed = together(trained, 2, path, 2)
    for ranks in (begun, resumed):
        assert [each[0] for each in ranks] == [expected] * 2
        assert len({each[2] for each in ranks}) == 1
    assert [each[1] for each in begun] == [None, 7]  # rank 0 loaded nothing
    assert [each[1] for each in resumed] == [7, 7]


def refused(pipe: Pipe, value: Any, path: Path) -> tuple[str, int]:
    """What a run of two ranks says of registered state, and how many steps it made."""
    torch.set_num_threads(1)
    seen = collections.UserList([lambda: 3]) if value == "a function without a name" else value
    stats = Stats({"seen": [seen]})
    run = Run(Settings(RuntimeTraining(steps=2, global_batch=4), 2, 4, expected_world=2), None)
    run.prepare(model=nn.Linear(2, 1), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=torch.ones(8, 2))
    run.register("stats", stats)
    try:
        for batch in run.batches():
            run.step(batch, lambda model, x: model(x).sum())
            run.save(path)
    except UsageError as error:
        return str(error), run.step_number
    return "", run.step_number


def test_all_ranks_refuse_to_save_what_could_not_be_read(tmp_path: Path) -> None:
    for told, steps in together(refused, 2, Colour.RED, tmp_path / "model.pt"):
        assert "register('stats')['seen'][0]" in told
        assert steps == 1


def test_what_cannot_travel_is_named_before_it_has_to(tmp_path: Path) -> None:
    for told, steps in together(refused, 2, "a function without a name", tmp_path / "model.pt"):
        assert "state['stats']['seen'][0].data[0]: function cannot be copied to a newcomer" in told
        assert steps == 0


def test_what_cannot_travel_is_named() -> None:
    with pytest.raises(UsageError, match="contains itself"):
        flatten(circle())
    skeleton, _ = flatten({"stats": {"seen": [1, collections.defaultdict(lambda: 3)]}})
    with pytest.raises(UsageError, match=r"state\['stats'\]\['seen'\]\[1\]: defaultdict cannot be copied"):
        dump_skeleton(skeleton)
