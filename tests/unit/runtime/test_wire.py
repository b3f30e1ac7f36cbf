"""What ranks tell each other: comes as it was, and whatever else somebody puts into a connection is one clear error."""

from __future__ import annotations

import collections
import dataclasses
import enum
import math
import pickle
import random
import struct
import types
from argparse import Namespace
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drivetrain.errors import CommFault, DrivetrainError, UsageError
from drivetrain.state import digest, dump_skeleton, flatten, load_skeleton
from drivetrain.tree import Array, Place
from drivetrain.wire import Vocabulary, dump, limits, load
from unit.runtime.test_state_types import VALUES, same


class Colour(enum.Enum):
    RED = 1
    CRIMSON = RED


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Pair(NamedTuple):
    one: Any
    other: Any


@dataclasses.dataclass
class Point:
    x: Any = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Fixed:
    x: Any = 1


class Slotted:
    __slots__ = ("__hidden", "shown")

    def __init__(self) -> None:
        self.__hidden = 3


class Text(str):
    note: Any


class Names(dict[str, Any]):
    pass


class Called:
    """Everything that pickle might call says so."""

    said: ClassVar[list[str]] = []

    def __new__(cls) -> Called:
        cls.said.append("new")
        return super().__new__(cls)

    def __init__(self) -> None:
        self.said.append("init")
        self.value = torch.ones(2)

    def __setattr__(self, name: str, value: Any) -> None:
        self.said.append("setattr")
        super().__setattr__(name, value)


class WithDel(Point):
    def __del__(self) -> None:
        Called.said.append("del")


class WithState:
    def __setstate__(self, state: Any) -> None:
        Called.said.append("setstate")


def travelled(value: Any) -> Any:
    return load(dump(value), Vocabulary([Point()]))


def text() -> Text:
    found = Text("a")
    found.note = [1]
    return found


OBJECTS: Final[dict[str, Any]] = {
    "enums": [Colour.RED, Colour.CRIMSON, Rights.READ | Rights.WRITE, Rights(0)],
    "named tuple": Pair(1, [2]),
    "dataclasses": [Point(torch.ones(2)), Fixed({"a": 1})],
    "text": text(),
    "a dict": Names(a=1, b={}),
    "an object": [collections.UserDict(a=torch.arange(3)), types.SimpleNamespace(a=torch.ones(1)), Namespace(b=2)],
    "slots": Slotted(),
    "nested": {"a": [Pair(Colour.RED, Point(Fixed(collections.UserList([1]))))]},
    "a key": {Pair(1, 2): 3, Colour.RED: 4, Fixed(1): 5},
}


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_of_the_scripts_comes_as_it_was(name: str) -> None:
    same(travelled(OBJECTS[name]), OBJECTS[name])


def test_nothing_of_a_class_is_called() -> None:
    given = Called()
    Called.said.clear()
    found = load(dump([given]), Vocabulary([Point()]))[0]
    assert type(found) is Called
    assert torch.equal(found.value, torch.ones(2))
    assert Called.said == []


@pytest.mark.parametrize("number", [0x7FF8000000000123, 0xFFF0000000000000, 0x8000000000000000, 0x0000000000000001])
def test_a_floats_bits_stay(number: int) -> None:
    value = struct.unpack("<d", struct.pack("<Q", number))[0]
    assert struct.unpack("<Q", struct.pack("<d", travelled(value)))[0] == number
    assert struct.unpack("<Q", struct.pack("<d", travelled(complex(1, value)).imag))[0] == number


def test_one_thing_that_is_in_two_places_stays_one() -> None:
    shared, held = {1}, Point()
    held.x = [held, shared, shared]
    generator, tensor = torch.Generator(), torch.ones(2)
    found = travelled([shared, shared, held, generator, generator, collections.UserList([tensor, tensor])])
    assert found[0] is found[1]
    assert found[2].x[0] is found[2]
    assert found[2].x[1] is found[0]
    assert found[3] is found[4]
    assert found[5][0] is found[5][1]


def test_order_and_types_of_keys_stay() -> None:
    value = {2: "a", 1: "b", False: "c", 1.5: "d", (1, 2): "e", None: "f", b"x": "g", "x": "h"}
    assert list(map(repr, travelled(value).items())) == list(map(repr, value.items()))


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inside: (
        st.lists(inside) | st.tuples(inside, inside) | st.dictionaries(st.integers() | st.text(), inside, max_size=4)
    ),
)


@given(_PLAIN)
@settings(deadline=None)
def test_whatever_is_plain_comes_as_it_was(value: Any) -> None:
    assert digest(travelled(value)) == digest(value)


