"""Are tests called the same wherever and whenever they are collected?

pytest-xdist's workers collect on their own and must find the same names. A name that is made of a time, a random
number, an address or the order of a set differs between two of them, now and then: then no test runs at all. So that
it differs always, and is found by whoever writes it, every worker collects on a day and with an order of sets of its
own. Where they disagree, one short message says which names and what to do.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

_DAY = 86_400
_SHOWN = 3


def own_hash_seeds() -> None:
    """Give each worker-to-be an order of sets of its own, whatever the environment asks for: they are started with what
    this process has in its own, and what execnet sets later comes too late for that."""
    os.environ["PYTHONHASHSEED"] = "random"


def number_of(config: pytest.Config) -> int:
    """Which worker is this? 0 without workers."""
    worker: str = getattr(config, "workerinput", {}).get("workerid", "gw0")
    return int(worker.removeprefix("gw"))


@contextlib.contextmanager
def own_clock(number: int) -> Iterator[None]:
    """Inside, it is `number` days and some seconds later, and random numbers are others."""
    seconds = number * (_DAY + 7)
    real = {name: getattr(time, name) for name in ("time", "time_ns", "localtime", "gmtime", "ctime", "strftime")}
    random_state = random.getstate()
    inside = True  # a module that keeps one of these functions has the right time again afterwards

    def now() -> float:
        shown: float = real["time"]() + seconds * inside
        return shown

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", now)
        patch.setattr(time, "time_ns", lambda: real["time_ns"]() + 10**9 * seconds * inside)
        for name in ("localtime", "gmtime", "ctime"):
            patch.setattr(time, name, lambda at=None, of=real[name]: of(now() if at is None else at))
        patch.setattr(time, "strftime", lambda form, at=None: real["strftime"](form, at or real["localtime"](now())))
        random.seed(number)
        try:
            yield
        finally:
            inside = False
            random.setstate(random_state)


class Agreement:
    """What the first worker has collected, and whether the others agree."""

    def __init__(self) -> None:
        self._first: tuple[str, Counter[str]] | None = None

    def check(self, worker: str, names: Sequence[str]) -> None:
        """End the run with what to do, if this worker has collected other names than the first, or in another order."""
        if self._first is None:
            self._first = worker, Counter(names)
            return
        other, known = self._first
        if found := disagreement(known, Counter(names)):
            pytest.exit(f"{other} and {worker} have collected different tests:\n{found}", returncode=3)


def disagreement(one: Counter[str], other: Counter[str]) -> str:
    """What differs, some of it, and what to do; empty where nothing does."""
    lines = []
    for mark, names in (("-", one - other), ("+", other - one)):
        lines += [f"  {mark} {name[:160]}" for name in sorted(names)[:_SHOWN]]
        lines += [f"  {mark} and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    if not lines:
        return ""
    files = sorted({name.partition("::")[0] for name in (one - other) + (other - one)})
    return "\n".join(
        [
            *lines,
            "A name must not depend on a time, a random number, an address or the order of a set.",
            f"Give these parameters `ids=`, or values that are the same everywhere: {', '.join(files)}",
        ]
    )
