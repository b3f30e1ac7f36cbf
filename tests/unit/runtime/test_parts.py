"""Where parts of a model are elsewhere: what is saved, or handed to a newcomer, is the whole model, in every mode."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from drivetrain.run import Run
from unit.runtime.parts import KINDS, MODES, Data, Saved, by_one, by_ranks, forward, make
from unit.runtime.together import Pipe, Worlds, together
from unit.runtime.training import Case, settings


@pytest.fixture(scope="module")
def reference() -> dict[str, Saved]:
    return {kind: by_one(kind) for kind in KINDS}


@pytest.mark.parametrize("mode", MODES)
def test_a_file_is_the_whole_model(mode: str, reference: dict[str, Saved], tmp_path: Path) -> None:
    world, case = MODES[mode]
    worlds = Worlds(KINDS)
    ranks: list[dict[str, Saved]] = together(by_ranks, world, case, worlds.ports, tmp_path)
    for kind in KINDS:
        expected, found = reference[kind], ranks[0][kind]
        assert found.losses == pytest.approx(expected.losses, rel=1e-11), kind
        _assert_equal(found.before["model"], expected.before["model"], kind, bits=True)
        unchanged = _unchanged(expected)
        assert (kind in ("all", "tied", "odd state")) == (not unchanged - {"unused.weight", "unused.bias"})
        for name in unchanged:
            assert torch.equal(found.after["model"][name], expected.before["model"][name]), (kind, name)
        _assert_equal(found.after["model"], expected.after["model"], kind)
        _assert_equal(found.after["optimizer"]["state"], expected.after["optimizer"]["state"], kind)
        for group, other in zip(
            found.after["optimizer"]["param_groups"], expected.after["optimizer"]["groups"], strict=True
        ):
            _assert_equal({name: group[name] for name in other}, other, kind)
        for outcome in ranks:
            reunited, saved = outcome[kind].digests
            assert reunited == saved, (kind, "a newcomer would get something else than what is saved")


def _unchanged(saved: Saved) -> set[str]:
    """Parameters that training left as they were."""
    before, after = saved.before["model"], saved.after["model"]
    buffers = {name for name in before if name.endswith((".scale", ".number"))}
    return {name for name in before if torch.equal(before[name], after[name])} - buffers


def _assert_equal(found: Any, expected: Any, where: str, *, bits: bool = False) -> None:
    """The same tree, types, shapes and all; numbers but for float64's rounding, or to the last bit."""
    tolerance: dict[str, Any] = {"rtol": 0, "atol": 0} if bits else {"rtol": 1e-11, "atol": 1e-13}
    if isinstance(expected, torch.Tensor):
        assert found.shape == expected.shape, where
        assert found.dtype == expected.dtype, where
        torch.testing.assert_close(found, expected, msg=lambda text: f"{where}: {text}", **tolerance)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name, value in expected.items():
            _assert_equal(found[name], value, f"{where}, {name}", bits=bits)
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, value in enumerate(expected):
            _assert_equal(found[number], value, f"{where}, {number}", bits=bits)
    else:
        assert found == expected, where


def changed(pipe: Pipe, case: Case) -> tuple[list[float], list[float]]:
    """A script that changes parameters between steps, in place and by putting others there; then saves."""
    run = Run(settings(case.but(steps=4, batch=24)), None)
    model = make("all")
    run.prepare(model=model, optimizer=lambda p: torch.optim.AdamW(p, 0.05, eps=1e-3), data=Data())
    losses = []
    for batch in run.batches():
        losses.append(run.step(batch, forward).loss)
        with torch.no_grad():
            model.first.weight.clamp_(-0.2, 0.2)
            for each in model.layers.parameters():
                each.data = each.data.clamp(-0.1, 0.1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        run.save(path)
        written = torch.load(path, weights_only=True)["model"] if path.exists() else {}
        saved = [float(each.double().sum()) for each in written.values()]
    run.finish()
    return losses, saved


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_what_a_script_changes_between_steps_counts(zero: int) -> None:
    ((losses, saved),) = together(changed, 1, Case())
    ranks = together(changed, 2, Case(zero=zero))
    assert ranks[0][1] == pytest.approx(saved, rel=1e-9)
    assert [each for each, _ in ranks] == [pytest.approx(losses, rel=1e-9)] * 2
