"""The script that a job runs: its own copy, from the ConfigMap as it was when the job started."""

from __future__ import annotations

from typing import Any

import pytest

from drivetrain_api.constants import ROLE_WORKER
from drivetrain_local.apiserver import Fault
from drivetrain_operator.act.memory import FILE_SECONDS
from drivetrain_operator.render import names
from unit.operator_shell.pilot import Pilot
from unit.operator_shell.test_passes import drive, running
from unit.operator_shell.world import NAMESPACE, World, a_job

MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"


def a_scripted_job(**spec: Any) -> dict[str, Any]:
    return a_job(command=None, script={"configMap": "code", "key": "train.py"}, **spec)


async def write(world: World, text: str) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "code"}, "data": {"train.py": text}}
    answer = await world.request("POST", MAPS, body)
    if answer.get("code") == 404:
        raise AssertionError(answer)


async def edit(world: World, text: str) -> None:
    patch = {"data": {"train.py": text}}
    await world.request("PATCH", f"{MAPS}/code", patch, "application/merge-patch+json")


def mounted(world: World) -> set[str]:
    """What live workers would run."""
    found = set()
    for pod in world.pods(ROLE_WORKER, live=True):
        volume = next(v for v in pod["spec"]["volumes"] if v["name"] == "drivetrain-script")
        source = world.api.store.get("configmaps", NAMESPACE, volume["configMap"]["name"])
        assert source is not None
        found.add(source["data"]["train.py"])
    return found


async def test_who_edits_the_configmap_changes_no_job_that_runs(world: World) -> None:
    await write(world, "one")
    await world.create_job(a_scripted_job())
    pilot = Pilot(world)
    await drive(pilot, running(2))
    await edit(world, "two")
    world.clock.skip(FILE_SECONDS + 1)
    await world.fail_pod("charlm-0-0", 70)
    await drive(pilot, running(2))
    assert world.names(ROLE_WORKER, live=True) == ["charlm-0-1", "charlm-1-0"]
    assert mounted(world) == {"one"}


async def test_nor_who_deletes_it(world: World) -> None:
    await write(world, "one")
    await world.create_job(a_scripted_job())
    pilot = Pilot(world)
    await drive(pilot, running(2))
    await world.request("DELETE", f"{MAPS}/code")
    world.clock.skip(FILE_SECONDS + 1)
    await world.fail_pod("charlm-0-0", 70)
    await drive(pilot, running(2))
    assert mounted(world) == {"one"}
    assert world.status()["reason"] != "ScriptNotFound"


async def test_a_job_that_is_resumed_takes_it_as_it_is_then(world: World) -> None:
    await write(world, "one")
    await world.create_job(a_scripted_job())
    pilot = Pilot(world)
    await drive(pilot, running(2))
    await world.patch_job({"spec": {"suspend": True}})
    await drive(pilot, lambda w: not w.pods(live=True))
    await edit(world, "two")
    await world.patch_job({"spec": {"suspend": False}})
    await drive(pilot, running(2))
    assert mounted(world) == {"two"}


@pytest.mark.parametrize("key", ["train.py", "other.py"])
async def test_no_worker_is_made_before_there_is_something_to_run(key: str, world: World) -> None:
    if key != "train.py":
        await write(world, "one")
    await world.create_job(
        a_scripted_job() | {"spec": {**a_scripted_job()["spec"], "script": {"configMap": "code", "key": key}}}
    )
    pilot = Pilot(world)
    await drive(pilot, lambda w: w.status().get("reason") == "ScriptNotFound")
    assert "code" in world.status()["message"]
    assert world.pods(ROLE_WORKER) == []
    if key == "train.py":
        await write(world, "late")
    else:
        await world.request("PATCH", f"{MAPS}/code", {"data": {key: "late"}}, "application/merge-patch+json")
    await drive(pilot, running(2))


@pytest.mark.parametrize("what", ["its key is renamed", "it may not be read any more", "its quota is full"])
async def test_what_becomes_of_the_source_holds_no_replacement(what: str, world: World) -> None:
    await write(world, "one")
    await world.create_job(a_scripted_job())
    pilot = Pilot(world)
    await drive(pilot, running(2))
    if what == "its key is renamed":
        patch = {"data": {"train.py": None, "other.py": "one"}}
        await world.request("PATCH", f"{MAPS}/code", patch, "application/merge-patch+json")
    elif what == "its quota is full":
        full = "exceeded quota: maps, requested: count/configmaps=1, used: count/configmaps=2"
        world.api.faults.add(Fault(verb="create", resource="configmaps", error=403, message=full, times=None))
    else:
        world.api.faults.add(Fault(resource="configmaps", name="code", error=403, times=None))
    world.clock.skip(FILE_SECONDS + 1)
    await world.fail_pod("charlm-0-0", 70)
    await drive(pilot, running(2))
    assert mounted(world) == {"one"}


@pytest.mark.parametrize("text", ["one", "two"])
async def test_a_copy_that_is_gone_is_made_anew_only_of_the_same_text(text: str, world: World) -> None:
    """Its workers would run two scripts."""
    await write(world, "one")
    await world.create_job(a_scripted_job())
    pilot = Pilot(world)
    await drive(pilot, running(2))
    await edit(world, text)
    (copy,) = [obj["metadata"]["name"] for obj in world.all("configmaps") if obj["metadata"]["name"] != "code"]
    await world.request("DELETE", f"{MAPS}/{copy}")
    world.clock.skip(FILE_SECONDS + 1)
    await world.fail_pod("charlm-0-0", 70)
    if text == "one":
        await drive(pilot, running(2))
        assert mounted(world) == {"one"}
    else:
        await drive(pilot, lambda w: w.status().get("reason") == "ScriptNotFound")
        assert "suspend and resume" in world.status()["message"]
        assert world.names(ROLE_WORKER, live=True) == ["charlm-1-0"]


async def test_somebodys_configmap_under_the_name_of_the_copy_is_not_run(world: World) -> None:
    await write(world, "one")
    uid = (await world.create_job(a_scripted_job()))["metadata"]["uid"]
    pilot = Pilot(world)
    name = names.script("charlm", uid, 0)
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"train.py": "evil"}}
    await world.request("POST", MAPS, body)
    await drive(pilot, lambda w: w.status().get("reason") == "NameConflict")
    assert world.pods(ROLE_WORKER) == []


@pytest.mark.parametrize("code", [403, 503])
async def test_no_worker_is_made_while_nobody_knows_whether_there_is_a_script(code: int, world: World) -> None:
    await write(world, "one")
    world.api.faults.add(Fault(verb="get", resource="configmaps", error=code, times=4))
    await world.create_job(a_scripted_job())
    pilot = Pilot(world)
    for _ in range(2):
        await pilot.run_pass()
        assert world.names(ROLE_WORKER) == []
    await drive(pilot, running(2))
    assert mounted(world) == {"one"}
