"""Builds the chart's dashboards with Grafana's foundation SDK: scripts/dashboards runs it in an environment of its own.

Each panel is a line below: what it asks, of which unit, and a sentence on what it shows. Where a panel lies follows
from its width; ids follow from the order.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    GraphGradientMode,
    StackingMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    GridPos,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER = Path(__file__).parent.parent / "charts" / "drivetrain" / "files" / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH = 24


@dataclass(frozen=True)
class Ask:
    """One query and what its series are called."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """`kind`: lines, stacked, numbers or table. Of a table the legends are its columns."""

    title: str
    says: str
    asks: Sequence[Ask]
    unit: str = "short"
    kind: str = "lines"
    width: int = 8
    height: int = 7


@dataclass(frozen=True)
class Board:
    """One dashboard: rows of panels."""

    uid: str
    title: str
    says: str
    variables: Sequence[tuple[str, str, bool]]
    """Name, query, and whether several may be chosen."""
    rows: Sequence[tuple[str, Sequence[Panel]]]
    notes: Sequence[tuple[str, str, str]] = ()
    """Drawn over all panels: name, query, colour."""


NS = 'namespace=~"$namespace"'
JOB = 'namespace="$namespace", job_name="$job"'
INTERVAL = "[$__rate_interval]"


def grew(metric: str, by: str, where: str = "") -> str:
    """Increase of a counter, by one label."""
    return f"sum by ({by}) (increase({metric}{{{where}}}{INTERVAL}))"


def slowest(metric: str, part: float, by: str = "") -> str:
    """Percentile of a histogram."""
    return f"histogram_quantile({part}, sum by ({by + ', ' if by else ''}le) (rate({metric}_bucket{INTERVAL})))"


def productive(where: str) -> str:
    """Part of each job's time since its creation that was spent on steps that were not made before."""
    time = "sum by (namespace, job_name) (drivetrain_job_time_seconds_total"
    return f'{time}{{{where}, category="productive"}}) / {time}{{{where}}})'


def left(where: str) -> str:
    """Seconds that the rest of each job's steps takes."""
    pace = f"(deriv(drivetrain_job_step{{{where}}}[10m]) > 0)"
    return f"(drivetrain_job_steps{{{where}}} - drivetrain_job_step{{{where}}}) / {pace}"


