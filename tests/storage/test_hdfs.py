"""HDFS, as Hadoop's own mini cluster has it: the contract of storages, what it refuses, and a cluster that dies."""

from __future__ import annotations

import json
import re
import ssl
import time
import uuid
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from cluster.pki import Authority
from drivetrain.snapshot.errors import StorageError
from drivetrain.snapshot.storage import Dated, Storage, write_own
from drivetrain.snapshot.storage.webhdfs import WebHdfs
from harness.ports import free_port
from storage.contract import StorageContract
from storage.contract_log import LogContract
from storage.proxy import Fault, Proxy
from storage.servers import HdfsServer
from storage.stub import answering

MIB = 1 << 20


class TestHdfs(StorageContract, LogContract):
    @pytest.fixture
    def storage(self, hdfs: WebHdfs) -> Storage:
        return hdfs


def test_when_it_was_written(hdfs: WebHdfs) -> None:
    hdfs.create("log/a", [b"x"])
    assert isinstance(hdfs, Dated)
    assert list(hdfs.modified("log/")) == ["log/a"]
    assert abs(hdfs.modified("log/")["log/a"] - time.time()) < 600


@pytest.fixture
def proxy(hdfs_server: HdfsServer) -> Iterator[Proxy]:
    made = Proxy(hdfs_server.port)
    yield made
    made.end()


@pytest.fixture
def behind(proxy: Proxy) -> WebHdfs:
    """The name node is behind the proxy; data nodes are not."""
    return WebHdfs(f"webhdfs://127.0.0.1:{proxy.port}/snapshots/{uuid.uuid4().hex}", {"user": "trainer"}, None)


def test_what_is_being_written_is_no_object(hdfs_server: HdfsServer, hdfs: WebHdfs) -> None:
    """A writer that died half-way, as WebHDFS leaves its file."""
    hdfs.create("log/a", [b"abc"])
    path = str(hdfs).removeprefix(hdfs_server.url)
    hdfs._write("", "log/.tmp-1-dead", [b"a part"])
    assert hdfs.list("") == {"log/a": 3}
    hdfs.delete(["log/a"])
    hdfs_server.order("GET", f"{path}/log/.tmp-1-dead", op="GETFILESTATUS")
    assert hdfs.list("") == {}


def test_a_folder_that_is_not_ones_own(hdfs_server: HdfsServer) -> None:
    hdfs_server.order("PUT", "/closed", op="MKDIRS", permission="700")
    storage = WebHdfs(f"{hdfs_server.url}/closed", {"user": "trainer"}, None)
    for work in (lambda: storage.create("a/b", [b"x"]), lambda: storage.list(""), lambda: storage.read("a")):
        with pytest.raises(StorageError, match=r"/closed.*403 AccessControlException: user trainer may not"):
            work()


def test_a_quota_that_is_used_up(hdfs_server: HdfsServer) -> None:
    hdfs_server.order("PUT", "/full", op="MKDIRS", permission="777")
    hdfs_server.order("PUT", "/full", op="SETQUOTA", namespacequota="2")
    storage = WebHdfs(f"{hdfs_server.url}/full", {"user": "trainer"}, None)
    storage.create("a", [b"x"])
    with pytest.raises(StorageError, match="the folder's quota of names is used up"):
        storage.create("b", [b"x"])
    assert storage.list("") == {"a": 1}


def test_it_does_not_answer(proxy: Proxy, behind: WebHdfs) -> None:
    proxy.fault = lambda request: Fault("stall")
    began = time.monotonic()
    with pytest.raises(StorageError, match=f"cannot write {re.escape(str(behind))}/a: .*nothing moves any more"):
        behind.create("a", [b"x"])
    assert time.monotonic() - began < 10.0


def test_a_rename_whose_answer_was_lost(proxy: Proxy, behind: WebHdfs) -> None:
    faults = [Fault("lose")]
    proxy.fault = lambda request: faults.pop() if faults and "op=RENAME" in request.path else None
    with pytest.raises(StorageError, match="has cut the connection"):
        write_own(behind, "log/a", [b"abc"])
    write_own(behind, "log/a", [b"abc"])
    assert behind.read("log/a") == b"abc"
    assert behind.list("") == {"log/a": 3}


def test_nobody_is_there() -> None:
    with pytest.raises(StorageError, match=r"cannot be reached: .*Connection refused"):
        WebHdfs(f"webhdfs://127.0.0.1:{free_port()}/a", {"user": "trainer"}, None).create("a", [b"x"])


def test_something_else_is_there(proxy: Proxy, behind: WebHdfs) -> None:
    proxy.fault = lambda request: Fault("answer", 200, b"<html>Welcome")
    with pytest.raises(StorageError, match="its answer is no JSON: is that a name node's HTTP port"):
        behind.list("")


def test_certificates(tmp_path: Path) -> None:
    """Of a name node, as far as a stub is one."""
    authority = Authority(tmp_path / "authority")
    certificate = authority.issue("server", "namenode", addresses=[IPv4Address("127.0.0.1")])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    secret = tmp_path / "secret"
    secret.mkdir()
    entry = {"pathSuffix": "a", "type": "FILE", "length": 7}
    with answering(json.dumps({"FileStatuses": {"FileStatus": [entry]}}).encode(), context) as port:
        with pytest.raises(StorageError, match=r"is not trusted .*ca\.crt of the Secret"):
            WebHdfs(f"swebhdfs://127.0.0.1:{port}/x", {"user": "trainer"}, secret).list("")
        (secret / "ca.crt").write_bytes(authority.files.cert.read_bytes())
        assert WebHdfs(f"swebhdfs://127.0.0.1:{port}/x", {"user": "trainer"}, secret).list("") == {"a": 7}


def test_what_was_written_outlives_the_cluster(hdfs_server: HdfsServer, hdfs: WebHdfs) -> None:
    data = bytes(range(256)) * 4096
    hdfs.create("log/a", [data])
    hdfs_server.kill()
    with pytest.raises(StorageError, match="cannot be reached"):
        hdfs.create("log/b", [data])
    hdfs_server.start()
    assert hdfs.list("") == {"log/a": MIB}
    assert hdfs.read("log/a") == data
    write_own(hdfs, "log/b", [data])
    assert sorted(hdfs.list("")) == ["log/a", "log/b"]
