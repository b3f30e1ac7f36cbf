"""The environment of ranks, as torchrun gives it."""

from __future__ import annotations

import pytest

from drivetrain.torchrun.contract import Meeting, environment
from drivetrain_api.messages import Boundary, EpochId, Form, Member

MEMBERS = ["a/1", "b/1", "b/2", "a/2"]
"""A pod's ranks need not follow one another in a membership: one of a's was replaced."""


def of(process: str, members: list[str] = MEMBERS, **given: str) -> dict[str, str]:
    form = Form(
        epoch=EpochId(1, 3),
        members=[Member(process=each, pod_uid=each[0], new=False) for each in members],
        boundary=Boundary.NOW,
        recoveries=2,
    )
    return environment(form, process, Meeting("10.0.0.1", 4711), run_id="uid", max_restarts=7, given=given)


def test_all_of_it() -> None:
    assert of("b/2") == {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "1",
        "GROUP_WORLD_SIZE": "2",
        "ROLE_RANK": "3",
        "ROLE_WORLD_SIZE": "4",
        "ROLE_NAME": "default",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "4711",
        "TORCHELASTIC_RUN_ID": "uid",
        "TORCHELASTIC_RESTART_COUNT": "2",
        "TORCHELASTIC_MAX_RESTARTS": "7",
        "TORCHELASTIC_USE_AGENT_STORE": "False",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        "OMP_NUM_THREADS": "1",
    }


def test_ranks_of_a_pod_follow_one_another() -> None:
    found = [(of(process)["GROUP_RANK"], of(process)["LOCAL_RANK"], of(process)["RANK"]) for process in sorted(MEMBERS)]
    assert found == [("0", "0", "0"), ("0", "1", "1"), ("1", "0", "2"), ("1", "1", "3")]


def test_what_the_job_sets_stays() -> None:
    found = of("a/1", OMP_NUM_THREADS="4", TORCH_NCCL_ASYNC_ERROR_HANDLING="0", ROLE_NAME="trainer")
    assert (found["OMP_NUM_THREADS"], found["TORCH_NCCL_ASYNC_ERROR_HANDLING"], found["ROLE_NAME"]) == (
        "4",
        "0",
        "trainer",
    )


def test_threads_are_left_alone_where_a_worker_has_one_rank() -> None:
    assert "OMP_NUM_THREADS" not in of("a/1", ["a/1", "b/1"])


LISTENS = {"DRIVETRAIN_PROGRESS_URL": "http://127.0.0.1:4/v1/progress/", "DRIVETRAIN_PROGRESS_TOKEN": "/token"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        (
            LISTENS,
            {
                "KUBEFLOW_TRAINER_SERVER_URL": "http://127.0.0.1:4/v1/progress/a/1",
                "KUBEFLOW_TRAINER_SERVER_TOKEN": "/token",
            },
        ),
        (LISTENS | {"KUBEFLOW_TRAINER_SERVER_URL": "https://its.own"}, {}),
        (LISTENS | {"HTTP_PROXY": "http://proxy", "NO_PROXY": ".local"}, {"no_proxy": ".local,127.0.0.1"}),
    ],
)
def test_where_progress_is_told(given: dict[str, str], expected: dict[str, str]) -> None:
    found = of("a/1", MEMBERS, **given)
    assert {name: found.get(name) for name in expected} == expected
    assert ("KUBEFLOW_TRAINER_SERVER_TOKEN" in found) is bool(expected)
