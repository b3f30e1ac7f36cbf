"""The process that a launcher starts in place of a stock script: it imports torch and forks the script, time after
time.

`course.py` decides; this carries it out. What happens comes through one pipe: the link's thread writes there, and the
interpreter when a child has ended, so the main thread waits in one place only.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import select
import signal
import socket
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from drivetrain import say
from drivetrain.launch.process import become_subreaper, end_all_descendants
from drivetrain.launch.rank_link import RankLink
from drivetrain.launch.stacks import DUMP_SIGNAL
from drivetrain.torchrun import contract, ladder
from drivetrain.torchrun.course import Course, End, Offer, Order, Run, Say, Send, Tell
from drivetrain.torchrun.kept import Kept
from drivetrain.torchrun.program import Program
from drivetrain_api import constants
from drivetrain_api.messages import Form
from drivetrain_api.places import STOCK
from drivetrain_api.runtime import RuntimeSpec

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_LOOK_SECONDS: Final = 1.0
_AHEAD: Final = ("torch", "torch._dynamo")
"""What a script that trains imports sooner or later: every optimizer of torch loads its compiler."""


def keep(program: Program) -> dict[str, str]:
    """Returns in forks only, with the environment of the script; the keeper itself never does."""
    link = RankLink.from_environment()
    if link is None:
        raise SystemExit("drivetrain.torchrun is started by drivetrain-launcher only")
    spec = RuntimeSpec.model_validate_json(os.environ.get(constants.ENV_SPEC, "{}"))
    return Keeper(link, program, spec, os.environ).run()


class Keeper:
    """One keeper at work."""

    def __init__(self, link: RankLink, program: Program, spec: RuntimeSpec, environ: Mapping[str, str]) -> None:
        self._link = link
        self._program = program
        self._spec = spec
        self._environ = environ
        self._course = Course(link.process, float(environ.get("DRIVETRAIN_GRACE_SECONDS", "30")))
        self._news: deque[Callable[[float], list[Order]]] = deque()
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._child: int | None = None
        self._meeting: socket.socket | None = None
        self._kept = Kept.make()

    def run(self) -> dict[str, str]:
        """Work until this process ends; see `keep`."""
        self._link.at(STOCK, -1, "")
        become_subreaper()
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        if self._program.kind != "executable":
            os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # else a look for a GPU rules out the fork
            if self._spec.processes_per_worker > 1:
                os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does; torch reads it once
            for name in _AHEAD:
                if name == "torch" or os.environ.get("TORCHDYNAMO_DISABLE") != "1":
                    _load(name)
        course = self._course
        self._link.on_form(lambda form: self._note(lambda now: course.formed(form, now)))
        self._link.on_table(lambda epoch, entries: self._note(lambda now: course.tabled(epoch, entries, now)))
        self._link.on_hurry(lambda: self._note(course.hurry))
        self._link.on_finish(lambda: self._note(course.finish))
        self._link.on_stop(lambda reason: self._note(course.stop))
        self._note(lambda now: course.ready())
        while True:
            orders = self._heard()
            for order in orders:
                if (environment := self._carry_out(order)) is not None:
                    return environment
            if not orders:
                self._wait()

    def _note(self, news: Callable[[float], list[Order]]) -> None:
        """From any thread: have the main thread ask the course about it."""
        self._news.append(news)
        with contextlib.suppress(BlockingIOError):
            os.write(self._pipe[1], b".")

    def _heard(self) -> list[Order]:
        """Orders that follow from what has happened, one thing at a time."""
        now = time.monotonic()
        if self._child is not None:
            pid, status = os.waitpid(self._child, os.WNOHANG)
            if pid:
                self._child = None
                if left := end_all_descendants():  # a data worker, a daemon: whatever holds its ports and its GPU
                    say.note(f"processes that SIGKILL did not end: {left}", level="warning")
                return self._course.ended(os.waitstatus_to_exitcode(status), now)
        if self._news:
            return self._news.popleft()(now)
        if self._course.wake is not None and now >= self._course.wake:
            return self._course.tick(now)
        return []

    def _wait(self) -> None:
        wake = self._course.wake
        seconds = _LOOK_SECONDS if wake is None else min(_LOOK_SECONDS, max(0.0, wake - time.monotonic()))
        if self._news:
            return
        select.select([self._pipe[0]], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._pipe[0], 1 << 16)

    # --- orders -----------------------------------------------------------------------------------------------------

    def _carry_out(self, order: Order) -> dict[str, str] | None:
        match order:
            case Tell():
                self._link.send_phase(
                    order.phase,
                    epoch=order.epoch,
                    formed=order.formed,
                    has_state=order.has_state,
                    fault=order.fault,
                    waiting=order.waiting,
                )
            case Offer():
                self._offer(order)
            case Say(epoch, what):
                self._link.put(epoch, f"{what}{self._link.process}", b"1")
            case Send(number):
                self._send(number)
            case Run():
                return self._run(order)
            case End(code):
                self._end(code)
        return None

    def _send(self, number: signal.Signals) -> None:
        """SIGTERM to the script alone: without its data workers it could not save. A shell passes nothing on."""
        if self._child is None:
            return
        alone = number is signal.SIGTERM and self._program.kind != "executable"
        with contextlib.suppress(ProcessLookupError):
            (os.kill if alone else os.killpg)(self._child, number)

    def _offer(self, order: Offer) -> None:
        address = self._environ.get(constants.ENV_POD_IP) or socket.gethostname()
        value: dict[str, object] = {"address": address, "done": order.done, "leaving": order.leaving}
        if self._meeting is not None:
            self._meeting.close()
            self._meeting = None
        if contract.in_order(order.form.members)[0].process == self._link.process:
            self._meeting = _reserved(address)
            value["port"] = self._meeting.getsockname()[1]
        self._link.put(order.form.epoch, self._link.process, json.dumps(value).encode())

    def _run(self, order: Run) -> dict[str, str] | None:
        first = order.offers[contract.in_order(order.form.members)[0].process]
        environment = contract.environment(
            order.form,
            self._link.process,
            contract.Meeting(str(first["address"]), int(str(first["port"]))),
            run_id=self._environ.get(constants.ENV_JOB_UID, "none"),
            max_restarts=self._spec.max_restarts,
            given=self._environ,
        )
        say.about["rank"] = int(environment["RANK"])
        if environment["RANK"] == "0":
            self._say(order.form, environment)
        sys.stdout.flush()
        sys.stderr.flush()
        gc.collect()
        gc.freeze()  # else the script's last collection copies all of this memory
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside a thread: see ADR 0045
            keeper = os.getpid()
            pid = os.fork()
        if pid == 0:
            self._become(keeper)
            return environment | self._kept.environment
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # the child does so, too: whoever comes first
        self._child = pid
        return None

    def _say(self, form: Form, environment: Mapping[str, str]) -> None:
        lines = ladder.at_start(self._spec) if form.fresh and not form.recoveries else [ladder.again(form, environment)]
        for line in lines:
            say.note(line)

    def _become(self, keeper: int) -> None:
        """In the fork: let go of what is the keeper's. It dies with the keeper."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setpgid(0, 0)
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != keeper:
            os._exit(1)  # it died before the line above took effect
        faulthandler.unregister(DUMP_SIGNAL)
        for fd in self._pipe:
            os.close(fd)
        if self._meeting is not None:
            self._meeting.close()
        atexit.register(gc.unfreeze)  # what is not collected at the end is told as leaked by triton
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            numpy.random.seed()  # Python's own does so at a fork; torch's begins with the same seed in all processes

    def _end(self, code: int) -> NoReturn:
        """As the script ended: its launcher tells of this process's end."""
        self._link.close()
        sys.stdout.flush()
        sys.stderr.flush()
        if code < 0:
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # the script has left its core
            with contextlib.suppress(OSError, ValueError):
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
            time.sleep(1.0)
            os._exit(128 - code)
        os._exit(code)


def _load(name: str) -> None:
    """What is missing, or fails, the script will meet itself, if it needs it."""
    try:
        __import__(name)
    except Exception as error:  # noqa: BLE001  Whatever a module's top level raises.
        say.note(f"cannot import {name} ahead of the script: {error}", level="warning")


def _reserved(address: str) -> socket.socket:
    """A free port, bound and not listened on: rank 0 can bind it, too, since both ask for SO_REUSEADDR, and the kernel
    gives it to nobody else meanwhile."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("", 0))
    return found
