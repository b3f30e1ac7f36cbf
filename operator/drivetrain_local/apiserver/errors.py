"""How does the API server say no? With the Status objects of Kubernetes, to the letter.

Clients branch on `reason`, `code` and `details`, people read `message`; both are copied from apimachinery's
`pkg/api/errors` and `util/validation/field`, because an operator tested against other words is tested for nothing.

    ApiError            any failure, carried as HTTP code + Status
    FieldError          one line of a 422; several make one `invalid(...)`
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from drivetrain_local.objects import Obj

MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


class ApiError(Exception):
    """A request that ends in a Status object."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Obj | None = None,
        metadata: Obj | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        if retry_after is not None:
            self.details["retryAfterSeconds"] = retry_after

    def status(self) -> Obj:
        """The metav1.Status to send."""
        status: Obj = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": self.details,
            "code": self.code,
        }
        if not self.reason:
            del status["reason"]
        if not self.details:
            del status["details"]
        return status


@dataclass(frozen=True)
class FieldError:
    """One finding about one field, as it stands in `details.causes`."""

    field: str
    reason: str
    message: str

    def cause(self) -> Obj:
        return {"reason": self.reason, "message": self.message, "field": self.field}

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def go_value(value: Any) -> str:
    """A value as Go's validation prints it: quoted strings, JSON for the rest."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def required(field: str, detail: str = "") -> FieldError:
    return FieldError(field, "FieldValueRequired", "Required value" + (f": {detail}" if detail else ""))


def bad_value(field: str, value: Any, detail: str) -> FieldError:
    return FieldError(field, "FieldValueInvalid", f"Invalid value: {go_value(value)}: {detail}")


def bad_type(field: str, actual: str, expected: str) -> FieldError:
    detail = f'{field} in body must be of type {expected}: "{actual}"'
    return FieldError(field, "FieldValueTypeInvalid", f'Invalid value: "{actual}": {detail}')


def not_supported(field: str, value: Any, supported: Sequence[Any]) -> FieldError:
    listed = ", ".join(go_value(v) for v in supported)
    return FieldError(
        field, "FieldValueNotSupported", f"Unsupported value: {go_value(value)}: supported values: {listed}"
    )


def duplicate(field: str, value: Any) -> FieldError:
    return FieldError(field, "FieldValueDuplicate", f"Duplicate value: {go_value(value)}")


def not_found_field(field: str, value: Any) -> FieldError:
    return FieldError(field, "FieldValueNotFound", f"Not found: {go_value(value)}")


def forbidden_field(field: str, detail: str) -> FieldError:
    return FieldError(field, "FieldValueForbidden", f"Forbidden: {detail}")


def too_many(field: str, actual: int, limit: int) -> FieldError:
    plural = "item" if limit == 1 else "items"
    return FieldError(field, "FieldValueTooMany", f"Too many: {actual}: must have at most {limit} {plural}")


def too_long(field: str, limit: int) -> FieldError:
    return FieldError(field, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def qualified(resource: str, group: str) -> str:
    """`pods`, or `trainingjobs.drivetrain.dev`."""
    return f"{resource}.{group}" if group else resource


def _details(name: str, group: str, kind: str, **more: Any) -> Obj:
    found: Obj = {"name": name, "group": group, "kind": kind, **more}
    return {key: value for key, value in found.items() if value}


def not_found(resource: str, group: str, name: str) -> ApiError:
    return ApiError(
        404, "NotFound", f'{qualified(resource, group)} "{name}" not found', details=_details(name, group, resource)
    )


def no_such_path() -> ApiError:
    """What a real server says to a group or resource that it does not serve."""
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def already_exists(resource: str, group: str, name: str) -> ApiError:
    message = f'{qualified(resource, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details=_details(name, group, resource))


def conflict(resource: str, group: str, name: str, why: str = MODIFIED) -> ApiError:
    message = f'Operation cannot be fulfilled on {qualified(resource, group)} "{name}": {why}'
    return ApiError(409, "Conflict", message, details=_details(name, group, resource))


def invalid(kind: str, group: str, name: str, findings: Iterable[FieldError]) -> ApiError:
    """422 with one cause a finding."""
    found = list(findings)
    text = str(found[0]) if len(found) == 1 else "[" + ", ".join(map(str, found)) + "]"
    message = f'{qualified(kind, group)} "{name}" is invalid: {text}'
    return ApiError(
        422, "Invalid", message, details=_details(name, group, kind, causes=[finding.cause() for finding in found])
    )


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def forbidden(resource: str, group: str, name: str, why: str, *, causes: list[Obj] | None = None) -> ApiError:
    message = f'{qualified(resource, group)} "{name}" is forbidden: {why}'
    return ApiError(403, "Forbidden", message, details=_details(name, group, resource, causes=causes))


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def expired(message: str, *, fresh_continue: str = "") -> ApiError:
    """410: the history that the client asks for is gone."""
    return ApiError(410, "Expired", message, metadata={"continue": fresh_continue} if fresh_continue else None)


def unsupported_media(accepted: Sequence[str]) -> ApiError:
    message = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
    return ApiError(415, "UnsupportedMediaType", message)


def method_not_allowed(method: str) -> ApiError:
    return ApiError(
        405, "MethodNotAllowed", f"the server does not allow this method on the requested resource: {method}"
    )


def too_many_requests(seconds: int) -> ApiError:
    message = "the server has received too many requests and has asked us to try again later"
    return ApiError(429, "TooManyRequests", message, retry_after=seconds)


def not_here(what: str) -> ApiError:
    """501: Kubernetes has this, the embedded plane has not."""
    message = f"{what} is not part of the embedded control plane; `make cluster` starts a real Kubernetes that has it"
    return ApiError(501, "NotImplemented", message)
