"""Whatever goes wrong between a storage and S3 is said within ten seconds, with the path and what to change, and never
with a secret."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from cluster.pki import Authority
from drivetrain.snapshot.errors import Exists, StorageError
from drivetrain.snapshot.storage import Storage, write_own
from drivetrain.snapshot.storage.s3 import S3
from harness.ports import free_port
from storage.proxy import Fault, Proxy
from storage.servers import BUCKET, KEY, READER, SECRET, S3Server
from storage.stub import answering

SECONDS = 10.0
MIB = 1 << 20


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[Proxy]:
    made = Proxy(s3_server.port)
    yield made
    made.end()


@pytest.fixture
def behind(proxy: Proxy, secret: Path) -> S3:
    """The storage, with the proxy in between."""
    return S3(f"s3://{BUCKET}/{uuid.uuid4().hex}", {"endpoint": f"http://127.0.0.1:{proxy.port}"}, secret)


def told(storage: Storage, work: Callable[[Storage], object]) -> str:
    """What is raised, in time, and without a secret."""
    began = time.monotonic()
    with pytest.raises(StorageError) as caught:
        work(storage)
    assert time.monotonic() - began < SECONDS
    text = str(caught.value)
    assert str(storage) in text, "it does not say where"
    assert not any(each in text for each in (KEY, SECRET, *READER, "Signature=")), "a secret is told"
    return text


def create(storage: Storage) -> None:
    storage.create("log/a", [b"x" * 100])


def list_all(storage: Storage) -> None:
    storage.list("")


def read(storage: Storage) -> None:
    storage.read("log/a")


def code(name: str) -> bytes:
    return f"<Error><Code>{name}</Code><Message>as it says</Message><Signature>Signature=</Signature></Error>".encode()


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (503, code("SlowDown"), r"503 SlowDown: it asks for fewer requests"),
        (503, b"no healthy upstream", r"503 ServiceUnavailable: it is not available"),
        (500, code("InternalError"), r"500 InternalError: as it says"),
        (507, b"", r"507 InsufficientStorage: it is full"),
        (403, code("QuotaExceeded"), r"403 QuotaExceeded: the bucket's quota is used up"),
        (403, b"", r"403 AccessDenied: these credentials lack s3:PutObject there"),
        (400, code("ExpiredToken"), r"AWS_SESSION_TOKEN has expired"),
        (301, code("PermanentRedirect"), r"another region: set spec\.snapshots\.storage\.options\.region"),
        (501, code("NotImplemented"), r"501 NotImplemented: it does not know .*If-None-Match"),
        (418, b"<html>", r": 418$"),
    ],
)
def test_an_answer_that_refuses(proxy: Proxy, behind: S3, status: int, body: bytes, wanted: str) -> None:
    proxy.fault = lambda request: Fault("answer", status, body)
    text = told(behind, create)
    assert text.startswith(f"cannot write {behind}/log/a: ")
    assert re.search(wanted, text)


@pytest.mark.parametrize("status", [409, 412])
def test_somebody_was_first(proxy: Proxy, behind: S3, status: int) -> None:
    proxy.fault = lambda request: Fault("answer", status, code("PreconditionFailed"))
    with pytest.raises(Exists):
        create(behind)


@pytest.mark.parametrize(("work", "name"), [(create, "write"), (list_all, "list"), (read, "read")])
def test_one_that_does_not_answer(proxy: Proxy, behind: S3, work: Callable[[Storage], None], name: str) -> None:
    proxy.fault = lambda request: Fault("stall")
    assert f"cannot {name} " in (text := told(behind, work))
    assert "does not answer: nothing moves any more" in text


def test_an_upload_that_stands_still(proxy: Proxy, behind: S3) -> None:
    """What the kernels hold of it is gone, and then nothing moves."""
    proxy.fault = lambda request: Fault("stall")
    text = told(behind, lambda storage: storage.create("log/a", [bytes(32 * MIB)]))
    assert "nothing moves any more" in text


def test_an_upload_that_is_slow_takes_its_time(proxy: Proxy, behind: S3) -> None:
    """Longer than any single step may take, at less than 4 MiB/s."""
    proxy.fault = lambda request: Fault("crawl") if request.method == "PUT" else None
    began = time.monotonic()
    behind.create("log/a", [bytes(24 * MIB)])
    assert time.monotonic() - began > 7.0
    assert behind.list("log/") == {"log/a": 24 * MIB}


def test_a_write_whose_answer_was_lost_is_there_and_ones_own(proxy: Proxy, behind: S3) -> None:
    faults = [Fault("lose")]
    proxy.fault = lambda request: faults.pop() if faults and request.method == "PUT" else None
    with pytest.raises(StorageError, match="has cut the connection"):
        write_own(behind, "log/a", [b"abc"])
    write_own(behind, "log/a", [b"abc"])
    assert behind.read("log/a") == b"abc"


def test_a_write_that_was_cut_leaves_nothing(proxy: Proxy, behind: S3) -> None:
    faults = [Fault("cut")]
    proxy.fault = lambda request: faults.pop() if faults and request.method == "PUT" else None
    with pytest.raises(StorageError):
        behind.create("log/a", [bytes(MIB)])
    assert behind.list("") == {}
    behind.create("log/a", [bytes(MIB)])
    assert len(behind.read("log/a")) == MIB


def test_reading_is_tried_again_and_creating_is_not(proxy: Proxy, behind: S3) -> None:
    create(behind)
    faults = [Fault("answer", 503), Fault("lose"), Fault("answer", 500)]
    proxy.fault = lambda request: faults.pop() if faults else None
    assert behind.read("log/a") == b"x" * 100
    proxy.seen.clear()
    proxy.fault = lambda request: Fault("answer", 503)
    with pytest.raises(StorageError):
        behind.create("log/b", [b"x"])
    assert [each.method for each in proxy.seen] == ["PUT"]


def test_a_server_that_knows_no_conditional_writes_is_refused(proxy: Proxy, behind: S3) -> None:
    """Two runs would both begin: nothing of what fences would hold."""
    proxy.fault = lambda request: Fault("answer", 200) if len(proxy.seen) == 2 else None
    assert "does not know If-None-Match" in told(behind, create)
    assert [each.method for each in proxy.seen] == ["PUT", "PUT"]


def test_an_answer_that_is_not_of_s3(proxy: Proxy, behind: S3) -> None:
    proxy.fault = lambda request: Fault("answer", 200, b"<html>Welcome")
    assert "its answer is no XML: is that an S3 server?" in told(behind, list_all)


def test_there_is_no_bucket(s3_server: S3Server, secret: Path) -> None:
    storage = S3("s3://no-such-bucket/a", {"endpoint": s3_server.endpoint}, secret)
    for work in (create, read, list_all):
        assert "404 NoSuchBucket: there is no bucket no-such-bucket" in told(storage, work)


def test_an_account_that_may_not(s3_server: S3Server, secret: Path) -> None:
    s3_server.add_reader()
    (secret / "AWS_ACCESS_KEY_ID").write_text(READER[0])
    (secret / "AWS_SECRET_ACCESS_KEY").write_text(READER[1])
    storage = S3(f"s3://{BUCKET}/a", {"endpoint": s3_server.endpoint}, secret)
    assert "403 AccessDenied: these credentials lack s3:PutObject" in told(storage, create)
    assert "s3:ListBucket" in told(storage, list_all)
    assert "s3:GetObject" in told(storage, read)
    assert "s3:DeleteObject" in told(storage, lambda each: each.delete(["log/a"]))


def test_keys_that_are_wrong_and_are_mended_while_it_runs(s3_server: S3Server, secret: Path) -> None:
    storage = S3(f"s3://{BUCKET}/{uuid.uuid4().hex}", {"endpoint": s3_server.endpoint}, secret)
    (secret / "AWS_SECRET_ACCESS_KEY").write_text("another")
    assert "AWS_SECRET_ACCESS_KEY does not fit AWS_ACCESS_KEY_ID" in told(storage, create)
    (secret / "AWS_ACCESS_KEY_ID").write_text("NOBODY")
    assert "it does not know this AWS_ACCESS_KEY_ID" in told(storage, create)
    (secret / "AWS_ACCESS_KEY_ID").unlink()
    assert "the Secret of spec.snapshots.storage.secretName has no AWS_ACCESS_KEY_ID" in told(storage, create)
    (secret / "AWS_ACCESS_KEY_ID").write_text(KEY)
    (secret / "AWS_SECRET_ACCESS_KEY").write_text(SECRET)
    create(storage)


def test_nobody_is_there(secret: Path) -> None:
    storage = S3(f"s3://{BUCKET}/a", {"endpoint": f"http://127.0.0.1:{free_port()}"}, secret)
    assert "cannot be reached" in told(storage, create)
    assert "Connection refused" in told(storage, list_all)
    storage = S3(f"s3://{BUCKET}/a", {"endpoint": "http://no-such-host.invalid"}, secret)
    assert "no-such-host.invalid is not known to the name service" in told(storage, create)


def test_certificates(tmp_path: Path, secret: Path) -> None:
    authority = Authority(tmp_path / "authority")
    certificate = authority.issue("server", "s3", addresses=[IPv4Address("127.0.0.1")])
    server = S3Server(tmp_path / "server", (certificate.cert, certificate.key))
    try:
        server.start()
        storage = S3(f"s3://{BUCKET}/a", {"endpoint": server.endpoint}, secret)
        assert "is not trusted" in (text := told(storage, create))
        assert "ca.crt of the Secret" in text
        (secret / "ca.crt").write_bytes(authority.files.cert.read_bytes())
        storage = S3(f"s3://{BUCKET}/a", {"endpoint": server.endpoint}, secret)
        create(storage)
        read(storage)
    finally:
        server.end()


def test_a_laptops_environment_and_profiles(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{free_port()}/none")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    where = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    assert "there are no credentials: neither AWS_ACCESS_KEY_ID" in told(S3(where, {}, None), create)
    (tmp_path / "credentials").write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    create(S3(where, {}, None))
    (tmp_path / "credentials").unlink()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    read(S3(where, {}, None))


def test_the_role_of_a_pod(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Container credentials: what pods of EKS and tasks of ECS have."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    until = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    role = {"AccessKeyId": KEY, "SecretAccessKey": SECRET, "Token": "", "Expiration": until}
    with answering(json.dumps(role).encode()) as port:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{port}/role")
        storage = S3(f"s3://{BUCKET}/{uuid.uuid4().hex}", {"endpoint": s3_server.endpoint}, None)
        create(storage)
    read(storage)
