"""The torch backend: results equal gloo's, and everything that torch builds on it can be interrupted."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import PrefixStore, TCPStore

from drivetrain.comm.quarantine import Quarantine
from drivetrain.comm.script_group import ScriptGroup
from drivetrain.comm.transport import Transport, connect_gloo
from drivetrain.comm.wait import Interrupt
from drivetrain.errors import MembershipOver
from harness.activity import Stillness
from unit.runtime.together import Pipe, Ranks, together


def connected(pipe: Pipe, name: str = "x", store: TCPStore | None = None) -> Transport:
    """This rank's transport, rendezvous by a TCPStore."""
    interrupt = Interrupt()
    store = store or TCPStore("127.0.0.1", pipe.port, pipe.world, pipe.rank == 0)
    group = connect_gloo(PrefixStore(name, store), pipe.rank, pipe.world, interrupt, 20.0, "127.0.0.1")
    return Transport(group, pipe.rank, pipe.world, interrupt)


def collectives(rank: int, world: int) -> dict[str, Any]:
    """Every collective of torch.distributed on the default group."""

    def mine(*shape: int) -> torch.Tensor:
        return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape) * (rank + 1) + rank

    found: dict[str, Any] = {}
    found["all_reduce"] = tensor = mine(5)
    dist.all_reduce(tensor)
    found["all_reduce max"] = tensor = mine(3, 4).t()
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    found["async"] = tensor = mine(1000)
    work = dist.all_reduce(tensor, async_op=True)
    assert work is not None
    work.wait()
    found["broadcast"] = tensor = mine(4)
    dist.broadcast(tensor, 1)
    tensor = mine(4)
    dist.reduce(tensor, 0)
    if rank == 0:
        found["reduce"] = tensor
    found["all_gather"] = [torch.zeros(3) for _ in range(world)]
    dist.all_gather(found["all_gather"], mine(3))
    found["all_gather_into_tensor"] = torch.zeros(3 * world)
    dist.all_gather_into_tensor(found["all_gather_into_tensor"], mine(3))
    found["gather"] = [torch.zeros(3) for _ in range(world)] if rank == 1 else None
    dist.gather(mine(3), found["gather"], 1)
    found["scatter"] = torch.zeros(2)
    dist.scatter(found["scatter"], list(mine(world, 2).unbind()) if rank == 0 else None, 0)
    found["reduce_scatter"] = torch.zeros(2)
    dist.reduce_scatter(found["reduce_scatter"], list(mine(world, 2).unbind()))
    found["reduce_scatter_tensor"] = torch.zeros(2)
    dist.reduce_scatter_tensor(found["reduce_scatter_tensor"], mine(world * 2))
    found["all_to_all_single"] = torch.zeros(world * 2)
    dist.all_to_all_single(found["all_to_all_single"], mine(world * 2))
    dist.barrier()
    found["ring"] = torch.zeros(3)
    sent = dist.isend(mine(3), (rank + 1) % world)
    dist.recv(found["ring"], (rank - 1) % world)
    assert sent is not None
    sent.wait()
    found["objects"] = [None] * world
    dist.all_gather_object(found["objects"], {"rank": rank})
    half = dist.new_group([0, 1])
    if isinstance(half, dist.ProcessGroup):
        found["subgroup"] = tensor = mine(2)
        dist.all_reduce(tensor, group=half)
    return found


def both_ways(pipe: Pipe) -> tuple[dict[str, Any], dict[str, Any], str]:
    transport = connected(pipe)
    group = ScriptGroup("127.0.0.1")
    name = dist.get_backend(group.of(transport))
    assert group.of(transport) is dist.group.WORLD
    ours = collectives(pipe.rank, pipe.world)
    group.destroy()
    store = TCPStore("127.0.0.1", pipe.port, pipe.world, False)
    dist.init_process_group("gloo", store=PrefixStore("gloo", store), rank=pipe.rank, world_size=pipe.world)
    theirs = collectives(pipe.rank, pipe.world)
    return ours, theirs, name


def test_each_collective_equals_gloos() -> None:
    for ours, theirs, name in together(both_ways, 3):
        assert name == "drivetrain"
        assert ours.keys() == theirs.keys()
        for key in ours:
            torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=0, msg=key)


def ddp(group: dist.ProcessGroup) -> Callable[[], None]:
    model = nn.parallel.DistributedDataParallel(nn.Linear(64, 64), process_group=group)

    def step() -> None:
        # Futures complete with worthless values; the check that run.step makes comes after them.
        model(torch.ones(4, 64)).sum().backward()

    return step


