"""Joules of many jobs are asked for together: does what one tenant has scraped keep others from theirs?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from drivetrain_api.energy import EnergySource
from drivetrain_energy.accounts.counters import BUCKET_SECONDS
from drivetrain_energy.feeds import Ports
from drivetrain_energy.feeds.errors import Slow, TooLarge, Unavailable
from drivetrain_energy.feeds.transport import Answer, Request
from drivetrain_energy.settings import of
from drivetrain_operator.energy.document import Document
from drivetrain_operator.energy.joules import Joules
from drivetrain_operator.plan.view import JobView
from unit.energy.feeds.prometheus import Prometheus
from unit.energy.feeds.server import NOW, Clock, Cluster, Files
from unit.energy.feeds.test_joules import SINCE, UNTIL, gpu, waiting
from unit.plan.builders import job, spec

SETTINGS = of({"joules": [{"name": "p", "provider": "prometheus", "baseURL": "http://p", "dcgm": {}}]})


class Http:
    """Refuses questions of which `evil` says so."""

    def __init__(self, prometheus: Prometheus, evil: Callable[[str], bool], how: str) -> None:
        self.prometheus = prometheus
        self.evil = evil
        self.how = how
        self.queries: list[str] = []

    async def send(self, request: Request) -> Answer:
        assert request.form is not None
        query = request.form["query"]
        if query != "time()":
            self.queries.append(query)
            if self.evil(query):
                if self.how == "too large":
                    raise TooLarge("the answer has more than 1 bytes")
                if self.how == "slow":
                    raise Slow("no whole answer within 10 s")
                if self.how == "its own time is over":
                    return Answer(503, {}, b'{"status": "error", "errorType": "timeout", "error": "query timed out"}')
                if self.how == "in part":
                    return Answer(200, {}, b'{"status": "success", "data": {}, "warnings": ["mixed samples"]}')
                if self.how == "away":
                    raise Unavailable("fails (503)")
                return Answer(422, {}, b"{}")
        return await self.prometheus.send(request)

    def ports(self) -> Ports:
        return Ports(self, Files(), Files(), Cluster())


def named(name: str, namespace: str = "ns") -> JobView:
    return job(spec(gpusPerWorker=1), waiting(SINCE, UNTIL), name=name, uid=f"uid-of-{name}", namespace=namespace)


def scraped(clock: Clock, names: list[str], of_one: int = 1, namespace: str = "ns") -> Prometheus:
    prometheus = Prometheus(lambda: clock.at)
    for passed in range(0, 600, 15):
        clock.at = SINCE - 60 + passed
        prometheus.scrape(
            gpu(n, 1e6 + 300.0 * passed, f"{name}-0-0-11111", UUID=f"GPU-{name}-{n}", namespace=namespace)
            for name in names
            for n in range(of_one)
        )
    clock.at = NOW
    return prometheus


def known(reader: Joules, job_: JobView) -> bool:
    found = reader.of(job_)[EnergySource.DCGM]
    return found is not None and bool(found.buckets)


@pytest.mark.parametrize("how", ["too large", "too many samples"])
def test_a_job_of_which_nothing_can_be_answered_is_alone_with_that(how: str) -> None:
    asyncio.run(_alone(how))


async def _alone(how: str) -> None:
    clock = Clock()
    jobs = [named(f"lm{n}") for n in range(30)]
    http = Http(scraped(clock, [each.name for each in jobs]), lambda query: "lm7-" in query, how)
    reader = Joules(lambda: SETTINGS, clock, lambda: jobs, lambda: 0.0)
    await reader.poll(http.ports())
    assert [each.name for each in jobs if not known(reader, each)] == ["lm7"]
    (counts,) = reader.counts()
    assert counts.failures["unreadable"] > 0
    first, http.queries = len(http.queries), []
    clock.passed += 300
    await reader.poll(http.ports())
    assert [each.name for each in jobs if not known(reader, each)] == ["lm7"]
    assert len(http.queries) < first / 2, "it is not looked for again"
    http.evil = lambda query: False
    clock.passed += 300
    await reader.poll(http.ports())
    assert all(known(reader, each) for each in jobs)


@pytest.mark.parametrize("how", ["slow", "its own time is over", "in part"])
def test_a_question_that_is_slow_keeps_no_other_jobs_answers_out(how: str, caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(_slow(how))
    assert "uid-of-lm7" in str([vars(each).get("first") for each in caplog.records]), "it is said whose are missing"


async def _slow(how: str) -> None:
    clock = Clock()
    jobs = [named(f"lm{n}") for n in range(30)]
    http = Http(scraped(clock, [each.name for each in jobs]), lambda query: "lm7-" in query, how)
    reader = Joules(lambda: SETTINGS, clock, lambda: jobs, lambda: 0.0)
    await reader.poll(http.ports())
    assert sum(known(reader, each) for each in jobs) > 20
    for _ in range(3):
        clock.passed += 300
        await reader.poll(http.ports())
    assert [each.name for each in jobs if not known(reader, each)] == ["lm7"]
    http.queries = []
    for _ in range(12):
        clock.passed += 300
        await reader.poll(http.ports())
    asked = sum("lm7-" in each for each in http.queries)
    assert 1 <= asked <= 4, "it is asked for more seldom each time"
    http.evil = lambda query: False
    for _ in range(13):
        clock.passed += 300
        await reader.poll(http.ports())
    assert all(known(reader, each) for each in jobs)


def test_where_all_questions_are_slow_a_look_ends_soon_and_is_a_failure() -> None:
    async def asked() -> None:
        clock = Clock()
        jobs = [named(f"lm{n}") for n in range(30)]
        http = Http(scraped(clock, []), lambda query: True, "slow")
        reader = Joules(lambda: SETTINGS, clock, lambda: jobs, lambda: 0.0)
        await reader.poll(http.ports())
        assert len(http.queries) == 4
        (counts,) = reader.counts()
        assert (counts.answers, dict(counts.failures)) == (0, {"unavailable": 4})
        await reader.poll(http.ports())
        assert len(http.queries) == 4, "it is not asked at once again"

    asyncio.run(asked())


def test_of_more_jobs_than_a_look_has_time_for_the_same_are_not_always_left_out() -> None:
    async def asked() -> None:
        clock = Clock()
        jobs = [named(f"lm{n}") for n in range(400)]
        prometheus = scraped(clock, [])

        def takes_long(query: str) -> bool:
            clock.advance(50.0)
            return False

        http = Http(prometheus, takes_long, "")
        reader = Joules(lambda: SETTINGS, clock, lambda: jobs, lambda: 0.0)
        firsts = []
        for _ in range(3):
            http.queries = []
            await reader.poll(http.ports())
            clock.advance(300.0)
            assert len(http.queries) < 5
            firsts.append({each.name for each in jobs if any(f"{each.name}-" in query for query in http.queries)})
        assert set.union(*firsts[:2]) == {each.name for each in jobs}
        assert firsts[0] != firsts[1] != firsts[2]

    asyncio.run(asked())


def test_looks_begin_with_other_jobs_each_time() -> None:
    async def asked() -> None:
        clock = Clock()
        jobs = [named(f"lm{n}") for n in range(300)]
        http = Http(scraped(clock, []), lambda query: False, "")
        reader = Joules(lambda: SETTINGS, clock, lambda: jobs, lambda: 0.0)
        firsts = set()
        for _ in range(3):
            http.queries = []
            await reader.poll(http.ports())
            clock.passed += 300.0
            firsts.add(http.queries[0])
        assert len(firsts) == 3

    asyncio.run(asked())


def test_where_prometheus_itself_fails_it_is_not_asked_for_each_job() -> None:
    async def asked() -> None:
        clock = Clock()
        jobs = [named(f"lm{n}") for n in range(30)]
        http = Http(scraped(clock, []), lambda query: True, "away")
        await Joules(lambda: SETTINGS, clock, lambda: jobs, lambda: 0.0).poll(http.ports())
        assert len(http.queries) == 1

    asyncio.run(asked())


def test_more_counters_than_a_job_can_have_are_not_asked_for() -> None:
    async def asked() -> None:
        clock = Clock()
        jobs = [named("lm"), named("evil", "elsewhere")]
        prometheus = scraped(clock, ["lm"])
        clock.at = UNTIL
        prometheus.scrape(
            gpu(n, 1.0, "evil-0-0-11111", UUID=f"GPU-evil-{n}", namespace="elsewhere") for n in range(3000)
        )
        clock.at = NOW
        http = Http(prometheus, lambda query: False, "")
        reader = Joules(lambda: SETTINGS, clock, lambda: jobs, lambda: 0.0)
        await reader.poll(http.ports())
        assert (known(reader, jobs[0]), known(reader, jobs[1])) == (True, False)
        assert not any("GPU-evil" in each for each in http.queries)

    asyncio.run(asked())


def test_a_job_that_rests_has_all_that_its_workers_had() -> None:
    async def asked() -> None:
        clock = Clock()
        status = waiting(SINCE, UNTIL)
        rests = job(
            spec(gpusPerWorker=8, workers=40),
            status.model_copy(update={"workers": status.workers.model_copy(update={"target": 0})}),
            uid="uid-of-lm",
        )
        http = Http(scraped(clock, ["lm"], 320), lambda query: False, "")
        reader = Joules(lambda: SETTINGS, clock, lambda: [rests], lambda: 0.0)
        await reader.poll(http.ports())
        assert known(reader, rests)

    asyncio.run(asked())


def test_where_one_answer_is_too_large_fewer_counters_are_asked_for() -> None:
    async def asked() -> None:
        clock = Clock()
        lm = named("lm")
        http = Http(scraped(clock, ["lm"], 50), lambda query: query.count("GPU-") > 20, "too large")
        reader = Joules(lambda: SETTINGS, clock, lambda: [lm], lambda: 0.0)
        await reader.poll(http.ports())
        found = reader.of(lm)[EnergySource.DCGM]
        assert found is not None
        watts = sum(each.joules["gpu"] for each in found.buckets[:-1]) / len(found.buckets[:-1]) / BUCKET_SECONDS
        assert watts == pytest.approx(50 * 300, rel=0.01)

    asyncio.run(asked())


def test_settings_that_cannot_be_read_after_a_start_are_no_word_that_it_is_off(tmp_path: Path) -> None:
    file = tmp_path / "energy.yaml"
    file.write_text("joules: [{name: p, provider: prometheus")
    document = Document(file)
    reader = Joules(lambda: document.settings if document.known else None, Clock(), list, lambda: 0.0)
    lm = named("lm")
    for _ in range(2):  # before it is looked at, and after that
        assert reader.of(lm) == {EnergySource.DCGM: None, EnergySource.KEPLER: None}, "what is set aside stays so"
        assert not reader.of(job(spec(gpusPerWorker=1)))
        document.look()
    file.write_text("{}")
    document.look()
    assert not reader.of(lm)
    assert Document(None).known, "a platform without settings has it off"


@pytest.mark.parametrize(("label", "said"), [("pod", False), ("pood", True)])
def test_labels_of_another_name_are_told_once(label: str, said: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def asked() -> None:
        clock = Clock()
        lm = named("lm")
        labels = {"dcgm": {"podLabel": label, "namespaceLabel": "namespace"}}
        settings = of({"joules": [{"name": "p", "provider": "prometheus", "baseURL": "http://p", **labels}]})
        http = Http(scraped(clock, ["lm"]), lambda query: False, "")
        reader = Joules(lambda: settings, clock, lambda: [lm], lambda: 0.0)
        for _ in range(3):
            await reader.poll(http.ports())
            clock.passed += 300

    asyncio.run(asked())
    assert caplog.text.count("no joules of any pod are found") == said
