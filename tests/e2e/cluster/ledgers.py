"""How do ledgers survive the pods that wrote them? By hard links, made while the pods live.

A pod's /tmp is an emptyDir, which lies on this machine below its node's folder. A link keeps the file, and all that is
written to it later, when the kubelet removes the pod: also on a node that is cut off, where kubectl reaches nothing.
"""

from __future__ import annotations

import glob
import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster.layout import run_dir

_PLACE = "kubelet/pods/*/volumes/kubernetes.io~empty-dir/tmp"
_EVERY_SECONDS = 0.1


def ledgers(job_uid: str) -> list[Path]:
    """What the ranks of a job have written, in the pods that exist now.

    Kubelets remove pods meanwhile: `Path.glob` raises when a folder goes between its listing and its own scan, the
    module's functions pass it over.
    """
    top = run_dir() / "nodes"
    return [top / name for name in glob.iglob(f"*/{_PLACE}/ledger-{job_uid}-*.jsonl", root_dir=top)]


class Collector:
    """Links the ledgers of one job into `folder` as they appear. A context manager."""

    def __init__(self, job_uid: str, folder: Path) -> None:
        self._job_uid = job_uid
        self._folder = folder
        self._known: set[Path] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledgers", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_SECONDS):
            for source in ledgers(self._job_uid):
                if source not in self._known:
                    self._known.add(source)
                    pod_uid = source.parents[3].name
                    with suppress(FileNotFoundError):  # the pod went in this very moment; then it did nothing yet
                        os.link(source, self._folder / f"ledger-{pod_uid}-{source.name}")
