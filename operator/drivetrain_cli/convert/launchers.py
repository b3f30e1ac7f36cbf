"""PURE: what does a container's command start? torchrun and accelerate launch are read, also out of a shell line.

Drivetrain starts the ranks itself, in each worker as many as spec.processesPerWorker says. So what a launcher is told
about machines, addresses and ranks goes; how many it starts is taken over; what it is told about the script stays.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

_PYTHON: Final = re.compile(r"python(\d+(\.\d+)?)?$")
_MODULES: Final = {"torch.distributed.run": "torchrun", "accelerate.commands.launch": "accelerate"}
_OTHERS: Final = {
    "deepspeed": "the deepspeed launcher",
    "mpirun": "MPI's launcher",
    "mpiexec": "MPI's launcher",
    "horovodrun": "Horovod's launcher",
    "tune": "torchtune's launcher",
    "composer": "Composer's launcher",
    "colossalai": "ColossalAI's launcher",
    "ray": "Ray's command line",
}
_SHELLS: Final = ("sh", "bash", "dash", "ash", "zsh")
_STARTS: Final = re.compile(
    r"\b(torchrun|torch\.distributed\.(run|launch)|accelerate\s+launch|deepspeed|mpirun|mpiexec|horovodrun)\b"
)
_RANKS: Final = (
    *("rdzv-backend", "rdzv-endpoint", "rdzv-id", "rdzv-conf", "node-rank", "master-addr", "master-port", "local-addr"),
    *("machine-rank", "main-process-ip", "main-process-port", "monitor-interval", "start-method", "event-log-handler"),
    *("tee", "local-ranks-filter", "log-dir", "redirects", "logs-specs"),
)
"""With a value; of machines and of logs."""
_FLAGS: Final = {
    "torchrun": ("module", "no-python", "run-path", "use-env"),
    "accelerate": ("module", "no-python", "multi-gpu", "quiet", "same-network", "cpu", "debug"),
}
_VALUES: Final = {
    "torchrun": ("role",),
    "accelerate": (
        *("mixed-precision", "gradient-accumulation-steps", "dynamo-backend", "num-cpu-threads-per-process"),
        "main-training-function",
    ),
}
_SHORT: Final = {"-m": "module", "-t": "tee", "-r": "redirects", "-q": "quiet"}


class Unreadable(Exception):
    """It starts something that Drivetrain cannot take the place of; the message says what."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What a command comes to."""

    command: tuple[str, ...]
    """For spec.command."""
    launcher: str = ""
    """torchrun or accelerate; empty if each container is one process."""
    per_worker: int | None = None
    """Processes that it starts in each; None: not said, or `auto`."""
    processes: int | None = None
    """In all (accelerate)."""
    nodes: tuple[int, int] | None = None
    """Machines, fewest and most."""
    restarts: int | None = None
    unused: tuple[str, ...] = ()
    """Options that are not needed any more."""
    folder: str | None = None
    """Where a shell line went first."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What it set first."""
    opaque: bool = False
    """A shell line that stays one."""


def read(command: Sequence[str], environment: Mapping[str, str]) -> Launch:
    """`environment`: what $(NAME) in it means. Raises Unreadable."""
    found = [_expanded(word, environment) for word in command]
    name = os.path.basename(found[0])
    if name in _SHELLS:
        return _of_shell(found)
    if name in _OTHERS:
        raise Unreadable(f"{name} is {_OTHERS[name]}, which Drivetrain cannot take the place of")
    if name == "torchrun":
        return _of_launcher("torchrun", found[:1], found[1:])
    if name == "accelerate" and found[1:2] == ["launch"]:
        return _of_launcher("accelerate", found[:2], found[2:])
    if _PYTHON.fullmatch(name) and "-m" in found:
        at = found.index("-m")
        module = found[at + 1] if at + 1 < len(found) else ""
        if module in _MODULES and all(word.startswith("-") for word in found[1:at]):
            return _of_launcher(_MODULES[module], found[: at + 2], found[at + 2 :])
        if module == "torch.distributed.launch":
            raise Unreadable("torch.distributed.launch gives each script an argument --local-rank: use torchrun")
    return Launch(tuple(found))


