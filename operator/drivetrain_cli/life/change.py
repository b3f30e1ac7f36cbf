"""How is a job's spec changed? As one merge patch of this very job, whose refusal is told in the server's words."""

from __future__ import annotations

from typing import Any

from drivetrain_cli.cluster import Cluster
from drivetrain_cli.errors import CliError, UsageError
from drivetrain_operator.kube.errors import Conflict, Forbidden, Invalid
from drivetrain_operator.kube.resources import TRAININGJOBS, Object

Json = dict[str, Any]


async def changed(cluster: Cluster, job: Object, spec: Json) -> Object:
    """The job with these fields of spec. Raises UsageError (refused), CliError, KubeError."""
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    try:
        return await cluster.client.merge_patch(TRAININGJOBS, name, {"spec": spec}, cluster.namespace, uid=uid)
    except Invalid as error:
        raise UsageError(error.message) from error
    except Conflict as error:
        raise CliError(f"{name} was deleted, and another one made under its name: {error.message}") from error
    except Forbidden as error:
        raise CliError(
            f"-n: you may not change TrainingJobs of namespace {cluster.namespace!r}: {error.message}"
        ) from error
