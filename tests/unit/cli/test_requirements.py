"""Are a job's requirements installed beside what its image has, once, and is it said if they cannot be?"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from drivetrain_api.exit_codes import ExitCode
from drivetrain_cli.errors import UsageError
from drivetrain_cli.pack import install
from drivetrain_cli.pack.requirements import checked

PYTHON = [sys.executable, install.__file__]


def wheel(folder: Path, name: str, requires: str = "") -> None:
    """A package of one module that holds its name."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as packed:
        packed.writestr(f"{name}.py", f"NAME = {name!r}\n")
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        packed.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}")
        packed.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{info}/RECORD", "")


def written(folder: Path, *lines: str) -> Path:
    path = folder / "requirements.txt"
    path.write_text("\n".join(["--no-index", f"--find-links {folder / 'wheels'}", *lines, ""]))
    return path


def start(requirements: Path, place: Path, *flags: str) -> subprocess.Popen[str]:
    place.mkdir(exist_ok=True)
    argv = [*PYTHON, str(requirements), str(place), *flags]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_is_missing_is_installed_with_what_it_needs_and_nothing_that_is_there(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "drivetrain_one", requires="drivetrain-two")
    wheel(tmp_path / "wheels", "drivetrain_two", requires="pyyaml")
    requirements = written(tmp_path, "drivetrain-one")
    process = start(requirements, tmp_path / "packages")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    current = tmp_path / "packages" / "current"
    assert {"drivetrain_one.py", "drivetrain_two.py"} <= set(os.listdir(current))
    assert "yaml" not in os.listdir(current)
    found = subprocess.run(
        [sys.executable, "-c", "import drivetrain_two, yaml; print(drivetrain_two.NAME)"],
        env={"PYTHONPATH": str(current)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "drivetrain_two"
    process = start(requirements, tmp_path / "packages")  # the pod's init containers run again
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 0


def test_two_pods_of_one_cache_install_once(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "drivetrain_one")
    requirements, cache = written(tmp_path, "drivetrain-one"), tmp_path / "cache"
    cache.mkdir()
    pods = [start(requirements, tmp_path / f"pod-{number}", "--cache", str(cache)) for number in range(2)]
    said = [pod.communicate(timeout=120) for pod in pods]
    assert [pod.returncode for pod in pods] == [0, 0], said
    assert sum("packages to install" in out for out, _ in said) == 1
    assert [each.suffix for each in cache.iterdir()] == [""]
    assert all((tmp_path / f"pod-{number}" / "current" / "drivetrain_one.py").exists() for number in range(2))


@pytest.mark.parametrize("ago", [2 * install.STALE_SECONDS, -(10**6)])
def test_a_pod_that_died_while_it_installed_holds_up_nobody(tmp_path: Path, ago: float) -> None:
    place, lock = tmp_path / "place", tmp_path / "lock"
    lock.touch()
    os.utime(lock, (time.time() - ago,) * 2)
    with install.locked(lock, place):
        assert lock.exists()
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_find_it_dead_one_does_not_take_the_others_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, rename = tmp_path / "lock", Path.rename
    lock.touch()
    os.utime(lock, (time.time() - 2 * install.STALE_SECONDS,) * 2)

    def after_another(path: Path, target: Path) -> Path:
        if path == lock:
            lock.unlink()
            lock.write_text("the other's")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", after_another)
    assert not install.left(lock)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"lock": "the other's"}


def test_what_another_has_installed_meanwhile_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should two have the lock after all."""
    requirements, root = written(tmp_path, "x"), tmp_path / "cache"
    root.mkdir()

    def installed(_requirements: Path, _text: str, made: Path, _index: str | None) -> None:
        (made / "packages").mkdir()
        others = root / made.name.partition(".")[0]
        others.mkdir()
        (others / "x.py").touch()

    monkeypatch.setattr(install, "install", installed)
    assert os.listdir(install.provide(requirements, root, None)) == ["x.py"]


HASH = "0" * 64
NEVER = [
    ("no such package", ["drivetrain-none"], "the requirement drivetrain-none (from versions: none)"),
    ("no such version", ["drivetrain-one==3"], "the requirement drivetrain-one==3 (from versions: 1.0)"),
    ("nor of what it needs", ["drivetrain-two"], "the requirement drivetrain_one==5 (from drivetrain-two)"),
    ("another hash", [f"drivetrain-one==1.0 --hash=sha256:{HASH}"], "drivetrain-one==1.0: These packages do not match"),
    ("without a hash", ["drivetrain-one==1.0 --hash=sha256:RIGHT", "drivetrain-two"], "drivetrain-two: In --require"),
    ("not a line of such a file", ["a b c"], "Invalid requirement: 'a b c'"),
    ("no such option", ["--frobnicate"], "--frobnicate"),
    ("two that exclude each other", ["drivetrain-one", "drivetrain-two"], "drivetrain-one"),
]


@pytest.mark.parametrize(("what", "lines", "said"), NEVER, ids=[each[0] for each in NEVER])
def test_what_no_try_can_install_is_named_at_once_and_leaves_nothing(
    tmp_path: Path, what: str, lines: list[str], said: str
) -> None:
    wheel(tmp_path / "wheels", "drivetrain_one")
    wheel(tmp_path / "wheels", "drivetrain_two", requires="drivetrain_one==5")
    right = hashlib.sha256(next((tmp_path / "wheels").glob("drivetrain_one-*")).read_bytes()).hexdigest()
    process = start(written(tmp_path, *(line.replace("RIGHT", right) for line in lines)), tmp_path / "packages")
    _, err = process.communicate(timeout=120)
    last = err.splitlines()[-1]
    assert process.returncode == ExitCode.REQUIREMENTS
    assert last.startswith("requirements: they cannot be installed: "), last
    assert said in last
    assert os.listdir(tmp_path / "packages") == []


class Index(ThreadingHTTPServer):
    """A package index that answers the first requests with `codes`, then has drivetrain-one."""

    def __init__(self, codes: list[int]) -> None:
        self.codes, self.packed = codes, b""
        super().__init__(("127.0.0.1", 0), Page)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/simple"


class Page(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        code = self.server.codes.pop(0) if self.server.codes else 200
        name = "drivetrain_one-1.0-py3-none-any.whl"
        page = f'<!DOCTYPE html><html><body><a href="/{name}">{name}</a></body></html>'.encode()
        body = b"" if code != 200 else self.server.packed if self.path.endswith(".whl") else page
        self.send_response(code)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Callable[[list[int]], Index]]:
    begun: list[Index] = []

    def begin(codes: list[int]) -> Index:
        wheel(tmp_path / "wheels", "drivetrain_one")
        server = Index(codes)
        server.packed = next((tmp_path / "wheels").iterdir()).read_bytes()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        begun.append(server)
        return server

    yield begin
    for each in begun:
        each.shutdown()
        each.server_close()


def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, patience: float) -> int:
    """Installs drivetrain-one from there; pip itself does not try again."""
    for name, value in (("PIP_INDEX_URL", url), ("PIP_RETRIES", "0"), ("PIP_NO_CACHE_DIR", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(install, "PAUSES", (0.1, 0.2))
    monkeypatch.setattr(install, "PATIENCE_SECONDS", patience)
    requirements, place = tmp_path / "requirements.txt", tmp_path / "packages"
    requirements.write_text("drivetrain-one\n")
    place.mkdir()
    monkeypatch.setattr(sys, "argv", ["install.py", str(requirements), str(place)])
    return install.main()


@pytest.mark.parametrize("codes", [[503], [504, 429], [200, 503], [200, 200, 502]])
def test_an_index_that_is_away_for_a_while_is_asked_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    index: Callable[[list[int]], Index],
    capsys: pytest.CaptureFixture[str],
    codes: list[int],
) -> None:
    assert tried(tmp_path, monkeypatch, index(codes).url, patience=60) == 0
    assert (tmp_path / "packages" / "current" / "drivetrain_one.py").exists()
    assert "trying again in 0.1 s" in capsys.readouterr().err


def test_one_that_stays_away_is_given_up_and_another_pod_may_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/simple"
        assert tried(tmp_path, monkeypatch, url, patience=1) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("requirements: given up after ")
    assert url in last


def test_an_index_that_refuses_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    index: Callable[[list[int]], Index],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tried(tmp_path, monkeypatch, index([403] * 9).url, patience=60) == ExitCode.REQUIREMENTS
    assert "answered 403" in capsys.readouterr().err.splitlines()[-1]


def test_of_many_versions_the_newest_are_named() -> None:
    versions = ", ".join(f"1.{number}" for number in range(300))
    said = f"ERROR: Could not find a version that satisfies the requirement a==9 (from versions: {versions})"
    with pytest.raises(install.Unusable) as caught:
        install.what_may_pass(said, "")
    assert str(caught.value).endswith("requirement a==9 (from versions: …, 1.295, 1.296, 1.297, 1.298, 1.299)")


@pytest.mark.parametrize(
    "line", ["-r other.txt", "-c limits.txt", "-e .", "./mine", "file:///x.whl", "mine @ file:///x", "-f ./wheels"]
)
def test_files_of_this_machine_are_refused_by_their_line(line: str) -> None:
    with pytest.raises(UsageError, match=r"^--requirements: r.txt:2: "):
        checked(f"numpy\n{line}\n", "r.txt")


@pytest.mark.parametrize("line", ["numpy>=1", "einops==0.8 --hash=sha256:00", "-i https://index/simple", "a[b]; x"])
def test_others_pass(line: str) -> None:
    assert checked(line, "r.txt") == line
