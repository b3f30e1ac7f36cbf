"""Memory that outlives a script: what is whole counts, whatever happened while it was written."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from drivetrain.errors import UsageError
from drivetrain.integrations.memory import Memory
from drivetrain.torchrun.kept import Copy, Kept


def test_the_newest_copy_counts() -> None:
    kept = Kept.make()
    assert kept.newest() is None
    for step in range(1, 5):
        kept.put(step, bytes(100 * step))
        assert kept.newest() == Copy(step, bytes(100 * step))


def test_a_writer_that_is_killed_leaves_the_copy_before(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept.make()
    kept.put(1, b"one")
    kept.put(2, b"two")
    pwrite, left = os.pwrite, 1

    def dies(fd: int, data: bytes, offset: int) -> int:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", dies)
    with pytest.raises(KeyboardInterrupt):
        kept.put(3, b"three")
    assert kept.newest() == Copy(2, b"two")
    monkeypatch.undo()
    kept.put(3, b"again")
    assert kept.newest() == Copy(3, b"again")


def test_a_fork_has_it_and_a_process_that_the_script_starts_has_not() -> None:
    kept = Kept.make()
    if (pid := os.fork()) == 0:
        found = Kept.from_environment(kept.environment)
        if found is not None:
            found.put(7, b"of a fork")
        os._exit(0)
    os.waitpid(pid, 0)
    assert kept.newest() == Copy(7, b"of a fork")
    code = "import os; from drivetrain.torchrun.kept import Kept; print(Kept.from_environment(os.environ))"
    path = os.pathsep.join(sys.path)
    environment = {**os.environ, **kept.environment, "PYTHONPATH": path}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "None\n"
    assert Kept.from_environment({}) is None


def test_alone_it_goes_on_from_what_its_keeper_has(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept.make()
    for name, value in {**kept.environment, "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    model = nn.Linear(2, 1)
    memory = Memory(model=model)
    assert memory.restore(3) == 3
    memory.keep(4)
    weight = model.weight.detach().clone()
    other = nn.Linear(2, 1)
    assert Memory(model=other).restore(2) == 4
    assert torch.equal(other.weight, weight)
    assert Memory(model=other).restore(9) == 9  # its own checkpoint is newer
    with pytest.raises(UsageError, match=r"Memory has \['net'\], but what was kept is of \['model'\]"):
        Memory(net=other).restore()


def test_what_it_cannot_keep_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"Memory\(\) keeps nothing"):
        Memory()
    with pytest.raises(UsageError, match=r"Memory\(every=0\) must be at least 1"):
        Memory(every=0, model=nn.Linear(1, 1))
    with pytest.raises(UsageError, match=r"Memory\(loss=…\): a float has no state_dict"):
        Memory(loss=1.0)  # type: ignore[arg-type]
