"""The cluster's certificates: one authority, and what it signs.

Keys are EC P-256, made in microseconds; certificates last a month, longer than any test cluster.
"""

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster.layout import API_SERVER

_LIFETIME = datetime.timedelta(days=30)


@dataclass(frozen=True)
class Credential:
    """The files of a certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority that writes what it signs into `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = _name("drivetrain-cluster")
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        self._cert = (
            _builder(name, name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.files = self._write("ca", self._cert, self._key)

    def issue(
        self,
        file: str,
        common_name: str,
        *,
        groups: Sequence[str] = (),
        names: Sequence[str] = (),
        addresses: Sequence[IPv4Address] = (),
    ) -> Credential:
        """A certificate for clients, and for a server too if it has `names` or `addresses`."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = _builder(_name(common_name, groups), self._cert.subject, key.public_key())
        if names or addresses:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
            hosts = [*(x509.DNSName(each) for each in names), *(x509.IPAddress(each) for each in addresses)]
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        return self._write(file, builder.sign(self._key, hashes.SHA256()), key)

    def kubeconfig(self, path: Path, common_name: str, *groups: str) -> Path:
        """A kubeconfig whose user is `common_name`; it names the certificate's files by path."""
        user = self.issue(path.name, common_name, groups=groups)
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {
                            "name": "drivetrain",
                            "cluster": {"server": API_SERVER, "certificate-authority": str(self.files.cert)},
                        }
                    ],
                    "users": [
                        {
                            "name": common_name,
                            "user": {"client-certificate": str(user.cert), "client-key": str(user.key)},
                        }
                    ],
                    "contexts": [{"name": "drivetrain", "context": {"cluster": "drivetrain", "user": common_name}}],
                    "current-context": "drivetrain",
                },
                indent=2,
            )
        )
        path.chmod(0o600)
        return path

    def _write(self, file: str, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Credential:
        files = Credential(self._folder / f"{file}.crt", self._folder / f"{file}.key")
        files.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        write_key(files.key, key)
        return files


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """A key that only root can read; in the one format that the API server takes for service accounts too."""
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )


def service_account_key(path: Path) -> Path:
    """The key that signs service accounts' tokens; the API server reads the public half from it too."""
    write_key(path, ec.generate_private_key(ec.SECP256R1()))
    return path


def _name(common_name: str, groups: Sequence[str] = ()) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
    )
