"""DataLoader workers: the same results as without them, whatever happens to shares; and they die with their rank."""

from __future__ import annotations

import os
import random
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset, get_worker_info

from drivetrain.data.ahead import Ahead
from drivetrain.data.files import Files
from drivetrain.data.order import parts_of, share
from drivetrain.data.source import MapSource, Source
from drivetrain.data.stream import Passes, StreamSource
from drivetrain.errors import DataError
from drivetrain.run import Run
from harness.activity import Stillness
from harness.patience import until
from unit.runtime.test_streams import by_stream
from unit.runtime.together import Pipe, Ranks, together
from unit.runtime.training import Case, Net, Numbers, by_drivetrain, forward, settings

STEPS = 20


class Noisy:
    """Draws from every generator for each sample."""

    def __len__(self) -> int:
        return 103

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, float(torch.rand(1)) + random.random() + float(np.random.rand())


class NoisyStream(IterableDataset[tuple[int, float]]):
    """The same as a stream, which shares itself out over torch's workers if it hears of any."""

    def __iter__(self) -> Iterator[tuple[int, float]]:
        info = get_worker_info()
        for index in range(info.id if info else 0, 103, info.num_workers if info else 1):
            yield Noisy()[index]


def made(kind: str) -> tuple[Source, Passes]:
    """A source of 24 samples a step."""
    passes: Passes = []
    if kind == "map":
        return MapSource(Noisy(), list, 5, 24), passes
    return StreamSource(NoisyStream(), list, 5, 24, passes), passes


def shares_of(plan: list[tuple[int, int, int]]) -> list[tuple[int, list[range]]]:
    """By entry of (step, world, micro-batches): what the last rank of such a world reads."""
    return [(step, parts_of(share(24, world, world - 1), count)) for step, world, count in plan]


