"""A stock script's results at a URL: copied when its worker ends, whatever the server does; there for the next one."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from drivetrain.snapshot.storage.s3 import S3
from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.runtime import RuntimeSpec, RuntimeStorage
from harness.job import LocalJob
from harness.patience import until_true
from storage.servers import BUCKET, S3Server

URL = f"s3://{BUCKET}/results/ns/lm-12345678"
SCRIPT = """
import os, pathlib, sys, time
out = pathlib.Path(os.environ["DRIVETRAIN_OUTPUT_DIR"])
print("found", sorted(path.name for path in out.iterdir()), flush=True)
(out / "model.pt").write_bytes(os.urandom(1_000_000))
print("written", flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.05)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[S3Server]:
    made = S3Server(tmp_path / "server")
    made.start()
    yield made
    made.end()


@asynccontextmanager
async def job(folder: Path, server: S3Server, secret: Path) -> AsyncIterator[LocalJob]:
    """One worker; its script ends when there is a file `go`."""
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    storage = RuntimeStorage(
        folder=str(folder / "out"), url=URL, options={"endpoint": server.endpoint}, secret=str(secret)
    )
    spec = RuntimeSpec(runtime="torchrun", workers=1, min_workers=1, spares=0, storage=storage)
    environment = {"DRIVETRAIN_GRACE_SECONDS": "6", "TORCHDYNAMO_DISABLE": "1"}
    command = [sys.executable, str(folder / "train.py"), str(folder / "go")]
    async with LocalJob.run(folder, spec, command, environment) as running:
        await until_true(lambda: "written" in running.logs(), running.logs, 60.0)
        yield running


async def test_results_are_copied_once_the_server_is_back_and_the_next_worker_has_them(
    tmp_path: Path, server: S3Server, secret: Path
) -> None:
    s3 = S3(URL, {"endpoint": server.endpoint}, secret)
    async with job(tmp_path / "first", server, secret) as running:
        server.kill()
        (tmp_path / "first" / "go").touch()
        await until_true(lambda: "results cannot be copied yet" in running.logs(), running.logs, 60.0)
        server.start()
        assert await running.completed() == [ExitCode.COMPLETE]
    written = (tmp_path / "first" / "out" / "model.pt").read_bytes()
    assert s3.read("model.pt") == written
    async with job(tmp_path / "second", server, secret) as running:
        assert "found ['model.pt']" in running.logs()
        (tmp_path / "second" / "go").touch()
        assert await running.completed() == [ExitCode.COMPLETE]
    again = (tmp_path / "second" / "out" / "model.pt").read_bytes()
    assert again != written
    assert s3.read("model.pt") == again


async def test_a_worker_that_cannot_copy_the_results_of_a_good_job_does_not_end_well(
    tmp_path: Path, server: S3Server, secret: Path
) -> None:
    async with job(tmp_path / "first", server, secret) as running:
        server.kill()
        (tmp_path / "first" / "go").touch()
        await until_true(lambda: "results cannot be copied yet" in running.logs(), running.logs, 60.0)
        (pod,) = running.pods.values()
        pod.process.send_signal(signal.SIGTERM)  # as after eleven minutes
        assert await running.completed() == [ExitCode.STORAGE]
        assert f"not all results are in {URL}, and they go with this pod: cannot write {URL}/model.pt" in running.logs()


async def test_a_worker_that_is_told_to_go_copies_within_its_grace(
    tmp_path: Path, server: S3Server, secret: Path
) -> None:
    async with job(tmp_path / "first", server, secret) as running:
        (pod,) = running.pods.values()
        pod.process.send_signal(signal.SIGTERM)
        assert await running.left(pod) == ExitCode.LEFT
    written = (tmp_path / "first" / "out" / "model.pt").read_bytes()
    assert S3(URL, {"endpoint": server.endpoint}, secret).read("model.pt") == written


def test_a_reader_lists_reads_on_and_brings(tmp_path: Path, s3_server: S3Server, secret: Path) -> None:
    """What `drivetrain get` asks of it in a pod."""
    url = f"s3://{BUCKET}/reader/ns/lm-1"
    options = {"endpoint": s3_server.endpoint}
    storage = S3(url, options, secret)
    model = bytes(range(256)) * 200_000  # more than one part
    for name, data in (("model.pt", model), ("a/b/state", b"x"), ("a-b", b"")):
        storage.replace(name, [data])
    spec = RuntimeSpec(storage=RuntimeStorage(folder="/out", options=options, secret=str(secret)))
    environment = {**os.environ, "DRIVETRAIN_SPEC": spec.model_dump_json()}

    def ask(word: str, *words: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "drivetrain.results", word, url, *words]
        return subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)

    sizes = {each["name"]: each["size"] for each in map(json.loads, ask("list").stdout.splitlines())}
    assert sizes == {"model.pt": len(model), "a/b/state": 1, "a-b": 0}
    read = ask("read", "model.pt", "40000000")
    assert read.stdout == model[40_000_000:]
    assert json.loads(read.stderr) == {"size": len(model), "sha256": hashlib.sha256(model).hexdigest()}
    assert ask("read", "model", "0").returncode == 3
    assert ask("bring", f"to:{tmp_path / 'all'}", "a").returncode == 0
    assert [str(path.relative_to(tmp_path / "all")) for path in (tmp_path / "all").rglob("*") if path.is_file()] == [
        "a/b/state"
    ]
    (secret / "AWS_SECRET_ACCESS_KEY").write_text("wrong")
    refused = ask("list")
    assert (refused.returncode, b"AWS_SECRET_ACCESS_KEY does not fit" in refused.stderr) == (1, True)
