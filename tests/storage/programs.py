"""Which servers are tried, and where do they come from?

S3 is versitygw, built from its Go module (a minute and a half of CPU; SeaweedFS takes ten). HDFS is Hadoop's own mini
cluster, from Maven Central. Both lie outside the checkout, under a name that is a hash of what they are made of.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from cluster.layout import cache_dir

HERE: Final = Path(__file__).parent
HDFS: Final = HERE / "hdfs"
_FLAGS: Final = ("-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags=-s -w")
_PACKAGE: Final = "github.com/versity/versitygw/cmd/versitygw"
_MAVEN: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
_SECONDS: Final = 1200


class Unbuilt(Exception):
    """A server cannot be had, and why."""


def versitygw() -> Path:
    """The program, built if it is not there."""
    wrapper = HERE / "go" / "versitygw"
    folder = _folder("versitygw", [*sorted(wrapper.iterdir())], repr(_FLAGS))

    def build(unfinished: Path) -> None:
        command = ["go", "build", *_FLAGS, "-o", str(unfinished / "versitygw"), _PACKAGE]
        _run(command, wrapper, {"CGO_ENABLED": "0"})

    return _made(folder, "building versitygw, an S3 server (a minute and a half of CPU)", build) / "versitygw"


def hadoop() -> Path:
    """A folder with Hadoop's jars, fetched if they are not there."""
    folder = _folder("hadoop", [HDFS / "pom.xml", HDFS / "jars.sha256"], "")

    def fetch(unfinished: Path) -> None:
        _run(["mvn", "-q", "-B", "-f", str(HDFS / "pom.xml"), _MAVEN, f"-DoutputDirectory={unfinished}"], HERE, {})
        for line in (HDFS / "jars.sha256").read_text().splitlines():
            wanted, name = line.split()
            if hashlib.sha256((unfinished / name).read_bytes()).hexdigest() != wanted:
                raise Unbuilt(f"{name} is not the one that jars.sha256 names")

    return _made(folder, "fetching Hadoop's mini cluster (90 MB)", fetch)


def _folder(name: str, files: list[Path], more: str) -> Path:
    digest = hashlib.sha256(more.encode())
    for file in files:
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    return cache_dir() / f"storage-{name}-{digest.hexdigest()[:12]}"


def _made(folder: Path, what: str, make: object) -> Path:
    """Made by one at a time, and there as a whole or not at all."""
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        print(f"{what} ...", end=" ", file=sys.stderr, flush=True)
        began = time.monotonic()
        assert callable(make)
        make(unfinished)
        print(f"done in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        unfinished.rename(folder)
    return folder


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    if shutil.which(command[0]) is None:
        raise Unbuilt(f"`{command[0]}` is not on PATH: `make test-storage` needs go, mvn and java")
    result = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=_SECONDS
    )
    if result.returncode:
        raise Unbuilt(f"`{' '.join(command)}` failed:\n{(result.stderr or result.stdout)[-3000:]}")
