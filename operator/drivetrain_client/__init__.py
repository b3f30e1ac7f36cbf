"""Jobs from Python: submit a script or a function, wait, read logs, scale, suspend, resume, delete.

People import it as `drivetrain.client`, which is a door to this package: this one needs the control side (the API
server's client, and what the command line is made of), which worker images do not have (ADR 0049). No torch.

`asynchronous` is the client; `client` is the same for code without an event loop, made of it. `function` and `job` are
pure.
"""

from drivetrain_cli.errors import CliError as ClientError
from drivetrain_cli.errors import JobNotFound, NoCluster, UsageError
from drivetrain_cli.errors import TookTooLong as WaitTimeout
from drivetrain_client.asynchronous import AsyncClient
from drivetrain_client.client import Client
from drivetrain_client.errors import JobFailed
from drivetrain_client.job import Event, Job, LogLine, Result

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
