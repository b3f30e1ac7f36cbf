"""What does this command run? `python`, `torchrun` and `accelerate launch` are understood; all else is an executable.

A launcher of processes in each pod would be a supervisor below ours that knows less (ADR 0045): so its options are
read. What is about the script is used; what is about machines must agree with the job; what is neither is refused.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from drivetrain.launch.errors import CommandError
from drivetrain.torchrun.program import Program

TORCHRUN: Final = "torchrun"
ACCELERATE: Final = "accelerate launch"

_PYTHON: Final = re.compile(r"python(\d+(\.\d+)?)?$")
_WITH_VALUE: Final = frozenset("WX")
"""Options of one letter of the interpreter that take a value."""
_RUNS_MODULES: Final = {
    "torch.distributed.run": TORCHRUN,
    "torch.distributed.launch": "torch.distributed.launch",
    "accelerate.commands.launch": ACCELERATE,
}

Treatment = Literal["flag", "value"]


@dataclass(frozen=True, slots=True)
class _Options:
    """What a launcher's options mean here, by name without dashes in front."""

    flags: Mapping[str, Callable[[Program], Program]]
    values: Mapping[str, Callable[[Program, str, str], Program]]
    """Called with the option as it was written, and its value."""
    short: Mapping[str, str]


def parse(command: Sequence[str], which: Callable[[str], str | None] = shutil.which) -> Program:
    """Raises `CommandError`, which names the option that cannot be used."""
    name = os.path.basename(command[0])
    if _PYTHON.fullmatch(name):
        return _of_python(command)
    if name == "torchrun":
        return _of_launcher(TORCHRUN, (_python_beside(which(command[0])),), command[1:])
    if name == "accelerate" and len(command) > 1:
        if command[1] != "launch":
            raise CommandError(f"accelerate {command[1]}: only `accelerate launch` runs training (spec.command)")
        return _of_launcher(ACCELERATE, (_python_beside(which(command[0])),), command[2:])
    return Program("executable", command[0], tuple(command[1:]))


def agree(program: Program, processes_per_worker: int, fewest: int, most: int) -> None:
    """Raises `CommandError` if the command asks for other numbers than the job has: `fewest` to `most` workers."""
    asked = program.per_worker
    if asked is not None and asked != processes_per_worker:
        raise CommandError(
            f"{program.launcher} is to start {asked} processes on each machine, but spec.processesPerWorker is "
            f"{processes_per_worker}: make them the same, or leave it out of spec.command"
        )
    if program.nodes is not None and not (program.nodes[0] <= most and fewest <= program.nodes[1]):
        low, high = program.nodes
        raise CommandError(
            f"{program.launcher} is to run on {low if low == high else f'{low} to {high}'} machines, but the job has "
            f"{fewest if fewest == most else f'{fewest} to {most}'} workers: make spec.workers the same, or leave it "
            "out of spec.command"
        )
    if program.processes is not None and not fewest <= program.processes / processes_per_worker <= most:
        raise CommandError(
            f"{program.launcher} is to start {program.processes} processes in all, but the job has "
            f"{fewest * processes_per_worker if fewest == most else f'{fewest} to {most} workers'} "
            "(spec.workers times spec.processesPerWorker): make them the same, or leave it out of spec.command"
        )


def _python_beside(found: str | None) -> str:
    """The interpreter of the environment that this console script belongs to."""
    for name in ("python", "python3") if found else ():
        beside = os.path.join(os.path.dirname(found or ""), name)
        if os.access(beside, os.X_OK):
            return beside
    return sys.executable


def _of_python(command: Sequence[str]) -> Program:
    """`python [options] FILE|-m MODULE|-c CODE [arguments]`, as the interpreter itself reads it."""
    position = 1
    while position < len(command) and command[position].startswith("-") and command[position] != "-":
        option = command[position]
        if option == "--":
            position += 1
            break
        if option.startswith("--"):
            position += 2 if option == "--check-hash-based-pycs" else 1
            continue
        position += 1
        for at, letter in enumerate(option[1:], 2):
            rest = option[at:]
            if letter in _WITH_VALUE:
                position += 0 if rest else 1
                break
            if letter in "mc":
                # What stands before it in the same word is of the interpreter: -um is -u -m.
                before = (*command[: position - 1], *((f"-{option[1 : at - 1]}",) if at > 2 else ()))
                if rest:
                    return _of_target(letter, before, rest, command[position:])
                if position >= len(command):
                    return Program("executable", command[0], tuple(command[1:]))
                return _of_target(letter, before, command[position], command[position + 1 :])
    if position >= len(command) or command[position] == "-":
        return Program("executable", command[0], tuple(command[1:]))  # reads its script from standard input
    interpreter = tuple(part for part in command[:position] if part != "--")
    return Program("script", command[position], tuple(command[position + 1 :]), interpreter)


def _of_target(letter: str, interpreter: Sequence[str], target: str, arguments: Sequence[str]) -> Program:
    if letter == "c":
        return Program("code", target, tuple(arguments), tuple(interpreter))
    if target == "accelerate.commands.accelerate_cli" and arguments[:1] == ["launch"]:
        return _of_launcher(ACCELERATE, interpreter, arguments[1:])
    if target in _RUNS_MODULES:
        return _of_launcher(_RUNS_MODULES[target], interpreter, arguments)
    return Program("module", target, tuple(arguments), tuple(interpreter))


