"""`drivetrain get`: which files, where to, and are they whole?"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from drivetrain_cli.errors import CliError, UsageError
from drivetrain_cli.main import make_parser
from drivetrain_cli.results import reader
from drivetrain_cli.results.command import _listed
from drivetrain_cli.results.execute import execute
from drivetrain_cli.results.fetch import Wish, chosen, fetch, human
from drivetrain_cli.results.here import Here
from drivetrain_cli.results.pod import asked, place_of, pod
from drivetrain_cli.results.source import Copied, Cut, Entry, Write
from drivetrain_operator.kube.auth import FixedCredentials
from drivetrain_operator.kube.client import KubeClient

UID = "0123abcd-0000"
NAMES = ("model.pt", "checkpoint-10/a.bin", "checkpoint-10/sub/b.bin", "checkpoint-100/a.bin")
ENTRIES = [Entry(name, 5, 0.0) for name in NAMES]


def job(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "drivetrain.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "lm", "namespace": "team", "uid": UID},
        "spec": {"image": "train", "command": ["python", "train.py"], **spec},
    }


@pytest.mark.parametrize(
    ("wanted", "to", "places"),
    [
        ("model.pt", ".", ["model.pt"]),
        ("model.pt", "other.pt", ["other.pt"]),
        ("model.pt", "there", ["there/model.pt"]),
        ("model.pt", "new/", ["new/model.pt"]),
        ("checkpoint-10", ".", ["checkpoint-10/a.bin", "checkpoint-10/sub/b.bin"]),
        ("checkpoint-10/", "new", ["new/a.bin", "new/sub/b.bin"]),
        ("checkpoint-10/sub", "there", ["there/sub/b.bin"]),
        ("", "there", [f"there/lm/{name}" for name in NAMES]),
        ("", "new", [f"new/{name}" for name in NAMES]),
    ],
)
def test_files_go_where_cp_would_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, to: str, places: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    wishes = chosen(ENTRIES, wanted, Path(to), job="lm", into=to.endswith("/"))
    assert [str(wish.target) for wish in wishes] == places


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("modle.pt", "near it: model.pt"),
        ("checkpoint-11", "near it: checkpoint-10"),
        ("b.bin", "near it: checkpoint-10/sub/b.bin"),
        ("zzz", "there: model.pt, checkpoint-10/a.bin"),
    ],
)
def test_what_is_not_there_is_told_with_what_is_near_it(wanted: str, told: str) -> None:
    with pytest.raises(UsageError, match=f"no '{wanted}' in the storage of job lm; {told}"):
        chosen(ENTRIES, wanted, Path(), job="lm", into=False)


@pytest.mark.parametrize("name", ["a/../../b", "a//b", "a/."])
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    with pytest.raises(CliError, match="leads elsewhere"):
        chosen([Entry(name, 1, 0.0)], "a", Path(), job="lm", into=False)


@pytest.mark.parametrize("into", [True, False])
def test_a_name_that_is_no_text_is_not_taken_for_another(into: bool) -> None:
    with pytest.raises(CliError, match="which is no UTF-8"):
        chosen([Entry("a\udcff.txt", 1, 0.0), Entry("a.txt", 1, 0.0)], "a\udcff.txt", Path(), job="lm", into=into)


@pytest.mark.parametrize("time", [4e11, 1e300, float("inf"), -1e18])
def test_a_time_that_no_calendar_has_ends_no_list(time: float) -> None:
    listed = _listed([Entry("model.pt", 1, time)], "", Here(Path(), "s3://bucket"), "table")
    assert listed.splitlines()[1].split() == ["model.pt", "1", "B", "-"]


class Faulty:
    """A source that is cut, or changes, so often."""

    def __init__(self, data: bytes, *, cuts: int = 0, changes: int = 0) -> None:
        self.data, self.cuts, self.changes = data, cuts, changes
        self.offsets: list[int] = []

    async def entries(self) -> list[Entry]:
        return [Entry("model.pt", len(self.data), 7.0)]

    async def read(self, name: str, offset: int, write: Write) -> Copied:
        self.offsets.append(offset)
        if self.cuts:
            self.cuts -= 1
            write(self.data[offset : offset + 3])
            raise Cut("the connection ended before the command did")
        write(self.data[offset:])
        if self.changes:
            self.changes -= 1
            self.data = self.data[::-1]
        return Copied(len(self.data), hashlib.sha256(self.data).hexdigest())


async def brought(source: Faulty, target: Path) -> None:
    (wish,) = chosen(await source.entries(), "model.pt", target, job="lm", into=False)
    await fetch(source, wish, lambda entry, size: None)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivetrain_cli.results.fetch._WAIT_SECONDS", 0.001)


async def test_a_file_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    source = Faulty(b"0123456789", cuts=3)
    await brought(source, tmp_path / "model.pt")
    assert (tmp_path / "model.pt").read_bytes() == b"0123456789"
    assert source.offsets == [0, 3, 6, 9]
    assert (tmp_path / "model.pt").stat().st_mtime == 7.0


@pytest.mark.parametrize(("name", "time"), [("模" * 84, 7.0), ("model.pt", float("inf"))])
async def test_long_names_and_odd_times_are_brought(tmp_path: Path, name: str, time: float) -> None:
    await fetch(Faulty(b"0123"), Wish(Entry(name, 4, time), tmp_path / name), lambda entry, size: None)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: b"0123"}


async def test_a_file_that_changed_meanwhile_is_read_anew(tmp_path: Path) -> None:
    await brought(Faulty(b"0123456789", changes=1), tmp_path / "model.pt")
    assert (tmp_path / "model.pt").read_bytes() == b"9876543210"


@pytest.mark.parametrize(
    ("source", "told"), [(Faulty(b"0123456789" * 9, cuts=99), "ended"), (Faulty(b"0123", changes=99), "being written")]
)
async def test_half_a_file_lies_under_no_name_of_its_own(tmp_path: Path, source: Faulty, told: str) -> None:
    (tmp_path / "model.pt").write_text("the one before")
    with pytest.raises(CliError, match=told):
        await brought(source, tmp_path / "model.pt")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"model.pt": "the one before"}


def test_a_reader_needs_nothing_of_ours(tmp_path: Path) -> None:
    """It is sent as text, and asked as a pod's is."""
    folder = tmp_path / "a folder"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "x").write_bytes(b"0123456789")
    (folder / ".half.tmp").touch()
    (folder / "nowhere").symlink_to("gone")

    def ask(*words: str) -> subprocess.CompletedProcess[bytes]:
        place = place_of(job(storage={"path": "/mnt"})).model_copy(update={"folder": str(folder)})
        command = asked(place)
        environment = {"PATH": os.environ["PATH"], "DRIVETRAIN_READER": Path(reader.__file__).read_text()}
        command = [*command[:-1], words[0], command[-1], *words[1:]]
        return subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)

    (line,) = ask("list").stdout.splitlines()
    assert {**json.loads(line), "time": 0} == {"name": "a/x", "size": 10, "time": 0}
    read = ask("read", "a/x", "4")
    assert read.stdout == b"456789"
    assert json.loads(read.stderr)["sha256"] == hashlib.sha256(b"0123456789").hexdigest()
    assert ask("read", "a/y", "0").returncode == 3
    assert ask("read", "a", "0").returncode == 3


