"""Settings, logs and probes: what people and kubelets see of an operator process."""

from __future__ import annotations

from collections.abc import Callable

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from drivetrain_api.logline import LogFormat
from drivetrain_api.logs import LogSettings
from drivetrain_operator.health import Gauge, HealthServer
from drivetrain_operator.settings import parse

GIVEN = ["--reports-url", "https://127.0.0.1:1"]


def test_flags_win_over_environment_over_defaults() -> None:
    env = {"DRIVETRAIN_OPERATOR_IMAGE": "from-env", "DRIVETRAIN_OPERATOR_WORKERS": "3", "POD_NAMESPACE": "ops"}
    settings = parse([*GIVEN, "--image", "from-flag"], env)
    assert (settings.image, settings.workers, settings.own_namespace) == ("from-flag", 3, "ops")
    assert (settings.namespaces, settings.leader_election, settings.log) == ((), True, LogSettings(LogFormat.AUTO))


def test_several_namespaces_by_flag_and_by_environment() -> None:
    assert parse([*GIVEN, "--namespace", "a", "--namespace", "b"], {}).namespaces == ("a", "b")
    assert parse(GIVEN, {"DRIVETRAIN_OPERATOR_NAMESPACE": "a,b"}).namespaces == ("a", "b")


def test_secrets_for_the_coordinators_image() -> None:
    assert parse([*GIVEN, "--image-pull-secret", "a", "--image-pull-secret", "b"], {}).image_pull_secrets == ("a", "b")
    assert parse(GIVEN, {"DRIVETRAIN_OPERATOR_IMAGE_PULL_SECRET": "a,b"}).image_pull_secrets == ("a", "b")
    assert parse(GIVEN, {}).image_pull_secrets == ()


def test_jobs_of_its_own_namespace_are_allowed_by_asking() -> None:
    assert not parse(GIVEN, {}).allow_own_namespace
    assert parse([*GIVEN, "--allow-own-namespace"], {}).allow_own_namespace
    assert parse(GIVEN, {"DRIVETRAIN_OPERATOR_ALLOW_OWN_NAMESPACE": "true"}).allow_own_namespace


def test_who_reads_metrics_is_spelled_as_the_api_server_does() -> None:
    """Else policies would be mended for ever."""
    given = (
        '{"namespaceSelector": {"matchLabels": {}}, "podSelector": {"matchLabels": {"a": "b"}, "matchExpressions": []}}'
    )
    (peer,) = parse([*GIVEN, "--scraper", given], {}).scrapers
    assert peer == {"namespaceSelector": {}, "podSelector": {"matchLabels": {"a": "b"}}}


def test_leader_election_can_be_switched_off() -> None:
    assert not parse([*GIVEN, "--no-leader-election"], {}).leader_election
    assert not parse(GIVEN, {"DRIVETRAIN_OPERATOR_LEADER_ELECTION": "false"}).leader_election


def test_every_process_holds_the_lease_under_its_own_name() -> None:
    assert parse(GIVEN, {}).identity != parse(GIVEN, {}).identity


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("no way to reach us", [], "--reports-url"),
        ("a Service without our address", ["--reports-service", "s"], "--pod-ip"),
        ("plain http", ["--reports-url", "http://x"], "https://"),
        ("no number", [*GIVEN, "--workers", "x"], "--workers"),
        ("no JSON", [*GIVEN, "--worker-template", "{"], "--worker-template is no JSON"),
        ("no object", [*GIVEN, "--coordinator-template", "[]"], "--coordinator-template must be an object"),
        ("nobody", [*GIVEN, "--scraper", "{}"], "--scraper is no NetworkPolicyPeer"),
        ("no such format", [*GIVEN, "--log-format", "xml"], "--log-format must be one of auto, json, text, not 'xml'"),
        ("no such level", [*GIVEN, "--worker-log-level", "INFO"], "--worker-log-level must be one of debug,"),
        ("no URL", [*GIVEN, "--trace-endpoint", "collector:4318"], "--trace-endpoint must be a URL"),
        ("a secret", [*GIVEN, "--trace-endpoint", "http://a:pw@b"], "a password belongs in --trace-header"),
        ("no header", [*GIVEN, "--trace-header", "Bearer"], "--trace-header must be NAME=VALUE"),
        ("two lines", [*GIVEN, "--trace-header", "A=b\r\nC: d"], "--trace-header must be NAME=VALUE"),
        ("no peer", [*GIVEN, "--scraper", '{"pods": {}}'], "--scraper is no NetworkPolicyPeer"),
        ("a wrong type", [*GIVEN, "--worker-template", '{"spec": {"hostNetwork": 1}}'], "spec.hostNetwork"),
    ],
)
def test_a_wrong_flag_is_named(name: str, arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments, {})
    assert named in capsys.readouterr().err


def test_a_wrong_variable_is_refused_as_its_flag_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(GIVEN, {"DRIVETRAIN_OPERATOR_LOG_LEVEL": "verbose"})
    assert "--log-level must be one of" in capsys.readouterr().err


def test_headers_of_traces_come_from_the_environment() -> None:
    given = parse(GIVEN, {"DRIVETRAIN_OPERATOR_TRACE_HEADER": "Authorization=Basic eA==, X-Tenant=a"})
    assert given.trace_headers == {"Authorization": "Basic eA==", "X-Tenant": "a"}
    assert given.trace_endpoint == ""


def test_workers_log_as_they_are_told_and_in_text_if_nobody_says() -> None:
    given = parse([*GIVEN, "--log-format", "json", "--worker-log-level", "debug"], {})
    assert (given.log, given.worker_log) == (LogSettings(LogFormat.JSON), LogSettings(LogFormat.TEXT, "debug"))


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.mark.parametrize(
    ("name", "age", "ready", "healthz", "readyz"),
    [
        ("all is well", lambda: 1.0, True, 200, 200),
        ("nothing there yet", lambda: None, False, 200, 503),
        ("a silent watch", lambda: 11.0, True, 500, 200),
    ],
)
async def test_probes(
    name: str, age: Callable[[], float | None], ready: bool, healthz: int, readyz: int, registry: CollectorRegistry
) -> None:
    server = HealthServer(registry, lambda: ready)
    server.watch(Gauge("pods", age, 10.0))
    port = await server.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            async with http.get("/healthz") as answer:
                assert answer.status == healthz
            async with http.get("/readyz") as answer:
                assert answer.status == readyz
    finally:
        await server.stop()


async def test_metrics_are_served(registry: CollectorRegistry) -> None:
    Counter("passes", "Passes.", registry=registry).inc()
    server = HealthServer(registry, lambda: True)
    port = await server.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert "passes_total 1.0" in await answer.text()
    finally:
        await server.stop()
