"""The dashboards: what Grafana would stumble over, and queries that Prometheus takes, of metrics that are there.

scripts/dashboards --check says whether they are as the code builds them.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client import CollectorRegistry

from drivetrain_coordinator.metrics import JobMetrics
from drivetrain_operator.metrics.collector import JobsCollector
from drivetrain_operator.metrics.counters import OperatorMetrics
from drivetrain_operator.metrics.feeds import Feeding, FeedsCollector
from harness.helm import CHART, rendered
from harness.promtool import promtool

BOARDS: Final = {path.stem: json.loads(path.read_text()) for path in (CHART / "files" / "dashboards").glob("*.json")}
MACROS: Final = {"$__rate_interval": "5m", "$__interval": "1m", "$namespace": "team", "$job": "gpt"}


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Without rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(board: dict[str, Any]) -> list[str]:
    """Of panels and annotations."""
    found = [target["expr"] for panel in panels(board) for target in panel["targets"]]
    return found + [each["expr"] for each in board["annotations"].get("list", []) if each.get("expr")]


def metrics() -> set[str]:
    """Names of all series that the code makes."""
    own = CollectorRegistry()
    OperatorMetrics(own, version="0")
    families = [*own.collect(), *JobsCollector(tuple).describe(), *JobMetrics(None).describe()]
    families += FeedsCollector(Feeding).describe()
    found = {f"{f.name}_total" if f.type == "counter" else f.name for f in families}
    return found | {
        f"{f.name}_{part}" for f in families if f.type == "histogram" for part in ("bucket", "count", "sum")
    }


@pytest.fixture(params=sorted(BOARDS))
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = BOARDS[request.param]
    return found


def test_they_are_there() -> None:
    assert set(BOARDS) == {"fleet", "queue", "job", "operator"}
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)


def test_ids_are_unique_and_nothing_lies_over_another(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


def test_each_panel_asks_the_chosen_source_and_says_what_it_shows(board: dict[str, Any]) -> None:
    assert board["templating"]["list"][0]["type"] == "datasource"
    for panel in panels(board):
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters) > 0
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}", panel["title"]
    for variable in board["templating"]["list"][1:]:
        assert variable["datasource"]["uid"] == "${datasource}"
    assert "__inputs" not in board


def test_metrics_are_there(board: dict[str, Any]) -> None:
    more = [variable["query"] for variable in board["templating"]["list"][1:]]
    texts = [query if isinstance(query, str) else query["query"] for query in more] + queries(board)
    asked = {name for text in texts for name in re.findall(r"\b(?:drivetrain|process)_\w+", text)}
    assert asked
    assert asked <= metrics(), asked - metrics()


def test_prometheus_takes_the_queries(board: dict[str, Any], tmp_path: Path) -> None:
    rules = []
    for number, text in enumerate(queries(board)):
        for macro, value in MACROS.items():
            text = text.replace(macro, value)
        rules.append({"record": f"query{number}", "expr": text})
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run([promtool(), "check", "rules", file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_chart_ships_them() -> None:
    objects = rendered()
    for name, board in BOARDS.items():
        shipped = objects["ConfigMap", f"drivetrain-dashboard-{name}"]["data"][f"{name}.json"]
        assert json.loads(shipped) == board
