"""What does a script's author hear of where a file went? Once for each file: where it is, and if it will not stay."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from drivetrain.results.folder import output_folder
from drivetrain.results.lasting import what_ends_it
from drivetrain.say import note
from drivetrain_api.constants import ENV_JOB


class Told:
    """What was said already."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._paths: set[Path] = set()
        self._warned = False

    def saved(self, path: Path, step: int) -> None:
        """`run.save` has written it."""
        if path in self._paths:
            return
        self._paths.add(path)
        job = self._environ.get(ENV_JOB)
        if job is None:
            return  # no job: whoever started this gave the path, and sees the file
        why = what_ends_it(path, self._environ)
        if why is None:
            note(f"run.save: step {step} is in {path.resolve()}{self._fetched_by(job, path)}")
        elif not self._warned:
            self._warned = True
            note(
                f"run.save: step {step} is in {path.resolve()}, which {why} and is lost with it: set spec.storage (a "
                "PersistentVolumeClaim or a URL) in the job, and relative paths go there (docs/results.md)",
                level="warning",
            )

    def _fetched_by(self, job: str, path: Path) -> str:
        folder = output_folder(self._environ)
        if folder is None or not path.is_relative_to(folder):
            return ""
        return f"; fetch it with: drivetrain get {job}:{path.relative_to(folder)} ."
