"""`drivetrain-operator`: reads settings, sets up logs and signals, and runs one operator process."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
import random
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

import kopf
from prometheus_client import CollectorRegistry

from drivetrain_operator import handlers, logs
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.kube.auth import Credentials, find_credentials
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import CredentialsError
from drivetrain_operator.kube.resources import Object
from drivetrain_operator.metrics.counters import OperatorMetrics
from drivetrain_operator.process import Process
from drivetrain_operator.settings import Settings, parse

log = logging.getLogger(__name__)

EXIT_BROKEN = 1
EXIT_CONFIG = 78


class KopfWatch:
    """The TrainingJob watch, by kopf. It runs on the leader only."""

    def __init__(self, credentials: Credentials, namespaces: Sequence[str], signals: Callable[[], None]) -> None:
        self._credentials = credentials
        self._namespaces = namespaces
        self._signals = signals

    async def run(self, observe: Callable[[str | None, Object], None], stop: asyncio.Event) -> None:
        """See `process.JobWatch`."""
        ready = asyncio.Event()
        operator = asyncio.create_task(
            kopf.operator(
                registry=handlers.registry(self._credentials, observe),
                settings=handlers.kopf_settings(),
                clusterwide=not self._namespaces,
                namespaces=list(self._namespaces),
                stop_flag=stop,
                ready_flag=ready,
            ),
            name="kopf",
        )
        up = asyncio.create_task(ready.wait())
        await asyncio.wait({operator, up}, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        # kopf has taken over SIGTERM, and would stop before our passes have ended.
        self._signals()
        await operator


async def run(settings: Settings) -> None:
    """One operator process, until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def take_signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)

    take_signals()
    clock = SystemClock()
    credentials = find_credentials(clock, kubeconfig=settings.kubeconfig, context=settings.context)
    if not settings.own_namespace:
        settings = replace(settings, own_namespace=(await credentials.access()).namespace)
    metrics = OperatorMetrics(CollectorRegistry(), version=_version())
    async with KubeClient(credentials, clock, observer=metrics.requests) as client:
        watch = KopfWatch(credentials, settings.namespaces, take_signals)
        await Process(settings, client, watch, clock, random.Random(), metrics, abort=_abort).run(stop)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code says whether the kubelet should worry."""
    settings = parse(sys.argv[1:] if arguments is None else arguments)
    logs.configure(settings.log_format, settings.log_level)
    try:
        asyncio.run(run(settings))
    except CredentialsError as error:
        print(f"drivetrain-operator: {error}", file=sys.stderr)
        return EXIT_CONFIG
    except OSError as error:
        print(f"drivetrain-operator: cannot listen: {error}; see --reports-port, --metrics-port", file=sys.stderr)
        return EXIT_CONFIG
    return 0


def _version() -> str:
    try:
        return importlib.metadata.version("drivetrain")
    except importlib.metadata.PackageNotFoundError:
        return "checkout"  # run from the source tree, uninstalled


def _abort(reason: str) -> NoReturn:
    """End at once: no `finally`, no pending request of ours may outlive the Lease."""
    print(f"drivetrain-operator: {reason}", file=sys.stderr, flush=True)
    os._exit(EXIT_BROKEN)


if __name__ == "__main__":
    sys.exit(main())
