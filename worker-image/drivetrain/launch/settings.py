"""What was this launcher told to run, for which job and seat? Arguments and environment, checked once."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from drivetrain.launch.environment import ENV_SPARE_LEVEL, SPARE_IMPORT, SPARE_MODEL
from drivetrain.launch.errors import CommandError, UsageError
from drivetrain.launch.readiness import ready_file
from drivetrain_api import constants, logs
from drivetrain_api.logs import LogSettings, LogSettingsError
from drivetrain_api.runtime import RuntimeSpec

ENV_GRACE: Final = "DRIVETRAIN_GRACE_SECONDS"
LOG: Final = LogSettings()
"""Amid a script's lines, text of the same kind."""
USAGE: Final = "usage: drivetrain-launcher -- COMMAND [ARGUMENT...]"


@dataclass(frozen=True)
class Settings:
    """All that the launcher knows before it talks to anybody."""

    command: tuple[str, ...]
    job_uid: str
    pod_uid: str
    pod_name: str
    index: int
    address: str
    port: int
    credentials: Path
    reports: str | None
    """Base URL of the operator's reports server; None if this pod was made by an operator that does not listen."""
    spec: RuntimeSpec
    grace_seconds: float
    spare_level: str
    ready_file: Path
    """What says to Kubernetes that the worker takes part."""
    recordings: Path
    """Where ranks' last collectives are kept when something goes wrong."""
    boot: str = field(default_factory=lambda: uuid.uuid4().hex[:12])


def read_settings(argv: Sequence[str], env: Mapping[str, str]) -> Settings:
    """Settings from `argv` (without the program's name) and `env`; UsageError or CommandError name what is wrong."""
    if not argv or argv[0] != "--" or len(argv) < 2:
        raise UsageError(USAGE)
    path = env.get("PATH", os.defpath)
    command = (_present(argv[1], path), *argv[2:])
    if shutil.which(command[0], path=path) is None:
        raise CommandError(f"command not found or not executable: {command[0]!r} (spec.command)")
    coordinator = _required(env, constants.ENV_COORDINATOR)
    address, _, port = coordinator.rpartition(":")
    if not address or not port.isdecimal():
        raise UsageError(f"{constants.ENV_COORDINATOR} must be address:port, not {coordinator!r}")
    index = _required(env, constants.ENV_INDEX)
    if not index.isdecimal():
        raise UsageError(f"{constants.ENV_INDEX} must be a number, not {index!r}")
    try:
        spec = RuntimeSpec.model_validate_json(env.get(constants.ENV_SPEC, "{}"))
    except ValidationError as error:
        raise UsageError(f"{constants.ENV_SPEC}: {error}") from error
    try:
        grace = float(env.get(ENV_GRACE, "30"))
    except ValueError as error:
        raise UsageError(f"{ENV_GRACE} must be a number of seconds, not {env[ENV_GRACE]!r}") from error
    return Settings(
        command=command,
        job_uid=_required(env, constants.ENV_JOB_UID),
        pod_uid=_required(env, constants.ENV_POD_UID),
        pod_name=_required(env, constants.ENV_POD_NAME),
        index=int(index),
        address=address.strip("[]"),
        port=int(port),
        credentials=_credentials(env),
        reports=env.get(constants.ENV_REPORTS) or None,
        spec=spec,
        grace_seconds=grace,
        ready_file=ready_file(env),
        recordings=_recordings(env),
        # A CUDA context in a spare takes GPU memory from the rank beside it; without a GPU a spare may go all the way.
        spare_level=env.get(ENV_SPARE_LEVEL) or (SPARE_IMPORT if Path("/dev/nvidiactl").exists() else SPARE_MODEL),
    )


def chosen_log(env: Mapping[str, str]) -> LogSettings:
    """How the launcher logs, and what Drivetrain prints in ranks. Raises UsageError."""
    try:
        return logs.from_environment(env, LOG)
    except LogSettingsError as error:
        raise UsageError(str(error)) from None


def _present(program: str, path: str) -> str:
    """Many images have a `python3` and no `python`, or the other way round: then it is this interpreter."""
    if program in ("python", "python3") and shutil.which(program, path=path) is None:
        return sys.executable
    return program


def _recordings(env: Mapping[str, str]) -> Path:
    root = env.get(constants.ENV_POD_ROOT, "").rstrip("/")
    return Path(root + constants.RECORDINGS_FOLDER) if root else Path(tempfile.gettempdir(), "drivetrain-collectives")


def _required(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "")
    if not value:
        raise UsageError(f"{name} is not set; the operator sets it in every worker pod")
    return value


def _credentials(env: Mapping[str, str]) -> Path:
    folder = env.get(constants.ENV_CREDENTIALS, constants.CREDENTIALS_MOUNT)
    root = env.get(constants.ENV_POD_ROOT, "")
    if root and not folder.startswith(root):
        folder = root.rstrip("/") + folder
    for name in ("token", "ca.crt"):
        if not (Path(folder) / name).is_file():
            raise UsageError(f"{constants.ENV_CREDENTIALS}: no file {name!r} in {folder}")
    return Path(folder)
