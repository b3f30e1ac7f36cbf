"""How log lines look: JSON where a machine collects them, one readable line on a terminal. Called by `main` only.

Messages are constant and carry their facts as `extra` fields; both formats show these.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from enum import StrEnum
from typing import Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_NOISY: Final = {"aiohttp.access": logging.WARNING, "kopf": logging.WARNING, "asyncio": logging.WARNING}


class LogFormat(StrEnum):
    """`auto` is `text` on a terminal and `json` elsewhere."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, logger and message first, then the record's own fields."""
        line: dict[str, object] = {
            "time": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((name, value) for name, value in fields(record).items() if name not in line)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`12:00:01 info  message  key=value`"""

    def format(self, record: logging.LogRecord) -> str:
        """Local time, level, message, fields; a traceback follows on its own lines."""
        parts = [f"{_time(record).astimezone():%H:%M:%S} {record.levelname.lower():<7} {record.getMessage()}"]
        parts.extend(f"{name}={value}" for name, value in fields(record).items())
        line = "  ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def fields(record: logging.LogRecord) -> dict[str, object]:
    """What the caller passed as `extra`."""
    return {
        name: value
        for name, value in vars(record).items()
        if name not in _STANDARD and not name.startswith(("_", "k8s"))
    }


def configure(log_format: LogFormat, level: str) -> None:
    """Send everything to stderr. Libraries that narrate their routine are held at warning."""
    as_json = log_format is LogFormat.JSON or (log_format is LogFormat.AUTO and not sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, quiet in _NOISY.items():
        logging.getLogger(name).setLevel(quiet)


def _time(record: logging.LogRecord) -> dt.datetime:
    return dt.datetime.fromtimestamp(record.created, dt.UTC)
