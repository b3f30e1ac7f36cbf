"""How a process of Drivetrain's logs: called once, by its entry point, with what flags or environment say.

Messages are constant and carry their facts as `extra` fields; `logline` says what becomes of both.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from drivetrain_api.constants import ENV_LOG_FORMAT, ENV_LOG_LEVEL
from drivetrain_api.logline import SETTABLE, LogFormat, as_json, as_text, stamp

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NARRATORS: Final = ("aiohttp.access", "kopf", "asyncio")
"""Libraries that tell their routine: they are heard from `warning` on."""
_DEFECT: Final = "ended by a defect"


class LogSettingsError(ValueError):
    """A format or level that does not exist; the message names the variable."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is chosen for a process."""

    format: LogFormat = LogFormat.TEXT
    level: str = "info"

    def as_json(self) -> bool:
        """Whether lines are JSON."""
        return self.format is LogFormat.JSON or (self.format is LogFormat.AUTO and not sys.stderr.isatty())


def from_environment(env: Mapping[str, str], default: LogSettings) -> LogSettings:
    """What `DRIVETRAIN_LOG_FORMAT` and `DRIVETRAIN_LOG_LEVEL` say. Raises LogSettingsError."""
    formats = [str(each) for each in LogFormat]
    chosen = _one_of(env, ENV_LOG_FORMAT, formats, str(default.format))
    return LogSettings(LogFormat(chosen), _one_of(env, ENV_LOG_LEVEL, SETTABLE, default.level))


def environment(chosen: LogSettings) -> dict[str, str]:
    """What makes the processes of a pod log like that."""
    return {ENV_LOG_FORMAT: str(chosen.format), ENV_LOG_LEVEL: chosen.level}


def _one_of(env: Mapping[str, str], name: str, choices: list[str] | tuple[str, ...], default: str) -> str:
    given = env.get(name) or default
    if given not in choices:
        raise LogSettingsError(f"{name} must be one of {', '.join(choices)}, not {given!r}")
    return given


class Formatter(logging.Formatter):
    """Lines of one component. `about` is on every line where the record says nothing else; it may change meanwhile."""

    def __init__(self, component: str, about: Mapping[str, object], *, json: bool, short: bool = False) -> None:
        super().__init__()
        self._component = component
        self._about = about
        self._json = json
        self._short = short

    def format(self, record: logging.LogRecord) -> str:
        """Without a newline at its end; with some in it only where text has an exception."""
        fields: dict[str, object] = {
            "time": stamp(record.created),
            "level": record.levelname.lower(),
            "component": self._component,
            "message": record.getMessage(),
            "logger": record.name,
        }
        own = {name: value for name, value in vars(record).items() if name not in _STANDARD and name[:3] != "k8s"}
        # What text has once at the top of a page, JSON has on every line.
        of_process = self._about if self._json else {}
        fields |= {name: value for name, value in {**of_process, **own}.items() if name not in fields}
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = self.formatException(record.exc_info)
        return as_json(fields) if self._json else as_text(fields, short=self._short)


def configure(
    component: str,
    chosen: LogSettings,
    about: Mapping[str, object] | None = None,
    *,
    handler: logging.Handler | None = None,
    short: bool = False,
) -> None:
    """All that this process logs goes to `handler` (default: stderr), and what ends it, or a thread of it, too."""
    handler = handler or logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(component, about or {}, json=chosen.as_json(), short=short))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(chosen.level.upper())
    for name in _NARRATORS:
        logging.getLogger(name).setLevel(logging.WARNING)
    log = logging.getLogger(component)

    def ended(kind: type[BaseException], error: BaseException, trace: object) -> None:
        if issubclass(kind, Exception):
            log.critical(_DEFECT, exc_info=error)
        else:
            sys.__excepthook__(kind, error, error.__traceback__)  # Ctrl-C

    def thread_ended(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and isinstance(args.exc_value, Exception):
            log.critical(_DEFECT, exc_info=args.exc_value, extra={"of_thread": getattr(args.thread, "name", "")})

    sys.excepthook = ended
    threading.excepthook = thread_ended
