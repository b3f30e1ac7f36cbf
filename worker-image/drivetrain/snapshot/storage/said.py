"""What has an S3 server refused, and who can change that? Its codes, in the words of whoever runs the job.

Nothing that it says is passed on but its code and its message: other parts of such answers repeat what was signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree

from drivetrain.snapshot.errors import StorageError
from drivetrain.snapshot.storage.http import Answer

_MEANINGS: Final = {
    "AccessDenied": "these credentials lack {action} there",
    "AllAccessDisabled": "these credentials lack {action} there",
    "InvalidAccessKeyId": "it does not know this AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not fit AWS_ACCESS_KEY_ID",
    "InvalidToken": "AWS_SESSION_TOKEN does not fit AWS_ACCESS_KEY_ID",
    "ExpiredToken": "AWS_SESSION_TOKEN has expired",
    "NoSuchBucket": "there is no bucket {bucket}: it must be there before, spec.snapshots.storage.url names it",
    "PermanentRedirect": "the bucket is in another region: set spec.snapshots.storage.options.region",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set spec.snapshots.storage.options.region",
    "RequestTimeTooSkewed": "the clock here and the one there are too far apart",
    "SlowDown": "it asks for fewer requests; they are tried again",
    "ServiceUnavailable": "it is not available at this time",
    "InsufficientStorage": "it is full",
    "XMinioStorageFull": "it is full",
    "QuotaExceeded": "the bucket's quota is used up",
    "NotImplemented": "it does not know what snapshots need (If-None-Match)",
}
_BY_STATUS: Final = {
    301: "PermanentRedirect",
    403: "AccessDenied",
    503: "ServiceUnavailable",
    507: "InsufficientStorage",
}
"""Where there is no code: in answers without a body, and of proxies."""
_MOST: Final = 200


@dataclass(frozen=True, slots=True)
class Said:
    """About one request."""

    what: str
    """Cannot do what, with its path."""
    action: str
    """Which it takes in the bucket's policy."""
    bucket: str

    def refused(self, answer: Answer) -> StorageError:
        """What to raise."""
        try:
            return self.failed(answer.status, ElementTree.fromstring(answer.body))
        except ElementTree.ParseError:
            return self._told(answer.status, _BY_STATUS.get(answer.status, ""), "")

    def failed(self, status: int, error: ElementTree.Element) -> StorageError:
        """The same of an `Error` that was read."""
        code = error.findtext("{*}Code") or _BY_STATUS.get(status, "")
        return self._told(status, code, error.findtext("{*}Message") or "")

    def code(self, answer: Answer) -> str:
        """As in `NoSuchKey`."""
        try:
            return ElementTree.fromstring(answer.body).findtext("{*}Code") or ""
        except ElementTree.ParseError:
            return ""

    def document(self, answer: Answer) -> ElementTree.Element:
        """That of a good answer."""
        try:
            return ElementTree.fromstring(answer.body)
        except ElementTree.ParseError as error:
            raise StorageError(f"{self.what}: its answer is no XML: is that an S3 server?") from error

    def _told(self, status: int, code: str, message: str) -> StorageError:
        meaning = _MEANINGS.get(code)
        text = meaning.format(action=self.action, bucket=self.bucket) if meaning is not None else message[:_MOST]
        return StorageError(f"{self.what}: {f'{status} {code}'.strip()}{f': {text}' if text else ''}")


__all__ = ["Said"]
