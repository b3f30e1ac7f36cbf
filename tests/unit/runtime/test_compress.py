"""Fewer bytes: what codecs lose, that nothing of a gradient is lost for good, and that training hardly notices."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drivetrain.comm.compressed import CompressedReducer
from drivetrain.comm.transport import Transport
from drivetrain.compress.auto import Auto
from drivetrain.compress.carried import Carried
from drivetrain.compress.codec import Codec
from drivetrain.compress.elementwise import Elementwise
from drivetrain.compress.method import Chunk, Method
from drivetrain.compress.methods import CODECS, method_of
from drivetrain.compress.powersgd import PowerSgd
from drivetrain.compress.quantized import Quantized
from drivetrain.compress.topk import TopK
from drivetrain.errors import UsageError
from drivetrain.parallel.layout import Layout
from drivetrain.run import Run
from drivetrain.world.fixed import Fixed
from drivetrain_api.runtime import RuntimeCompression, RuntimeOptimizer
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, Net, Numbers, Outcome, by_drivetrain, by_torch, make_optimizer, settings

# --- codecs -----------------------------------------------------------------------------------------------------------

RATIOS = {"bf16": 2.0, "int8": 3.9, "int4": 7.0}


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_is_as_tight_as_it_says(name: Any) -> None:
    for length in (50_000, 65_536, 100_001, 1 << 20):
        assert 4 * length / CODECS[name].size(length) >= RATIOS[name]


@pytest.mark.parametrize("name", CODECS)
@given(
    length=st.integers(1, 2000) | st.sampled_from([65_536, 65_537, 70_001]),
    exponent=st.integers(-30, 30),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_what_is_read_is_near_to_what_was_written(name: Any, length: int, exponent: int, dtype: torch.dtype) -> None:
    codec: Codec = CODECS[name]
    values, carried = torch.randn(2, length, generator=torch.Generator().manual_seed(length), dtype=dtype)
    values, carried = values * 2.0**exponent, carried * 2.0 ** (exponent - 4)
    packed = torch.empty(codec.size(length), dtype=torch.uint8)
    left_out = torch.full_like(values, torch.nan)
    codec.encode(values, carried, left_out, packed)
    found = torch.full_like(values, torch.nan)
    codec.decode(packed, found)
    more = torch.ones_like(values)
    codec.add(packed, more)
    torch.testing.assert_close(more, 1 + found)
    written = values + carried
    torch.testing.assert_close(left_out, written - found, rtol=0, atol=1e-6 * float(written.abs().max()))
    bound = {"bf16": written.abs() * 2**-8, "int8": written.abs().max() / 254, "int4": written.abs().max() / 14}[name]
    assert ((found - written).abs() <= bound * 1.001).all()


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("strange", [math.inf, -math.inf, math.nan])
def test_zeros_are_zeros_and_what_is_not_finite_is_seen(name: Any, dtype: torch.dtype, strange: float) -> None:
    for at in (77, 4999):
        values, found = torch.zeros(2, 5000, dtype=dtype)
        values[at] = strange
        packed = torch.empty(CODECS[name].size(5000), dtype=torch.uint8)
        CODECS[name].encode(values, torch.zeros_like(values), torch.empty_like(values), packed)
        CODECS[name].decode(packed, found)
        assert not found[at].isfinite()
        values[at] = 3
        values[:512] += 2
        CODECS[name].encode(values, torch.zeros_like(values), torch.empty_like(values), packed)
        CODECS[name].decode(packed, found)
        assert (found[values == 0] == 0).all()


@pytest.mark.parametrize(("bits", "block"), [(8, 256), (4, 128)])
@pytest.mark.parametrize("length", [1, 255, 70_001])
def test_ranks_with_and_without_numba_write_the_same(
    bits: int, block: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, carried = torch.randn(2, length, generator=torch.Generator().manual_seed(length))
    assert Quantized(bits, block)._native(values) is not None, "numba is among the requirements"
    results = []
    for _ in range(2):
        codec = Quantized(bits, block)
        packed = torch.empty(codec.size(length), dtype=torch.uint8)
        left_out, found = torch.empty_like(values), torch.empty_like(values)
        codec.encode(values, carried, left_out, packed)
        codec.decode(packed, found)
        results.append((packed, left_out, found))
        monkeypatch.setattr(Quantized, "_native", lambda *_: None)
    (packed, left_out, found), (plain_packed, plain_left_out, plain_found) = results
    assert torch.equal(packed, plain_packed)
    assert torch.equal(found, plain_found)
    torch.testing.assert_close(left_out, plain_left_out, rtol=0, atol=1e-6)  # fused or not


# --- sums -------------------------------------------------------------------------------------------------------------

SHAPES = [torch.Size(each) for each in ((40, 30), (7,), (), (3, 5, 20), (30, 30))]
LENGTH = sum(shape.numel() for shape in SHAPES)


def method(name: str) -> Method:
    like = torch.empty(LENGTH)
    if name == "powersgd":
        return PowerSgd(SHAPES, like, rank=2)
    if name == "topk":
        return TopK(like, density=0.02, momentum=0.0)
    return Elementwise(CODECS[name], like)  # type: ignore[index]


def connected(pipe: Pipe) -> Transport:
    transport = Fixed.from_environment(lambda *_: None).transport  # type: ignore[arg-type]
    assert transport is not None
    return transport


def summed(made: Method, transport: Transport, mine: torch.Tensor) -> torch.Tensor:
    """One committed step."""
    for carried in made.carried:
        carried.begin(transport.world)
    cut = [0, 1000, LENGTH] if made.by_chunks else [0, LENGTH]
    running = [made.rounds(transport, Chunk(start, stop, mine[start:stop])) for start, stop in itertools.pairwise(cut)]
    waiting = [(each, next(each)) for each in running]
    while waiting:
        each, awaited = waiting.pop(0)
        awaited.wait()
        following = next(each, None)
        if following is not None:
            waiting.append((each, following))
    made.commit()
    return mine


def steps_of_sums(pipe: Pipe, name: str) -> tuple[float, bool, float]:
    """Over some steps and a hand-over: the error of what came out and what is still carried, over what went in."""
    transport = connected(pipe)
    made = method(name)
    generator = torch.Generator().manual_seed(pipe.rank)
    given, delivered = torch.zeros(LENGTH), torch.zeros(LENGTH)
    equal = True
    for step in range(6):
        mine = torch.randn(LENGTH, generator=generator) * (1 + pipe.rank)
        given += mine
        total = summed(made, transport, mine.clone())
        equal = equal and all(torch.equal(each, total) for each in transport.all_gather(total))
        delivered += total
        if step == 3:
            for carried in made.carried:
                carried.hand_over(transport)
    residual = made.carried[-1].value.clone()  # of topk, what waits; the other is its momentum
    transport.all_reduce(given).wait()
    transport.all_reduce(residual).wait()
    error = float((delivered + residual - given).norm() / given.norm())
    return error, equal, float(residual.norm() / given.norm())


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", ["bf16", "int8", "int4", "powersgd", "topk"])
def test_what_is_left_out_is_carried_on(name: str, world: int) -> None:
    """Delivered + carried = given, over all ranks, across a hand-over; and all ranks have the same sums."""
    for error, equal, carried in together(steps_of_sums, world, name):
        assert error <= 1e-5
        assert equal
        assert carried > 1e-5, "these methods leave something out, or the test sees nothing"


def test_a_new_membership_shares_out_what_was_handed_over() -> None:
    carried, newcomer = Carried(torch.zeros(3)), Carried(torch.ones(3))
    carried.whole = torch.tensor([6.0, 3.0, 0.0])
    newcomer.take_over(carried.whole)
    for each in (carried, newcomer):
        each.begin(3)
        assert each.value.tolist() == [2.0, 1.0, 0.0]
        each.begin(3)
        assert each.value.tolist() == [2.0, 1.0, 0.0]


# --- training ---------------------------------------------------------------------------------------------------------


DENSE = Case(model="deep", batch=25, optimizer="plain sgd", steps=60, microbatches=2, bucket_bytes=4000)


@pytest.fixture(scope="module")
def dense() -> tuple[Outcome, float]:
    """Training without compression, and the loss over all data that it ends with."""
    return by_torch(DENSE), together(by_drivetrain, 1, DENSE)[0].evaluation[0]


@pytest.mark.parametrize(
    ("settings_", "tolerance", "more_loss"),
    [
        (RuntimeCompression(method="bf16"), 0.001, 0.005),
        (RuntimeCompression(method="int8"), 0.003, 0.005),
        (RuntimeCompression(method="int4"), 0.04, 0.01),
        (RuntimeCompression(method="powersgd", rank=2), 0.08, 0.05),
        (RuntimeCompression(method="topk", density=0.1, momentum=0.0), 0.2, 0.05),
        (RuntimeCompression(method="topk", density=1.0, momentum=0.0), 1e-5, 1e-5),
        (RuntimeCompression(method="int4", warmup_steps=60), 1e-5, 1e-5),
    ],
    ids=lambda value: f"{value.method}-{value.density}-{value.warmup_steps}" if not isinstance(value, float) else "",
)
def test_training_is_nearly_that_without(
    settings_: RuntimeCompression, tolerance: float, more_loss: float, dense: tuple[Outcome, float]
) -> None:
    outcomes: list[Outcome] = together(by_drivetrain, 3, DENSE.but(compression=settings_))
    reference, loss = dense
    assert outcomes[0].distance(reference) <= tolerance
    assert outcomes[0].evaluation[0] <= loss * (1 + more_loss)
    assert len({outcome.sha256 for outcome in outcomes}) == 1


@pytest.mark.parametrize("world", [1, 3])
def test_the_momentum_of_topk_is_that_of_sgd(world: int) -> None:
    """With all elements, or in the warm-up, it is SGD with momentum."""
    for compression in (
        RuntimeCompression(method="topk", density=0.05, momentum=0.9, warmup_steps=20),
        RuntimeCompression(method="topk", density=1.0, momentum=0.9),
    ):
        if world > 1 and not compression.warmup_steps:
            continue  # what is sent takes its momentum along, so all elements at once have none
        case = Case(batch=25, compression=compression, named=RuntimeOptimizer(name="sgd", lr=0.05))
        reference = by_torch(Case(batch=25))
        assert together(by_drivetrain, world, case)[0].distance(reference) <= 1e-5


def with_momentum(pipe: Pipe) -> str:
    case = Case(compression=RuntimeCompression(method="topk"))
    try:
        Run(settings(case), None).prepare(
            model=Net("plain"), optimizer=lambda p: make_optimizer(case, p), data=Numbers()
        )
    except UsageError as error:
        return str(error)
    return "nothing"


def test_topk_refuses_an_optimizer_with_momentum() -> None:
    (told,) = together(with_momentum, 1)
    assert told.startswith("training.compression.method topk needs SGD without momentum")


# --- choosing ---------------------------------------------------------------------------------------------------------


def choosing(pipe: Pipe, max_error: float, slow: list[str]) -> tuple[str, str]:
    """What is chosen when these methods' codecs take long on one rank."""
    transport = connected(pipe)

    class Slow:
        """A codec that takes its time."""

        def __init__(self, name: str, codec: Codec) -> None:
            self.size = codec.size
            self.decode = codec.decode
            self.add = codec.add
            self._codec = codec
            self._seconds = 0.2 if name in slow and pipe.rank == 1 else 0.0

        def encode(self, *tensors: torch.Tensor) -> None:
            import time

            time.sleep(self._seconds)
            self._codec.encode(*tensors)

    codecs = {str(name): Slow(str(name), codec) for name, codec in CODECS.items()}
    made = Auto(codecs, torch.empty(1 << 16), max_error)
    made.choose(transport, torch.randn(1 << 16, generator=torch.Generator().manual_seed(1)))
    return made.chosen, made.reason


