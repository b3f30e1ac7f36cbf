"""Who may read the operator's numbers, and over which connection? Without files everybody, in the open.

Token, certificate and key are files of Secrets that somebody else renews, so they are looked at again every minute.
Probes ask without a token, because a kubelet has none.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import ssl
from pathlib import Path
from typing import Final

from aiohttp import web

from drivetrain_operator.clock import Clock
from drivetrain_serving.answers import TOKEN_BYTES, bearer, unauthorized

log = logging.getLogger(__name__)

RENEW_SECONDS: Final = 60.0


class UnusableFile(Exception):
    """The message names the flag."""


class Guard:
    """Raises `UnusableFile` where a file cannot be used. `tls` is the context of new connections, for ever the same."""

    def __init__(self, token: Path | None = None, certificate: Path | None = None, key: Path | None = None) -> None:
        self._token = token
        self._pair = (certificate, key) if certificate is not None and key is not None else None
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if self._pair is not None else None
        if self.tls is not None:
            self.tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._wanted = b""
        self.renew()

    def renew(self) -> None:
        """Read the files again. Where one of them is unusable, everything stays as it was."""
        wanted = _digest(_read_token(self._token)) if self._token is not None else b""
        if self.tls is not None and self._pair is not None:
            certificate, key = self._pair
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)  # half a pair would stick
                self.tls.load_cert_chain(certificate, key)
            except OSError as error:  # ssl's own are among them
                raise UnusableFile(
                    f"--metrics-cert-file {certificate}, --metrics-key-file {key}: "
                    f"no pair of a certificate and its key in PEM: {error}"
                ) from error
        self._wanted = wanted

    def admit(self, request: web.BaseRequest) -> None:
        """Raises `Refused` where a token is wanted, and this caller has another or none."""
        if self._token is not None and not hmac.compare_digest(_digest(bearer(request)), self._wanted):
            raise unauthorized("the bearer token is not that of the metrics")

    async def run(self, clock: Clock) -> None:
        """Renew until cancelled."""
        while True:
            await clock.sleep(RENEW_SECONDS)
            try:
                self.renew()
            except UnusableFile as error:
                log.warning("what guards the metrics stays as it was", extra={"error": str(error)})


def _read_token(file: Path) -> str:
    try:
        token = file.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise UnusableFile(f"--metrics-token-file {file}: {error}") from error
    if not token or len(token) > TOKEN_BYTES or not token.isprintable() or " " in token:
        raise UnusableFile(
            f"--metrics-token-file {file}: want 1 to {TOKEN_BYTES} ASCII characters without spaces, in one line"
        )
    return token


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
