"""Flags of a job's pods: environment, Secrets, volumes, resources, and where they run."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence

from drivetrain_cli.errors import UsageError
from drivetrain_cli.pack.pods import Mount, PodWish


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """In a group of their own."""
    pods = parser.add_argument_group("the workers' pods (flags in capitals may be repeated)")
    pods.add_argument(
        "--env", action="append", default=[], metavar="NAME[=VALUE]", help="environment; without a value, that of here"
    )
    pods.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="NAME[:PATH]",
        help="a Secret as variables, or as files at PATH",
    )
    pods.add_argument(
        "--volume", action="append", default=[], metavar="CLAIM:PATH[:ro]", help="mount a PersistentVolumeClaim"
    )
    pods.add_argument("--cpus", metavar="QUANTITY", help="CPUs that each requests, such as 4 or 500m")
    pods.add_argument("--memory", metavar="QUANTITY", help="memory that each requests and may use, such as 8Gi")
    pods.add_argument(
        "--node-selector", action="append", default=[], metavar="LABEL=VALUE", help="only on nodes with this label"
    )
    pods.add_argument("--priority-class", metavar="NAME", help="their PriorityClass")
    pods.add_argument("--service-account", metavar="NAME", help="their ServiceAccount")


def wished(arguments: argparse.Namespace) -> PodWish:
    """Raises UsageError that names the flag."""
    secrets = [_parts("--secret", text, "NAME[:PATH]", 1, 2) for text in arguments.secret]
    volumes = [_parts("--volume", text, "CLAIM:PATH[:ro]", 2, 3) for text in arguments.volume]
    for text, parts in zip(arguments.volume, volumes, strict=True):
        if parts[2:] not in ([], ["ro"], ["rw"]):
            raise UsageError(f"--volume: {text!r} ends with neither :ro nor :rw")
    resources = {"cpu": arguments.cpus, "memory": arguments.memory}
    return PodWish(
        environment=_environment(arguments.env),
        secrets=tuple(parts[0] for parts in secrets if len(parts) == 1),
        secret_files=tuple(Mount(parts[0], parts[1]) for parts in secrets if len(parts) == 2),
        volumes=tuple(Mount(parts[0], parts[1], parts[2:] == ["ro"]) for parts in volumes),
        resources={name: _quantity(name, value) for name, value in resources.items() if value is not None},
        node_selector=dict(_pair("--node-selector", text, "LABEL=VALUE") for text in arguments.node_selector),
        priority_class=arguments.priority_class,
        service_account=arguments.service_account,
    )


def _environment(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals and text in os.environ:
            value = os.environ[text]
        elif not name or not equals:
            raise UsageError(f"--env: want NAME=VALUE, or a variable that is set here, not {text!r}")
        found[name] = value
    return found


def _pair(flag: str, text: str, want: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"{flag}: want {want}, not {text!r}")
    return name, value


def _parts(flag: str, text: str, want: str, least: int, most: int) -> list[str]:
    parts = text.split(":")
    if not least <= len(parts) <= most or not all(parts):
        raise UsageError(f"{flag}: want {want}, not {text!r}")
    if len(parts) > 1 and not parts[1].startswith("/"):
        raise UsageError(f"{flag}: {parts[1]!r} in {text!r} is no absolute path")
    return parts


def _quantity(name: str, text: str) -> str:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?", text):
        raise UsageError(f"--{'cpus' if name == 'cpu' else name}: {text!r} is no quantity, such as 4, 500m or 8Gi")
    return text
