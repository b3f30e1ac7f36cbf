"""With which headers and by whose certificates is a Prometheus asked? Files are read for each request: they change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from drivetrain_energy.feeds.errors import Unset
from drivetrain_energy.feeds.transport import Folder, secret
from drivetrain_energy.settings.reached import Reached

MAX_CA: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Asking:
    """Of one request. Never shown: headers may be credentials."""

    headers: dict[str, str]
    ca: str | None


def asking(given: Reached, secrets: Folder) -> Asking:
    """Raises Unset."""
    headers = {"Accept": "application/json"} | given.headers
    headers |= {name: secret(secrets, file) for name, file in given.header_files.items()}
    if given.token_file is not None:
        headers["Authorization"] = f"Bearer {secret(secrets, given.token_file)}"
    return Asking(headers, _certificates(secrets, given.ca_file) if given.ca_file is not None else None)


def _certificates(secrets: Folder, name: str) -> str:
    found = secrets.read(name)
    try:
        text = found.decode("ascii")
    except UnicodeDecodeError:
        text = ""
    if len(found) > MAX_CA or "-----BEGIN CERTIFICATE-----" not in text:
        raise Unset(f"file {name} has no certificate in PEM, or more than {MAX_CA} bytes")
    return text


__all__ = ["Asking", "asking"]
