"""A rank's end of the link to its launcher: what it tells about itself, and what it hears of the membership.

The training runtime uses it; a script started without a launcher has none (`from_environment()` returns None). One
daemon thread reads, beats and runs the callbacks. That thread never calls torch, because torch's C++ threads call into
Python and would deadlock with it. Senders write to the socket themselves when it has room (no hand-over of the GIL on
the hot path); otherwise the newest state waits in a bounded outbox, so that a slow launcher can never block training.
"""

from __future__ import annotations

import base64
import ctypes
import json
import math
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback as tracebacks
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from drivetrain.launch import stacks
from drivetrain.launch.environment import ENV_LINK_FD, ENV_LOCAL_RANK, ENV_PROCESS, ENV_SPARE_LEVEL, SPARE_IMPORT
from drivetrain.telemetry.flight import UNRECORDED, Calls, Flight
from drivetrain.telemetry.spending import Spending
from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.messages import (
    EpochId,
    Form,
    ProcessPhase,
    Progress,
    Table,
)

BEAT_SECONDS: Final = 0.25

_READ_BYTES: Final = 1 << 18
_ERROR_CHARS: Final = 16_384
_LINE_CHARS: Final = 200
_PR_SET_PDEATHSIG: Final = 1


class _Place(NamedTuple):
    """Where the script is, since when on this process's clock, and which thread runs it."""

    operation: str
    step: int
    line: str
    number: int
    since: float
    thread: int


