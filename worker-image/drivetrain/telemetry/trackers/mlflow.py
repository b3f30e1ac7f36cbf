"""How do steps get into MLflow, each once?

MLflow adds points to a metric and never takes one back: what is written twice is drawn twice. It names runs itself, so
the job's has a tag with the job's uid. It takes a batch of points whole or not at all, and a step is never cut between
two.
"""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, Final

from drivetrain.telemetry.trackers.tracker import Life, Point, Standing, Subject
from drivetrain_api.runtime import RuntimeMLflow

_UID: Final = "drivetrain.uid"
_LIFE: Final = "drivetrain.life"
_MOST: Final = 1000
"""Metrics that MLflow takes at once."""
_MOST_PARAMETERS: Final = 100
_CONNECT_SECONDS: Final = 10.0


class MLflow:
    """One run of it."""

    name: Final = "MLflow"

    def __init__(self, settings: RuntimeMLflow, subject: Subject) -> None:
        self._settings = settings
        self._subject = subject
        self._client: Any = None
        self._run = ""

    def open(self, life: Life) -> Standing:
        _refuse_unreachable(self._settings.uri)
        from mlflow import MlflowClient

        self._client = client = MlflowClient(tracking_uri=self._settings.uri)
        run = self._found() or self._made()
        self._run = run.info.run_id
        # Of each metric it tells the last point; only as a message does that have its step.
        last = max((int(each.step) for each in run.data.to_proto().metrics), default=0)
        before = run.data.tags.get(_LIFE)
        if before != life.token:
            client.set_tag(self._run, _LIFE, life.token)
        if run.info.status != "RUNNING":
            client.update_run(self._run, status="RUNNING")
        return Standing(max(last, life.first), repeated=last > life.first and before != life.token)

    def write(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        batch: list[Any] = []
        for point in points:
            step = [
                Metric(name, value, round(point.seconds * 1000), point.step) for name, value in point.values.items()
            ]
            if batch and len(batch) + len(step) > _MOST:
                self._client.log_batch(self._run, metrics=batch, synchronous=True)
                batch = []
            batch += step
        self._client.log_batch(self._run, metrics=batch, synchronous=True)

    def close(self, *, finished: bool) -> None:
        client, self._client = self._client, None
        if client is not None and finished:
            client.set_terminated(self._run, "FINISHED")

    def _experiment(self) -> str:
        name = self._settings.experiment
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found is not None else self._client.create_experiment(name))

    def _found(self) -> Any:
        query = f"tags.`{_UID}` = '{self._subject.uid}'"
        found = self._client.search_runs([self._experiment()], query, max_results=1)
        return found[0] if found else None

    def _made(self) -> Any:
        from mlflow.entities import Param

        tags = {_UID: self._subject.uid}
        run = self._client.create_run(self._experiment(), run_name=self._subject.run, tags=tags)
        told = [Param(name, str(value)) for name, value in self._subject.parameters.items()][:_MOST_PARAMETERS]
        self._client.log_batch(run.info.run_id, params=told, synchronous=True)
        return run


def _refuse_unreachable(uri: str) -> None:
    """MLflow itself asks a server for minutes before it says that there is none. Any answer is one; certificates and
    keys are MLflow's business. Raises `OSError`."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(uri, timeout=_CONNECT_SECONDS).close()
    except urllib.error.HTTPError as answer:
        answer.close()
    except urllib.error.URLError as error:
        if isinstance(error.reason, (ConnectionError, TimeoutError, socket.gaierror)):
            raise error.reason from None