async def test_a_folder_of_this_machine_is_read_alike(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123")
    here, got = Here(tmp_path), bytearray()
    assert [entry.name for entry in await here.entries()] == ["x"]
    assert (await here.read("x", 1, got.extend)).size == 4
    assert bytes(got) == b"123"
    assert await Here(tmp_path / "none").entries() == []


def linked(tmp_path: Path) -> Path:
    """Results with every kind of link, and something beside them."""
    results, outside = tmp_path / "results", tmp_path / "outside"
    for folder, file in ((results / "checkpoint-500" / "deep", "a.bin"), (outside, "secret")):
        folder.mkdir(parents=True)
        (folder / file).write_bytes(b"0123")
    (results / "model.pt").write_bytes(b"01")
    for name, target in {
        "latest": "checkpoint-500",
        "newest": str(results / "latest"),
        "best.pt": "model.pt",
        "checkpoint-500/deep/up": "../..",  # a folder that it is in
        "checkpoint-500/self": "self",
        "out": "../outside",
        "secret": "../outside/secret",
        "through": "latest/../../outside",
        "nowhere": "gone",
    }.items():
        (results / name).symlink_to(target)
    return results


async def test_links_are_followed_inside_of_the_results_only(tmp_path: Path) -> None:
    here = Here(linked(tmp_path))
    found = {entry.name: entry.link for entry in await here.entries()}
    assert found == {
        "best.pt": "model.pt",
        "checkpoint-500/deep/a.bin": "",
        "latest/deep/a.bin": "checkpoint-500/deep/a.bin",
        "model.pt": "",
        "newest/deep/a.bin": "checkpoint-500/deep/a.bin",
    }
    got = bytearray()
    await here.read("latest/deep/a.bin", 0, got.extend)
    assert bytes(got) == b"0123"
    for name in ("secret", "out/secret", "through/secret"):
        with pytest.raises(CliError, match="leads out of the results"):
            await here.read(name, 0, got.extend)
    assert bytes(got) == b"0123"


async def test_a_linked_folder_is_brought_as_a_folder_and_listed_as_a_link(tmp_path: Path) -> None:
    here = Here(linked(tmp_path))
    entries = await here.entries()
    (wish,) = chosen(entries, "latest", tmp_path / "to", job="lm", into=False)
    await fetch(here, wish, lambda entry, size: None)
    assert (tmp_path / "to" / "deep" / "a.bin").read_bytes() == b"0123"
    lines = _listed(entries, "", here, "table").splitlines()
    assert lines[1].startswith("best.pt -> model.pt ")
    assert lines[-1].startswith("2 files, 6 B, and 3 by links, in ")
    assert json.loads(_listed(entries, "latest", here, "json"))["files"][0]["link"] == "checkpoint-500/deep/a.bin"


def test_of_very_many_links_not_all_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_LINKED", 5)
    (tmp_path / "real").mkdir()
    for number in range(3):
        (tmp_path / "real" / str(number)).touch()
    for number in range(9):
        (tmp_path / f"link-{number}").symlink_to("real")
    names = [found.name for found in reader.entries(str(tmp_path))]
    assert len(names) == 3 + 5
    assert [name for name in names if name.startswith("real/")] == ["real/0", "real/1", "real/2"]


def test_a_pod_sees_the_claim_and_waits(tmp_path: Path) -> None:
    made = pod(job(storage={"persistentVolumeClaim": "shared"}), None, "abcde")
    (container,) = made["spec"]["containers"]
    assert made["metadata"]["name"] == "lm-results-abcde"
    assert {"name": "drivetrain-storage", "mountPath": "/var/lib/drivetrain/storage"} in container["volumeMounts"]
    assert [each["value"] for each in container["env"] if each["name"] == "DRIVETRAIN_READER"] == [
        Path(reader.__file__).read_text().replace("$(", "$$(")
    ]
    assert "time.sleep" in container["command"][-1]


URL: Final[dict[str, Any]] = {"storage": {"url": "s3://bucket/lm"}}


@pytest.mark.parametrize(
    ("name", "given", "resolved", "refused"),
    [
        ("an image without the runtime", URL, None, True),
        ("one that is known", URL, {"nameSuffix": "1", "runtimeImage": "registry/drivetrain:1"}, False),
        ("an image with it", {**URL, "runtimeFrom": "image"}, None, False),
        ("a claim, which any Python reads", {"storage": {"persistentVolumeClaim": "shared"}}, None, False),
    ],
)
def test_who_reads_a_url_needs_the_runtime(
    name: str, given: dict[str, Any], resolved: dict[str, Any] | None, refused: bool
) -> None:
    suspended = job(suspend=True, **given) | {"status": {"resolved": resolved} if resolved else {}}
    if refused:
        with pytest.raises(CliError, match="resume it first"):
            pod(suspended, None, "abcde")
    else:
        assert pod(suspended, None, "abcde")["spec"]["containers"]
    assert pod(suspended, None, "abcde", ["python3"])["spec"]["containers"]  # of the embedded plane


def test_a_job_without_storage_says_so() -> None:
    with pytest.raises(UsageError, match=r"job lm has no storage.*spec\.storage"):
        place_of(job())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["snapshots", "lm", "-n", "team", "verify"], {"job": "lm", "namespace": "team", "what": "verify"}),
        (["snapshots", "lm", "verify", "-n", "team"], {"job": "lm", "namespace": "team", "what": "verify"}),
        (["snapshots", "-n", "team", "lm"], {"job": "lm", "namespace": "team", "what": "list"}),
        (["get", "lm:model.pt", "-n", "team", "."], {"source": "lm:model.pt", "namespace": "team", "to": "."}),
        (["get", "lm:"], {"source": "lm:", "to": None}),
        (["run", "train.py", "-n", "5"], {"arguments": ["-n", "5"], "namespace": None}),
    ],
)
def test_flags_may_stand_between_the_words(words: list[str], expected: dict[str, Any]) -> None:
    given: argparse.Namespace = make_parser().parse_args(words)
    assert {name: getattr(given, name) for name in expected} == expected


