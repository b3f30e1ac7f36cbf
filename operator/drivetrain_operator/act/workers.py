"""Who takes keys from the queue, and what becomes of a pass that fails?"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from drivetrain_operator.act.jobs import JobKey
from drivetrain_operator.act.queue import Item, Priority, ShutDown, WorkQueue
from drivetrain_operator.act.reconciler import Pass
from drivetrain_operator.clock import Clock, within
from drivetrain_operator.kube.errors import ApiError, Conflict, KubeError

log = logging.getLogger(__name__)

PASS_SECONDS: Final = 120.0
"""A pass that takes longer is cancelled and tried again; each of its requests has a far shorter limit."""


class PassObserver(Protocol):
    """Told how each pass ended. Must be cheap and must not raise."""

    def reconciled(self, result: str) -> None: ...

    def reconcile_failed(self, reason: str) -> None: ...


class _Unobserved:
    def reconciled(self, result: str) -> None: ...

    def reconcile_failed(self, reason: str) -> None: ...


async def work(
    queue: WorkQueue[JobKey],
    reconcile: Callable[[JobKey], Awaitable[Pass]],
    clock: Clock,
    *,
    limit: float = PASS_SECONDS,
    observer: PassObserver | None = None,
) -> None:
    """Take keys until the queue is shut down. Several of these may share one queue."""
    while True:
        try:
            item = await queue.get()
        except ShutDown:
            return
        try:
            await _one(queue, item, reconcile, clock, limit, observer or _Unobserved())
        finally:
            queue.done(item.key)


async def _one(
    queue: WorkQueue[JobKey],
    item: Item[JobKey],
    reconcile: Callable[[JobKey], Awaitable[Pass]],
    clock: Clock,
    limit: float,
    observer: PassObserver,
) -> None:
    async def once() -> Pass:
        return await reconcile(item.key)

    try:
        result = await within(clock, limit, once())
    except Conflict as error:
        observer.reconciled("conflict")
        log.debug("conflict", extra={"namespace": item.key.namespace, "job": item.key.name, "error": str(error)})
        queue.retry(item.key, priority=item.priority)
    except (KubeError, TimeoutError) as error:
        delay = queue.retry(item.key, priority=item.priority)
        observer.reconcile_failed(type(error).__name__)
        status = error.status if isinstance(error, ApiError) else None
        log.warning(
            "pass failed; it will be tried again",
            extra={
                "namespace": item.key.namespace,
                "job": item.key.name,
                "error": str(error),
                "status": status,
                "delay": round(delay, 2),
            },
        )
    except Exception as defect:
        # A defect that one job's state brings to light must not stop the passes of all others. It is logged with its
        # traceback each time, and the back-off keeps it from becoming a hot loop.
        queue.retry(item.key, priority=Priority.RESYNC)
        observer.reconcile_failed(type(defect).__name__)
        log.exception("pass failed by a defect", extra={"namespace": item.key.namespace, "job": item.key.name})
    else:
        if result.refused:
            observer.reconciled("refused")
            # Counted as a failure, so that a plan which asks for the refused thing again at once is slowed down.
            queue.retry(item.key, priority=item.priority)
            return
        observer.reconciled("unreadable" if result.unreadable else "ok")
        queue.forget(item.key)
        if result.requeue_after is not None:
            queue.add(item.key, after=result.requeue_after)
