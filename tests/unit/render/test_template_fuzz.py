"""Whatever stands in spec.podTemplate: a pod with all that is ours, or `InvalidTemplate` with a path; no traceback."""

from __future__ import annotations

import copy
import random
from typing import Any, Final

import pytest

from drivetrain_operator.plan.effects import CreateWorker
from drivetrain_operator.render.errors import InvalidTemplate
from drivetrain_operator.render.platform import Platform
from drivetrain_operator.render.pod import worker_pod
from drivetrain_operator.render.shape import unknown_fields
from drivetrain_operator.render.templates import template_problem
from unit.plan.builders import JOB, job, spec, started

TEMPLATES: Final = 20_000
WORKER: Final = CreateWorker(f"{JOB}-2-1", 2, 1, 3)
PLATFORM: Final = Platform("registry/drivetrain:1", "https://reports:7443")
FIELDS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"command": None, "script": {"configMap": "code", "key": "t.py"}},
    {"gpusPerWorker": 2},
)
RICH: Final[dict[str, Any]] = {
    "metadata": {"labels": {"team": "nlp", "a/b": "c"}, "annotations": {"note": "x"}},
    "spec": {
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "s"}],
        "hostNetwork": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": {"runAsUser": 7},
        "initContainers": [{"name": "fetch", "image": "curl", "env": [{"name": "A", "value": "1"}]}],
        "volumes": [{"name": "data", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "tmp", "hostPath": {"path": "/x"}}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "containers": [
            {
                "name": "worker",
                "resources": {"limits": {"memory": "8Gi", "cpu": 2}},
                "env": [
                    {"name": "OMP_NUM_THREADS", "value": "2"},
                    {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "ports": [{"containerPort": 1}, {"containerPort": 1, "protocol": "UDP"}],
            },
            {"name": "logs", "image": "tail", "args": ["-f"]},
        ],
    },
}
JUNK: Final[tuple[Any, ...]] = (
    *(None, "", "x", 0, 1, -1, 1.5, 10**30, True, [], {}, [None], [[]], ["x"], [{}], {"name": "worker"}),
    *({"$patch": "delete"}, {"x": None}, [{"name": None}], "\ud800", "Never", "worker", {"labels": None}),
)
KEYS: Final = (
    *("labels", "annotations", "spec", "metadata", "containers", "env", "name", "value", "volumes", "image", "command"),
    *("restartPolicy", "volumeMounts", "mountPath", "tolerations", "x", "$patch", "ports", "initContainers", "kind"),
)


def mutated(rng: random.Random) -> dict[str, Any]:
    """A good template with some places made worse."""
    template: Any = copy.deepcopy(RICH)
    for _ in range(rng.randint(1, 4)):
        places: list[tuple[Any, Any]] = []

        def visit(value: Any, places: list[tuple[Any, Any]]) -> None:
            for key in value if isinstance(value, dict) else range(len(value)):
                places.append((value, key))
                if isinstance(value[key], dict | list):
                    visit(value[key], places)

        visit(template, places)
        parent, key = rng.choice(places) if places else (template, "spec")
        how = rng.random()
        if how < 0.6:
            parent[key] = copy.deepcopy(rng.choice(JUNK))
        elif how < 0.8 and isinstance(parent, dict):
            parent[rng.choice(KEYS)] = copy.deepcopy(rng.choice(JUNK))
        elif isinstance(parent, list):
            parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(rng.choice((*JUNK, *parent))))
        else:
            parent.pop(key, None)
    return dict(template)


