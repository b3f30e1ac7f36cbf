"""Buffers and modules that come after prepare: shared like others, undone like others, refused where they cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from drivetrain.errors import Deviation, UsageError
from drivetrain.run import Run
from drivetrain.state import Piece, TrainingState
from unit.runtime.odd_models import Base, Coming, Growing
from unit.runtime.odd_scripts import CASE, Script
from unit.runtime.test_scripts import plain
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, Numbers, settings


def made(model: nn.Module, case: Case = CASE, resume: Path | None = None) -> Run:
    """A run that is prepared."""
    run = Run(settings(case), None)
    run.prepare(model=model, optimizer=lambda p: torch.optim.SGD(p, 0.05, momentum=0.9), data=Numbers(), resume=resume)
    return run


def loss(model: Any, shard: Any) -> torch.Tensor:
    return F.cross_entropy(model(shard[0]), shard[1])


def names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_buffers()]


# --- exchanged --------------------------------------------------------------------------------------------------------

LAST = CASE.steps - 1


def normed(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    if step == LAST:
        model.added = nn.BatchNorm1d(16, affine=False)


def with_a_norm(pipe: Pipe) -> tuple[torch.Tensor, str]:
    """A normalisation layer is there from the last step on."""
    torch.manual_seed(5)
    run = made(model := Growing())
    for batch in run.batches():
        normed(model, None, batch.step)  # type: ignore[arg-type]
        run.step(batch, loss)
    sha = run.state_sha256()
    run.finish()
    return model.get_buffer("added.running_mean").clone(), sha


def test_statistics_of_a_layer_that_is_added_are_exchanged() -> None:
    expected = plain(Script(Growing, before=normed))["state"]["added.running_mean"]
    found = together(with_a_norm, 3)
    assert len({sha for _, sha in found}) == 1
    for mean, _ in found:
        torch.testing.assert_close(mean, expected, rtol=1e-4, atol=2e-6)


def apart(pipe: Pipe) -> str:
    """One rank adds a normalisation layer, the other does not."""
    run = made(model := Growing(), CASE.but(steps=2))
    try:
        for batch in run.batches():
            if batch.step == 1 and pipe.rank == 1:
                normed(model, None, LAST)  # type: ignore[arg-type]
            run.step(batch, loss)
    except Deviation as error:
        return str(error)
    return "nothing"


def test_ranks_with_other_normalisation_layers_are_told() -> None:
    for told in together(apart, 2):
        assert "other normalisation layers" in told


@pytest.mark.parametrize("case", [CASE.but(zero=1), CASE.but(zero=3)])
def test_where_the_layout_is_fixed_a_new_layer_is_refused(case: Case) -> None:
    (told,) = together(refused_layer, 1, case)
    assert "at step 1 other normalisation layers have statistics; with training.parallel.zero" in told


def refused_layer(pipe: Pipe, case: Case) -> str:
    run = made(model := Growing(), case.but(steps=2))
    try:
        for batch in run.batches():
            if batch.step == 1:
                normed(model, None, LAST)  # type: ignore[arg-type]
            run.step(batch, loss)
    except UsageError as error:
        return str(error)
    return "nothing"


# --- undone -----------------------------------------------------------------------------------------------------------


def meddle(model: Any, kind: str) -> None:
    """What forward may do to buffers, and then fail."""
    match kind:
        case "registers":
            model.first.register_buffer("late", torch.ones(2), persistent=False)
        case "deletes":
            del model.there
        case "sets to None":
            model.there = None
        case "hides":
            model.register_buffer("there", model.there, persistent=False)
        case "adds a module":
            model.other = nn.Sequential(nn.BatchNorm1d(3))
        case "replaces a module":
            model.middle = nn.Identity()
        case "deletes a module":
            del model.unused


KINDS = ["registers", "deletes", "sets to None", "hides", "adds a module", "replaces a module", "deletes a module"]


class There(Base):
    """With a buffer, and a module that is not used."""

    there: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("there", torch.ones(2))
        self.register_buffer("more", torch.ones(3))
        self.unused = nn.BatchNorm1d(2)


def outline(model: nn.Module) -> Any:
    """All names in their order, and which buffers a file has."""
    return list(model.state_dict()), names(model), [name for name, _ in model.named_modules()]


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_attempt_has_added_or_taken_away_is_undone(kind: str) -> None:
    run = made(model := There(), CASE.but(steps=1))
    before, middle, there = outline(model), model.middle, model.there

    def fails(model: Any, shard: Any) -> torch.Tensor:
        meddle(model, kind)
        raise ValueError("forward")

    for batch in run.batches():
        with pytest.raises(ValueError, match="forward"):
            run.step(batch, fails)
        assert outline(model) == before
        assert model.middle is middle
        assert model.there is there
        run.step(batch, loss)


@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_takes_away_what_it_has_added(kind: str) -> None:
    run = made(model := There(), CASE.but(steps=1))
    before, middle, sha = outline(model), model.middle, run.state_sha256()
    kinds = [kind]

    def forward(model: Any, shard: Any) -> torch.Tensor:
        found = loss(model, shard)
        if kinds:
            meddle(model, kinds.pop())
        return found

    run.evaluate(Numbers(), forward)
    assert outline(model) == before
    assert model.middle is middle
    assert run.state_sha256() == sha


# --- refused ----------------------------------------------------------------------------------------------------------


def sparse_in_forward(model: Any) -> None:
    model.there = torch.eye(3).to_sparse()


def late_and_sparse(model: Any) -> None:
    model.first.register_buffer("late", torch.eye(3).to_sparse())


def norm_without_mean(model: Any) -> None:
    model.unused.running_mean = None


def late_in_a_norm(model: Any) -> None:
    model.unused.register_buffer("calls", torch.zeros(()))


REFUSED: dict[str, tuple[Callable[[Any], None], str]] = {
    "a module": (lambda model: meddle(model, "adds a module"), "it has made other, a module with parameters"),
    "a sparse buffer in another's place": (sparse_in_forward, r"the buffer there is no dense tensor \(sparse_coo\)"),
    "a sparse buffer": (late_and_sparse, r"the buffer first.late is no dense tensor \(sparse_coo\)"),
    "statistics that go": (norm_without_mean, "unused.running_mean, the buffer of a normalisation layer, .* is gone"),
    "statistics that come": (late_in_a_norm, "it has registered unused.calls, the buffer of a normalisation layer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_other_ranks_could_not_do_is_refused_by_name(name: str) -> None:
    meddles, told = REFUSED[name]
    run = made(model := There(), CASE.but(steps=1))
    before, sha = outline(model), run.state_sha256()

    def forward(model: Any, shard: Any) -> torch.Tensor:
        found = loss(model, shard)
        meddles(model)
        return found

    for batch in run.batches():
        with pytest.raises(UsageError, match=told):
            run.step(batch, forward)
        assert outline(model) == before
        assert run.state_sha256() == sha
        run.step(batch, loss)


def test_a_buffer_that_the_script_makes_sparse_is_named() -> None:
    run = made(model := There(), CASE.but(steps=1))
    for batch in run.batches():
        sparse_in_forward(model)
        with pytest.raises(UsageError, match=r"the model's buffer there is no dense tensor \(sparse_coo\)"):
            run.step(batch, loss)
        break


# --- handed on --------------------------------------------------------------------------------------------------------


def came(model: Any) -> None:
    for _ in range(8):
        model(torch.ones(2, 12))
    model.first.register_buffer("hidden", torch.arange(3), persistent=False)
    del model.first.there


def with_one() -> Coming:
    model = Coming()
    model.first.register_buffer("there", torch.ones(1))
    return model


def test_newcomers_get_buffers_that_have_come_and_lose_those_that_have_gone() -> None:
    member, newcomer = with_one(), with_one()
    states = []
    for model in (member, newcomer):
        states.append(TrainingState())
        states[-1].register(Piece("model", model))
    came(member)
    newcomer.last.register_buffer("mine", torch.ones(1))
    states[1].load(states[0].collect())
    assert states[0].sha256() == states[1].sha256()
    assert outline(newcomer)[0] == outline(member)[0]
    assert newcomer.first.hidden is not member.first.hidden
    assert newcomer.last._buffers["late"] is None


def resumed(pipe: Pipe, path: Path, steps: int) -> tuple[str, list[str]]:
    torch.manual_seed(5)
    run = made(model := Coming(), CASE.but(steps=steps), path)
    for batch in run.batches():
        run.step(batch, loss)
    run.save(path)
    sha = run.state_sha256()
    run.finish()
    return sha, names(model)


def test_a_run_goes_on_with_the_buffers_that_its_file_has(tmp_path: Path) -> None:
    whole = together(resumed, 2, tmp_path / "whole.pt", 6)
    together(resumed, 2, tmp_path / "parts.pt", 4)
    assert together(resumed, 2, tmp_path / "parts.pt", 6) == whole
    assert "last.late" in whole[0][1]
