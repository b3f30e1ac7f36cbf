"""Runs scripts to their end, alone or as the one rank of a job whose launcher is played here."""

from __future__ import annotations

import base64
import json
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drivetrain.launch.environment import ENV_PROCESS
from drivetrain_api.messages import (
    Boundary,
    EpochId,
    Form,
    Member,
    Table,
)

_ZYGOTE = Path(__file__).with_name("zygote.py")
PROCESS = "pod/boot/1"


@dataclass
class End:
    """How a script ended."""

    code: int | None = None
    """None: it did not, within its time."""
    output: str = ""
    told: list[str] = field(default_factory=list)
    """Errors that came over the link."""
    finished: bool = False
    """It told its launcher that it was done."""
    seconds: float = 0.0


class Launcher:
    """The other end of a rank's link: seats it as the only member as soon as it is ready, and lets it go when done."""

    def __init__(self) -> None:
        self._socket, self.theirs = socket.socketpair()
        self.end = End()
        self._epoch = EpochId(1, 1)
        self._puts: dict[str, str] = {}
        self._seated = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def left(self) -> End:
        """All that came, once nobody has the link open any more."""
        self.theirs.close()
        self._thread.join(5.0)
        self._socket.close()
        return self.end

    def _serve(self) -> None:
        rest = b""
        while True:
            try:
                data = self._socket.recv(1 << 18)
            except OSError:
                return
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "phase" if message["phase"] == "ready" and not self._seated:
                self._seated = True
                members = [Member(process=PROCESS, pod_uid="pod", new=True)]
                self._send(Form(epoch=self._epoch, members=members, boundary=Boundary.NOW, fresh=True))
            case "phase" if message["phase"] == "done":
                self.end.finished = True
                self._socket.sendall(b'{"type": "finish"}\n')
            case "put":
                self._puts[message["key"]] = message["value"]
                assert base64.b64decode(message["value"])
                self._send(Table(epoch=self._epoch, entries=self._puts))
            case "error":
                self.end.told.append(message["traceback"])

    def _send(self, message: Form | Table) -> None:
        self._socket.sendall(message.model_dump_json().encode() + b"\n")


class Scripts:
    """Scripts, each in a process of its own."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        self._zygote = subprocess.Popen(
            [sys.executable, str(_ZYGOTE), str(theirs.fileno())], env=environment, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        self._number = 0
        assert self._control.recv(16) == b"ready"  # however long torch takes; empty if the zygote failed

    def close(self) -> None:
        """End."""
        self._control.close()
        self._zygote.wait(10.0)

    def ended(
        self, script: str, *, job: bool = False, seconds: float = 20.0, environment: dict[str, str] | None = None
    ) -> End:
        """Run a script to its end."""
        (end,) = self.all_ended([script], job=job, seconds=seconds, environments=[environment or {}])
        return end

    def all_ended(
        self, scripts: list[str], *, job: bool, seconds: float, environments: list[dict[str, str]]
    ) -> list[End]:
        """Run several at the same time."""
        launchers: list[Launcher | None] = []
        outputs: list[int] = []
        begun = time.monotonic()
        first = self._number
        for script, environment in zip(scripts, environments, strict=True):
            launcher = Launcher() if job else None
            launchers.append(launcher)
            output, theirs = os.pipe()
            outputs.append(output)
            request = {"number": self._number, "script": script, "environment": {**environment, ENV_PROCESS: PROCESS}}
            self._number += 1
            fds = [theirs] + ([launcher.theirs.fileno()] if launcher is not None else [])
            socket.send_fds(self._control, [json.dumps(request).encode()], fds)
            os.close(theirs)
            if launcher is not None:
                launcher.theirs.close()
        codes, texts = self._until_all(first, outputs, begun + seconds)
        took = time.monotonic() - begun
        for number in range(first, self._number):
            if number not in codes:
                self._control.send(json.dumps({"kill": number}).encode())
        ends = []
        for number, launcher in enumerate(launchers):
            end = launcher.left() if launcher is not None else End()
            end.code, end.output, end.seconds = codes.get(first + number), texts[number], took
            ends.append(end)
        return ends

    def _until_all(self, first: int, outputs: list[int], deadline: float) -> tuple[dict[int, int], list[str]]:
        """Exit codes by number, and what was printed: read all the time, so that nobody waits for us."""
        codes: dict[int, int] = {}
        texts = [b""] * len(outputs)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ, None)
            for number, output in enumerate(outputs):
                selector.register(output, selectors.EVENT_READ, number)
            while len(codes) < len(outputs) and time.monotonic() < deadline:
                for key, _ in selector.select(0.1):
                    if key.data is None:
                        number, code = json.loads(self._control.recv(1 << 16))
                        if number >= first:
                            codes[number] = code
                    else:
                        texts[key.data] += (data := os.read(key.fd, 1 << 16))
                        if not data:
                            selector.unregister(key.fd)
            for key in list(selector.get_map().values()):
                if key.data is not None:
                    os.set_blocking(key.fd, False)
                    with suppress(BlockingIOError):  # a child may still hold it
                        texts[key.data] += os.read(key.fd, 1 << 18)
        for output in outputs:
            os.close(output)
        return codes, [text.decode(errors="replace") for text in texts]
