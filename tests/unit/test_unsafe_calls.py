"""No code of ours runs what somebody sent: no pickle, no eval, no shell. And that the search for it finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.unsafe_calls import ALLOWED, unsafe, unsafe_here

ROOT = Path(__file__).parents[2]
FOLDERS = ("operator", "worker-image", "tests", "scripts", "examples")


def ours() -> list[Path]:
    """All Python of the repository, scripts without an ending, too."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [path for path in files if path.suffix == ".py" or (not path.suffix and _is_python(path))]


def _is_python(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.readline(100)
    return first.startswith(b"#!") and b"python" in first


def test_no_code_of_ours_runs_what_somebody_sent() -> None:
    files = ours()
    assert len(files) > 500
    assert ROOT / "scripts" / "generate" in files
    assert [line for path in files for line in unsafe_here(ROOT, path)] == []


def test_what_is_allowed_is_needed() -> None:
    for name, allowed in ALLOWED.items():
        found = {each.name for each in unsafe((ROOT / name).read_text())}
        assert set(allowed) <= found, name
        assert all(allowed.values())


BAD = {
    "import pickle": "pickle",
    "import pickle as p": "pickle",
    "from pickle import loads": "pickle.loads",
    "def late():\n    import marshal": "marshal",
    "import _pickle": "_pickle",
    "import dill, os": "dill",
    "import cloudpickle.cloudpickle": "cloudpickle.cloudpickle",
    "from shelve import open": "shelve.open",
    "from multiprocessing.connection import Listener": "multiprocessing.connection.Listener",
    "from multiprocessing import managers": "multiprocessing.managers",
    "__import__('pickle')": "pickle",
    "import importlib\nimportlib.import_module('marshal')": "marshal",
    "eval('1')": "eval",
    "exec(text, {})": "exec",
    "import builtins\nbuiltins.eval(text)": "builtins.eval",
    "import os\nos.system('ls')": "os.system",
    "from os import system as run\nrun('ls')": "os.system",
    "import subprocess as s\ns.run('ls', shell=True)": "subprocess.run",
    "import subprocess\nsubprocess.run('ls', shell=wanted)": "subprocess.run",
    "import subprocess\nsubprocess.getoutput('ls')": "subprocess.getoutput",
    "import asyncio\nasyncio.create_subprocess_shell('ls')": "asyncio.create_subprocess_shell",
    "import yaml\nyaml.load(text)": "yaml.load",
    "import yaml\nyaml.load(text, Loader=yaml.Loader)": "yaml.load",
    "import yaml\nyaml.load(text, yaml.UnsafeLoader)": "yaml.load",
    "import yaml\nclass Own(yaml.Loader): ...\nyaml.load(text, Loader=Own)": "yaml.load",
    "from yaml import load\nload(text)": "yaml.load",
    "import yaml\nyaml.unsafe_load(text)": "yaml.unsafe_load",
    "import torch\ntorch.load(path)": "torch.load",
    "import torch\ntorch.load(path, weights_only=False)": "torch.load",
    "import torch\ntorch.load(path, weights_only=wanted)": "torch.load",
    "from torch import load as read\nread(path)": "torch.load",
    "import numpy as np\nnp.load(path, allow_pickle=True)": "numpy.load",
    "import numpy.lib.format\nnumpy.lib.format.read_array(file, allow_pickle=True)": "numpy.lib.format.read_array",
    "import torch.distributed as dist\ndist.broadcast_object_list(a)": "broadcast_object_list",
    "from torch.distributed import all_gather_object\nall_gather_object(a, b)": "all_gather_object",
    "self.group().scatter_object_list(a)": "scatter_object_list",
}


@pytest.mark.parametrize("source", BAD)
def test_it_is_found(source: str) -> None:
    assert [each.name for each in unsafe(source)] == [BAD[source]]


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "process.system('a')",
        "import yaml\nyaml.safe_load(text)\nyaml.load(text, Loader=yaml.CSafeLoader)\nyaml.load(text, yaml.SafeLoader)",
        "import yaml\nclass Own(yaml.SafeLoader): ...\nyaml.load(text, Loader=Own)",
        "import torch\ntorch.load(path, weights_only=True)",
        "import numpy as np\nnp.load(path)\nnp.load(path, allow_pickle=False)",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
        "import asyncio\nasyncio.create_subprocess_exec('ls')",
        "import json\njson.load(file)",
        "from . import pickle",
        "import pickles",
        "'import pickle'",
    ],
)
def test_nothing_else_is(source: str) -> None:
    assert unsafe(source) == []
