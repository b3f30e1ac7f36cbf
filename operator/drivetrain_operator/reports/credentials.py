"""What proves who is who: root of trust, bearer tokens, certificates. Called by the executor and the reports server.

Everything of a job is derived from one stored secret, so nothing has to be looked up and nothing can get lost:

- a token is `<job uid>.<role>.<HMAC(key, job uid, role)>`, where the role is `term-N` of a coordinator, or `worker`.
  Whoever has the key can check it; a token that user code can read speaks for its own job only, never for another term;
- each job has a certificate authority of its own, whose key is derived from the same HMAC key and the job's uid. A
  coordinator of one job can therefore not pass for that of another, although all carry the same server name.

It does no I/O: `keystore.py` keeps the root in the operator's namespace.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from drivetrain_api.constants import COORDINATOR_SERVER_NAME, REPORTS_SERVER_NAME

CURVE: Final = ec.SECP256R1()
CURVE_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
CLOCK_SKEW: Final = dt.timedelta(hours=1)
"""Certificates are valid from this long ago: a node whose clock is late must not refuse a new coordinator."""
ROOT_LIFETIME: Final = dt.timedelta(days=3650)
JOB_LIFETIME: Final = dt.timedelta(days=3650)
"""Job certificates cannot be renewed in a running job, so they outlive any job."""
SERVING_LIFETIME: Final = dt.timedelta(days=90)
"""The reports server makes itself a new certificate long before this has passed."""
WORKER_ROLE: Final = "worker"
_TOKEN: Final = re.compile(
    r"(?P<uid>[0-9A-Za-z-]{1,64})\.(?P<role>worker|term-(?P<term>[0-9]{1,9}))\.[0-9a-f]{64}", re.ASCII
)
"""Whatever else comes is no token, and nothing is computed for it. Kubernetes' uids have 36 characters."""


class BadToken(Exception):
    """A bearer token that this operator did not make. The message never contains the token."""


class BadRoot(Exception):
    """The stored root of trust cannot be read; the message names the Secret's key."""


@dataclass(frozen=True)
class TokenClaim:
    """Whom a valid token speaks for. `term` is None for a worker's token."""

    job_uid: str
    term: int | None


@dataclass(frozen=True)
class KeyPair:
    """A private key and its certificate, as PEM."""

    key_pem: bytes
    cert_pem: bytes


