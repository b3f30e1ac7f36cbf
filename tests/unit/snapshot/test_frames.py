"""What is written can be read, and nothing else passes for it."""

from __future__ import annotations

import random

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivetrain.snapshot.codec import decode, encode, pack, unpack
from drivetrain.snapshot.errors import Damaged
from drivetrain.snapshot.frames import Builder, read, unsealed

DTYPES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2, "int64": 8, "int32": 4, "uint8": 1, "bool": 1}


def an_object(seed: int = 0) -> bytes:
    generator = np.random.default_rng(seed)
    builder = Builder({"of": "log", "run": 1})
    for step in range(3):
        values = (generator.standard_normal(500) * 1e-3).astype(np.float32)
        builder.add({"kind": "step", "step": step}, encode(values.view(np.uint8), "float32")[1])
    return b"".join(bytes(each) for each in builder.end())


@given(st.binary(max_size=400), st.sampled_from(sorted(DTYPES)))
def test_numbers_come_back_bit_by_bit(data: bytes, dtype: str) -> None:
    size = DTYPES[dtype]
    data = data[: len(data) // size * size]
    flat = np.frombuffer(data, np.uint8)
    assert decode(*encode(flat, dtype), dtype, len(data) // size).tobytes() == data
    assert unpack(*pack(data), len(data)) == data


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("count", [1, 2, 7])
def test_what_is_encoded_does_not_change_with_where_it_came_from(dtype: str, count: int) -> None:
    """A gradient's memory is the next step's; of a single element each plane is contiguous, and would be a view."""
    flat = np.arange(DTYPES[dtype] * count, dtype=np.uint8) + 7
    before = flat.tobytes()
    kinds, planes = encode(flat, dtype)
    flat[:] = 0
    assert decode(kinds, planes, dtype, count).tobytes() == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_become_smaller(dtype: str) -> None:
    values = (np.random.default_rng(1).standard_normal(100_000) * 1e-3).astype(np.float32)
    data = values.view(np.uint8) if dtype == "float32" else (values.view(np.uint32) >> 16).astype(np.uint16).view("u1")
    found = sum(len(each) for each in encode(data, dtype)[1])
    assert found < {"float32": 0.87, "bfloat16": 0.73}[dtype] * len(data)


def test_every_byte_that_is_cut_off_is_missed() -> None:
    data = an_object()
    assert [frame.header["kind"] for frame in read(data)] == ["head", "step", "step", "step"]
    for length in range(len(data)):
        with pytest.raises(Damaged):
            list(read(data[:length]))
    with pytest.raises(Damaged, match="follows its end"):
        list(read(data + b"\0"))


def test_ten_thousand_flipped_bits_are_found() -> None:
    data, rng = bytearray(an_object()), random.Random(5)
    for _ in range(10_000):
        at, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
        data[at] ^= bit
        with pytest.raises(Damaged):
            list(read(bytes(data)))
        data[at] ^= bit
    list(read(bytes(data)))


def test_frames_of_one_object_do_not_pass_for_those_of_another() -> None:
    one, other = an_object(1), an_object(2)
    assert len(one) != len(other) or one != other
    half = one.index(b'"step":1')
    end = other.rindex(b'{"kind":"end"')
    with pytest.raises(Damaged):
        list(read(one[:half] + other[half:end] + one[one.rindex(b'{"kind":"end"') :]))


def test_no_memory_is_allocated_for_what_cannot_be_there() -> None:
    """A frame of zstd that says that its few bytes become a terabyte, as the record does."""
    frame = b"\x28\xb5\x2f\xfd\xe0" + (1 << 40).to_bytes(8, "little") + b"\x03\x00\x00a"
    with pytest.raises(Damaged, match="would become"):
        decode("z", [frame], "uint8", 1 << 40)
    with pytest.raises(Damaged):
        unpack("z", frame, 1 << 40)
    zeros = bytes(1 << 24)
    assert unpack(*pack(zeros), len(zeros)) == zeros, "what compresses best"


def test_a_header_that_is_nested_without_end_is_damaged() -> None:
    text = b'{"a":' * 100_000
    with pytest.raises(Damaged, match="no JSON"):
        unsealed(text + b"\n%08x\n" % google_crc32c.value(text))
