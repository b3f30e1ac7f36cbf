"""PURE: the environment that torchrun gives each rank, for one membership.

Ranks of a pod follow one another, as scripts expect that compute a rank from node and place; so they are numbered anew
in each membership, by pods in the order in which the coordinator names them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from drivetrain.launch.environment import ENV_PROGRESS_TOKEN, ENV_PROGRESS_URL
from drivetrain_api.messages import Form, Member


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where the ranks of a membership find one another: what rank 0 tells."""

    address: str
    port: int


def in_order(members: Sequence[Member]) -> list[Member]:
    """Rank by rank."""
    pods = {pod: number for number, pod in enumerate(dict.fromkeys(member.pod_uid for member in members))}
    return sorted(members, key=lambda member: pods[member.pod_uid])  # stable: within a pod as they were


def environment(
    form: Form, process: str, meeting: Meeting, *, run_id: str, max_restarts: int, given: Mapping[str, str]
) -> dict[str, str]:
    """Of this process in this membership; `given` is what its environment has already."""
    members = in_order(form.members)
    rank = [member.process for member in members].index(process)
    pods = list(dict.fromkeys(member.pod_uid for member in members))
    mine = [member.process for member in members if member.pod_uid == members[rank].pod_uid]
    world = str(len(members))
    found = {
        "RANK": str(rank),
        "WORLD_SIZE": world,
        "LOCAL_RANK": str(mine.index(process)),
        "LOCAL_WORLD_SIZE": str(len(mine)),
        "GROUP_RANK": str(pods.index(members[rank].pod_uid)),
        "GROUP_WORLD_SIZE": str(len(pods)),
        "ROLE_RANK": str(rank),
        "ROLE_WORLD_SIZE": world,
        "ROLE_NAME": given.get("ROLE_NAME", "default"),
        "MASTER_ADDR": meeting.address,
        "MASTER_PORT": str(meeting.port),
        "TORCHELASTIC_RUN_ID": run_id,
        "TORCHELASTIC_RESTART_COUNT": str(form.recoveries),
        "TORCHELASTIC_MAX_RESTARTS": str(max_restarts),
        "TORCHELASTIC_USE_AGENT_STORE": "False",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": given.get("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1"),
    }
    if len(mine) > 1:
        found["OMP_NUM_THREADS"] = given.get("OMP_NUM_THREADS", "1")
    return found | progress(process, given)


def progress(process: str, given: Mapping[str, str]) -> dict[str, str]:
    """Where the script tells how far it is, in the words of Kubeflow Trainer; nothing if its user has set that."""
    url, token = given.get(ENV_PROGRESS_URL, ""), given.get(ENV_PROGRESS_TOKEN, "")
    if not url or not token or _URL in given:
        return {}
    found = {_URL: url + quote(process), "KUBEFLOW_TRAINER_SERVER_TOKEN": token}
    if any(name.lower() in ("http_proxy", "all_proxy") for name in given):
        # It is on this pod's loopback, where no proxy leads to.
        found["no_proxy"] = ",".join(filter(None, (given.get("no_proxy") or given.get("NO_PROXY"), "127.0.0.1")))
    return found


_URL: Final = "KUBEFLOW_TRAINER_SERVER_URL"
