"""How do worker processes read and collate what this rank will need next, while it still computes?

They are those of a torch DataLoader, asked for (step, positions) in place of indices, so what comes back is what this
process would have read. They are asked for the steps to come as if shares stayed as they are; when a membership
changes, workers skip what was asked for by the old shares.

Workers are forked in `prepare`: a script needs no `if __name__ == "__main__"`, a dataset need not be picklable, and
what it holds in memory is shared. A forked process has the rank's sockets, and peers would not see the rank die while
another process has them open; so a worker gives them up first thing, and dies with its rank.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import stat
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from ctypes import c_uint64
from typing import Any, Final, NamedTuple

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data._utils import worker as torch_worker

from drivetrain.data.source import Source
from drivetrain.data.stream import Passes, StreamSource, merge
from drivetrain.errors import DataError

_AHEAD: Final = 2
"""Micro-batches that each worker is asked for at a time."""
_TOLD_SECONDS: Final = 1.0
"""Until which the signal that tells of a worker's death has come."""
_PR_SET_PDEATHSIG: Final = 1
_STDERR: Final = 2


class _Request(NamedTuple):
    turn: int
    step: int
    part: range
    passes: Passes


class _Answer(NamedTuple):
    micro_batch: Any
    mark: int | None
    passes: Passes


class Ahead:
    """A source that is read ahead by `workers` processes."""

    def __init__(self, source: Source, workers: int, steps: int, passes: Passes) -> None:
        """Forks. `steps`: nothing is read from that step on. `passes`: as of the stream, if it is one."""
        self._source = source
        self._steps = steps
        self._passes = passes
        self.batch = source.batch
        self.mark: int | None = None
        self._turn: Any = multiprocessing.get_context("fork").Value(c_uint64, 0, lock=False)
        """What is asked for by an earlier turn is not wanted any more."""
        self._parts: list[range] = []
        self._next: tuple[int, int] | None = None
        """What to ask for next: (step, which of `_parts`)."""
        self._asked: deque[_Request | None] = deque()
        loader = DataLoader(
            _Reader(source, self._turn, passes),
            batch_size=None,
            sampler=_Requests(self._request),
            num_workers=workers,
            prefetch_factor=_AHEAD,
            collate_fn=_as_it_is,
            multiprocessing_context="fork",
            worker_init_fn=_Separate(isinstance(source, StreamSource)),
            # Else it draws from the script's own.
            generator=torch.Generator(),
            persistent_workers=True,
        )
        with warnings.catch_warnings():
            # Python 3.12 warns of forking beside threads: theirs are locks that the workers never ask for.
            warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
            self._answers: Iterator[_Answer | None] = iter(loader)

    def expect(self, step: int, parts: Sequence[range]) -> None:
        """See `Source`. What was asked for stays, if it begins with this."""
        if list(parts) == self._parts and (not parts or self._first_asked() == (step, 0)):
            return
        self._turn.value += 1
        self._parts = list(parts)
        self._next = (step, 0) if parts else None
        for _ in range(len(self._asked)):
            try:
                self._answer()
            except Exception:  # noqa: BLE001  It is of no interest any more; one that lasts comes again.
                continue

    def read(self, step: int, part: range) -> Any:
        """See `Source`. What was not expected is read here and now."""
        head = self._asked[0] if self._asked else None
        if head is None or (head.turn, head.step, head.part) != (self._turn.value, step, part):
            micro_batch = self._source.read(step, part)
            self.mark = self._source.mark
            return micro_batch
        answer = self._answer()
        assert answer is not None
        self.mark = answer.mark
        merge(self._passes, answer.passes)
        return answer.micro_batch

    def _first_asked(self) -> tuple[int, int] | None:
        """The first that is still wanted, as in `_next`."""
        head = self._asked[0] if self._asked else None
        if head is None or head.turn != self._turn.value:
            return None
        return head.step, self._parts.index(head.part)

    def _answer(self) -> _Answer | None:
        """That to the oldest request; the loader asks for another one meanwhile."""
        self._asked.popleft()
        try:
            return next(self._answers)
        except (ConnectionError, EOFError) as error:
            # A worker died while it handed something over. torch raises from its signal handler, naming it.
            time.sleep(_TOLD_SECONDS)
            raise DataError("training.data.workers: a worker process died") from error

    def _request(self) -> _Request | None:
        """The next of the plan, or nothing."""
        request = None
        if self._next is not None and self._next[0] < self._steps:
            step, number = self._next
            request = _Request(self._turn.value, step, self._parts[number], list(self._passes))
            self._next = (step, number + 1) if number + 1 < len(self._parts) else (step + 1, 0)
        self._asked.append(request)
        return request


class _Requests:
    """The loader's sampler: endless, and decided as late as possible."""

    def __init__(self, request: Callable[[], _Request | None]) -> None:
        self._request = request

    def __iter__(self) -> Iterator[_Request | None]:
        while True:
            yield self._request()


class _Reader(TorchDataset[Any]):
    """In a worker: answers requests."""

    def __init__(self, source: Source, turn: Any, passes: Passes) -> None:
        self._source = source
        self._turn = turn
        self._passes = passes

    def __getitem__(self, request: _Request | None) -> _Answer | None:
        if request is None or request.turn != self._turn.value:
            return None
        merge(self._passes, request.passes)
        micro_batch = self._source.read(request.step, request.part)
        return _Answer(micro_batch, self._source.mark, self._passes)


def _as_it_is(answer: Any) -> Any:
    return answer


class _Separate:
    """A worker's first deed: have nothing in common with the rank but memory, and die with it."""

    def __init__(self, alone: bool) -> None:
        """`alone`: torch shall not tell the dataset that it is one of several workers."""
        self._alone = alone
        self._rank = os.getpid()

    def __call__(self, _: int) -> None:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != self._rank:
            os._exit(1)  # It died before the line above took effect.
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in map(int, os.listdir("/proc/self/fd")):
            # Not closed: objects that own these descriptors would later close others that got their numbers.
            if fd > _STDERR and _is_socket(fd):
                os.dup2(nothing, fd)
        os.close(nothing)
        if self._alone:
            # Every worker reads the whole stream; a dataset that asked would take a part of it.
            torch_worker._worker_info = None


def _is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:  # the one that listed the folder
        return False
