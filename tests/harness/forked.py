"""Coordinators, launchers and ranks in milliseconds: forked from a process that has loaded what they are made of.

Torch, and all that is loaded after it, takes a rank three seconds of a processor; a test of a whole job has up to
a dozen of them. Where their start is not what is tested, `LocalJob.run(forked=True)` has them from here: as processes
of their own, with the parents, sessions, signals and ends that they would have (`harness/nursery.py`).
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final, Protocol

from harness.patience import Patience

_NURSERY: Final = Path(__file__).with_name("nursery.py")
_LOAD_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.005


class Process(Protocol):
    """What tests need of `asyncio.subprocess.Process`."""

    @property
    def pid(self) -> int:
        """Its id."""

    @property
    def returncode(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""

    def send_signal(self, number: int, /) -> None:
        """Raises ProcessLookupError where it has ended."""

    def kill(self) -> None:
        """SIGKILL."""

    def terminate(self) -> None:
        """SIGTERM."""

    async def wait(self) -> int:
        """Its exit code, once it has ended."""


class Forked:
    """One of them."""

    def __init__(self, pid: int, ended: Future[int]) -> None:
        self.pid: Final = pid
        self._ended = ended

    @property
    def returncode(self) -> int | None:
        return self._ended.result() if self._ended.done() else None

    def send_signal(self, number: int, /) -> None:
        if self._ended.done():
            raise ProcessLookupError(self.pid)
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    async def wait(self) -> int:
        while (code := self.returncode) is None:
            await asyncio.sleep(_LOOK_SECONDS)
        return code


class Nursery:
    """The process that they are forked from."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join([str(_NURSERY.with_name("quick")), *filter(None, sys.path)])
        own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_NURSERY), str(theirs.fileno())],
                env={**own, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        assert self._control.recv(16) == b"ready"  # however long torch takes; empty where it failed
        self._began: queue.SimpleQueue[Forked] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._listen, name="nursery", daemon=True)
        self._thread.start()

    def start(
        self, kind: str, command: Sequence[str], environment: Mapping[str, str], folder: Path, output: int
    ) -> Forked:
        """A `coordinator` with these arguments, or a `launcher` of this command, that prints to the file `output`."""
        order = json.dumps([kind, list(command), dict(environment), str(folder)])
        socket.send_fds(self._control, [order.encode()], [output])
        patience = Patience(_LOAD_SECONDS)
        while True:
            try:
                return self._began.get(timeout=patience.left() or 0.001)
            except queue.Empty:
                patience.check(f"a {kind} is forked")

    def _listen(self) -> None:
        ends: dict[int, Future[int]] = {}
        while data := self._control.recv(256):
            what, pid, code = json.loads(data)
            if what == "began":
                ends[pid] = Future()
                self._began.put(Forked(pid, ends[pid]))
            else:
                ends.pop(pid).set_result(code)


@functools.cache
def nursery() -> Nursery:
    """One for all that one worker of pytest runs. It ends when that closes its socket, by ending."""
    return Nursery()
