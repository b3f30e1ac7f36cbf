"""Which storage a place means, and what is said of places that mean none. Nothing is asked of any server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from drivetrain.snapshot.errors import StorageError
from drivetrain.snapshot.storage.local import Local
from drivetrain.snapshot.storage.place import storage_at
from harness.commands import succeeded
from harness.job import ROOT

IN_A_FOLDER = """
import sys
from drivetrain.snapshot.storage.place import storage_at
print(storage_at("/a/b", {}, None))
assert not {"minio", "urllib3"} & set(sys.modules), "a laptop may not have them"
"""


@pytest.mark.parametrize(
    ("place", "options", "what"),
    [
        ("gs://bucket/a", {}, r"gs:// is not known, but s3, webhdfs, swebhdfs"),
        ("hdfs://namenode:8020/a", {}, r"hdfs:// is spoken by Java only; with webhdfs://NAMENODE:9870"),
        ("/a/b", {"region": "eu"}, r"/a/b is a folder, and has no options"),
        ("s3://bucket", {"regoin": "eu"}, r"options.regoin is not known of s3://, but endpoint, region, addressing"),
        ("webhdfs://nn:9870/a", {"region": "eu"}, r"options.region is not known of webhdfs://, but user"),
        ("s3://bucket", {"endpoint": "store:9000"}, r"options.endpoint must be https://HOST or http://HOST"),
        ("s3://bucket", {"addressing": "host"}, r"options.addressing must be path or virtual"),
    ],
)
def test_what_is_wrong_is_named(place: str, options: dict[str, str], what: str) -> None:
    with pytest.raises(StorageError) as caught:
        storage_at(place, options, None)
    assert what in str(caught.value)


def test_folders_and_urls(tmp_path: Path) -> None:
    assert isinstance(storage_at(str(tmp_path), {}, None), Local)
    assert str(storage_at("s3://bucket/a/b/", {"region": "eu-central-1"}, None)) == "s3://bucket/a/b"
    assert str(storage_at("webhdfs://nn:9870/a", {"user": "trainer"}, None)) == "webhdfs://nn:9870/a"


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({}, "https://bucket.s3.us-east-1.amazonaws.com"),
        ({"region": "cn-north-1"}, "https://bucket.s3.cn-north-1.amazonaws.com.cn"),
        ({"addressing": "path"}, "https://s3.us-east-1.amazonaws.com/bucket"),
        ({"endpoint": "http://store:9000"}, "http://store:9000/bucket"),
        ({"endpoint": "http://store:9000", "addressing": "virtual"}, "http://bucket.store:9000"),
    ],
)
def test_where_a_bucket_is(monkeypatch: pytest.MonkeyPatch, options: dict[str, str], url: str) -> None:
    from drivetrain.snapshot.storage.s3 import S3

    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    assert S3("s3://bucket", options, None)._base == url


def test_a_laptop_without_the_libraries_keeps_its_folders() -> None:
    environment = {"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'worker-image'}"}
    succeeded([sys.executable, "-c", IN_A_FOLDER], 60, environment)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "drivetrain.snapshot.storage.s3", raising=False)
    for name in [each for each in sys.modules if each.partition(".")[0] == "minio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "minio", None)
    with pytest.raises(StorageError, match=r"s3:// needs the Python package minio: pip install drivetrain\[worker\]"):
        storage_at("s3://bucket", {}, None)
