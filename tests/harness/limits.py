"""When is a test ended that does not end? When its processes have done nothing for as long as its limit says.

pytest-timeout asks us to set its timer. The limit (`timeout` in pyproject.toml, `@pytest.mark.timeout`) is then one of
patience, as that of every wait is: a slow machine takes its time, a test that hangs is ended after that many seconds
and shows the stacks of its threads. Nothing is looked at before the limit has passed by the clock.
"""

from __future__ import annotations

import signal
from types import FrameType

import pytest
import pytest_timeout

from harness.patience import Patience

_AGAIN_SECONDS = 5.0


def set_timer(item: pytest.Item, settings: pytest_timeout.Settings) -> bool | None:
    """As pytest-timeout's own with the method `signal`, but the limit is one of patience."""
    if settings.method != "signal":
        return None
    patience = Patience(settings.timeout)

    def look(number: int, frame: FrameType | None) -> None:
        if patience.left():
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(f"\n{item.nodeid}: {patience}")
        pytest_timeout.timeout_sigalrm(item, settings)

    def cancel() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    item.cancel_timeout = cancel  # type: ignore[attr-defined]  # where pytest-timeout looks for it
    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS, _AGAIN_SECONDS)
    return True
