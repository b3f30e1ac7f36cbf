"""Forks coordinators, launchers and ranks of tests from itself: `python nursery.py FD`, asked by `harness.forked`.

All that they are made of is loaded here once, and nothing of it is used. Who is forked begins where `python script.py`
comes to after three seconds of imports, with an environment, a search path and outputs of its own, and ends by the
interpreter's own way out.

A launcher has a crib beside it: a copy of this process from before the launcher did anything. Its ranks are forked
there, by a process that ends at once, so that they become the launcher's children, which is a subreaper. They do what
`exec_rank.py` does; where the command is anything but a script of this very Python, they become that.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed.pipelining  # the first pipeline would
import torch.utils.data

import drivetrain
import drivetrain_coordinator.main
import drivetrain_coordinator.server
from drivetrain.launch import process
from drivetrain.launch.environment import ENV_LINK_FD

_MESSAGE = 1 << 20
_ADOPTED_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1


class Order(NamedTuple):
    """What a forked process is to be, and its files: its output, and the link of a rank."""

    kind: str
    command: list[str]
    environment: dict[str, str]
    folder: str
    fds: list[int]


def received(control: socket.socket) -> Order | None:
    """The next order; None where nobody gives any more."""
    data, fds, *_ = socket.recv_fds(control, _MESSAGE, 2)
    if not data:
        return None
    kind, command, environment, folder = json.loads(data)
    return Order(kind, command, environment, folder, fds)


def close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def dies_with(parent: int) -> None:
    """By SIGKILL, whenever that process ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it had ended before


def nursery(control: socket.socket) -> Order:
    """Fork whatever is ordered, and tell of its beginning and its end. Returns in each that is forked."""
    mine = os.getpid()
    running: dict[int, int] = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd in running:
                poll.unregister(fd)
                os.close(fd)
                pid, status = os.waitpid(running.pop(fd), 0)
                control.send(json.dumps(["ended", pid, os.waitstatus_to_exitcode(status)]).encode())
                continue
            order = received(control)
            if order is None:
                os._exit(0)
            if (pid := os.fork()) == 0:
                close_all([*running, control.detach()])
                dies_with(mine)
                return order
            close_all(order.fds)
            running[watched := os.pidfd_open(pid)] = pid
            poll.register(watched, select.POLLIN)
            control.send(json.dumps(["began", pid, 0]).encode())


def with_crib(order: Order) -> Order:
    """In a launcher: its ranks are forked from now on. Returns there, and in each rank."""
    launcher = os.getpid()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        dies_with(launcher)
        ours.close()
        close_all(order.fds)
        return crib(theirs, launcher)
    theirs.close()
    forked = types.SimpleNamespace(Popen=popen_by(ours, order.folder), DEVNULL=subprocess.DEVNULL)
    process.subprocess = forked  # type: ignore[assignment,attr-defined]  # this process is the test's own
    return order


def popen_by(crib: socket.socket, folder: str) -> Callable[..., Any]:
    """What takes the place of `subprocess.Popen` where a launcher starts its ranks."""

    def popen(
        command: Sequence[str], *, env: Mapping[str, str], stdout: int, pass_fds: Sequence[int], **others: object
    ) -> types.SimpleNamespace:
        assert others == {"stdin": subprocess.DEVNULL, "stderr": stdout, "start_new_session": True}
        assert command[:4] == [sys.executable, "-I", "-S", process._EXEC_RANK]
        order = json.dumps(["rank", command[5:], dict(env), folder])
        socket.send_fds(crib, [order.encode()], [stdout, *pass_fds])
        return types.SimpleNamespace(pid=int(crib.recv(64)))

    return popen


def crib(control: socket.socket, launcher: int) -> Order:
    """Returns in each rank, once that is the launcher's child."""
    while (order := received(control)) is not None:
        told, tells = os.pipe()
        if (between := os.fork()) == 0:
            if os.fork() != 0:
                os._exit(0)
            os.setsid()
            limit = time.monotonic() + _ADOPTED_SECONDS
            while os.getppid() != launcher and time.monotonic() < limit:
                time.sleep(0.0005)
            dies_with(launcher)
            os.write(tells, str(os.getpid()).encode())
            close_all([told, tells, control.detach()])
            return order
        os.waitpid(between, 0)
        close_all([*order.fds, tells])
        control.send(os.read(told, 64) or b"-1")
        os.close(told)
    os._exit(0)


def become(order: Order) -> None:
    """Whatever a process has of its own from its beginning."""
    os.dup2(order.fds[0], 1)
    os.dup2(order.fds[0], 2)
    os.close(order.fds[0])
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.environment)
    np.random.seed()  # else all would have the same numbers
    given = order.environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [*filter(None, given), *_of_python]
    if threads := order.environment.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))  # read when torch was loaded, long ago
    if order.kind != "rank":
        return
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    link = order.fds[1]
    os.set_inheritable(link, True)
    os.environ[ENV_LINK_FD] = str(link)
    if order.command[0] != sys.executable or not order.command[1].endswith(".py"):
        rank = [sys.executable, "-I", "-S", process._EXEC_RANK, str(os.getppid()), *order.command]
        os.execve(sys.executable, rank, os.environ)


def main_module(path: str) -> dict[str, Any]:
    """The namespace that a script runs in."""
    script = types.ModuleType("__main__")
    script.__file__ = path
    sys.modules["nursery"], sys.modules["__main__"] = sys.modules["__main__"], script
    return script.__dict__


_of_python = [path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix)) or "-packages" in path]
for _found in pkgutil.walk_packages(drivetrain.__path__, "drivetrain."):
    if ".integrations" not in _found.name:  # they need what they integrate with
        importlib.import_module(_found.name)
gc.collect()
gc.freeze()  # else the last collection of each of them copies all of this memory
_control = socket.socket(fileno=int(sys.argv[1]))
_control.send(b"ready")
_order = nursery(_control)
if _order.kind == "launcher":
    _order = with_crib(_order)
become(_order)
if _order.kind == "launcher":
    sys.argv = ["drivetrain-launcher", "--", *_order.command]
    raise SystemExit(importlib.import_module("drivetrain.launch.main").main())
if _order.kind == "coordinator":
    sys.argv = ["drivetrain-coordinator", *_order.command]
    raise SystemExit(drivetrain_coordinator.main.main())
sys.argv = _order.command[1:]
sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
exec(compile(Path(sys.argv[0]).read_bytes(), sys.argv[0], "exec"), main_module(sys.argv[0]))
