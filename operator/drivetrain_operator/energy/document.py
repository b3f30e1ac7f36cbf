"""energy.yaml as it stands in its file: read again whenever it changes, and the last good one kept."""

from __future__ import annotations

import logging
from pathlib import Path

from drivetrain_energy.settings import EnergySettings, SettingsError, read

log = logging.getLogger(__name__)


class Document:
    """The settings of the platform. `problem` says why the newest text is not what holds; empty: it is."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._text: str | None = None
        self.settings = EnergySettings()
        self.problem = "" if path is not None else "the operator was given no settings of energy"
        self.known = path is None
        """What is off is off. False: it could not be read since this process began, and nothing follows from that."""

    def look(self) -> bool:
        """Read it again. Whether other settings hold now."""
        if self._path is None:
            return False
        try:
            text = self._path.read_text()
        except (OSError, ValueError) as error:
            self._tell(f"--energy-settings {self._path}: {error}")
            return False
        if text == self._text:
            return False
        self._text = text
        try:
            found = read(text)
        except SettingsError as error:
            self._tell(f"energy.yaml: {error}")
            return False
        self.problem, self.known = "", True
        changed, self.settings = found != self.settings, found
        return changed

    def _tell(self, problem: str) -> None:
        if problem != self.problem:
            log.error("settings of energy cannot be used; the last good ones hold", extra={"error": problem})
        self.problem = problem


__all__ = ["Document"]
