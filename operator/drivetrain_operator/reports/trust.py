"""Which roots of trust hold, and which is whose? One, or during a rotation two.

A job keeps the root that it started with: its workers' tokens and its coordinators' authority come from that, for life.
New jobs get the current root. As long as the previous one holds, the reports server is verified by it, because
coordinators that were started before the rotation know no other; those started since know both.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from drivetrain_operator.reports.credentials import Authority, BadRoot, BadToken, KeyPair, TokenClaim

PREVIOUS = "previous."
"""Begins the keys of the Secret that keep the root before."""


@dataclass(frozen=True)
class Trust:
    """The roots of one installation. Equal Secrets make equal ones, so replicas agree without talking."""

    current: Authority
    previous: Authority | None = None

    @classmethod
    def from_secret(cls, data: Mapping[str, str]) -> Trust:
        """Read a Secret's `data`. Raises BadRoot."""
        previous = {key.removeprefix(PREVIOUS): value for key, value in data.items() if key.startswith(PREVIOUS)}
        try:
            before = Authority.from_secret(previous) if previous else None
        except BadRoot as error:
            raise BadRoot(f"{error} (of the previous root, keys {PREVIOUS}*)") from error
        return cls(Authority.from_secret(data), before)

    def to_secret(self) -> dict[str, str]:
        """The `data` of the Secret that keeps it."""
        before = self.previous.to_secret() if self.previous is not None else {}
        return {**self.current.to_secret(), **{f"{PREVIOUS}{key}": value for key, value in before.items()}}

    def rotated(self, now: dt.datetime) -> Trust:
        """A new root, beside the one that was current."""
        return Trust(Authority.generate(now), self.current)

    @property
    def roots(self) -> frozenset[str]:
        """Fingerprints of all that hold."""
        return frozenset(each.fingerprint for each in self._all())

    @property
    def oldest(self) -> str:
        """Fingerprint of the one that was there before the other."""
        return (self.previous or self.current).fingerprint

    def of(self, root: str) -> Authority:
        """The authority of a job that was started with the root of this fingerprint; "" means the current one."""
        for each in self._all():
            if root in ("", each.fingerprint):
                return each
        raise BadRoot(f"the root {root} does not hold (any more)")

    def verify(self, token: str) -> TokenClaim:
        """Whom a token speaks for, by any root that holds. Raises BadToken."""
        for each in self._all():
            try:
                return each.verify(token)
            except BadToken as error:
                refused = error
        raise refused

    def serving_pair(self, now: dt.datetime) -> KeyPair:
        """A certificate for the reports server that all who are there can verify."""
        return (self.previous or self.current).serving_pair(now)

    def coordinator_files(self, job_uid: str, term: int, root: str, now: dt.datetime) -> dict[str, bytes]:
        """See `Authority.coordinator_files`; `ca.crt` has all roots."""
        return {**self.of(root).coordinator_files(job_uid, term, now), "ca.crt": self._certificates()}

    def worker_files(self, job_uid: str, root: str, now: dt.datetime) -> dict[str, bytes]:
        """See `Authority.worker_files`; `reports-ca.crt` has all roots."""
        return {**self.of(root).worker_files(job_uid, now), "reports-ca.crt": self._certificates()}

    def _certificates(self) -> bytes:
        return b"".join(each.root.cert_pem for each in self._all())

    def _all(self) -> tuple[Authority, ...]:
        return (self.current,) if self.previous is None else (self.current, self.previous)


def rotated_secret(stored: Mapping[str, object], now: dt.datetime, *, finish: bool) -> dict[str, object]:
    """The Secret as it should replace `stored`: with a new root beside the old one, or, to `finish`, without the old
    one. Raises BadRoot."""
    data = stored.get("data")
    if not isinstance(data, dict):
        raise BadRoot("this is no Secret with data")
    trust = Trust.from_secret(data)
    if finish and trust.previous is None:
        raise BadRoot("there is one root only: nothing to finish")
    if not finish and trust.previous is not None:
        raise BadRoot("a rotation is under way: finish it first, when no job has the previous root any more")
    renewed = Trust(trust.current) if finish else trust.rotated(now)
    metadata = stored.get("metadata")
    kept = (
        {key: value for key, value in metadata.items() if key in ("name", "namespace", "labels", "annotations")}
        if (isinstance(metadata, dict))
        else {}
    )
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": kept,
        "type": "Opaque",
        "immutable": True,
        "data": renewed.to_secret(),
    }