def test_an_unknown_verb_is_still_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args(["snapshots", "lm", "-n", "team", "verfiy"])
    assert "verfiy" in capsys.readouterr().err


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[str]:
    """An API server's exec, which runs the command here."""

    async def serve(request: web.Request) -> web.StreamResponse:
        command = request.query.getall("command")
        if command[0] == "forbidden":
            return web.Response(status=403, reason="Forbidden")
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
        await socket.prepare(request)
        if command[0] == "cut":
            await socket.send_bytes(b"\1half")
            await socket.close()
            return socket
        done = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
        streams = await done.communicate()
        await socket.send_bytes(b"\1")
        for stream, data in enumerate(streams, 1):
            for at in range(0, len(data), 1000):
                await socket.send_bytes(bytes([stream]) + data[at : at + 1000])
        causes = [{"reason": "ExitCode", "message": str(done.returncode)}]
        status: dict[str, Any] = {"status": "Failure", "details": {"causes": causes}}
        await socket.send_bytes(b"\3" + json.dumps(status if done.returncode else {"status": "Success"}).encode())
        await socket.close()
        return socket

    app = web.Application()
    app.router.add_get("/api/v1/namespaces/team/pods/reader/exec", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_command_in_a_pod_is_read_to_its_end(api: str) -> None:
    async with KubeClient(FixedCredentials(api)) as client:
        where = {"metadata": {"name": "reader", "namespace": "team"}}
        got = bytearray()
        script = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 100); sys.stderr.write('said'); sys.exit(3)"
        ended = await execute(client, where, "worker", [sys.executable, "-c", script], got.extend)
        assert (bytes(got), ended.code, ended.stderr) == (bytes(range(256)) * 100, 3, "said")
        assert (await execute(client, where, "worker", ["true"], got.extend)).code == 0
        with pytest.raises(Cut, match="before the command"):
            await execute(client, where, "worker", ["cut"], got.extend)
        assert got.endswith(b"half")
        with pytest.raises(CliError, match="pods/exec"):
            await execute(client, where, "worker", ["forbidden"], got.extend)


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")])
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert human(size) == text
