"""What does a command start, and which commands cannot be read?"""

from __future__ import annotations

from typing import Any

import pytest

from drivetrain_cli.convert.launchers import Unreadable, read

TRAIN = ("torchrun", "train.py")


@pytest.mark.parametrize(
    ("command", "expect"),
    [
        (["python", "train.py"], {"command": ("python", "train.py"), "launcher": ""}),
        (["torchrun", "train.py"], {"command": TRAIN, "launcher": "torchrun", "per_worker": None}),
        (["torchrun", "--nproc_per_node=2", "train.py"], {"command": TRAIN, "per_worker": 2}),
        (["torchrun", "--nproc-per-node", "gpu", "train.py"], {"command": TRAIN, "per_worker": None}),
        (["torchrun", "--nproc-per-node=$(N)", "train.py"], {"command": TRAIN, "per_worker": 8}),
        (["torchrun", "--nnodes", "2:4", "train.py"], {"command": TRAIN, "nodes": (2, 4)}),
        (["torchrun", "--nnodes=$(NODES)", "train.py"], {"command": TRAIN, "nodes": None, "unused": ("--nnodes",)}),
        (["torchrun", "--standalone", "train.py"], {"command": TRAIN, "nodes": (1, 1)}),
        (["torchrun", "--max-restarts=3", "train.py"], {"command": TRAIN, "restarts": 3}),
        (["torchrun", "-m", "pkg.train", "-m"], {"command": ("torchrun", "-m", "pkg.train", "-m")}),
        (["torchrun", "--node_rank", "1", "train.py", "--node_rank", "1"],
         {"command": ("torchrun", "train.py", "--node_rank", "1"), "unused": ("--node_rank",)}),
        (["/opt/bin/torchrun", "--log-dir=/x", "train.py"],
         {"command": ("/opt/bin/torchrun", "train.py"), "unused": ("--log-dir",)}),
        (["python3", "-u", "-m", "torch.distributed.run", "--nproc-per-node=4", "train.py"],
         {"command": ("python3", "-u", "-m", "torch.distributed.run", "train.py"), "per_worker": 4}),
        (["accelerate", "launch", "--num_processes=8", "--num_machines", "2", "--machine_rank=0",
          "--mixed_precision", "bf16", "train.py"],
         {"command": ("accelerate", "launch", "--mixed_precision", "bf16", "train.py"),
          "processes": 8, "nodes": (2, 2)}),
        (["sh", "-c", "torchrun train.py"], {"command": TRAIN, "opaque": False}),
        (["bash", "-lc", "set -ex; cd /a && cd b\nexec torchrun --nproc-per-node=2 train.py # go"],
         {"command": TRAIN, "folder": "/a/b", "per_worker": 2}),
        (["sh", "-c", "export A=1 B='x y'\nC=2 torchrun train.py"],
         {"command": TRAIN, "environment": {"A": "1", "B": "x y", "C": "2"}}),
        (["sh", "-c", "python train.py --name 'a b'"], {"command": ("python", "train.py", "--name", "a b")}),
        (["sh", "-c", "python train.py | tee log"],
         {"command": ("sh", "-c", "python train.py | tee log"), "opaque": True}),
        (["sh", "-c", "python train.py $LR"], {"command": ("sh", "-c", "python train.py $LR"), "opaque": True}),
        (["sh", "run.sh"], {"command": ("sh", "run.sh"), "opaque": True}),
    ],
)  # fmt: skip
def test_read(command: list[str], expect: dict[str, Any]) -> None:
    found = read(command, {"N": "8"})
    assert {key: getattr(found, key) for key in expect} == expect


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["mpirun", "-np", "2", "python", "train.py"], "MPI's launcher"),
        (["torchrun"], "has no script to run"),
        (["torchrun", "--nproc-per-node"], "has no value"),
        (["torchrun", "--nproc-per-node=many", "train.py"], "--nproc-per-node must be a number"),
        (["torchrun", "--nproc-per-node=$(UNKNOWN)", "train.py"], "must be a number"),
        (["accelerate", "launch", "--use_fsdp", "train.py"], "--use_fsdp of accelerate"),
        (["python", "-m", "torch.distributed.launch", "train.py"], "use torchrun"),
        (["sh", "-c", "pip install x && torchrun train.py"], "'pip' runs before it"),
        (["sh", "-c", "torchrun train.py | tee log"], "it has '|' in it"),
        (["sh", "-c", "torchrun train.py --lr $LR"], "is for a shell to replace"),
        (["sh", "-c", "cd $HOME; torchrun train.py"], "'cd' runs before it"),
        (["sh", "-c", "torchrun 'train.py"], "No closing quotation"),
        (["sh", "-c", "deepspeed train.py"], "the deepspeed launcher"),
    ],
)
def test_unreadable(command: list[str], why: str) -> None:
    with pytest.raises(Unreadable, match=r".*") as error:
        read(command, {})
    assert why in str(error.value)
