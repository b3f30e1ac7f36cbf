"""What can go wrong between us and the API server.

    KubeError
    ├── CredentialsError            no usable kubeconfig or service account
    ├── Unreachable                 no (complete) answer: connect, TLS, time-out, cut connection, not Kubernetes
    │   └── WatchSilent             a watch gave no sign of life for too long
    └── ApiError                    the server answered with a Status
        ├── BadRequest              400
        ├── Unauthorized            401, after credentials were read again
        ├── Forbidden               403
        │   ├── QuotaExceeded       … because a ResourceQuota is used up
        │   └── NamespaceTerminating … because the namespace is being deleted
        ├── NotFound                404
        ├── AlreadyExists           409, on create
        ├── Conflict                409, a precondition (resourceVersion, uid) did not hold
        ├── Gone                    410, the resourceVersion or continue token is too old
        ├── Invalid                 422, with the fields in `causes`
        ├── TooManyRequests         429, with `retry_after`
        └── ServerError             5xx, with `retry_after` where given

`retryable` says whether the same request may succeed later without anybody changing anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class KubeError(Exception):
    """Anything the API client raises on purpose."""

    retryable: bool = False


class CredentialsError(KubeError):
    """There is no usable kubeconfig or service account; the message names the file or setting."""


class Unreachable(KubeError):
    """No complete answer came. A write may or may not have been applied."""

    retryable = True


class WatchSilent(Unreachable):
    """A watch stayed without events and bookmarks for longer than its inactivity limit."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One entry of `details.causes`: which field, and what is wrong with it."""

    reason: str
    message: str
    field: str


class ApiError(KubeError):
    """The API server refused. `reason` and `message` are the server's own words."""

    def __init__(
        self,
        status: int,
        *,
        reason: str = "",
        message: str = "",
        causes: tuple[Cause, ...] = (),
        retry_after: float | None = None,
        request: str = "",
    ) -> None:
        super().__init__(f"{request + ': ' if request else ''}{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = causes
        self.retry_after = retry_after
        self.request = request


class BadRequest(ApiError):
    """400"""


class Unauthorized(ApiError):
    """401: the credentials were refused, also after they were read again."""

    retryable = True  # a token may be rotated under us; what we hold is read again before each try


class Forbidden(ApiError):
    """403: RBAC, admission or quota."""


class QuotaExceeded(Forbidden):
    """403 because a ResourceQuota is used up; it may free itself."""

    retryable = True


class NamespaceTerminating(Forbidden):
    """403 because the namespace is being deleted: nothing can be created in it any more."""


class NotFound(ApiError):
    """404"""


class AlreadyExists(ApiError):
    """409 on create: an object of that name is there."""


class Conflict(ApiError):
    """409: the object changed since it was read. Read it again and decide again."""

    retryable = True


class Gone(ApiError):
    """410: the resourceVersion or continue token is too old. List again."""

    retryable = True


class Invalid(ApiError):
    """422: the object breaks a rule; `causes` names the fields."""


class TooManyRequests(ApiError):
    """429: refused before it was processed; come back after `retry_after` seconds."""

    retryable = True


class ServerError(ApiError):
    """5xx"""

    retryable = True


_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


def error_from_status(
    status: int, body: Mapping[str, Any], *, retry_after: float | None = None, request: str = ""
) -> ApiError:
    """The error for an HTTP status and the `Status` object that came with it (or `{}`).

    `retry_after` is the header's value in seconds; `details.retryAfterSeconds` stands in for it.
    """
    details = body.get("details") or {}
    reason = str(body.get("reason") or "")
    message = str(body.get("message") or "")
    causes = tuple(
        Cause(str(c.get("reason") or ""), str(c.get("message") or ""), str(c.get("field") or ""))
        for c in details.get("causes") or ()
    )
    if retry_after is None and details.get("retryAfterSeconds"):
        retry_after = float(details["retryAfterSeconds"])
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
    if status == 409 and reason == "AlreadyExists":
        kind = AlreadyExists
    elif status == 403 and any(c.reason == "NamespaceTerminating" for c in causes):
        kind = NamespaceTerminating
    elif status == 403 and "exceeded quota" in message:
        kind = QuotaExceeded
    return kind(status, reason=reason, message=message, causes=causes, retry_after=retry_after, request=request)