NAMESPACES = ("namespace", "label_values(drivetrain_job_phase, namespace)", True)
FLEET = Board(
    "drivetrain-fleet",
    "Drivetrain / Fleet",
    "What all jobs do, and where their time goes.",
    [NAMESPACES],
    [
        (
            "Now",
            [
                Panel(
                    "Jobs by phase",
                    "All jobs of the cluster, whatever namespace is chosen.",
                    [Ask("sum by (phase) (drivetrain_jobs)", "{{phase}}")],
                    kind="numbers",
                    width=12,
                    height=4,
                ),
                Panel(
                    "Workers",
                    "Wanted, and ready to train or training.",
                    [
                        Ask(f"sum(drivetrain_job_workers_target{{{NS}}})", "wanted"),
                        Ask(f"sum(drivetrain_job_workers_ready{{{NS}}})", "ready"),
                    ],
                    kind="numbers",
                    width=6,
                    height=4,
                ),
                Panel(
                    "Goodput",
                    "Part of all jobs' time in the last hour that was spent on steps that were not made before.",
                    [
                        Ask(
                            f'sum(rate(drivetrain_job_time_seconds_total{{{NS}, category="productive"}}[1h]))'
                            f" / sum(rate(drivetrain_job_time_seconds_total{{{NS}}}[1h]))",
                            "goodput",
                        )
                    ],
                    unit="percentunit",
                    kind="numbers",
                    width=6,
                    height=4,
                ),
            ],
        ),
        (
            "Time",
            [
                Panel(
                    "Where the time goes",
                    "Seconds of jobs' time a second, by what it was spent on: as many as there are jobs, in all.",
                    [
                        Ask(
                            f"sum by (category) (rate(drivetrain_job_time_seconds_total{{{NS}}}{INTERVAL}))",
                            "{{category}}",
                        )
                    ],
                    kind="stacked",
                    width=12,
                ),
                Panel(
                    "Jobs by phase",
                    "All jobs of the cluster over time.",
                    [Ask("sum by (phase) (drivetrain_jobs)", "{{phase}}")],
                    kind="stacked",
                    width=12,
                ),
            ],
        ),
        (
            "Losses",
            [
                Panel(
                    "Recoveries",
                    "Losses after which training went on, by what was lost.",
                    [Ask(grew("drivetrain_recovery_seconds_count", "cause"), "{{cause}}")],
                    kind="stacked",
                ),
                Panel(
                    "How long recoveries take",
                    "From a loss to the first step that all members finished.",
                    [
                        Ask(slowest("drivetrain_recovery_seconds", 0.5), "median"),
                        Ask(slowest("drivetrain_recovery_seconds", 0.95), "95 %"),
                    ],
                    unit="s",
                ),
                Panel(
                    "Restarts charged",
                    "Incidents that cost a restart of a job's budget, by cause.",
                    [Ask(grew("drivetrain_restarts_total", "cause"), "{{cause}}")],
                    kind="stacked",
                ),
            ],
        ),
        (
            "Jobs",
            [
                Panel(
                    "Jobs",
                    "Each job as it is now. The job's own dashboard has more.",
                    [
                        Ask(f"drivetrain_job_step{{{NS}}}", "step"),
                        Ask(f"drivetrain_job_steps{{{NS}}}", "of"),
                        Ask(f"drivetrain_job_workers_ready{{{NS}}}", "ready"),
                        Ask(productive(NS), "goodput"),
                        Ask(left(NS), "left (s)"),
                        Ask(f"drivetrain_job_recoveries_total{{{NS}}}", "recoveries"),
                        Ask(f"drivetrain_job_restarts_total{{{NS}}}", "restarts"),
                    ],
                    kind="table",
                    width=24,
                    height=10,
                )
            ],
        ),
    ],
)
QUEUE = Board(
    "drivetrain-queue",
    "Drivetrain / Queue and capacity",
    "Which jobs wait, for how long, and how much of what they want they have.",
    [NAMESPACES],
    [
        (
            "Waiting",
            [
                Panel(
                    "Jobs that wait",
                    "Jobs in the phases before they train.",
                    [
                        Ask(
                            f"sum by (namespace, phase) (drivetrain_job_phase{{{NS}, "
                            'phase=~"Pending|Waiting|Suspended"})',
                            "{{namespace}} {{phase}}",
                        )
                    ],
                    kind="stacked",
                    width=12,
                ),
                Panel(
                    "Time spent waiting for room",
                    "Seconds of jobs' time a second in which pods had no node, or images and processes started.",
                    [
                        Ask(
                            f"sum by (category) (rate(drivetrain_job_time_seconds_total{{{NS}, "
                            'category=~"queued|starting"}' + f"{INTERVAL}))",
                            "{{category}}",
                        )
                    ],
                    kind="stacked",
                    width=12,
                ),
            ],
        ),
        (
            "Capacity",
            [
                Panel(
                    "Workers wanted and ready",
                    "What jobs want, and what they have of it.",
                    [
                        Ask(f"sum(drivetrain_job_workers_target{{{NS}}})", "wanted"),
                        Ask(f"sum(drivetrain_job_workers_ready{{{NS}}})", "ready"),
                    ],
                    width=12,
                ),
                Panel(
                    "Missing workers, by namespace",
                    "Wanted and not ready.",
                    [
                        Ask(
                            f"sum by (namespace) (drivetrain_job_workers_target{{{NS}}})"
                            f" - sum by (namespace) (drivetrain_job_workers_ready{{{NS}}})",
                            "{{namespace}}",
                        )
                    ],
                    kind="stacked",
                    width=12,
                ),
                Panel(
                    "Who waits",
                    "Seconds that each job has been queued, started and stood suspended since it was created.",
                    [
                        Ask(f'drivetrain_job_time_seconds_total{{{NS}, category="queued"}}', "queued (s)"),
                        Ask(f'drivetrain_job_time_seconds_total{{{NS}, category="starting"}}', "starting (s)"),
                        Ask(f'drivetrain_job_time_seconds_total{{{NS}, category="suspended"}}', "suspended (s)"),
                        Ask(f"drivetrain_job_workers_target{{{NS}}}", "wanted"),
                        Ask(f"drivetrain_job_workers_ready{{{NS}}}", "ready"),
                    ],
                    kind="table",
                    width=24,
                    height=10,
                ),
            ],
        ),
    ],
)
ONE = Board(
    "drivetrain-job",
    "Drivetrain / Job",
    "One job: how it trains, what it lost, and where its time goes. Series of its coordinator need the PodMonitor.",
    [
        ("namespace", "label_values(drivetrain_job_phase, namespace)", False),
        ("job", 'label_values(drivetrain_job_phase{namespace="$namespace"}, job_name)', False),
    ],
    [
        (
            "Now",
            [
                Panel(
                    "Phase",
                    "In which phase the job is.",
                    [Ask(f"drivetrain_job_phase{{{JOB}}}", "{{phase}}")],
                    kind="numbers",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Steps",
                    "Made by all members, and in all.",
                    [Ask(f"drivetrain_job_step{{{JOB}}}", "made"), Ask(f"drivetrain_job_steps{{{JOB}}}", "in all")],
                    kind="numbers",
                    width=6,
                    height=4,
                ),
                Panel(
                    "Time left",
                    "At the pace of the last ten minutes.",
                    [Ask(left(JOB), "left")],
                    unit="s",
                    kind="numbers",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Goodput",
                    "Part of its time since it was created that was spent on steps that were not made before.",
                    [Ask(productive(JOB), "goodput")],
                    unit="percentunit",
                    kind="numbers",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Losses",
                    "After which training went on; that were charged to its budget; of all of its state.",
                    [
                        Ask(f"drivetrain_job_recoveries_total{{{JOB}}}", "recoveries"),
                        Ask(f"drivetrain_job_restarts_total{{{JOB}}}", "restarts"),
                        Ask(f"drivetrain_job_state_losses_total{{{JOB}}}", "state lost"),
                    ],
                    kind="numbers",
                    width=6,
                    height=4,
                ),
            ],
        ),
        (
            "Training",
            [
                Panel("Loss", "Of the last step told.", [Ask(f"drivetrain_job_loss{{{JOB}}}", "loss")], unit="none"),
                Panel(
                    "Steps",
                    "Made by all members. It falls where training went back.",
                    [
                        Ask(f"drivetrain_job_step{{{JOB}}}", "made"),
                        Ask(f"drivetrain_job_durable_step{{{JOB}}}", "durable"),
                    ],
                    unit="none",
                ),
                Panel(
                    "Samples a second",
                    "Over all ranks.",
                    [Ask(f"drivetrain_job_samples_per_second{{{JOB}}}", "samples")],
                    unit="none",
                ),
                Panel(
                    "Duration of a step",
                    "As rank 0 measures it.",
                    [Ask(f"drivetrain_training_step_seconds{{{JOB}}}", "step")],
                    unit="s",
                ),
                Panel(
                    "What the script logs",
                    "Numbers that it gives to run.log.",
                    [Ask(f"drivetrain_training_logged{{{JOB}}}", "{{name}}")],
                    unit="none",
                ),
                Panel(
                    "Traffic between ranks",
                    "Bytes that ranks send to one another.",
                    [Ask(f"sum(rate(drivetrain_ranks_payload_bytes_total{{{JOB}}}{INTERVAL}))", "sent")],
                    unit="Bps",
                ),
            ],
        ),
        (
            "Membership",
            [
                Panel(
                    "Workers",
                    "Wanted, ready, and ranks that train together. Lines across all panels are losses.",
                    [
                        Ask(f"drivetrain_job_workers_target{{{JOB}}}", "wanted"),
                        Ask(f"drivetrain_job_workers_ready{{{JOB}}}", "ready"),
                        Ask(f"drivetrain_membership_world_size{{{JOB}}}", "world size"),
                    ],
                    unit="none",
                    width=12,
                ),
                Panel(
                    "Where its time goes",
                    "Seconds a second, by what they were spent on: one in all.",
                    [
                        Ask(
                            f"sum by (category) (rate(drivetrain_job_time_seconds_total{{{JOB}}}{INTERVAL}))",
                            "{{category}}",
                        )
                    ],
                    kind="stacked",
                    width=12,
                ),
                Panel(
                    "Who holds the others up",
                    "Ranks that the others wait for once the membership stands still, by what they are at.",
                    [Ask(f"drivetrain_training_late_ranks{{{JOB}}}", "{{operation}}")],
                    kind="stacked",
                ),
                Panel(
                    "Who holds each step up",
                    "By which steps are longer because one rank is late, by the stage in which it loses the time.",
                    [Ask(f"drivetrain_training_holdup_seconds{{{JOB}}}", "{{stage}}")],
                    unit="s",
                    kind="stacked",
                ),
                Panel(
                    "Standing still",
                    "Since all members moved last.",
                    [Ask(f"drivetrain_training_still_seconds{{{JOB}}}", "still")],
                    unit="s",
                ),
                Panel(
                    "Ranks that ended",
                    "Before their time, by how.",
                    [Ask(grew("drivetrain_training_failures_total", "kind", JOB), "{{kind}}")],
                    kind="stacked",
                ),
            ],
        ),
        (
            "Electricity",
            [
                Panel(
                    "Power",
                    "What its workers draw.",
                    [Ask(f"rate(drivetrain_job_energy_joules_total{{{JOB}}}[1h])", "drawn")],
                    unit="watt",
                ),
                Panel(
                    "Carbon, and what its first plan foresaw",
                    "Grams of CO2 equivalent so far, and those that were planned for all of it.",
                    [
                        Ask(f"drivetrain_job_carbon_grams_total{{{JOB}}}", "{{kind}} {{signal}}"),
                        Ask(f"drivetrain_job_carbon_planned_grams{{{JOB}}}", "planned, in all"),
                    ],
                    unit="massg",
                ),
                Panel(
                    "Avoided, and cost",
                    "Grams that the same power would have emitted beyond that, had it been drawn at once; the cost in "
                    "the tariff's currency.",
                    [
                        Ask(f"drivetrain_job_carbon_avoided_grams{{{JOB}}}", "avoided (g)"),
                        Ask(f"drivetrain_job_energy_cost{{{JOB}}}", "cost"),
                    ],
                    unit="none",
                ),
            ],
        ),
        (
            "Snapshots",
            [
                Panel(
                    "Age of what is durable",
                    "Since so many steps were seen to be in storage.",
                    [Ask(f"drivetrain_snapshot_age_seconds{{{JOB}}}", "age")],
                    unit="s",
                ),
                Panel(
                    "Written",
                    "By rank 0.",
                    [Ask(f"sum(rate(drivetrain_snapshot_written_bytes_total{{{JOB}}}{INTERVAL}))", "written")],
                    unit="Bps",
                ),
                Panel(
                    "Waiting to be written",
                    "In rank 0; steps are left out where there is no room.",
                    [Ask(f"drivetrain_snapshot_backlog_bytes{{{JOB}}}", "waiting")],
                    unit="bytes",
                ),
            ],
        ),
    ],
    [
        ("Losses", f"changes(drivetrain_job_recoveries_total{{{JOB}}}[$__interval]) > 0", "orange"),
        ("Charged restarts", f"changes(drivetrain_job_restarts_total{{{JOB}}}[$__interval]) > 0", "red"),
    ],
)
OPERATOR = Board(
    "drivetrain-operator",
    "Drivetrain / Operator",
    "Whether the operator keeps up with its jobs and with the API server.",
    [],
    [
        (
            "Health",
            [
                Panel(
                    "Leads",
                    "One of the replicas.",
                    [Ask("sum(drivetrain_leader)", "leaders")],
                    kind="numbers",
                    width=4,
                    height=5,
                ),
                Panel(
                    "Deafness",
                    "Seconds a second in which it heard nobody.",
                    [Ask(f"rate(drivetrain_operator_deaf_seconds_total{INTERVAL})", "{{instance}}")],
                    unit="percentunit",
                    width=7,
                    height=5,
                ),
                Panel(
                    "Event loop comes late",
                    "99 % come no later.",
                    [Ask(slowest("drivetrain_operator_loop_lag_seconds", 0.99, "instance"), "{{instance}}")],
                    unit="s",
                    width=7,
                    height=5,
                ),
                Panel(
                    "Jobs left alone or out",
                    "Whose status cannot be believed, and for whose series there is no room.",
                    [Ask("drivetrain_jobs_unreadable", "unreadable"), Ask("drivetrain_jobs_omitted", "omitted")],
                    kind="numbers",
                    width=6,
                    height=5,
                ),
            ],
        ),
        (
            "Queue",
            [
                Panel("Due", "Jobs to be looked at.", [Ask("sum(drivetrain_queue_depth)", "due")]),
                Panel(
                    "Waiting and work",
                    "99 % of looks wait, and take, no longer.",
                    [
                        Ask(slowest("drivetrain_queue_wait_seconds", 0.99), "wait"),
                        Ask(slowest("drivetrain_queue_work_seconds", 0.99), "work"),
                    ],
                    unit="s",
                ),
                Panel(
                    "Looks at jobs",
                    "By how they ended.",
                    [
                        Ask(f"sum by (result) (rate(drivetrain_reconciles_total{INTERVAL}))", "{{result}}"),
                        Ask(
                            f"sum by (reason) (rate(drivetrain_reconcile_errors_total{INTERVAL}))", "error: {{reason}}"
                        ),
                    ],
                    unit="ops",
                ),
            ],
        ),
        (
            "API server",
            [
                Panel(
                    "Requests",
                    "By HTTP status.",
                    [Ask(f"sum by (code) (rate(drivetrain_api_requests_total{INTERVAL}))", "{{code}}")],
                    unit="reqps",
                    kind="stacked",
                ),
                Panel(
                    "How long they take",
                    "99 % take no longer. Watches are not among them.",
                    [Ask(slowest("drivetrain_api_request_seconds", 0.99, "verb"), "{{verb}}")],
                    unit="s",
                ),
                Panel(
                    "Sources of energy",
                    "Since their last good answer; without any, since they are asked.",
                    [
                        Ask("drivetrain_energy_feed_age_seconds", "{{source}} {{zone}} {{measure}}"),
                    ],
                    unit="s",
                    width=12,
                ),
                Panel(
                    "Answers of sources of energy that could not be used",
                    "By provider and reason.",
                    [Ask(grew("drivetrain_energy_feed_failures_total", "provider, reason"), "{{provider}} {{reason}}")],
                    kind="stacked",
                    width=12,
                ),
                Panel(
                    "Age of watches",
                    "Since their last sign of life.",
                    [Ask("drivetrain_watch_age_seconds", "{{instance}} {{resource}}")],
                    unit="s",
                ),
                Panel(
                    "Changes made",
                    "In the cluster, by kind.",
                    [
                        Ask(
                            f"sum by (effect, result) (rate(drivetrain_effects_total{INTERVAL}))",
                            "{{effect}} {{result}}",
                        )
                    ],
                    unit="ops",
                ),
                Panel(
                    "Turned away",
                    "Callers of the operator's ports.",
                    [
                        Ask(
                            f"sum by (port, reason) (rate(drivetrain_operator_refused_total{INTERVAL}))",
                            "{{port}} {{reason}}",
                        )
                    ],
                    unit="ops",
                ),
                Panel(
                    "Coordinators replaced",
                    "By why.",
                    [Ask(grew("drivetrain_coordinators_replaced_total", "cause"), "{{cause}}")],
                    kind="stacked",
                ),
            ],
        ),
        (
            "Process",
            [
                Panel(
                    "Processor",
                    "Seconds a second.",
                    [
                        Ask(
                            f"rate(process_cpu_seconds_total{INTERVAL}) * on (instance) group_left drivetrain_leader",
                            "{{instance}}",
                        )
                    ],
                    unit="percentunit",
                    width=12,
                ),
                Panel(
                    "Memory",
                    "That is resident.",
                    [
                        Ask(
                            "process_resident_memory_bytes * on (instance) group_left drivetrain_leader",
                            "{{instance}}",
                        )
                    ],
                    unit="bytes",
                    width=12,
                ),
            ],
        ),
    ],
)
BOARDS = (FLEET, QUEUE, ONE, OPERATOR)


