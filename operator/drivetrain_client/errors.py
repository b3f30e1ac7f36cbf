"""What can go wrong: the command line's own errors, and one that only whoever waits can get.

ClientError (drivetrain_cli.errors.CliError)
├── UsageError     an argument cannot work; the message names it, as the flag of `drivetrain run` that it is
├── NoCluster      no API server answers, or it knows no TrainingJobs
├── JobNotFound    no job of this name
├── JobFailed      the job that was waited for has failed, or was deleted
└── WaitTimeout    a wait took longer than it may (drivetrain_cli.errors.TookTooLong); also a TimeoutError
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from drivetrain_cli.errors import CliError, NoCluster
from drivetrain_client.job import Job
from drivetrain_operator.kube.errors import ApiError, KubeError


class JobFailed(CliError):
    """`job` is how it ended."""

    def __init__(self, message: str, job: Job) -> None:
        super().__init__(message)
        self.job = job


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Errors of the API server as ours."""
    try:
        yield
    except ApiError as error:
        raise CliError(f"the API server: {error.message or error}") from error
    except KubeError as error:
        raise NoCluster(f"the API server: {error}") from error