def _of_launcher(launcher: str, interpreter: Sequence[str], arguments: Sequence[str]) -> Program:
    options = _ACCELERATE if launcher == ACCELERATE else _TORCHRUN
    found = Program("script", "", interpreter=tuple(interpreter), launcher=launcher)
    if launcher == "torch.distributed.launch" and not {"--use-env", "--use_env"}.intersection(arguments):
        raise CommandError(
            "torch.distributed.launch gives each script an argument --local-rank, which is not supported: use torchrun "
            "in spec.command, or --use-env"
        )
    position = 0
    while position < len(arguments) and arguments[position].startswith("-"):
        written, equals, value = arguments[position].partition("=")
        position += 1
        if written == "--":
            break
        name = written[2:].replace("_", "-") if written.startswith("--") else options.short.get(written, "")
        if name in options.flags and not equals:
            found = options.flags[name](found)
        elif name in options.values:
            if not equals:
                if position >= len(arguments):
                    raise CommandError(f"{launcher} {written} has no value (spec.command)")
                value, position = arguments[position], position + 1
            found = options.values[name](found, written, value)
        else:
            raise CommandError(f"{launcher} {written} is not supported in spec.command: {_INSTEAD[launcher]}")
    if position >= len(arguments):
        raise CommandError(f"{launcher} has no script to run (spec.command)")
    target, rest = arguments[position], tuple(arguments[position + 1 :])
    found = replace(found, target=target, arguments=rest)
    return replace(found, interpreter=()) if found.kind == "executable" else found


_INSTEAD: Final = {
    TORCHRUN: "Drivetrain starts the processes, and their output is in the log of each worker",
    "torch.distributed.launch": "Drivetrain starts the processes, and their output is in the log of each worker",
    ACCELERATE: "give it to Accelerator(...) in the script",
}


def _unused(program: Program, written: str, value: str) -> Program:
    return replace(program, unused=(*program.unused, written))


def _flag_unused(name: str) -> Callable[[Program], Program]:
    return lambda program: _unused(program, f"--{name}", "")


def _ignored(program: Program) -> Program:
    return program


def _ignored_value(program: Program, written: str, value: str) -> Program:
    return program


def _number(program: Program, written: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise CommandError(f"{program.launcher} {written} must be a number of at least 1, not {value!r} (spec.command)")
    return int(value)


def _per_worker(program: Program, written: str, value: str) -> Program:
    if value in ("auto", "gpu", "cpu", "xpu"):
        return program  # spec.processesPerWorker follows from the worker's GPUs
    return replace(program, per_worker=_number(program, written, value))


def _nodes(program: Program, written: str, value: str) -> Program:
    low, _, high = value.partition(":")
    fewest = _number(program, written, low)
    return replace(program, nodes=(fewest, _number(program, written, high) if high else fewest))


def _processes(program: Program, written: str, value: str) -> Program:
    return replace(program, processes=_number(program, written, value))


def _sets(variable: str, change: Callable[[str], str] = str) -> Callable[[Program, str, str], Program]:
    return lambda program, _, value: replace(program, environment={**program.environment, variable: change(value)})


def _switches(variable: str) -> Callable[[Program], Program]:
    return lambda program: replace(program, environment={**program.environment, variable: "true"})


def _module(program: Program) -> Program:
    return replace(program, kind="module")


def _executable(program: Program) -> Program:
    return replace(program, kind="executable")


_TORCHRUN: Final = _Options(
    flags={
        "module": _module,
        "no-python": _executable,
        "run-path": _ignored,
        "use-env": _ignored,
        "standalone": _flag_unused("standalone"),
    },
    values={
        "nproc-per-node": _per_worker,
        "nnodes": _nodes,
        "role": _sets("ROLE_NAME"),
        **dict.fromkeys(
            (
                *("rdzv-backend", "rdzv-endpoint", "rdzv-id", "rdzv-conf", "node-rank", "master-addr", "master-port"),
                *("local-addr", "max-restarts", "monitor-interval", "start-method", "event-log-handler"),
                *("tee", "local-ranks-filter"),
            ),
            _unused,
        ),
    },
    short={"-m": "module", "-t": "tee"},
)
_ACCELERATE: Final = _Options(
    flags={
        "module": _module,
        "no-python": _executable,
        "multi-gpu": _ignored,
        "quiet": _ignored,
        "same-network": _ignored,
        "cpu": _switches("ACCELERATE_USE_CPU"),
        "debug": _switches("ACCELERATE_DEBUG_MODE"),
    },
    values={
        "num-processes": _processes,
        "num-machines": _nodes,
        "mixed-precision": _sets("ACCELERATE_MIXED_PRECISION"),
        "gradient-accumulation-steps": _sets("ACCELERATE_GRADIENT_ACCUMULATION_STEPS"),
        "dynamo-backend": _sets("ACCELERATE_DYNAMO_BACKEND", str.upper),
        "num-cpu-threads-per-process": _sets("OMP_NUM_THREADS"),
        "main-training-function": _ignored_value,
        **dict.fromkeys(
            (
                *("machine-rank", "main-process-ip", "main-process-port", "rdzv-backend", "rdzv-conf"),
                *("max-restarts", "monitor-interval", "role", "tee"),
            ),
            _unused,
        ),
    },
    short={"-m": "module", "-q": "quiet"},
)
