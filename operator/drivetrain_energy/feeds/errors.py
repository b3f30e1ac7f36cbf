"""Why a source gave nothing. `reason` is for metrics, the message for a person; neither ever holds a credential.

FeedError
├── Refused       401, 403: credentials, or what the plan does not include
├── Limited       429, with when to ask again
├── Unavailable   5xx, no answer
│   └── Slow      reached, and no whole answer in time: another question may have one
├── Unreadable    no JSON, not the documented shape
│   └── TooLarge  more than is read: a smaller question may have an answer
├── Mismatch      another zone, unit or measure than was asked for
└── Unset         a file of credentials or a ConfigMap is missing
"""

from __future__ import annotations

from typing import ClassVar


class FeedError(Exception):
    """No answer that can be used."""

    reason: ClassVar[str] = "failed"
    answered = True
    """Whether the source counted this as a request."""
    retry_after: float | None = None
    """Seconds, if the source said so."""


class Refused(FeedError):
    reason = "refused"


class Limited(FeedError):
    reason = "limited"

    def __init__(self, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(FeedError):
    reason = "unavailable"

    def __init__(self, message: str, *, answered: bool = True, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.answered = answered
        self.retry_after = retry_after


class Slow(Unavailable):
    def __init__(self, message: str) -> None:
        super().__init__(message, answered=False)


class Unreadable(FeedError):
    reason = "unreadable"


class TooLarge(Unreadable):
    pass


class Mismatch(FeedError):
    reason = "mismatch"


class Unset(FeedError):
    reason = "unset"
    answered = False


__all__ = ["FeedError", "Limited", "Mismatch", "Refused", "Slow", "TooLarge", "Unavailable", "Unreadable", "Unset"]
