"""What has to be there of spec.storage before ranks start, and what has to be taken out of the pod before it ends?

A folder in a volume is made, and that is all. One that is copied to a URL is filled with what the job has there, and
copied while ranks work and once they have ended (`drivetrain/results`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from drivetrain.launch.errors import StorageFailed
from drivetrain.launch.leave import EarlySignals
from drivetrain.results.folder import where_mounted
from drivetrain.results.upkeep import Upkeep
from drivetrain_api.constants import ENV_OUTPUT_DIR
from drivetrain_api.messages import NOT_COPIED
from drivetrain_api.runtime import RuntimeSpec, RuntimeStorage

log = logging.getLogger(__name__)

COPY_SECONDS: Final = 600.0
"""The last copy of a job that has ended well may take so long."""
FAILED_COPY_SECONDS: Final = 20.0
"""One of a worker that is to be replaced: its place stays empty until then."""
_LOOK_SECONDS: Final = 0.05
_ADVICE: Final = (
    "make it so in the volume (mode, owner, or fsGroup of podTemplate's securityContext), or let podTemplate run "
    "workers as its owner"
)


class OutputFolder:
    """The job's folder in this pod."""

    def __init__(self, folder: Path, upkeep: Upkeep | None, url: str) -> None:
        self._folder = folder
        self._upkeep = upkeep
        self._url = url

    @classmethod
    def made(cls, spec: RuntimeSpec, environ: Mapping[str, str], early: EarlySignals) -> OutputFolder | None:
        """Make it; with a URL, fill it. None if the job has none. Raises `StorageFailed`, `ToldToLeave`."""
        if spec.storage is None:
            return None
        folder = where_mounted(spec.storage.folder, environ)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageFailed(_refused(folder, error)) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StorageFailed(f"spec.storage: {folder} is not writable for uid {os.getuid()}: {_ADVICE}")
        return cls(folder, _filled(folder, spec.storage, early), spec.storage.url or "")

    @property
    def environment(self) -> dict[str, str]:
        """What ranks are told of it."""
        return {ENV_OUTPUT_DIR: str(self._folder)}

    def start(self) -> None:
        """Ranks write there from now on."""
        if self._upkeep is not None:
            self._upkeep.start()

    async def end(self, seconds_left: Callable[[], float]) -> None:
        """Ranks have ended: take out what they left. Raises `StorageFailed` when there is no time left for it."""
        if self._upkeep is None:
            return
        began, told = time.monotonic(), time.monotonic()
        self._upkeep.end()
        while not self._upkeep.ended:
            if seconds_left() <= 0.0:
                why = self._upkeep.failure or "it takes too long"
                raise StorageFailed(f"{NOT_COPIED}{self._url}, and they go with this pod: {why}")
            if time.monotonic() - told > 10.0:
                told = time.monotonic()
                log.info("results are still being copied", extra={"seconds": round(told - began)})
            await asyncio.sleep(_LOOK_SECONDS)


def _filled(folder: Path, storage: RuntimeStorage, early: EarlySignals) -> Upkeep | None:
    if storage.url is None:
        return None
    # Only for those who need it: what speaks to stores takes a while to import.
    from drivetrain.results.copying import Copying
    from drivetrain.results.place import files_of
    from drivetrain.snapshot.errors import StorageError

    try:
        upkeep = Upkeep(Copying(folder, files_of(storage)))
        with early.ending(f"all was brought from {storage.url}"):
            number = upkeep.bring()
    except StorageError as error:
        raise StorageFailed(f"spec.storage: {error}") from error
    if number:
        log.info("files brought", extra={"files": number, "url": storage.url, "folder": str(folder)})
    return upkeep


def _refused(folder: Path, error: OSError) -> str:
    advice = f": {_ADVICE}" if isinstance(error, PermissionError) else ""
    return f"spec.storage: cannot make {folder} as uid {os.getuid()}: {error.strerror}{advice}"
