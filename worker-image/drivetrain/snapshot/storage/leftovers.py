"""Which temporary files belong to nobody any more? Those that a killed process has left in a folder of snapshots.

A living writer may have one of its own there, for as long as the storage takes. So only those go that are an hour older
than a file which was written just now, both by the storage's own clock: this machine's is never asked.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

TEMPORARY: Final = ".tmp-"
OLD_SECONDS: Final = 3600.0


def sweep(folder: Path, now: float) -> None:
    """Delete them. `now`: when a file was written in this storage, by its clock; the newer the better. What cannot be
    deleted stays."""
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        for each in found:
            if each.name.startswith(TEMPORARY) and each.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    if each.stat(follow_symlinks=False).st_mtime < now - OLD_SECONDS:
                        os.unlink(each.path)
