"""Tells a job how far its script is, from a loop of any kind: `report(step, steps, loss=…)`, on all ranks or on one.

In the words of Kubeflow Trainer's progress endpoint, so a script that calls it tells its progress there, too. Training
never fails for it, and never waits for it longer than a second.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, SupportsFloat

from drivetrain import say

EVERY_SECONDS: Final = 1.0
"""More often a report would only replace one that nobody has read."""
_WAIT_SECONDS: Final = 1.0
_PAUSE_LIMIT_SECONDS: Final = 60.0


class _Teller:
    """When the next report is due. One that fails is followed by a pause that doubles."""

    def __init__(self) -> None:
        self.due = 0.0
        self._pause = EVERY_SECONDS

    def tell(self, url: str, status: Mapping[str, object]) -> None:
        began = time.monotonic()
        try:
            _post(url, status)
            self._pause = EVERY_SECONDS
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._pause = min(_PAUSE_LIMIT_SECONDS, 2 * self._pause)
            say.note(f"progress is not told for {self._pause:g} s: {error}", level="warning")
        self.due = began + self._pause


_TELLER: Final = _Teller()


def report(step: int, steps: int | None = None, /, **metrics: SupportsFloat) -> None:
    """`step` steps are done, of `steps`. Metrics are numbers or tensors of one element; `loss` has its own column.

    At most one report a second goes out, and only that of rank 0; the last step's always does. Nothing is done where
    nobody listens.
    """
    url = os.environ.get("KUBEFLOW_TRAINER_SERVER_URL", "")
    last = steps is not None and step >= steps
    if not url or os.environ.get("RANK", "0") != "0" or (time.monotonic() < _TELLER.due and not last):
        return
    told = {"current_step": step, **({} if steps is None else {"total_steps": steps})}
    values = {**{name: float(value) for name, value in metrics.items()}, **told}
    status: dict[str, object] = {
        "lastUpdatedTime": datetime.now(UTC).isoformat(),
        "metrics": [{"name": name, "value": str(value)} for name, value in values.items()],
    }
    if steps:
        status["progressPercentage"] = max(0, min(100, 100 * step // steps))
    _TELLER.tell(url, status)


def _post(url: str, status: Mapping[str, object]) -> None:
    with open(os.environ.get("KUBEFLOW_TRAINER_SERVER_TOKEN", ""), encoding="utf-8") as file:
        token = file.read().strip()
    request = urllib.request.Request(
        url,
        data=json.dumps({"trainerStatus": status}).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    authority = os.environ.get("KUBEFLOW_TRAINER_SERVER_CA_CERT")
    context = ssl.create_default_context(cafile=authority) if authority and url.startswith("https:") else None
    with urllib.request.urlopen(request, timeout=_WAIT_SECONDS, context=context) as answer:
        answer.read()
