"""What is understood of a command, and what is refused by name."""

from __future__ import annotations

import sys

import pytest

from drivetrain.launch.errors import CommandError
from drivetrain.torchrun.command import agree, parse
from drivetrain.torchrun.program import Program

UNDERSTOOD = [
    ("python train.py --lr 1", "python train.py --lr 1", "script"),
    ("/usr/bin/python3.12 -u -X dev train.py -m x", "/usr/bin/python3.12 -u -X dev train.py -m x", "script"),
    ("python -Wignore train.py", "python -Wignore train.py", "script"),
    ("python -m pkg.train --lr 1", "python -m pkg.train --lr 1", "module"),
    ("python -um pkg.train", "python -u -m pkg.train", "module"),
    ("python -mpkg.train", "python -m pkg.train", "module"),
    ("python -c print(1) a", "python -c print(1) a", "code"),
    ("python -", "python -", "executable"),
    ("sh -c true", "sh -c true", "executable"),
    ("python -m torch.distributed.run --nproc-per-node 2 train.py --lr 1", "python train.py --lr 1", "script"),
    ("python -O -m torch.distributed.run --nproc_per_node=gpu -m pkg.train", "python -O -m pkg.train", "module"),
    ("python -m torch.distributed.run --no-python ./run.sh 1", "./run.sh 1", "executable"),
    ("python -m torch.distributed.launch --use-env train.py", "python train.py", "script"),
    ("python -m accelerate.commands.launch --multi_gpu train.py --cpu", "python train.py --cpu", "script"),
    ("python -m accelerate.commands.accelerate_cli launch train.py", "python train.py", "script"),
    ("torchrun --standalone train.py -x", f"{sys.executable} train.py -x", "script"),
    ("accelerate launch --num_processes 2 -m pkg.train", f"{sys.executable} -m pkg.train", "module"),
]


@pytest.mark.parametrize(("command", "plain", "kind"), UNDERSTOOD, ids=[case[0] for case in UNDERSTOOD])
def test_understood(command: str, plain: str, kind: str) -> None:
    found = parse(command.split(), which=lambda name: None)
    assert (" ".join(found.command), found.kind) == (plain, kind)


REFUSED = [
    ("torchrun --log-dir logs train.py", "torchrun --log-dir"),
    ("torchrun --redirects=3 train.py", "torchrun --redirects"),
    ("torchrun --nproc-per-node two train.py", "--nproc-per-node must be a number"),
    ("torchrun --nnodes", "--nnodes has no value"),
    ("torchrun --nnodes 2", "no script to run"),
    ("torchrun", "no script to run"),
    ("accelerate launch --use_fsdp train.py", "accelerate launch --use_fsdp"),
    ("accelerate launch --config_file a.yaml train.py", "accelerate launch --config_file"),
    ("accelerate test", "accelerate test"),
    ("python -m torch.distributed.launch train.py", "--local-rank"),
]


@pytest.mark.parametrize(("command", "told"), REFUSED, ids=[case[0] for case in REFUSED])
def test_refused_by_name(command: str, told: str) -> None:
    with pytest.raises(CommandError) as refused:
        parse(command.split(), which=lambda name: None)
    assert told in str(refused.value)
    assert "spec.command" in str(refused.value)


def test_what_a_launcher_would_have_set() -> None:
    command = "accelerate launch --mixed_precision bf16 --gradient_accumulation_steps=4 --cpu --machine_rank 0 train.py"
    found = parse(command.split(), which=lambda name: None)
    assert found.environment == {
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
        "ACCELERATE_USE_CPU": "true",
    }
    assert found.unused == ("--machine_rank",)


AGREEING = [
    # command, processes a worker, fewest and most workers, what is told where it is refused
    ("torchrun --nproc-per-node 2 --nnodes 3 train.py", 2, 3, 3, None),
    ("torchrun --nproc-per-node auto train.py", 8, 1, 1, None),
    ("torchrun --nnodes 1:4 train.py", 1, 2, 8, None),
    ("torchrun --nproc-per-node 2 train.py", 1, 3, 3, "spec.processesPerWorker is 1"),
    ("torchrun --nnodes 2 train.py", 1, 3, 3, "2 machines, but the job has 3 workers"),
    ("torchrun --nnodes 5:9 train.py", 1, 2, 4, "5 to 9 machines, but the job has 2 to 4 workers"),
    ("accelerate launch --num_processes 6 train.py", 2, 3, 3, None),
    ("accelerate launch --num_processes 4 train.py", 1, 2, 8, None),
    ("accelerate launch --num_processes 4 train.py", 2, 3, 3, "4 processes in all, but the job has 6"),
]


@pytest.mark.parametrize(("command", "processes", "fewest", "most", "told"), AGREEING)
def test_numbers_agree_with_the_job(command: str, processes: int, fewest: int, most: int, told: str | None) -> None:
    program = parse(command.split(), which=lambda name: None)
    if told is None:
        agree(program, processes, fewest, most)
        return
    with pytest.raises(CommandError) as refused:
        agree(program, processes, fewest, most)
    assert told in str(refused.value)


def test_a_program_of_nobody_asks_for_nothing() -> None:
    agree(Program("script", "train.py"), 1, 1, 1)