def built(board: Board) -> str:
    """Its JSON."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.says)
        .tags(["drivetrain"])
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .link(
            dashboard.DashboardLink("Drivetrain")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["drivetrain"])
            .as_dropdown(True)
        )
    )
    for name, query, several in board.variables:
        variable = (
            dashboard.QueryVariable(name)
            .label(name.capitalize())
            .datasource(SOURCE)
            .query(query)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
        )
        made = made.with_variable(variable.multi(True).include_all(True).all_value(".*") if several else variable)
    for name, query, colour in board.notes:
        made = made.annotation(
            dashboard.AnnotationQuery().name(name).datasource(SOURCE).enable(True).icon_color(colour).expr(query)
        )
    number, top = 0, 0
    for title, panels in board.rows:
        number += 1
        made = made.with_row(dashboard.Row(title).id(number).grid_pos(GridPos(x=0, y=top, w=WIDTH, h=1)))
        top += 1
        left = tallest = 0
        for panel in panels:
            if left + panel.width > WIDTH:
                top, left, tallest = top + tallest, 0, 0
            number += 1
            place = GridPos(x=left, y=top, w=panel.width, h=panel.height)
            made = made.with_panel(drawn(panel).id(number).grid_pos(place))
            left, tallest = left + panel.width, max(tallest, panel.height)
        top += tallest
    return (
        json.dumps(json.loads(JSONEncoder(sort_keys=True, indent=1).encode(made.build())), sort_keys=True, indent=1)
        + "\n"
    )


def drawn(panel: Panel):
    """Its builder."""
    if panel.kind == "numbers":
        made = stat.Panel().orientation(VizOrientation.AUTO)
    elif panel.kind == "table":
        made = table.Panel()
    else:
        made = timeseries.Panel().line_width(1).fill_opacity(10).show_points(VisibilityMode.NEVER)
        if panel.kind == "stacked":
            made = made.stacking(common.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(40)
        made = made.draw_style(GraphDrawStyle.LINE).gradient_mode(GraphGradientMode.NONE)
    made = made.title(panel.title).description(panel.says).datasource(SOURCE).unit(panel.unit)
    for letter, ask in zip("ABCDEFGHIJ", panel.asks, strict=False):
        query = prometheus.Dataquery().datasource(SOURCE).expr(ask.expr).legend_format(ask.legend).ref_id(letter)
        if panel.kind == "table":
            query = query.instant().format(PromQueryFormat.TABLE)
        elif panel.kind == "numbers":
            query = query.instant()
        else:
            query = query.range()
        made = made.with_target(query)
    if panel.kind == "table":
        made = tabled(made, panel)
    return made


def tabled(made, panel: Panel):
    """One row a job: the queries joined, their values called as the legends say."""
    names = {f"Value #{letter}": ask.legend for letter, ask in zip("ABCDEFGHIJ", panel.asks, strict=False)}
    hidden = dict.fromkeys(
        ("Time", "__name__", "instance", "job", "pod", "container", "endpoint", "service", "category"), True
    )
    organise = {"excludeByName": hidden, "renameByName": {**names, "job_name": "job"}}
    return made.with_transformation(DataTransformerConfig(id_val="merge", options={})).with_transformation(
        DataTransformerConfig(id_val="organize", options=organise)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and end with 1 if a file is not current")
    check = parser.parse_args().check
    stale = []
    for board in BOARDS:
        file = FOLDER / f"{board.uid.removeprefix('drivetrain-')}.json"
        text = built(board)
        if not file.exists() or file.read_text() != text:
            stale.append(file)
            if not check:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
    for file in stale:
        print(f"{file.name}: {'not current, run make dashboards' if check else 'written'}")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
