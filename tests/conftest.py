"""Settings of all tests."""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import pytest_timeout
from hypothesis import HealthCheck, settings

from harness import activity, collection, limits, scheduling

# How long an example takes says how busy the machine is; and the first text in a fresh clone waits for a table of
# Unicode to be made. `harness.limits` ends what hangs.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples in every run: a change is not blamed for what chance finds. `--hypothesis-profile=explore` tries
# others each time.
settings.register_profile("drivetrain", settings.get_profile("explore"), derandomize=True)
settings.load_profile("drivetrain")

_agreement = collection.Agreement()


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """The programs' beginnings are tried in this process: what they set of logs and hooks ends with their test."""
    root = logging.getLogger()
    level, hooks = root.level, (sys.excepthook, threading.excepthook)
    yield
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks


def pytest_configure() -> None:
    activity.mark()
    # A shell starts what is in its background without ears for Ctrl-C, and so are all children: those that tests press
    # it on would not end.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_timeout_set_timer(item: pytest.Item, settings: pytest_timeout.Settings) -> bool | None:
    return limits.set_timer(item, settings)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    with collection.own_clock(collection.number_of(session.config)):
        return (yield)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # modules and tests live to the end: no collection in between need visit a million objects of theirs


def pytest_unconfigure() -> None:
    gc.unfreeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if terminalreporter.stats.get("failed"):
        terminalreporter.write_line("what failed again, one after another:  make test ARGS='-n 0 --last-failed'")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: Sequence[Any]) -> None:
    collection.own_hash_seeds()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return scheduling.scheduler(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Sequence[str]) -> None:
    _agreement.check(node.gateway.id, ids)
