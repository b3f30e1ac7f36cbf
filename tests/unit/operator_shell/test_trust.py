"""Roots of trust: lost, restored and rotated, beside jobs that run; and two operators for one job."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys

import pytest

from drivetrain_api.constants import ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_operator.plan.view import Me
from drivetrain_operator.reports.credentials import Authority, BadRoot, BadToken
from drivetrain_operator.reports.trust import Trust, rotated_secret
from unit.operator_shell.pilot import ROOT, Pilot
from unit.operator_shell.test_passes import drive, running
from unit.operator_shell.world import World, a_job

NOW = dt.datetime.now(dt.UTC)
OLD = Trust(Authority.generate(NOW))


def condition(world: World, kind: str) -> dict[str, str]:
    return next((each for each in world.status().get("conditions", []) if each["type"] == kind), {})


def test_both_roots_hold_during_a_rotation() -> None:
    both = OLD.rotated(NOW)
    assert both.roots == {OLD.current.fingerprint, both.current.fingerprint}
    for token in (OLD.current.worker_token("u"), both.current.worker_token("u")):
        assert both.verify(token).job_uid == "u"
    old = both.worker_files("u", OLD.current.fingerprint, NOW)
    assert old["token"] == OLD.worker_files("u", "", NOW)["token"]
    assert both.worker_files("u", "", NOW)["token"] != old["token"]
    assert (OLD.oldest, both.oldest) == (OLD.current.fingerprint, OLD.current.fingerprint)
    # Coordinators from before know the old root only, those since know both.
    assert both.serving_pair(NOW).cert_pem != both.current.serving_pair(NOW).cert_pem
    files = both.coordinator_files("u", 1, both.current.fingerprint, NOW)
    assert files["ca.crt"].count(b"BEGIN CERTIFICATE") == 2
    finished = Trust(both.current)
    with pytest.raises(BadToken):
        finished.verify(OLD.current.worker_token("u"))
    with pytest.raises(BadRoot):
        finished.of(OLD.current.fingerprint)


def test_a_rotation_by_the_documented_command() -> None:
    stored: dict[str, object] = {
        "kind": "Secret",
        "metadata": {"name": "drivetrain-root", "namespace": "ops", "uid": "x", "resourceVersion": "7"},
        "data": OLD.to_secret(),
    }

    def command(secret: dict[str, object], *flags: str) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", "drivetrain_operator.reports.rotate", *flags]
        return subprocess.run(arguments, input=json.dumps(secret), capture_output=True, text=True, timeout=60)

    once = json.loads(command(stored).stdout)
    assert once["metadata"] == {"name": "drivetrain-root", "namespace": "ops"}
    trust = Trust.from_secret(once["data"])
    assert trust.previous == OLD.current
    again = command(once)
    assert (again.returncode, "finish it first" in again.stderr) == (1, True)
    done = Trust.from_secret(json.loads(command(once, "--finish").stdout)["data"])
    assert (done.current, done.previous) == (trust.current, None)
    assert "nothing to finish" in command(stored, "--finish").stderr
    assert "no Secret" in command({}).stderr
    with pytest.raises(BadRoot, match="previous root"):
        Trust.from_secret({**OLD.to_secret(), "previous.ca.key": "!"})
    assert rotated_secret(stored, NOW, finish=False)["immutable"] is True


async def test_a_new_root_beside_a_running_job_is_told_and_harms_nothing(world: World) -> None:
    await world.create_job(a_job())
    first = Pilot(world)
    await drive(first, running(2))
    assert world.status()["keeper"] == {"operator": "ops/one", "root": ROOT.current.fingerprint}
    before = world.names()
    other = Authority.generate(NOW).fingerprint
    second = Pilot(world, me=Me("ops/one", other, frozenset({other})))
    world.silent = True
    for _ in range(5):
        await second.run_pass()
        world.clock.skip(60.0)
    assert world.names() == before
    assert world.status()["membership"]["term"] == 1
    lost = condition(world, "CredentialsLost")
    assert lost["status"] == "True"
    assert ROOT.current.fingerprint in lost["message"]
    assert "Restore the Secret drivetrain-root" in lost["message"]
    world.silent = False
    restored = Pilot(world)
    await drive(restored, running(2))
    assert condition(world, "CredentialsLost")["status"] == "False"
    assert world.names() == before


async def test_a_job_that_lost_its_root_is_suspended_and_resumed_with_the_new_one(world: World) -> None:
    await world.create_job(a_job())
    await drive(Pilot(world), running(2))
    secrets = {obj["metadata"]["name"] for obj in world.all("secrets")}
    other = Authority.generate(NOW).fingerprint
    trust = _Renamed(Trust(Authority.generate(NOW)))  # whatever it is, it has that fingerprint in this test
    pilot = Pilot(world, me=Me("ops/one", other, frozenset({other})), trust=trust)  # type: ignore[arg-type]
    await world.patch_job({"spec": {"suspend": True}})
    await drive(pilot, lambda w: not w.names(ROLE_WORKER, live=True) and not w.names(ROLE_COORDINATOR, live=True))
    await world.patch_job({"spec": {"suspend": False}})
    await drive(pilot, running(2))
    assert world.status()["keeper"]["root"] == other
    fresh = {obj["metadata"]["name"] for obj in world.all("secrets")} - secrets
    assert any(name.startswith("charlm-worker-") for name in fresh), "the old worker token was taken for the new one"


class _Renamed:
    """A trust that answers to any root."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    def worker_files(self, job_uid: str, root: str, now: dt.datetime) -> dict[str, bytes]:
        return self._trust.worker_files(job_uid, "", now)

    def coordinator_files(self, job_uid: str, term: int, root: str, now: dt.datetime) -> dict[str, bytes]:
        return self._trust.coordinator_files(job_uid, term, "", now)


async def test_a_second_operator_stands_back(world: World) -> None:
    """They raised the term against each other for ever."""
    await world.create_job(a_job())
    one = Pilot(world)
    await drive(one, running(2))
    other = Pilot(world, me=Me("elsewhere/two", "f" * 16, frozenset({"f" * 16})))
    for _ in range(10):
        await other.run_pass()
        await one.run_pass()
        world.clock.skip(10.0)
    assert world.status()["membership"]["term"] == 1
    assert len(other.client.writes) == 1
    told = condition(world, "KeptElsewhere")
    assert "the operator ops/one keeps this job, and any other stands back" in told["message"]
    assert '{"status":{"keeper":null}}' in told["message"]
    before = len(other.client.writes)
    await world.fail_pod("charlm-0-0", 70)
    await other.run_pass()
    assert len(other.client.writes) == before
    await drive(one, running(2))
    assert world.names(ROLE_WORKER, live=True) == ["charlm-0-1", "charlm-1-0"]
