"""How does a thread wait for a collective, and stop waiting when its membership is over?

gloo cannot abort: a survivor whose peer is frozen would block for half an hour. So nobody blocks in gloo. A wait here
is a wait on a queue that two parties feed: the operation when it completes, and the membership when it ends. The
thread that owns the link to the launcher ends memberships; it never calls torch, so it can never be stuck behind one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from drivetrain.errors import CommFault, Interrupted, MembershipOver

_DONE: Final = "done"


class Interrupt:
    """The end of one membership epoch: raised once, from any thread, and seen by every wait, present and future."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: set[SimpleQueue[str]] = set()
        self._reason: str | None = None
        self._at_end: list[Callable[[], None]] = []

    @property
    def reason(self) -> str | None:
        """Why the membership is over; None while it stands."""
        return self._reason

    def end(self, reason: str) -> None:
        """End the membership: every wait raises `MembershipOver`. Only the first call counts."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            waiters = list(self._waiters)
            at_end, self._at_end = self._at_end, []
        for waiter in waiters:
            waiter.put(reason)
        for callback in at_end:
            callback()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the membership ends, at once if it has. From any thread: it must not call torch."""
        with self._lock:
            if self._reason is None:
                self._at_end.append(callback)
                return
        callback()

    def check(self) -> None:
        """Raise `MembershipOver` if the membership is over."""
        if self._reason is not None:
            raise MembershipOver(self._reason)

    def wait(self, arm: Callable[[Callable[[], None]], None], deadline_seconds: float | None, what: str) -> None:
        """Wait until the callback that `arm` was given is called.

        Raises `MembershipOver` when the membership ends first, `CommFault` when the deadline (seconds) passes.
        The callback may be called from any thread, also after this method has returned.
        """
        self.check()
        mailbox: SimpleQueue[str] = SimpleQueue()
        with self._lock:
            self._waiters.add(mailbox)
        try:
            if self._reason is not None:
                raise MembershipOver(self._reason)
            arm(lambda: mailbox.put(_DONE))
            try:
                news = mailbox.get(timeout=deadline_seconds)
            except Empty:
                raise CommFault(f"{what}: nothing for {deadline_seconds} s") from None
        finally:
            with self._lock:
                self._waiters.discard(mailbox)
        if news is not _DONE:
            raise MembershipOver(news)

    def call(self, function: Callable[[], object], deadline_seconds: float | None, what: str) -> object:
        """Run a blocking `function` in a helper thread and wait for it, abandonably.

        For the calls that offer no completion callback (forming a group, gloo's send and recv). When the wait is
        abandoned the thread runs on until its call returns; its result is dropped. Errors of `function` come out as
        `CommFault`.
        """
        outcome: list[object] = []
        failure: list[BaseException] = []

        def arm(done: Callable[[], None]) -> None:
            def body() -> None:
                try:
                    outcome.append(function())
                except BaseException as error:  # noqa: BLE001  (handed to the waiting thread, whatever it is)
                    failure.append(error)
                done()

            threading.Thread(target=body, name=f"drivetrain-{what}", daemon=True).start()

        started = time.monotonic()
        self.wait(arm, deadline_seconds, what)
        if failure and isinstance(failure[0], Interrupted):
            raise failure[0]  # the helper saw the membership's end before this thread did
        if failure:
            raise CommFault(f"{what}: {failure[0]} (after {time.monotonic() - started:.1f} s)") from failure[0]
        return outcome[0]