class RankLink:
    """The link of this process. Every method may be called from any thread; callbacks run on the link's own thread.

    Messages that arrive before their callback is registered are kept (the newest of each kind) and delivered then.
    A callback must not block: beats come from the same thread. One that raises ends the process, with its traceback
    reported, because a rank that cannot follow its coordinator must not linger.
    """

    def __init__(self, fd: int, *, process: str = "", spare_level: str | None = None) -> None:
        self.process: Final = process
        """Id of this process, unique in the job for ever: `<pod uid>/<boot>/<counter>`."""
        self.spare_level: Final = spare_level
        """None for a candidate, else `model` or `import`: how far this spare was told to warm up."""
        self._pid = os.getpid()
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._socket.set_inheritable(False)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._send_lock = threading.Lock()
        self._partial = b""
        self._outbox: dict[str, bytes] = {}
        self._phase: dict[str, Any] = {}
        self._waiting = False
        self.spending: Final = Spending.from_environment()
        """On what the script's thread spends its time; told with each beat."""
        self._flight = Flight.of(os.environ)
        self._place = _Place("", -1, "", 0, time.monotonic(), threading.get_ident())
        self._stays: _Place | None = None
        """Where it was at the last beat."""
        self._told: tuple[_Place, str, str] | None = None
        self._progress: Progress | None = None
        self._progress_stays: Progress | None = None
        """The newest one at the last beat."""
        self._progress_told: Progress | None = None
        self._formed = EpochId(0, 0)
        """The highest epoch that a form has named."""
        self._dump_fd = stacks.register_dump()
        self._activated = threading.Event()
        self._callbacks: dict[str, Callable[[dict[str, Any]], None]] = {}
        self._kept: dict[str, dict[str, Any]] = {}
        self._closing = False
        if spare_level != SPARE_IMPORT:
            self._activated.set()
        # The launcher sets this for the process that it spawns; under `sh -c "python train.py"` that one is the shell.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        # A forked child (DataLoader) must not keep the link open after this process died.
        os.register_at_fork(after_in_child=self._close_in_child)
        flight_fd = self._flight.fd if self._flight is not None else None
        self._send("hello", {"pid": self._pid, "dump_fd": self._dump_fd, "flight_fd": flight_fd})
        self._thread = threading.Thread(target=self._serve, name="drivetrain-link", daemon=True)
        self._thread.start()

    @classmethod
    def from_environment(cls) -> RankLink | None:
        """The link that the launcher passed down; None without one.

        Takes the descriptor out of the environment: a child that this process starts is no rank and must not attach.
        """
        fd = os.environ.pop(ENV_LINK_FD, None)
        if fd is None:
            return None
        process = os.environ.get(ENV_PROCESS, "")
        return cls(int(fd), process=process, spare_level=os.environ.get(ENV_SPARE_LEVEL))

    @property
    def is_spare(self) -> bool:
        """Started as a spare (it may have been seated since)."""
        return self.spare_level is not None

    # --- rank -> launcher -------------------------------------------------------------------------------------------

    def send_phase(
        self,
        phase: ProcessPhase,
        *,
        epoch: EpochId | None = None,
        formed: bool = False,
        has_state: bool = False,
        step: int = -1,
        fault: str | None = None,
        waiting: bool = False,
    ) -> None:
        """Tell everything about this rank, as in `ProcessState`; only the newest counts, older ones may be lost."""
        state: dict[str, Any] = {
            "phase": phase.value,
            "epoch": epoch,
            "formed": formed,
            "has_state": has_state,
            "step": step,
            "fault": fault,
            "waiting": waiting,
        }
        self._waiting = waiting
        self._send("phase", state)

    def set_waiting(self, waiting: bool) -> None:
        """Note that this rank entered or left a collective: cheap; told with the next beat if it stays so."""
        self._waiting = waiting
        self.spending.blocked(waiting)

    def at(self, operation: str, step: int, line: str) -> None:
        """Note that the script entered this operation (or `script`, on leaving one), about this step, at this line.

        A few assignments; the link's thread tells the others if it stays so for a beat.
        """
        self.spending.operation(operation)
        number = self._place.number + 1
        self._place = _Place(operation, step, line, number, time.monotonic(), threading.get_ident())
        if self._flight is not None:
            self._flight.step = step

    def calls(self, group: str, epoch: EpochId) -> Calls:
        """What notes the collectives of this group of ranks, for the launcher and for people."""
        return self._flight.group(group, epoch) if self._flight is not None else UNRECORDED

    def put(self, epoch: EpochId, key: str, value: bytes) -> None:
        """Publish one rendezvous key of `epoch`."""
        body = {"epoch": epoch, "key": key, "value": base64.b64encode(value).decode()}
        self._send("put", body, slot=f"put {epoch} {key}")

    def progress(self, progress: Progress, *, due: bool) -> None:
        """Tell how far the job is; the newest one counts. One that is not due is told if it stays the newest for a
        beat: whoever stands still has told all that came before.
        """
        self._progress = progress
        if due:
            self._progress_told = progress
            self._send("progress", _with_finite_metrics(progress))

    def counters(self, counters: dict[str, float]) -> None:
        """Tell all monotonic counts of this process since its start (not increments)."""
        self._send("counters", {"counters": counters})

    def error(self, traceback: str, *, remedy: bool = False) -> None:
        """Tell why this process is about to end. Cut to its last 16 KiB. `remedy`: not the script's doing."""
        self._send("error", {"traceback": traceback[-_ERROR_CHARS:], "remedy": remedy})

    # --- launcher -> rank -------------------------------------------------------------------------------------------

    def on_form(self, callback: Callable[[Form], None]) -> None:
        """Call `callback` for each `form`. Obey only an epoch higher than any entered; repeats and old ones do come."""
        self._register("form", lambda body: callback(Form.model_validate(body)))

    def on_table(self, callback: Callable[[EpochId, dict[str, bytes]], None]) -> None:
        """Call `callback(epoch, entries)` for each table; entries are complete each time, and decoded."""

        def decode(body: dict[str, Any]) -> None:
            table = Table.model_validate(body)
            callback(table.epoch, {key: base64.b64decode(value) for key, value in table.entries.items()})

        self._register("table", decode)

    def on_finish(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the job is complete: leave `run.batches()`, exit 0."""
        self._register("finish", lambda body: callback())

    def on_hurry(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the pod is told to go: what is to be kept is to be written with every step now."""
        self._register("hurry", lambda body: callback())

    def on_stop(self, callback: Callable[[str], None]) -> None:
        """Call `callback(reason)` when this process should end."""
        self._register("stop", lambda body: callback(str(body.get("reason", ""))))

    def wait_activated(self, timeout: float | None = None) -> bool:
        """Block a spare of level `import` until it is needed; others pass at once. False on time-out."""
        return self._activated.wait(timeout)

    def close(self) -> None:
        """Flush what is still to send (at most 1 s) and end the thread: for tests and for a tidy exit."""
        self._closing = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=1.0)

    # --- sending ----------------------------------------------------------------------------------------------------

    def _send(self, kind: str, body: dict[str, Any], slot: str | None = None) -> None:
        """Write now if the socket has room, else keep the newest message of this slot for the link thread."""
        if os.getpid() != self._pid:
            return
        with self._send_lock:
            if kind == "phase":
                self._phase = body
            self._queue_locked(kind, body, slot or kind)
            blocked = not self._flush_locked()
        if blocked:
            self._wake()

    def _queue_locked(self, kind: str, body: dict[str, Any], slot: str) -> None:
        # Removing first keeps the outbox in the order of the newest messages.
        self._outbox.pop(slot, None)
        self._outbox[slot] = json.dumps({"type": kind, **body}, separators=(",", ":")).encode() + b"\n"

    def _flush_locked(self) -> bool:
        """Write as much as the socket takes; True when nothing is left."""
        while self._partial or self._outbox:
            if not self._partial:
                self._partial = self._outbox.pop(next(iter(self._outbox)))
            try:
                sent = self._socket.send(self._partial, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return False
            except OSError:
                # The launcher is gone: the link thread sees the closed socket and ends this process.
                self._partial = b""
                self._outbox.clear()
                return True
            self._partial = self._partial[sent:]
        return True

    # --- the link thread --------------------------------------------------------------------------------------------

    def _register(self, kind: str, callback: Callable[[dict[str, Any]], None]) -> None:
        self._callbacks[kind] = callback
        self._wake()

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def _serve(self) -> None:
        try:
            self._loop()
        except Exception:  # noqa: BLE001  Whatever a callback raised: report it and end, see the class docstring.
            text = tracebacks.format_exc()
            print(text, file=sys.stderr, flush=True)
            self.error(text)
            os._exit(ExitCode.INTERNAL)

    def _loop(self) -> None:
        received = b""
        next_beat = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._wake_fd, selectors.EVENT_READ)
            while not self._closing:
                with self._send_lock:
                    blocked = not self._flush_locked()
                selector.modify(self._socket, selectors.EVENT_READ | (selectors.EVENT_WRITE if blocked else 0))
                for key, mask in selector.select(timeout=max(0.0, next_beat - time.monotonic())):
                    if key.fd == self._wake_fd:
                        os.eventfd_read(self._wake_fd)
                    elif mask & selectors.EVENT_READ:
                        received = self._read(received)
                for kind in [kind for kind in self._kept if kind in self._callbacks]:
                    self._callbacks[kind](self._kept.pop(kind))
                if (now := time.monotonic()) >= next_beat:
                    next_beat = now + BEAT_SECONDS
                    self._beat()
        with self._send_lock:
            self._socket.settimeout(0.5)
            self._flush_locked()

    def _beat(self) -> None:
        """Say that this process runs, and whether it sits in a collective if that differs from what was told last."""
        with self._send_lock:
            phase = self._phase
            if phase and phase["waiting"] != self._waiting:
                phase["waiting"] = self._waiting
                self._queue_locked("phase", phase, "phase")
            self._queue_locked("beat", {"spent": self.spending.told(), "stages": self.spending.told_stages()}, "beat")
            self._place_locked()
            self._progress_locked()
            self._flush_locked()

    def _progress_locked(self) -> None:
        """Tell the newest progress, if it is no news any more and was not told."""
        progress = self._progress
        if progress is not None and progress is self._progress_stays and progress is not self._progress_told:
            self._progress_told = progress
            self._queue_locked("progress", _with_finite_metrics(progress), "progress")
        self._progress_stays = progress

    def _place_locked(self) -> None:
        """Tell where the script is, if that is news. If it stays, the line that its thread is at says more."""
        place = self._place
        line, stays = place.line, self._stays is place
        if not self._waiting and stays:
            now = stacks.script_line(place.thread)
            if not line or place.operation == "script":
                line = now or line
            elif now and now != line:
                line = f"{line}, at {now}"
        self._stays = place
        last = self._flight.last() if self._flight is not None and stays else None
        call = last.call(time.monotonic()).model_dump(exclude={"seconds"}) if last is not None else None
        told = (place, line, str(call))
        if self._told is not None and self._told[0] is place and self._told[1:] == told[1:]:
            return
        self._told = told
        body = {"operation": place.operation, "step": place.step, "line": line[-_LINE_CHARS:], "number": place.number}
        seconds = round(time.monotonic() - place.since, 3)
        self._queue_locked("place", {**body, "seconds": seconds, "call": call}, "place")

    def _read(self, received: bytes) -> bytes:
        """Take what arrived; returns the incomplete rest."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return received
        except OSError:
            data = b""
        if not data:
            # The launcher died. It was the only one that could fence or end this process: go now, without clean-up.
            os._exit(ExitCode.INTERNAL)
        *lines, rest = (received + data).split(b"\n")
        for line in lines:
            self._dispatch(json.loads(line))
        return rest

    def _dispatch(self, body: dict[str, Any]) -> None:
        kind = body.get("type")
        if kind == "activate":
            # Before the script goes on from `drivetrain.start()`, where it chooses its device.
            os.environ[ENV_LOCAL_RANK] = str(body.get("local_rank", 0))
            self._activated.set()
        elif kind == "stacks":
            self._send("stacks", {"text": stacks.stacks(self._place.thread, threading.get_ident())})
        elif isinstance(kind, str):
            if kind == "form" and (epoch := EpochId(*body["epoch"])) > self._formed:  # not where one is repeated
                self._formed = epoch
                self._progress = None  # another one may tell it from now on
            callback = self._callbacks.get(kind)
            if callback is None:
                self._kept[kind] = body
            else:
                callback(body)

    def _close_in_child(self) -> None:
        # Once: in a child of the child these numbers may be somebody else's.
        for fd in (self._socket.detach(), self._wake_fd, self._dump_fd):
            if fd >= 0:
                os.close(fd)
        self._wake_fd = self._dump_fd = -1


def _with_finite_metrics(progress: Progress) -> dict[str, Any]:
    """What is not finite has no place in JSON: the coordinator would refuse the message."""
    finite = {name: value for name, value in progress.metrics.items() if math.isfinite(value)}
    return progress.model_copy(update={"metrics": finite}).model_dump(mode="json")
