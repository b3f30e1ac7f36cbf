"""What the operator puts into the coordinator's environment."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from drivetrain_api import constants, logs
from drivetrain_api.logline import LogFormat
from drivetrain_api.logs import LogSettings, LogSettingsError
from drivetrain_api.runtime import RuntimeSpec
from drivetrain_coordinator.membership import Identity, Timings

_LOG: Final = LogSettings(LogFormat.AUTO)


class SettingsError(Exception):
    """The environment lacks something; the message names the variable or the file."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A coordinator's whole configuration."""

    identity: Identity
    reports: str
    credentials: Path
    host: str = "0.0.0.0"
    port: int = constants.COORDINATOR_PORT
    metrics_port: int = constants.METRICS_PORT
    standstill_seconds: float = Timings().standstill
    """People are told of a membership that has not moved for so long, unless its steps are longer."""
    log: LogSettings = _LOG
    pod: str = ""

    @property
    def about(self) -> dict[str, object]:
        """What is on every line of its log, as long as that is JSON."""
        who = self.identity
        return {"namespace": who.namespace, "job": who.job, "uid": who.job_uid, "pod": self.pod, "term": who.term}

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Read `DRIVETRAIN_*`. Raises SettingsError."""
        term = _need(env, constants.ENV_TERM)
        if not term.isdigit():
            raise SettingsError(f"{constants.ENV_TERM} must be a number, not {term!r}")
        try:
            spec = RuntimeSpec.model_validate_json(env.get(constants.ENV_SPEC, "{}"))
        except ValueError as error:
            raise SettingsError(f"{constants.ENV_SPEC} is not a runtime spec: {error}") from error
        try:
            log = logs.from_environment(env, _LOG)
        except LogSettingsError as error:
            raise SettingsError(str(error)) from None
        identity = Identity(
            job_uid=_need(env, constants.ENV_JOB_UID),
            namespace=_need(env, constants.ENV_NAMESPACE),
            job=_need(env, constants.ENV_JOB),
            term=int(term),
            processes_per_worker=spec.processes_per_worker,
        )
        folder = env.get(constants.ENV_POD_ROOT, "") + env.get(constants.ENV_CREDENTIALS, constants.CREDENTIALS_MOUNT)
        return cls(
            identity=identity,
            reports=_need(env, constants.ENV_REPORTS).rstrip("/"),
            credentials=Path(folder),
            host=env.get(constants.ENV_POD_IP) or "0.0.0.0",
            log=log,
            pod=env.get(constants.ENV_POD_NAME, ""),
        )

    def secret(self, name: str) -> str:
        """A token from the credentials folder. Raises SettingsError."""
        path = self.credentials / name
        try:
            return path.read_text().strip()
        except OSError as error:
            raise SettingsError(f"{constants.ENV_CREDENTIALS}: cannot read {path}: {error.strerror}") from error

    def server_tls(self) -> ssl.SSLContext:
        """What launchers connect to. Raises SettingsError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.credentials / "tls.crt", self.credentials / "tls.key")
        except OSError as error:
            raise SettingsError(f"{constants.ENV_CREDENTIALS}: tls.crt and tls.key do not load: {error}") from error
        return context

    def client_tls(self) -> ssl.SSLContext:
        """How the operator is verified. Raises SettingsError."""
        try:
            return ssl.create_default_context(cafile=str(self.credentials / "ca.crt"))
        except OSError as error:
            raise SettingsError(f"{constants.ENV_CREDENTIALS}: ca.crt does not load: {error}") from error


def _need(env: Mapping[str, str], name: str) -> str:
    value = env.get(name)
    if not value:
        raise SettingsError(f"{name} is not set")
    return value