def functional(group: dist.ProcessGroup) -> Callable[[], None]:
    import torch.distributed._functional_collectives as functional_collectives

    def step() -> None:
        functional_collectives.all_reduce(torch.ones(1000), "sum", group).sum().item()

    return step


def fsdp(group: dist.ProcessGroup) -> Callable[[], None]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(group),))
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)

    def step() -> None:
        model(torch.ones(4, 64)).sum().backward()

    return step


def receive(group: dist.ProcessGroup) -> Callable[[], None]:
    def step() -> None:
        peer = 1 - dist.get_rank(group)
        work = dist.isend(torch.ones(10), peer)
        dist.recv(torch.zeros(10), peer)
        assert work is not None
        work.wait()

    return step


WAYS = {"ddp": ddp, "functional": functional, "fsdp": fsdp, "receive": receive}


def interrupted(pipe: Pipe, way: str) -> tuple[str, float]:
    """Works once; then the other rank is frozen, and the membership ends while this one waits."""
    transport = connected(pipe)
    step = WAYS[way](ScriptGroup("127.0.0.1").of(transport))
    step()
    pipe.tell("ready")
    pipe.hear()
    if pipe.rank == 1:
        time.sleep(60)  # frozen by the test long before
    ended: list[Stillness] = []

    def end() -> None:
        ended.append(Stillness())
        transport.interrupt.end("the test says so")

    threading.Timer(0.4, end).start()
    try:
        step()
        transport.interrupt.check()
    except BaseException as error:  # noqa: BLE001  What torch makes of it is what is looked at.
        took = ended[0].seconds() if ended else -1.0
        quarantine = Quarantine()
        transport.abandon(quarantine)
        return type(error).__name__, took
    return "nothing", 0.0


@pytest.mark.parametrize("way", WAYS)
def test_what_torch_builds_on_it_is_interrupted(way: str) -> None:
    with Ranks(interrupted, 2, way) as ranks:
        assert [ranks.hear(0), ranks.hear(1)] == ["ready", "ready"]
        os.kill(ranks.pids[1], signal.SIGSTOP)
        ranks.tell(0, "go")
        error, took = ranks.hear(0)
    assert error == MembershipOver.__name__
    assert 0 <= took < 0.25  # 0.05 s on an idle machine


def remade(pipe: Pipe) -> list[float]:
    """One membership ends with a collective in flight that rank 1 never joins; the script asks again in the next."""
    group = ScriptGroup("127.0.0.1")
    store = TCPStore("127.0.0.1", pipe.port, pipe.world, pipe.rank == 0)
    first = connected(pipe, "first", store)
    group.of(first)
    tensor = torch.ones(1)
    if pipe.rank == 0:
        threading.Timer(0.1, lambda: first.interrupt.end("over")).start()
        with pytest.raises(MembershipOver):
            dist.all_reduce(tensor)
    first.interrupt.end("over")
    quarantine = Quarantine()
    first.abandon(quarantine)
    second = connected(pipe, "second", store)
    again = group.of(second)
    after = torch.ones(1)
    dist.all_reduce(after, group=again)
    return [float(tensor), float(after)]


def test_the_group_is_made_anew_for_the_next_membership() -> None:
    assert together(remade, 2) == [[1.0, 2.0], [1.0, 2.0]]


def in_forward(pipe: Pipe) -> list[float]:
    """`run.process_group` inside a forward function: every rank sees the mean over all."""
    from drivetrain.run import Run
    from unit.runtime.training import Case, Net, Numbers, make_optimizer, settings

    case = Case(steps=3, batch=8)
    run = Run(settings(case), None)
    run.prepare(model=Net("plain"), optimizer=lambda parameters: make_optimizer(case, parameters), data=Numbers())
    seen: list[float] = []

    def forward(model: nn.Module, shard: Any) -> torch.Tensor:
        loss: torch.Tensor = nn.functional.cross_entropy(model(shard[0]), shard[1])
        total = loss.detach().clone()
        dist.all_reduce(total, group=run.process_group)
        seen.append(float(total) / run.world_size)
        return loss

    for batch in run.batches():
        assert run.step(batch, forward).loss == pytest.approx(seen[-1], rel=1e-5)
    run.finish()
    return seen


@pytest.mark.parametrize("world", [1, 2])
def test_a_script_may_use_collectives_in_forward(world: int) -> None:
    seen = together(in_forward, world)
    assert all(each == seen[0] for each in seen)
