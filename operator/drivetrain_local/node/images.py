"""How is an image run where there are no images? By a table from image name to what this machine has.

The images of Drivetrain mean this very Python environment. Any other name cannot be pulled, and its pod waits in
ErrImagePull and ImagePullBackOff, as with a real kubelet.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

_PASSED_ON = ("LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH")
"""What a container takes from the agent's own environment: where Python's packages and the locale are, no more."""

_COMMANDS = Path(__file__).resolve().parents[1] / "commands"
"""Our console scripts, for an environment in which no installer made them."""


@dataclass(frozen=True)
class Image:
    """What an image brings: entrypoint, default arguments, environment, and files of its own."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    files: dict[str, Path] = field(default_factory=dict)
    """What lies in it, by its place there; each is linked into the pod's root."""


def python_environment() -> dict[str, str]:
    """The environment of an image that is this interpreter: its `python` comes first in PATH.

    Our packages are importable and our commands found from any folder, whether they are installed or a checkout.
    """
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    roots = [*_source_roots(), *(str(Path(entry).resolve()) for entry in inherited if entry)]
    env["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(roots))
    path = [str(Path(sys.executable).parent), str(_COMMANDS), *os.environ.get("PATH", os.defpath).split(os.pathsep)]
    env["PATH"] = os.pathsep.join(dict.fromkeys(path))
    return env


def _source_roots() -> list[str]:
    """Folders from which the packages of both sides are imported here."""
    found = [importlib.util.find_spec(package) for package in ("drivetrain_api", "drivetrain")]
    return [str(Path(spec.origin).resolve().parents[1]) for spec in found if spec is not None and spec.origin]


def default_images() -> dict[str, Image]:
    """The images that this repository builds."""
    env = python_environment()
    examples = Path(__file__).parents[3] / "examples"  # beside the sources, not beside an installed package
    files = {"/workspace/examples": examples} if examples.is_dir() else {}
    launcher = (sys.executable, "-m", "drivetrain.launch.main")
    return {
        "drivetrain-worker": Image(launcher, env=env, workdir="/workspace", files=files),
        "drivetrain-operator": Image((sys.executable, "-m", "drivetrain_operator.main"), env=env),
    }


def parse_image(text: str) -> tuple[str, Image]:
    """`NAME=["argv", …]` of the --image flag: an image that runs argv in this Python environment."""
    name, equals, argv = text.partition("=")
    entrypoint = json.loads(argv) if equals else []
    if not name or not isinstance(entrypoint, list) or not all(isinstance(part, str) for part in entrypoint):
        raise ValueError(f'--image {text!r}: want NAME or NAME=["argv", ...]')
    return name, Image(tuple(entrypoint), env=python_environment())


def find(images: dict[str, Image], reference: str) -> Image | None:
    """The image that a reference means. Registry, tag and digest do not count, only the last path part does."""
    name = reference.partition("@")[0].rpartition("/")[2].partition(":")[0]
    return images.get(name)
