"""Which environment and arguments does a container get? Image, envFrom, env, then `$(VAR)` expansion.

Pure: what it needs of Secrets and ConfigMaps was read before and comes in as `Sources`.
"""

from __future__ import annotations

import base64
import math
import os
import re
from dataclasses import dataclass
from typing import Any

from drivetrain_api import quantity
from drivetrain_local.node.images import Image
from drivetrain_local.objects import Obj, dig, meta

_MODULES = "PYTHONPATH"
_REFERENCE = re.compile(r"\$\$|\$\(([^)]*)\)")
_KEYED = re.compile(r"^metadata\.(labels|annotations)\['([^']+)'\]$")


class ConfigError(Exception):
    """The container cannot be configured now: CreateContainerConfigError, tried again later."""


@dataclass(frozen=True)
class Sources:
    """Secrets, ConfigMaps and claims by (kind, name); what does not exist is absent."""

    found: dict[tuple[str, str], Obj]

    def data(self, kind: str, name: str, *, optional: bool) -> dict[str, bytes] | None:
        """The content by key. Raises ConfigError when it is missing and not optional."""
        obj = self.found.get((kind, name))
        if obj is None:
            if optional:
                return None
            raise ConfigError(f'{kind.lower()} "{name}" not found')
        if kind == "Secret":
            return {key: base64.b64decode(value) for key, value in (obj.get("data") or {}).items()}
        plain = {key: value.encode() for key, value in (obj.get("data") or {}).items()}
        return plain | {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}


def references(pod: Obj) -> set[tuple[str, str]]:
    """(kind, name) of every Secret, ConfigMap and claim that a pod's containers and volumes name."""
    found: set[tuple[str, str]] = set()
    spec = pod["spec"]
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        for source in container.get("envFrom") or []:
            found |= _named(source, "configMapRef", "secretRef")
        for variable in container.get("env") or []:
            found |= _named(variable.get("valueFrom") or {}, "configMapKeyRef", "secretKeyRef")
    for volume in spec.get("volumes") or []:
        if name := dig(volume, "persistentVolumeClaim", "claimName"):
            found.add(("PersistentVolumeClaim", name))
        parts = dig(volume, "projected", "sources", default=[])
        for part in [volume, *parts]:
            if name := dig(part, "configMap", "name"):
                found.add(("ConfigMap", name))
            if name := dig(part, "secret", "secretName") or dig(part, "secret", "name"):
                found.add(("Secret", name))
    return found


def environment(
    pod: Obj, container: Obj, image: Image, sources: Sources, pod_ip: str, node_ip: str, base: dict[str, str]
) -> dict[str, str]:
    """The variables of a container; later ones may refer to earlier ones. Raises ConfigError."""
    env = {**image.env, **base}
    for source in container.get("envFrom") or []:
        env |= _env_from(source, sources)
    for variable in container.get("env") or []:
        if "valueFrom" in variable:
            value = _value_from(variable["valueFrom"], pod, container, sources, pod_ip, node_ip)
            if value is not None:
                env[variable["name"]] = value
        else:
            env[variable["name"]] = expand(variable.get("value") or "", env)
    return env | {_MODULES: _modules(env, image)} if _MODULES in image.env else env


def _modules(env: dict[str, str], image: Image) -> str:
    """A container's PYTHONPATH comes before what is in its image, and hides none of it: there it is installed."""
    parts = [*env[_MODULES].split(os.pathsep), *image.env[_MODULES].split(os.pathsep)]
    return os.pathsep.join(dict.fromkeys(part for part in parts if part))


def arguments(container: Obj, image: Image, env: dict[str, str]) -> tuple[str, ...]:
    """`command` replaces the entrypoint and drops the image's own arguments, `args` replaces only these."""
    command, args = container.get("command"), container.get("args")
    head = command or image.entrypoint
    tail = args if args is not None else () if command else image.cmd
    return tuple(expand(part, env) for part in [*head, *tail])


def expand(text: str, env: dict[str, str]) -> str:
    """`$(VAR)` where VAR is known, `$$` as `$`; everything else stays as it is."""

    def replacement(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return env.get(match[1], match[0])

    return _REFERENCE.sub(replacement, text)


def field_value(pod: Obj, path: str, pod_ip: str, node_ip: str) -> str:
    """The downward API. Raises ConfigError on a path that Kubernetes does not know."""
    if keyed := _KEYED.match(path):
        return str((meta(pod).get(keyed[1]) or {}).get(keyed[2], ""))
    match path:
        case "metadata.name" | "metadata.namespace" | "metadata.uid":
            return str(meta(pod)[path.partition(".")[2]])
        case "metadata.labels" | "metadata.annotations":
            pairs = meta(pod).get(path.partition(".")[2]) or {}
            return "\n".join(f'{key}="{value}"' for key, value in sorted(pairs.items()))
        case "status.podIP" | "status.podIPs":
            return pod_ip
        case "status.hostIP" | "status.hostIPs":
            return node_ip
        case "spec.nodeName" | "spec.serviceAccountName":
            return str(dig(pod, *path.split("."), default=""))
        case _:
            raise ConfigError(f"fieldRef {path!r} is not supported")


def _named(source: Obj, config_map: str, secret: str) -> set[tuple[str, str]]:
    pairs = (("ConfigMap", dig(source, config_map, "name")), ("Secret", dig(source, secret, "name")))
    return {(kind, name) for kind, name in pairs if name}


def _env_from(source: Obj, sources: Sources) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    for kind, field in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
        if reference := source.get(field):
            data = sources.data(kind, reference["name"], optional=bool(reference.get("optional")))
            return {prefix + key: value.decode(errors="replace") for key, value in (data or {}).items()}
    return {}


def _value_from(source: Obj, pod: Obj, container: Obj, sources: Sources, pod_ip: str, node_ip: str) -> str | None:
    if reference := source.get("fieldRef"):
        return field_value(pod, reference["fieldPath"], pod_ip, node_ip)
    if reference := source.get("resourceFieldRef"):
        return _resource(container, reference)
    for kind, field in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        if reference := source.get(field):
            optional = bool(reference.get("optional"))
            data = sources.data(kind, reference["name"], optional=optional) or {}
            if reference["key"] in data:
                return data[reference["key"]].decode(errors="replace")
            if optional:
                return None
            raise ConfigError(f"couldn't find key {reference['key']} in {kind} {reference['name']}")
    raise ConfigError(f"valueFrom {sorted(source)} is not supported")


def _resource(container: Obj, reference: Obj) -> str:
    where, _, name = reference["resource"].partition(".")
    amount: Any = dig(container, "resources", where, name, default="0")
    divisor = quantity.parse(reference.get("divisor") or "1") or 1
    return str(math.ceil(quantity.parse(amount) / divisor))