class TestRefused:
    @pytest.mark.parametrize(
        ("value", "told"),
        [
            ([1, {"a": lambda: 3}], r"value\[1\]\['a'\]: function cannot travel: it has no name"),
            ([WithDel()], r"value\[0\]: WithDel cannot travel: it has __del__"),
            ([WithState()], r"value\[0\]: WithState cannot travel: it has __setstate__"),
            (random.Random(1), r"value: Random cannot travel: it has __(reduce|getstate|setstate)__"),
            ({"a": np.ma.array([1], mask=[True])}, r"value\['a'\]: MaskedArray cannot travel"),
            (collections.UserList([torch.eye(2).to_sparse()]), r"value\.data\[0\]: Tensor cannot travel: is no dense"),
            (collections.OrderedDict(a=[print, [].append]), r"value\['a'\]\[1\]: builtin_function_or_method cannot"),
            (ValueError("a"), "value: ValueError cannot travel"),
            (memoryview(b"a"), "value: memoryview cannot travel"),
            (torch.nn.Linear(1, 1), "value: Linear cannot travel"),
        ],
    )
    def test_what_cannot_travel_is_named(self, value: Any, told: str) -> None:
        with pytest.raises(UsageError, match=told):
            dump(value)

    def test_nor_what_is_nested_too_deeply(self) -> None:
        value: list[Any] = []
        for _ in range(limits.DEPTH):
            value = [value]
        with pytest.raises(UsageError, match="nested"):
            dump(value)

    def test_a_class_that_the_reader_has_not(self) -> None:
        with pytest.raises(UsageError, match=r"test_wire\.Point, which this rank does not have"):
            load(dump(Point()))

    def test_a_function_comes_only_where_the_readers_own_state_has_it(self) -> None:
        data = dump({"rule": math.floor})
        with pytest.raises(UsageError, match=r"refers to math\.floor, to which this rank's own does not"):
            load(data, Vocabulary([Point()], lambda: {"rule": math.ceil}))
        assert load(data, Vocabulary([], lambda: {"rule": math.floor})) == {"rule": math.floor}

    def test_an_object_comes_where_the_readers_own_state_has_one(self) -> None:
        class Local(Point):
            pass

        assert load(dump(Local(3)), Vocabulary([], lambda: {"a": {"b": Local()}})).x == 3


def number(value: int) -> bytes:
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


def word(text: str) -> bytes:
    return number(len(text)) + text.encode()