def test_the_choice_is_the_same_everywhere_and_never_too_slow_or_too_wrong() -> None:
    everything_slow = together(choosing, 2, 1.0, ["bf16", "int8", "int4"])
    assert {chosen for chosen, _ in everything_slow} == {"none"}, "the slowest rank decides"
    assert len({reason for _, reason in everything_slow}) == 1
    assert all(f"{name} " in everything_slow[0][1] for name in ("none", "bf16", "int8", "int4"))
    exact = together(choosing, 2, 1e-6, [])
    assert {chosen for chosen, _ in exact} == {"none"}
    roughly = together(choosing, 2, 0.02, ["bf16"])
    assert roughly[0][0] in ("none", "int8"), "int4 is not exact enough, bf16 is too slow"


def test_training_with_a_choice() -> None:
    case = Case(model="deep", batch=25, optimizer="plain sgd", steps=20, compression=RuntimeCompression(method="auto"))
    outcomes = together(by_drivetrain, 3, case)
    assert outcomes[0].distance(by_torch(case)) <= 0.01
    assert len({outcome.sha256 for outcome in outcomes}) == 1


def meeting(pipe: Pipe, name: Any) -> bool:
    """Rank 0 has trained with somebody who is gone, rank 1 is new and has its state: whether their sums are alike."""
    model = torch.nn.Linear(40, 30)
    layout = Layout(model)
    made = method_of(RuntimeCompression(method=name), layout)
    if isinstance(made, Auto) and pipe.rank == 0:
        made.chosen = "int8"
    reducer = CompressedReducer(layout, 1024, made, 0)
    transport = connected(pipe)
    for step in range(2):
        reducer.begin(transport, step)
        for parameter in model.parameters():
            parameter.grad = None
        reducer.begin_microbatch(last=True)
        model(torch.ones(1, 40) * (pipe.rank + 1)).sum().backward()
        reducer.collect(lambda _: torch.zeros(layout.tail))
        reducer.finish()
        reducer.committed(skipped=False)
    return all(torch.equal(each, reducer._vector) for each in transport.all_gather(reducer._vector))


@pytest.mark.parametrize("name", [*CODECS, "auto", "powersgd", "topk"])
def test_a_survivor_and_a_newcomer_come_to_one_sum(name: str) -> None:
    """What a survivor has learned in an earlier membership must not decide what it sends in the next one: they would
    wait for each other for ever."""
    assert together(meeting, 2, name) == [True, True]