def check_ours(pod: dict[str, Any]) -> None:
    """All that the operator, the launcher and the coordinator rely on."""
    labels = pod["metadata"]["labels"]
    assert (labels["drivetrain.dev/role"], labels["drivetrain.dev/index"]) == ("worker", "2")
    assert labels["drivetrain.dev/job-uid"] == pod["metadata"]["ownerReferences"][0]["uid"]
    (container,) = [each for each in pod["spec"]["containers"] if each["name"] == "worker"]
    assert container["command"][:2] == ["drivetrain-launcher", "--"]
    assert container["image"] == "train"
    assert "args" not in container
    env = [each["name"] for each in container["env"]]
    assert {"DRIVETRAIN_JOB_UID", "DRIVETRAIN_POD_UID", "DRIVETRAIN_COORDINATOR", "DRIVETRAIN_CREDENTIALS"} <= set(env)
    assert len(set(env)) == len(env)
    mounted = next(each for each in container["volumeMounts"] if each["mountPath"] == "/var/run/drivetrain")
    volume = next(each for each in pod["spec"]["volumes"] if each["name"] == mounted["name"])
    assert volume["secret"]["secretName"] == "lm-worker-11111111"
    assert pod["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("part", range(4))
def test_any_template(part: int) -> None:
    rng = random.Random(part)
    refused = 0
    for _ in range(TEMPLATES // 4):
        template = mutated(rng)
        of = spec(podTemplate=template, **rng.choice(FIELDS))
        problem = template_problem(of)
        unknown_fields(template) if problem is None else None
        if problem is None:
            check_ours(worker_pod(job(of, started(of)), WORKER, PLATFORM))
            continue
        refused += 1
        assert problem.startswith("spec.podTemplate"), template
        with pytest.raises(InvalidTemplate):
            worker_pod(job(of, started(of)), WORKER, PLATFORM)
    assert 0.2 < refused / (TEMPLATES // 4) < 0.95, "nearly all are of one kind: this tries little"


NULL: Final = "must not be null: the pod would lose what the operator sets there"
CASES: list[tuple[dict[str, Any], str | None]] = [
    ({"metadata": {"labels": None}}, None),
    ({"metadata": None}, None),
    ({"spec": None}, f"spec: {NULL}"),
    ({"spec": {"containers": None}}, f"spec.containers: {NULL}"),
    ({"spec": {"initContainers": None}}, f"spec.initContainers: {NULL}"),
    ({"spec": {"volumes": None}}, f"spec.volumes: {NULL}"),
    ({"spec": {"containers": [{"name": "worker", "env": None, "volumeMounts": None}]}}, None),
    ({"spec": {"containers": [{"name": "worker", "resources": {"limits": {"cpu": 2}}}]}}, None),
    (
        {"spec": {"containers": [{"name": "worker", "env": [{"name": "A", "value": 1}]}]}},
        "spec.containers[0].env[0].value: should be a valid string",
    ),
    ({"metadata": {"labels": {"a.b/c": 1}}}, "metadata.labels[a.b/c]: should be a valid string"),
    ({"spec": {"hostNetwork": "yes"}}, "spec.hostNetwork: should be a valid boolean"),
    ({"spec": {"tolerations": {}}}, "spec.tolerations: should be a valid list"),
    ({"spec": {"containers": [{"image": "x"}]}}, "spec.containers[0]: needs a name"),
    ({"spec": {"$patch": "replace"}}, "spec[$patch]: directives of patches are not understood here"),
    (
        {
            "spec": {
                "containers": [
                    {"name": "worker", "volumeMounts": [{"name": "x", "mountPath": "/var/x/../run/drivetrain"}]}
                ]
            }
        },
        "spec.containers[0].volumeMounts[0]: /var/x/../run/drivetrain is reserved",
    ),
]


@pytest.mark.parametrize(("template", "problem"), CASES, ids=[str(case[0]) for case in CASES])
def test_what_is_told(template: dict[str, Any], problem: str | None) -> None:
    of = spec(podTemplate=template)
    assert template_problem(of) == (None if problem is None else f"spec.podTemplate.{problem}")
    if problem is None:
        check_ours(worker_pod(job(of, started(of)), WORKER, PLATFORM))


@pytest.mark.parametrize("field", ["spec", "containers", "initContainers", "volumes"])
def test_a_coordinators_template_takes_nothing_away_either(field: str) -> None:
    path, template = ("spec", {"spec": None}) if field == "spec" else (f"spec.{field}", {"spec": {field: None}})
    problem = template_problem(spec(coordinator={"podTemplate": template}))
    assert problem == f"spec.coordinator.podTemplate.{path}: {NULL}"


@pytest.mark.parametrize("depth", [100, 900])
@pytest.mark.parametrize("where", ["podTemplate", "coordinator"])
def test_a_template_that_is_nested_without_end_is_refused(depth: int, where: str) -> None:
    deep: dict[str, Any] = {}
    for _ in range(depth):
        deep = {"x": deep, "y": [deep]} if _ == 0 else {"x": deep}
    template = {"spec": {"affinity": deep}}
    of = spec(**{where: template if where == "podTemplate" else {"podTemplate": template}})
    problem = template_problem(of)
    assert problem is not None
    assert "is nested more than" in problem


def test_fields_that_no_pod_has_are_told_and_refuse_nothing() -> None:
    template = {"spec": {"restartPolcy": "Never", "containers": [{"name": "worker", "resouces": {}}]}}
    assert template_problem(spec(podTemplate=template)) is None
    assert unknown_fields(template) == ["spec.containers[0].resouces", "spec.restartPolcy"]
