"""Training on a device that is not the processor: the same bits, and nothing that compares or mixes the two.

The device is a pretended one (harness/card.py), on which an operation on tensors of both is an error, as on CUDA.
"""

from __future__ import annotations

from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._C._distributed_c10d import AllgatherOptions, AllreduceOptions

import drivetrain.prepared
from drivetrain.comm.backend import InterruptibleBackend
from drivetrain.data.placed import brought
from drivetrain.position import Position
from drivetrain.run import Run
from drivetrain.state import Piece, TrainingState, checksum, digest
from drivetrain.world.heal import Doing, synchronise
from drivetrain_api.runtime import RuntimeCompression, RuntimeOptimizer
from harness.card import NAME, install
from unit.runtime import text, training
from unit.runtime.test_backend import connected
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, Net, Numbers, Outcome, by_drivetrain

SHORT = Case(steps=4)

CASES = {
    "plain, clipped": (2, SHORT.but(clip=0.5, optimizer="adamw", scheduler=True)),
    "batch norm, dropout, unused branches, buffers, micro-batches": (2, SHORT.but(model="all", microbatches=2)),
    "LAMB": (2, SHORT.but(named=RuntimeOptimizer(name="lamb", lr=0.01))),
    "deterministic": (2, SHORT.but(deterministic=True, model="norm")),
    "ZeRO 1": (2, SHORT.but(zero=1, optimizer="adamw", clip=0.5)),
    "ZeRO 2": (2, SHORT.but(zero=2, optimizer="adamw", clip=0.5)),
    "bf16 on the wire": (2, SHORT.but(compression=RuntimeCompression(method="bf16"), optimizer="plain sgd")),
    "top-k": (2, SHORT.but(compression=RuntimeCompression(method="topk"), optimizer="plain sgd")),
    "PowerSGD": (2, SHORT.but(compression=RuntimeCompression(method="powersgd"), optimizer="plain sgd")),
}

IN_PARTS = {
    "tensor": (2, Case(steps=3, tensor=2, optimizer="adam", clip=0.5)),
    "data, tensor, ZeRO 1": (4, Case(steps=3, tensor=2, zero=1, optimizer="adam", clip=0.5)),
}
"""Those that share out the layers of a model. Its attention is another kernel on the processor: not the same bits."""


def on_processor(outcome: Outcome) -> Outcome:
    """To be sent to the test."""
    before, after = ({name: each.cpu() for name, each in state.items()} for state in (outcome.before, outcome.after))
    return replace(outcome, before=before, after=after)


def train_on_card(pipe: Pipe, case: Case) -> tuple[Outcome, list[str]]:
    """As one of the ranks; and on which devices what was trained is in the end."""
    drivetrain.prepared.claim = install  # type: ignore[attr-defined]
    training.kept = lambda run: {}  # it asks for storages, which are none here
    outcome = by_drivetrain(pipe, case)
    return on_processor(outcome), sorted({each.device.type for each in outcome.after.values()})


def train_parts_on_card(pipe: Pipe, case: Case) -> Outcome:
    """As one of the ranks that have parts of a model."""
    drivetrain.prepared.claim = install  # type: ignore[attr-defined]
    text.kept = lambda run: {}  # type: ignore[attr-defined]
    return on_processor(text.by_drivetrain(pipe, case, text.PLAN))


@pytest.mark.parametrize("name", IN_PARTS)
def test_parts_of_layers_on_a_card_train_alike(name: str) -> None:
    world, case = IN_PARTS[name]
    expected = together(text.by_drivetrain, world, case, text.PLAN)
    for theirs, ours in zip(expected, together(train_parts_on_card, world, case), strict=True):
        assert ours.losses == pytest.approx(theirs.losses, rel=1e-5)
        assert ours.norms == pytest.approx(theirs.norms, rel=1e-5)
        assert ours.evaluation[0] == pytest.approx(theirs.evaluation[0], rel=1e-5)
        assert ours.after.keys() == theirs.after.keys()
        for tensor, value in theirs.after.items():
            assert torch.allclose(ours.after[tensor], value, rtol=1e-4, atol=1e-6), tensor


