"""When is the folder of results copied to its URL? Now and then while ranks work, and once they have ended.

A thread of the launcher: uploads wait for a network, and the launcher must not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from drivetrain.results.copying import Copying
from drivetrain.snapshot.errors import StorageError

log = logging.getLogger(__name__)

EVERY_SECONDS: Final = 60.0
SETTLED_SECONDS: Final = 10.0
"""A file that was written to since is not copied yet: it may be half of what it will be."""
BRING_SECONDS: Final = 120.0
_WAITS: Final = (0.5, 15.0)


class Upkeep:
    """Of one pod's folder."""

    def __init__(self, copying: Copying, every_seconds: float = EVERY_SECONDS) -> None:
        self._copying = copying
        self._every = every_seconds
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._work, name="results", daemon=True)
        self.failure: str | None = None
        """Why what is in the folder is not in the storage, once it has ended; empty as long as it is being copied."""
        self._said = ""

    def bring(self, seconds: float = BRING_SECONDS) -> int:
        """Fill the folder, trying for so long; returns how many files it has. Raises `StorageError`."""
        until, wait = time.monotonic() + seconds, _WAITS[0]
        while True:
            try:
                return self._copying.bring()
            except StorageError as error:
                if time.monotonic() + wait > until:
                    raise
                self._say(f"what the job has in its storage cannot be read yet, trying again: {error}")
            time.sleep(wait)
            wait = min(_WAITS[1], 2 * wait)

    def start(self) -> None:
        """From now on, copy what has changed."""
        self._thread.start()

    def end(self) -> None:
        """Ranks have ended: copy all that is left. `ended` says when that is done."""
        self.failure = ""
        self._ends.set()

    @property
    def ended(self) -> bool:
        """All is there."""
        return not self._thread.is_alive()

    def _work(self) -> None:
        while not self._ends.wait(self._every):
            self._try(lambda: self._copying.send(SETTLED_SECONDS))
        wait = _WAITS[0]
        while not self._try(lambda: self._copying.send()):
            time.sleep(wait)
            wait = min(_WAITS[1], 2 * wait)
        self.failure = None

    def _try(self, copy: Callable[[], int]) -> bool:
        try:
            if number := copy():
                log.info("results copied to the job's storage", extra={"files": number})
            self._said = ""
        except StorageError as error:
            self.failure = str(error)
            self._say(f"results cannot be copied yet, trying again: {error}")
            return False
        except Exception as error:  # noqa: BLE001  It must not end unheard: somebody waits for it.
            self.failure = f"{type(error).__name__}: {error}"
            self._say(f"results cannot be copied yet, trying again: {self.failure}")
            return False
        return True

    def _say(self, text: str) -> None:
        """Once for each reason."""
        if text != self._said:
            self._said = text
            log.warning(text)