PLANS = {
    "always the same": [(step, 2, 1) for step in range(STEPS)],
    "micro-batches": [(step, 2, 3) for step in range(STEPS)],
    "the world changes": [(step, 1 + step // 3 % 4, 2) for step in range(STEPS)],
    "steps are repeated": [(step // 3, 2, 2) for step in range(STEPS * 2)],
    "repeated in another world": [(step // 2, 1 + step % 3, 1) for step in range(STEPS)],
    "back and forth": [(step, 3, 2) for step in (7, 8, 9, 2, 3, 4, 19, 0, 1, 2)],
    "no samples": [(step, 2 if step % 5 < 2 else 30, 1) for step in range(STEPS)],
}


def read_plan(_: Pipe, kind: str, plan: list[tuple[int, int, int]], workers: int, stop_early: bool) -> list[Any]:
    source, passes = made(kind)
    ahead: Source = Ahead(source, workers, STEPS, passes) if workers else source
    read: list[Any] = []
    for step, parts in shares_of(plan):
        ahead.expect(step, parts)
        # Interrupted in the middle of every fourth step: the rest is never read.
        for part in parts[: 1 if stop_early and len(read) % 4 == 3 else None]:
            read.append((ahead.read(step, part), ahead.mark))
    return [read, passes]


@pytest.mark.parametrize("kind", ["map", "stream"])
@pytest.mark.parametrize("plan", PLANS)
def test_workers_read_what_the_rank_would_have_read(kind: str, plan: str) -> None:
    ((expected, _),) = together(read_plan, 1, kind, PLANS[plan], 0, True)
    for workers in (1, 3):
        ((found, _),) = together(read_plan, 1, kind, PLANS[plan], workers, True)
        assert found == expected


def test_the_rank_learns_from_its_workers_where_passes_began() -> None:
    ((_, passes),) = together(read_plan, 1, "stream", PLANS["always the same"], 2, False)
    assert passes == [(number, number * 103) for number in range(5)]


@pytest.mark.parametrize(
    "case",
    [
        Case(model="drop", batch=25, microbatches=2),
        Case(batch=3),
        Case(batch=25, deterministic=True, model="drop"),
        Case(batch=25, balance_every=5, slow_rank=1, steps=12),
        Case(batch=26, zero=3, model="deep", microbatches=2, steps=8),
    ],
    ids=["dropout", "fewer samples than ranks", "deterministic", "balance", "zero 3"],
)
def test_training_is_bitwise_the_same_with_workers(case: Case) -> None:
    world = 4 if case.batch == 3 else 2
    without, with_workers = (together(by_drivetrain, world, case.but(data_workers=count)) for count in (0, 2))
    if case.balance_every is None:
        assert [outcome.sha256 for outcome in with_workers] == [outcome.sha256 for outcome in without]
        assert [outcome.losses for outcome in with_workers] == [outcome.losses for outcome in without]
    else:  # shares follow from times, which are never the same twice
        assert with_workers[0].losses == pytest.approx(without[0].losses, rel=1e-5)


def test_a_stream_is_the_same_with_workers() -> None:
    without, with_workers = (together(by_stream, 2, Case(batch=25, data_workers=count)) for count in (0, 2))
    assert [(losses, sorted(seen)) for losses, seen, _ in with_workers] == [
        (losses, sorted(seen)) for losses, seen, _ in without
    ]


def read_far_away(_: Pipe, server: str) -> list[int]:
    files = Files([f"{server}/a.txt", f"{server}/b.txt"], part_bytes=64, transform=int)
    files[0]  # so there is a connection, and a thread that serves it, when workers are forked
    source = Ahead(MapSource(files, list, 1, 151), 2, 2, [])
    found = []
    for step in range(2):
        source.expect(step, [range(151)])
        found += source.read(step, range(151))
    return found


def test_workers_reach_files_far_away(server: str) -> None:
    assert sorted(together(read_far_away, 1, server)[0]) == list(range(302))


class Failing(Numbers):
    """One sample cannot be read, or ends its worker."""

    def __init__(self, failure: str) -> None:
        super().__init__()
        self.failure = failure

    def __getitem__(self, index: int) -> Any:
        if index == 77:
            if self.failure == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            raise DataError("memory://a, record 77: broken")
        return super().__getitem__(index)


def train_on(pipe: Pipe, failure: str) -> None:
    run = Run(settings(Case(batch=25, data_workers=2)), None)
    run.prepare(
        model=Net("plain"), optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1), data=Failing(failure)
    )
    for batch in run.batches():
        run.step(batch, forward(Case()))


@pytest.mark.parametrize(
    ("failure", "named"),
    [("raises", "DataError: .*DataLoader worker(.|\n)*memory://a, record 77"), ("dies", "worker.*killed")],
)
def test_what_happens_in_a_worker_is_told(failure: str, named: str) -> None:
    with pytest.raises(AssertionError, match=named):
        together(train_on, 1, failure)


# --- a rank dies ------------------------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def held(pipe: Pipe, workers: int) -> str:
    """Train without end; which error of communication came."""
    run = Run(settings(Case(batch=24, steps=10**6, data_workers=workers)), None)
    run.prepare(model=Net("plain"), optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1), data=Numbers())
    try:
        for batch in run.batches():
            run.step(batch, forward(Case()))
            if batch.step == 5:
                pipe.tell("trains")
    except Exception as error:  # noqa: BLE001
        return type(error).__name__
    raise AssertionError


def seconds_until_noticed(workers: int) -> float:
    with Ranks(held, 2, workers) as ranks:
        for rank in range(2):
            assert ranks.hear(rank) == "trains"
        its_workers = children(ranks.pids[1])
        assert len(its_workers) == workers
        killed = Stillness()
        os.kill(ranks.pids[1], signal.SIGKILL)
        ranks.hear(0)
        noticed = killed.seconds()
        until(lambda: not any(map(alive, its_workers)), "its workers end with it", 1.0)
        return noticed


def test_peers_see_a_rank_with_workers_die_at_once() -> None:
    """Forked children that kept its sockets would delay this until torch's watchdog ends them, after about 5 s."""
    assert min(seconds_until_noticed(workers=2) for _ in range(2)) < 1.0


class Sockets(Numbers):
    """Samples whose weight is how many sockets the reading process has."""

    def __getitem__(self, index: int) -> Any:
        x, y, _ = super().__getitem__(index)
        count = 0
        for fd in range(3, 256):
            with suppress(OSError):
                count += stat.S_ISSOCK(os.fstat(fd).st_mode)
        return x, y, torch.tensor(float(count))


def count_sockets(pipe: Pipe) -> float:
    pair = socket.socketpair()
    source = Ahead(MapSource(Sockets(), None, 0, 8), 1, 4, [])
    source.expect(0, [range(8)])
    _, _, counts = source.read(0, range(8))
    pair[0].send(b"still open here")
    assert pair[1].recv(99) == b"still open here"
    return float(counts[0])


def test_a_worker_has_no_socket_of_its_rank() -> None:
    assert together(count_sockets, 1) == [0.0]
