"""Certificates: signed by the authority, private, and of use for what they say."""

from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster.pki import Authority, Credential


def _read(credential: Credential) -> x509.Certificate:
    return x509.load_pem_x509_certificate(credential.cert.read_bytes())


def test_certificates_name_user_and_groups_as_kubernetes_reads_them(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert = _read(authority.issue("node1", "system:node:node1", groups=["system:nodes"]))
    cert.verify_directly_issued_by(_read(authority.files))
    assert [each.value for each in cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["system:node:node1"]
    assert [each.value for each in cert.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == ["system:nodes"]


def test_only_servers_may_serve(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = _read(authority.issue("server", "server", names=["kubernetes"], addresses=[IPv4Address("10.77.0.1")]))
    client = _read(authority.issue("client", "client"))
    usages = [cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value for cert in (server, client)]
    assert [ExtendedKeyUsageOID.SERVER_AUTH in usage for usage in usages] == [True, False]
    hosts = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert hosts.get_values_for_type(x509.DNSName) == ["kubernetes"]
    assert hosts.get_values_for_type(x509.IPAddress) == [IPv4Address("10.77.0.1")]


def test_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    Authority(tmp_path).issue("client", "client")
    assert {key.stat().st_mode & 0o777 for key in tmp_path.glob("*.key")} == {0o600}
