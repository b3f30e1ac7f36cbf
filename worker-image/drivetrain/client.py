"""Jobs from Python: `from drivetrain.client import Client`. A door to `drivetrain_client`, which says what there is.

Nothing here is for training: a client talks to the API server, which takes the control side of the project (ADR 0049).
Worker images do not have that, and say so.
"""

from __future__ import annotations

try:
    from drivetrain_client import (
        AsyncClient,
        Client,
        ClientError,
        Event,
        Job,
        JobFailed,
        JobNotFound,
        LogLine,
        NoCluster,
        Result,
        UsageError,
        WaitTimeout,
    )
except ModuleNotFoundError as error:
    raise ImportError(
        f"drivetrain.client needs {error.name}, which worker images do not have: submit from where the project is "
        "installed with its extra `operator`, as drivetrain[operator]"
    ) from error

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "Event",
    "Job",
    "JobFailed",
    "JobNotFound",
    "LogLine",
    "NoCluster",
    "Result",
    "UsageError",
    "WaitTimeout",
]
