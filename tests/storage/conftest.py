"""Servers for a module's tests, each started when somebody asks for it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivetrain.snapshot.storage.s3 import S3
from drivetrain.snapshot.storage.webhdfs import WebHdfs
from storage.servers import BUCKET, KEY, SECRET, HdfsServer, S3Server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        server.start()
        yield server
    finally:
        server.end()


@pytest.fixture(scope="session")
def hdfs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HdfsServer]:
    server = HdfsServer(tmp_path_factory.mktemp("hdfs"))
    try:
        server.start()
        server.order("PUT", "/snapshots", op="MKDIRS", permission="777")
        yield server
    finally:
        server.end()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """As a Secret is mounted."""
    folder = tmp_path / "secret"
    folder.mkdir()
    (folder / "AWS_ACCESS_KEY_ID").write_text(KEY)
    (folder / "AWS_SECRET_ACCESS_KEY").write_text(SECRET + "\n")
    return folder


@pytest.fixture
def s3(s3_server: S3Server, secret: Path) -> S3:
    """A prefix of its own."""
    return S3(f"s3://{BUCKET}/{uuid.uuid4().hex}/job", {"endpoint": s3_server.endpoint}, secret)


@pytest.fixture
def hdfs(hdfs_server: HdfsServer) -> WebHdfs:
    """A folder of its own."""
    return WebHdfs(f"{hdfs_server.url}/snapshots/{uuid.uuid4().hex}/job", {"user": "trainer"}, None)
