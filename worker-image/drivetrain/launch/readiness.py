"""Does this worker take part? Told to Kubernetes by a file that the pod's readiness probe looks for.

A budget of disruptions counts ready pods: the next worker may be evicted once its predecessor's successor holds the
training state, not once its container runs. What has taken part stays ready, whatever becomes of the membership.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path

from drivetrain_api.constants import ENV_POD_ROOT, READY_FILE

log = logging.getLogger(__name__)


def ready_file(environ: Mapping[str, str]) -> Path:
    """Where the probe looks."""
    return Path(environ.get(ENV_POD_ROOT, "").rstrip("/") + READY_FILE)


class Readiness:
    """Not ready at first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told = False
        with contextlib.suppress(OSError):
            path.unlink()

    def tell(self, *, takes_part: bool) -> None:
        """Called again and again."""
        if self._told or not takes_part:
            return
        self._told = True
        try:
            self._path.touch()
        except OSError as error:
            # Only drains and people's eyes miss it.
            log.warning("cannot tell that the worker is ready", extra={"error": str(error)})
