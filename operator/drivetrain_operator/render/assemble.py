"""PURE: from what is ours, our defaults and people's templates to the body of a pod.

Templates are merged over the defaults, the cluster's before the job's; then what is ours is put back, whatever they did
to it, and the whole has to have the shape of a pod.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from drivetrain_operator.render import common
from drivetrain_operator.render.errors import InvalidTemplate
from drivetrain_operator.render.merge import merge
from drivetrain_operator.render.names import Json
from drivetrain_operator.render.shape import check_pod, check_template


@dataclass(frozen=True, slots=True)
class Template:
    """A PodTemplateSpec, and where it stands: the beginning of every path that is told."""

    root: str
    content: Mapping[str, Any]
    check: Callable[[Mapping[str, Any]], None]
    """Raises `InvalidTemplate` if it touches what is ours."""


def assemble(
    metadata: Json, ours: Json, defaults: Json, templates: list[Template], stay_on_lost_node: dict[str, int]
) -> Json:
    """The body. `metadata`: name, namespace, labels and owner. Raises `InvalidTemplate`."""
    kept: Json = {"metadata": {"labels": metadata["labels"]}, "spec": {"restartPolicy": "Never", **ours}}
    # Ours comes first, so that variables and mounts of a template may refer to it.
    merged = merge(kept, {"spec": defaults})
    for template in templates:
        if not template.content:
            continue
        try:
            check_template(template.content)
            template.check(template.content)
            merged = merge(merge(_give_way(merged, template.content), template.content), kept)
            check_pod(_pod(metadata, merged, stay_on_lost_node))
        except InvalidTemplate as error:
            raise InvalidTemplate(error.path, error.problem, template.root) from None
    return _pod(metadata, merged, stay_on_lost_node)


def _give_way(merged: Json, template: Mapping[str, Any]) -> Json:
    """Without our readiness probes where the template has its own: a probe asks in one way only."""
    given = (template.get("spec") or {}).get("containers") or ()
    own = {each.get("name") for each in given if _HANDLERS & set(each.get("readinessProbe") or ())}
    containers = [
        {key: value for key, value in each.items() if key != "readinessProbe" or each["name"] not in own}
        for each in merged["spec"]["containers"]
    ]
    return {**merged, "spec": {**merged["spec"], "containers": containers}}


_HANDLERS: Final = frozenset({"exec", "httpGet", "tcpSocket", "grpc"})


def _pod(metadata: Json, merged: Json, stay_on_lost_node: dict[str, int]) -> Json:
    spec = dict(merged["spec"])
    stays = spec.get("tolerations") or []
    spec["tolerations"] = [*stays, *common.leave_lost_nodes(stays, stay_on_lost_node)]
    # What an init container printed last is how anybody learns why the pod failed.
    if inits := spec.get("initContainers"):
        spec["initContainers"] = [{"terminationMessagePolicy": "FallbackToLogsOnError", **each} for each in inits]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**merged["metadata"], **metadata, "labels": merged["metadata"]["labels"]},
        "spec": spec,
    }