def _of_launcher(launcher: str, before: Sequence[str], arguments: Sequence[str]) -> Launch:
    kept: list[str] = []
    launch = Launch((), launcher)
    position = 0
    while position < len(arguments) and arguments[position].startswith("-"):
        word, equals, value = arguments[position].partition("=")
        position += 1
        if word == "--":
            break
        name = word[2:].replace("_", "-") if word.startswith("--") else _SHORT.get(word, "")
        if name == "standalone" or name in _FLAGS[launcher]:
            if name == "standalone":
                launch = replace(launch, nodes=(1, 1))
            else:
                kept.append(word)
            continue
        if not equals:
            if position >= len(arguments):
                raise Unreadable(f"{word} has no value")
            value, position = arguments[position], position + 1
        if name in _VALUES[launcher]:
            kept += [word, value]
        elif name in _RANKS:
            launch = replace(launch, unused=(*launch.unused, word))
        else:
            launch = _counted(launch, name, word, value)
    if position >= len(arguments):
        raise Unreadable(f"{launcher} has no script to run")
    return replace(launch, command=(*before, *kept, *arguments[position:]))


def _counted(launch: Launch, name: str, word: str, value: str) -> Launch:
    """Options that say how many."""
    if name == "nproc-per-node":
        return launch if value in ("auto", "gpu", "cpu", "xpu") else replace(launch, per_worker=_number(word, value))
    if name == "num-processes":
        return replace(launch, processes=_number(word, value))
    if name == "max-restarts":
        return replace(launch, restarts=_number(word, value, 0))
    if name in ("nnodes", "num-machines"):
        if value.startswith("$"):  # how many there are, the job says
            return replace(launch, unused=(*launch.unused, word))
        low, _, high = value.partition(":")
        fewest = _number(word, low)
        return replace(launch, nodes=(fewest, _number(word, high) if high else fewest))
    raise Unreadable(f"option {word} of {launch.launcher} is one that Drivetrain does not have")


def _number(word: str, value: str, least: int = 1) -> int:
    if not value.isdecimal() or int(value) < least:
        raise Unreadable(f"{word} must be a number here, not {value!r}")
    return int(value)


def _expanded(word: str, environment: Mapping[str, str]) -> str:
    """$(NAME) as a kubelet expands it, where the manifest itself says the value."""
    return re.sub(r"(?<!\$)\$\(([A-Za-z_][A-Za-z0-9_]*)\)", lambda it: environment.get(it[1], it[0]), word)


def _of_shell(command: Sequence[str]) -> Launch:
    """`sh -c LINE`, where the line is `cd`, `export` and `set` before one program; else it stays as it is."""
    if len(command) != 3 or not re.fullmatch(r"-[a-z]*c[a-z]*", command[1]):
        return Launch(tuple(command), opaque=True)
    line = command[2]
    try:
        launch = _simple(line)
    except Unreadable:
        raise
    except ValueError as error:
        if (found := _STARTS.search(line)) is not None:
            raise Unreadable(
                f"a shell line starts {found[1]}, and {error}: make `{found[1]} …` the command itself, and put what "
                "comes before it into an init container or the image"
            ) from error
        return Launch(tuple(command), opaque=True)
    if not launch.launcher and any("$" in word or "`" in word for word in launch.command):
        return Launch(tuple(command), opaque=True)
    return launch


def _simple(line: str) -> Launch:
    """Raises ValueError that says what is not simple in it."""
    lexer = shlex.shlex(line.replace("\\\n", " ").strip(), posix=True, punctuation_chars=";&|<>()\n")
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    statements: list[list[str]] = [[]]
    for token in lexer:
        if token and set(token) <= set(";&|<>()\n"):
            if token.strip("\n") not in ("", ";", "&&"):
                raise ValueError(f"it has {token!r} in it")
            statements.append([])
        else:
            statements[-1].append(token)
    *before, last = [each for each in statements if each] or [[]]
    folder: str | None = None
    environment: dict[str, str] = {}
    for each in before:
        if each[0] == "cd" and len(each) == 2 and "$" not in each[1]:
            folder = each[1] if folder is None else os.path.join(folder, each[1])
        elif each[0] == "export" and all(re.fullmatch(r"[A-Za-z_]\w*=[^$`]*", word) for word in each[1:]):
            environment |= dict(word.split("=", 1) for word in each[1:])
        elif each[0] != "set":
            raise ValueError(f"{each[0]!r} runs before it")
    while last and re.fullmatch(r"[A-Za-z_]\w*=[^$`]*", last[0]):
        name, _, value = last.pop(0).partition("=")
        environment[name] = value
    last = last[1:] if last[:1] == ["exec"] else last
    if not last:
        raise ValueError("it runs no program")
    launch = read(last, environment)
    if launch.launcher and (odd := [word for word in launch.command if "$" in word or "`" in word]):
        raise ValueError(f"{odd[0]!r} is for a shell to replace")
    return replace(launch, folder=folder or launch.folder, environment={**environment, **launch.environment})