@dataclass(frozen=True)
class Authority:
    """The operator's root of trust. Equal contents make equal authorities, so replicas agree without talking."""

    hmac_key: bytes
    root: KeyPair

    @classmethod
    def generate(cls, now: dt.datetime) -> Authority:
        """Make a new root; once in the life of an installation."""
        key = ec.generate_private_key(CURVE)
        certificate = _authority_certificate("drivetrain", key, now, ROOT_LIFETIME)
        return cls(secrets.token_bytes(32), KeyPair(_key_pem(key), _cert_pem(certificate)))

    @classmethod
    def from_secret(cls, data: Mapping[str, str]) -> Authority:
        """Read what `to_secret` wrote (a Secret's `data`: base64 values). Raises BadRoot."""
        try:
            raw = {name: base64.b64decode(data[name], validate=True) for name in ("hmac.key", "ca.key", "ca.crt")}
            serialization.load_pem_private_key(raw["ca.key"], None)
            x509.load_pem_x509_certificate(raw["ca.crt"])
        except KeyError as error:
            raise BadRoot(f"the Secret lacks the key {error}") from error
        except (ValueError, binascii.Error, TypeError) as error:
            raise BadRoot(f"the Secret's ca.key, ca.crt or hmac.key cannot be decoded: {error}") from error
        if len(raw["hmac.key"]) < 32:
            raise BadRoot("the Secret's hmac.key is shorter than 32 bytes")
        return cls(raw["hmac.key"], KeyPair(raw["ca.key"], raw["ca.crt"]))

    def to_secret(self) -> dict[str, str]:
        """The `data` of the Secret that keeps this authority."""
        parts = {"hmac.key": self.hmac_key, "ca.key": self.root.key_pem, "ca.crt": self.root.cert_pem}
        return {name: base64.b64encode(value).decode() for name, value in parts.items()}

    @property
    def fingerprint(self) -> str:
        """Names this root in a job's status: 16 hex digits of its certificate's SHA-256."""
        return hashlib.sha256(self.root.cert_pem).hexdigest()[:16]

    def coordinator_token(self, job_uid: str, term: int) -> str:
        """Bearer token with which the coordinator of one term reports."""
        return self._token(job_uid, f"term-{term}")

    def worker_token(self, job_uid: str) -> str:
        """Bearer token with which the job's launchers join their coordinator."""
        return self._token(job_uid, WORKER_ROLE)

    def verify(self, token: str) -> TokenClaim:
        """Whom `token` speaks for, by computing it again. Raises BadToken."""
        spelled = _TOKEN.fullmatch(token)
        if spelled is None or not hmac.compare_digest(self._token(spelled["uid"], spelled["role"]), token):
            raise BadToken("the bearer token was not issued by this operator")
        return TokenClaim(spelled["uid"], int(spelled["term"]) if spelled["term"] else None)

    def coordinator_files(self, job_uid: str, term: int, now: dt.datetime) -> dict[str, bytes]:
        """What a term's coordinator Secret carries: see `ENV_CREDENTIALS`. `ca.crt` verifies the reports server."""
        serving = _issue(self._job_root(job_uid, now), COORDINATOR_SERVER_NAME, (), now, JOB_LIFETIME)
        return {
            "token": self.coordinator_token(job_uid, term).encode(),
            "worker-token": self.worker_token(job_uid).encode(),
            "tls.crt": serving.cert_pem,
            "tls.key": serving.key_pem,
            "ca.crt": self.root.cert_pem,
        }

    def worker_files(self, job_uid: str, now: dt.datetime) -> dict[str, bytes]:
        """What the job's worker Secret carries. `ca.crt` verifies this job's coordinators and nobody else's,
        `reports-ca.crt` the operator."""
        return {
            "token": self.worker_token(job_uid).encode(),
            "ca.crt": self._job_root(job_uid, now).cert_pem,
            "reports-ca.crt": self.root.cert_pem,
        }

    def serving_pair(self, now: dt.datetime, addresses: tuple[str, ...] = ()) -> KeyPair:
        """A certificate for the reports server."""
        return _issue(self.root, REPORTS_SERVER_NAME, addresses, now, SERVING_LIFETIME)

    def _token(self, job_uid: str, role: str) -> str:
        return f"{job_uid}.{role}.{self._mac('token', job_uid, role).hex()}"

    def _mac(self, *parts: str) -> bytes:
        # Each part carries its length, so that no two lists of parts can be spelled alike.
        message = b"".join(f"{len(part)}:{part}".encode("utf-8", "surrogateescape") for part in parts)
        return hmac.new(self.hmac_key, message, hashlib.sha256).digest()

    def _job_root(self, job_uid: str, now: dt.datetime) -> KeyPair:
        """The job's own authority. The key is the same each time; the certificate differs in its signature only."""
        number = int.from_bytes(self._mac("ca", job_uid, "0") + self._mac("ca", job_uid, "1"), "big")
        key = ec.derive_private_key(number % (CURVE_ORDER - 1) + 1, CURVE)
        certificate = _authority_certificate(f"drivetrain job {job_uid}", key, now, JOB_LIFETIME)
        return KeyPair(_key_pem(key), _cert_pem(certificate))


def _authority_certificate(
    common_name: str, key: ec.EllipticCurvePrivateKey, now: dt.datetime, lifetime: dt.timedelta
) -> x509.Certificate:
    name = _name(common_name)
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def _issue(
    issuer: KeyPair, server_name: str, addresses: tuple[str, ...], now: dt.datetime, lifetime: dt.timedelta
) -> KeyPair:
    """A server certificate signed by `issuer`, with the extensions that Python's strict verification asks for."""
    issuer_key = serialization.load_pem_private_key(issuer.key_pem, None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise BadRoot("the Secret's ca.key is no EC key")
    issuer_certificate = x509.load_pem_x509_certificate(issuer.cert_pem)
    key = ec.generate_private_key(CURVE)
    names = [x509.DNSName(server_name), *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses)]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(server_name))
        .issuer_name(issuer_certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(min(now + lifetime, issuer_certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )
    return KeyPair(_key_pem(key), _cert_pem(certificate))


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _cert_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
