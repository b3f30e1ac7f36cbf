"""`drivetrain-operator`: reads settings, sets up logs and signals, and runs one operator process."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
import random
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from prometheus_client import CollectorRegistry

from drivetrain_api import logs
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.guard import UnusableFile
from drivetrain_operator.jobwatch import KopfWatch
from drivetrain_operator.kube.auth import find_credentials
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import CredentialsError
from drivetrain_operator.metrics.counters import OperatorMetrics
from drivetrain_operator.process import Process
from drivetrain_operator.render import shape
from drivetrain_operator.settings import Settings, parse
from drivetrain_operator.traces.exporter import Exporter

log = logging.getLogger(__name__)

EXIT_BROKEN = 1
EXIT_CONFIG = 78


async def run(settings: Settings) -> None:
    """One operator process, until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    clock = SystemClock()
    credentials = find_credentials(clock, kubeconfig=settings.kubeconfig, context=settings.context)
    if not settings.own_namespace:
        settings = replace(settings, own_namespace=(await credentials.access()).namespace)
    metrics = OperatorMetrics(CollectorRegistry(), version=_version())
    async with KubeClient(credentials, clock, observer=metrics.requests) as client:
        watch = KopfWatch(credentials, settings.namespaces, clock)
        traces = None
        if settings.trace_endpoint:
            about = {"service.name": "drivetrain-operator", "service.version": _version()}
            about["service.instance.id"] = settings.identity
            traces = Exporter(settings.trace_endpoint, settings.trace_headers, about, clock, metrics.spans)
        await Process(settings, client, watch, clock, random.Random(), metrics, abort=_abort, traces=traces).run(stop)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code says whether the kubelet should worry."""
    settings = parse(sys.argv[1:] if arguments is None else arguments)
    logs.configure("operator", settings.log)
    shape.models()  # in a pass, all jobs would wait for them
    try:
        asyncio.run(run(settings))
    except (CredentialsError, UnusableFile) as error:
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