@pytest.mark.parametrize("name", CASES)
def test_training_on_a_card_gives_the_same_bits(name: str) -> None:
    world, case = CASES[name]
    expected = together(by_drivetrain, world, case)
    found = together(train_on_card, world, case)
    for theirs, (ours, devices) in zip(expected, found, strict=True):
        assert devices in ([], [NAME]) or case.zero
        assert ours.losses == theirs.losses
        assert ours.norms == theirs.norms
        assert ours.after.keys() == theirs.after.keys()
        for tensor, value in theirs.after.items():
            assert torch.equal(ours.after[tensor], value), tensor
        assert ours.evaluation == theirs.evaluation


def save_and_go_on(pipe: Pipe, case: Case, on_card: bool, folder: Path) -> tuple[list[float], set[tuple[str, str]]]:
    """Half-way all parts of the state come together on one rank, and are cut again: losses, and where the optimizer's
    state is in the end."""
    if on_card:
        drivetrain.prepared.claim = install  # type: ignore[attr-defined]
    run = Run(training.settings(case), None)
    model = text.make(case, text.PLAN) if case.tensor > 1 else Net(case.model)
    forward = text.forward if case.tensor > 1 else training.forward(case)
    data = text.Text() if case.tensor > 1 else Numbers()
    run.prepare(model=model, optimizer=lambda parameters: torch.optim.AdamW(parameters, 1e-2), data=data)
    losses = []
    for batch in run.batches():
        losses.append(run.step(batch, forward).loss)
        if batch.step == 1:
            run.save(folder / "model.pt")
    with run._operations.subject.ours():  # a script may not look at it
        states = run._prepared().update.state.optimizer.state.values()
        where = {(name, each.device.type) for state in states for name, each in state.items()}
    run.finish()
    return losses, where


@pytest.mark.parametrize("fields", [{"zero": 1}, {"zero": 2, "clip": 0.5}, {"tensor": 2}], ids=str)
def test_parts_that_came_together_for_a_file_go_on_on_the_card(fields: dict[str, Any], tmp_path: Path) -> None:
    case = Case(steps=4).but(**fields)
    expected = together(save_and_go_on, 2, case, False, tmp_path)
    for (losses, _), (ours, places) in zip(expected, together(save_and_go_on, 2, case, True, tmp_path), strict=True):
        assert ours == pytest.approx(losses, rel=1e-5)
        assert places == {("exp_avg", NAME), ("exp_avg_sq", NAME), ("step", "cpu")}


class Held:
    """State of a script's own: it takes what it is given as it comes."""

    def __init__(self, device: torch.device, value: float) -> None:
        self.state = {"on": torch.full((3,), value, device=device), "off": torch.full((2,), value), "count": value}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = dict(state)


