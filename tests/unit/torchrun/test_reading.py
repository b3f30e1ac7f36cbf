"""Whether a program uses drivetrain, by what stands in its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivetrain.torchrun import keep
from drivetrain.torchrun.choice import choose
from drivetrain.torchrun.program import Program
from drivetrain.torchrun.reading import uses_drivetrain
from drivetrain_api.runtime import RuntimeSpec

STOCK = "import torch\n"
CASES: dict[str, tuple[dict[str, str], bool | None]] = {
    "imports it": ({"train.py": "import drivetrain"}, True),
    "imports a part of it": ({"train.py": "def f():\n    from drivetrain.errors import UsageError"}, True),
    "imports it by name": ({"train.py": "import importlib; importlib.import_module('drivetrain')"}, True),
    "only speaks of it": ({"train.py": "# import drivetrain\nx = 'no drivetrain here'"}, False),
    "only tells its progress": (
        {"train.py": "import drivetrain.integrations.lightning\nfrom drivetrain.integrations import report"},
        False,
    ),
    "takes the adapters as a module": ({"train.py": "from drivetrain import integrations"}, False),
    "tells its progress, and more": ({"train.py": "from drivetrain import integrations, start"}, True),
    "the adapters are beside it": (
        {"train.py": "import drivetrain.integrations", "drivetrain/__init__.py": "import drivetrain.run"},
        False,
    ),
    "does not": ({"train.py": STOCK}, False),
    "a module beside it does": ({"train.py": "import loop", "loop.py": "import drivetrain"}, True),
    "a module of a package does": (
        {"train.py": "from lib import loop", "lib/__init__.py": "", "lib/loop.py": "import drivetrain"},
        True,
    ),
    "a package's own module does": (
        {"train.py": "import lib", "lib/__init__.py": "from . import loop", "lib/loop.py": "import drivetrain"},
        True,
    ),
    "modules import one another": ({"train.py": "import a", "a.py": "import b", "b.py": "import a"}, False),
    "another module beside it does, which is not imported": (
        {"train.py": STOCK, "loop.py": "import drivetrain"},
        False,
    ),
    "a module that is no Python": ({"train.py": "import a", "a.py": "def ("}, False),
    "is no Python": ({"train.py": "def ("}, None),
    "is not there": ({}, None),
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("case", CASES)
def test_a_script(case: str, tmp_path: Path) -> None:
    files, uses = CASES[case]
    write(tmp_path, files)
    assert uses_drivetrain(Program("script", "train.py"), tmp_path) is uses


def test_a_module(tmp_path: Path) -> None:
    write(tmp_path, {"lib/pkg/__init__.py": "", "lib/pkg/train.py": "from pkg import loop", "lib/pkg/loop.py": STOCK})
    module = Program("module", "pkg.train")
    assert uses_drivetrain(module, tmp_path) is None
    assert uses_drivetrain(module, tmp_path, "lib") is False
    write(tmp_path, {"lib/pkg/loop.py": "import drivetrain"})
    assert uses_drivetrain(module, tmp_path, "lib") is True


def test_code() -> None:
    assert uses_drivetrain(Program("code", "import drivetrain"), Path()) is True
    assert uses_drivetrain(Program("code", "print(1)"), Path()) is False


CHOICES = [
    # runtime, command, what train.py is, what is started
    ("auto", "python train.py", STOCK, "python KEEP script train.py"),
    ("auto", "python train.py", "import drivetrain", "python train.py"),
    ("auto", "sh run.sh", STOCK, "sh run.sh"),
    ("auto", "python -m installed", STOCK, "python -m installed"),
    ("drivetrain", "python train.py", STOCK, "python train.py"),
    ("torchrun", "python -O train.py 1", "import drivetrain", "python -O KEEP script train.py 1"),
    ("auto", "python -m torch.distributed.run train.py", "import drivetrain", "python train.py"),
    ("auto", "python -m torch.distributed.run -m installed", STOCK, "python KEEP module installed"),
]


@pytest.mark.parametrize(("runtime", "command", "text", "started"), CHOICES)
def test_what_a_launcher_starts(runtime: str, command: str, text: str, started: str, tmp_path: Path) -> None:
    write(tmp_path, {"train.py": text})
    spec = RuntimeSpec.model_validate({"runtime": runtime})
    command_line = " ".join(choose(tuple(command.split()), spec, {}, tmp_path).command)
    assert command_line.replace(str(Path(keep.__file__)), "KEEP") == started