OBJECT_ARRAY: Final = b"v" + word("numpy.array") + number(4)
HUGE: Final = number(1 << 60)
MALFORMED: Final[dict[str, bytes]] = {
    "nothing": b"",
    "pickle": pickle.dumps(print, 2),
    "an unknown tag": b"?",
    "too much": b"NN",
    "a long text": b"s" + HUGE,
    "a long list": b"l" + HUGE,
    "a long dict": b"d" + HUGE,
    "a number without an end": b"s" + b"\xff" * 100,
    "not in UTF-8": b"s" + number(1) + b"\xff",
    "a key twice": b"d" + number(2) + b"NNNN",
    "a key that has no hash": b"d" + number(1) + b"l" + number(0) + b"N",
    "itself in a tuple": b"t" + number(1) + b"r" + number(0),
    "what was not there": b"l" + number(1) + b"r" + number(7),
    "depth": (b"l" + number(1)) * 100_000,
    "an unknown form": b"v" + word("os.system") + number(0),
    "a form without parts": b"v" + word("UUID") + number(0),
    "a huge array of objects": b"v"
    + word("numpy.objects")
    + number(2)
    + word("shape")
    + b"t"
    + number(1)
    + b"i"
    + number(8)
    + bytes(7)
    + b"\x10"
    + word("items")
    + b"l"
    + number(0),
    "an unknown dtype": b"y" + word("os"),
    "an unknown device": b"x" + word("os"),
    "a tensor without bytes": b"D" + number(0) + word("torch.float32") + word("cpu") + (number(1) + HUGE) * 2 + b"\0",
    "a tensor of overflow": b"p" + number(0) + word("torch.float32") + word("cpu") + (number(2) + HUGE * 2) * 2 + b"\0",
    "a tensor of two shapes": b"p" + number(0) + word("torch.int8") + word("cpu") + b"\1\3\1\2" + b"\0",
    "a tensor without order": b"p" + number(0) + word("torch.int8") + word("cpu") + b"\1\3\1\3" + b"\1\1\1",
    "an object of a builtin": b"o" + word("builtins.type") + b"N" + number(0),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_no_rank_writes_is_one_error(name: str) -> None:
    for read in (load, load_skeleton):
        with pytest.raises((CommFault, UsageError)):
            read(MALFORMED[name])


def array_of(descr: Any, shape: tuple[int, ...], data: torch.Tensor, tag: str = "numpy.array") -> bytes:
    parts = {"data": data, "descr": descr, "shape": shape, "order": "C"}
    return b"v" + word(tag) + number(4) + b"".join(word(name) + dump(part) for name, part in parts.items())


@pytest.mark.parametrize("descr", ["|O", "O", "|T16", [("a", "<i8"), ("b", "|O")], [("a", "|O", (1,))], 3])
@pytest.mark.parametrize("tag", ["numpy.array", "numpy.number"])
def test_an_array_of_pointers_is_not_made_from_bytes(descr: Any, tag: str) -> None:
    with pytest.raises(CommFault):
        load(array_of(descr, (1,), torch.ones(16, dtype=torch.uint8), tag))
    place = Place(0, (16,), torch.uint8, (16,))
    with pytest.raises(CommFault):
        load_skeleton(dump(Array(place, descr, (1,), "C")))


@pytest.mark.parametrize(
    ("descr", "shape", "size"),
    [
        ("<f8", (10**15,), 8),
        ("<f8", (-1,), 8),
        ("<f8", (2,), 8),
        ("<f8", (2,), 0),
        ("<f8", (0, 10**30), 0),
        ("|V0", (10**15,), 0),
        ("|S0", (10**6, 10**6), 0),
    ],
)
def test_an_array_is_as_large_as_its_bytes(descr: str, shape: tuple[int, ...], size: int) -> None:
    with pytest.raises(CommFault):
        load(array_of(descr, shape, torch.ones(size, dtype=torch.uint8)))


def test_a_skeleton_is_no_larger_than_the_machine() -> None:
    size = limits.memory_bytes()
    with pytest.raises(CommFault, match="it speaks of"):
        load_skeleton(dump([Place(0, (size,), torch.uint8, (size,)), Place(1, (1,), torch.uint8, (1,))]))


@pytest.mark.parametrize("indices", [(1,), (0, 0), (1, 0)])
def test_the_tensors_of_a_skeleton_are_in_order(indices: tuple[int, ...]) -> None:
    with pytest.raises(CommFault, match="not in order"):
        load_skeleton(dump([Place(index, (1,), torch.uint8, (1,)) for index in indices]))


def test_a_few_bytes_do_not_become_many_values() -> None:
    # A list of two of a list of two of …: 2^100 values to whoever walks it, or asks for its hash.
    levels = 100
    data = b"l" + number(levels + 1) + b"t" + number(0)
    for level in range(levels):
        data += b"t" + number(2) + 2 * (b"r" + number(level + 1))
    with pytest.raises(CommFault, match="more than"):
        load(data)
    value: Any = ()
    for _ in range(levels):
        value = (value, value)
    with pytest.raises(UsageError, match="more than"):
        dump(value)


def test_no_class_is_made_that_is_not_looked_for() -> None:
    """Whatever is imported here, and named by somebody."""
    Called.said.clear()
    for name in ("WithDel", "WithState", "Rights", "Colour", "torch", "pytest"):
        data = b"o" + word(f"{__name__}.{name}") + b"N" + number(0)
        with pytest.raises((CommFault, UsageError)):
            load(data, Vocabulary([Point()]))
    for name in ("subprocess.Popen", "sys.modules", "builtins.eval"):
        for tag in (b"o", b"e", b"g"):
            with pytest.raises(UsageError):
                load(tag + word(name) + b"N" + number(0), Vocabulary([Point()]))
    assert Called.said == []


EVERYTHING: Final = dump_skeleton(flatten([VALUES, list(OBJECTS.values())])[0])


def test_bytes_that_were_changed_are_no_more_than_an_error() -> None:
    """Read, refused, or other values; never anything else."""
    random_ = random.Random(1)
    known = Vocabulary([Point()], dict)
    told = 0
    for _ in range(3000):
        data = bytearray(EVERYTHING)
        for _ in range(random_.choice((1, 1, 2, 8))):
            at = random_.randrange(len(data))
            change = random_.randrange(4)
            if change == 0:
                data[at] ^= 1 << random_.randrange(8)
            elif change == 1:
                data[at] = random_.randrange(256)
            elif change == 2:
                del data[at : at + random_.randrange(1, 20)]
            else:
                data[at:at] = random_.randbytes(random_.randrange(1, 12))
        try:
            load_skeleton(bytes(data), known)
        except DrivetrainError:
            told += 1
    assert told > 1000


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_are_no_more_than_an_error(data: bytes) -> None:
    for read in (load, load_skeleton):
        try:
            read(data)
        except DrivetrainError:
            pass


def test_every_cut_is_an_error() -> None:
    for at in range(0, len(EVERYTHING), 7):
        with pytest.raises(CommFault):
            load_skeleton(EVERYTHING[:at], Vocabulary([Point()]))