def take_state(pipe: Pipe, theirs_on_card: bool) -> dict[str, Any]:
    """Rank 0 has made three steps; rank 1 is new and gets its state."""
    device = install() if theirs_on_card else torch.device("cpu")
    torch.manual_seed(pipe.rank)
    # Above and below the size from which a tensor travels alone.
    model = nn.Sequential(nn.Linear(200, 300), nn.BatchNorm1d(300), nn.Linear(300, 2)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    held = Held(device, 7.0 + pipe.rank)
    registry, position = TrainingState(), Position()
    registry.register(Piece("model", model))
    registry.register(Piece("optimizer", optimizer))
    registry.register(Piece("held", held))
    if pipe.rank == 0:
        for _ in range(3):
            model(torch.randn(5, 200).to(device)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        position.step, position.has_state = 3, True
    live = [id(each) for each in model.parameters()]
    healed = synchronise(connected(pipe), position, registry, Doing.STEP, lambda: None)
    model(torch.ones(5, 200).to(device)).square().mean().backward()
    optimizer.step()  # it would refuse state of another device
    return {
        "received": healed.received,
        "sha256": digest(registry.collect()),
        "same tensors": live == [id(each) for each in model.parameters()],
        "model": {each.device.type for each in model.state_dict().values()},
        "optimizer": {(name, each.device.type) for state in optimizer.state.values() for name, each in state.items()},
        "held": {name: each.device.type for name, each in held.state.items() if torch.is_tensor(each)},
    }


def test_a_newcomer_gets_state_on_its_card_and_what_lay_beside_it_beside_it() -> None:
    (old, new), (plain, _) = together(take_state, 2, True), together(take_state, 2, False)
    assert (old["received"], new["received"]) == (False, True)
    assert old["sha256"] == new["sha256"] == plain["sha256"]
    assert new["same tensors"]
    assert new["model"] == {NAME}
    assert new["optimizer"] == {("exp_avg", NAME), ("exp_avg_sq", NAME), ("step", "cpu")}
    assert new["held"] == {"on": NAME, "off": "cpu"}


def collectives(pipe: Pipe) -> dict[str, Any]:
    """The torch backend with tensors on the card."""
    device = install()
    transport = connected(pipe)
    backend = InterruptibleBackend(transport.process_group, pipe.rank, pipe.world, transport)
    mine = torch.arange(4.0, device=device) + pipe.rank
    summed, gathered = mine.clone(), torch.zeros(8, device=device)
    backend.allreduce([summed], AllreduceOptions()).wait()
    backend.all_gather_single(gathered, mine, AllgatherOptions()).wait()
    arrived = torch.zeros(4, device=device)
    sending = backend.send([mine], 1 - pipe.rank, 0)
    backend.recv([arrived], 1 - pipe.rank, 0).wait()
    sending.wait()
    whole = transport.all_gather(mine)
    transport.broadcast(mine, 1)
    found = {"sum": summed, "gathered": gathered, "arrived": arrived, "broadcast": mine, "whole": whole[1]}
    return {name: (each.device.type, each.tolist()) for name, each in found.items()}


def test_collectives_of_scripts_and_of_ours_on_a_card() -> None:
    for rank, found in enumerate(together(collectives, 2)):
        assert found == {
            "sum": (NAME, [1.0, 3.0, 5.0, 7.0]),
            "gathered": (NAME, [0.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 4.0]),
            "arrived": (NAME, [1.0 - rank, 2.0 - rank, 3.0 - rank, 4.0 - rank]),
            "broadcast": (NAME, [1.0, 2.0, 3.0, 4.0]),
            "whole": (NAME, [1.0, 2.0, 3.0, 4.0]),
        }


def checksums(pipe: Pipe) -> bool:
    """Of the same bytes on both devices."""
    flat = torch.randint(0, 256, (5000,), dtype=torch.uint8)
    return checksum(flat) == checksum(flat.to(install()))


Pair = namedtuple("Pair", "left right")


def bringing(pipe: Pipe) -> tuple[Any, list[str]]:
    """What a collate function may return, on the card."""
    device = install()
    here = torch.ones(2)
    packed = nn.utils.rnn.pack_sequence([here])
    found = brought({"a": [here, 3, "b"], "c": Pair(here, (here,)), "d": packed}, device)
    kinds = [each.device.type for each in (found["a"][0], found["c"].left, found["c"].right[0], found["d"].data)]
    lengths = found["d"].batch_sizes.device.type
    return (type(found["c"]).__name__, found["a"][1:], lengths), kinds


def test_samples_of_any_form_are_brought_to_the_card() -> None:
    assert together(bringing, 1) == [(("Pair", [3, "b"], "cpu"), [NAME] * 4)]


def test_a_checksum_is_the_same_on_any_device() -> None:
    assert together(checksums, 1) == [True]
