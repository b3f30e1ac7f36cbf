"""The servers, as processes of a test: on loopback, at ports of their own, killed and started again where they were."""

from __future__ import annotations

import getpass
import socket
import subprocess
import time
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlencode

import urllib3

from harness.patience import until
from harness.ports import reserve_port
from storage.programs import HDFS, hadoop, versitygw

BUCKET: Final = "bucket"
KEY: Final = "AKIDOFTHETESTS"
SECRET: Final = "a-secret-that-must-be-seen-nowhere"
READER: Final = ("READER", "the-secret-of-the-reader")
"""Of an account that may do nothing in the bucket."""


class Server:
    """A process that serves from a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._port = reserve_port()
        self.port = int(self._port.value)
        self._process: subprocess.Popen[str] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Returns when it serves."""
        with (self.folder / "log").open("a") as log:
            self._process = self._started(log)
        until(self._serves, f"{type(self).__name__} serves", 60, 0.05)

    def kill(self) -> None:
        """As a machine that loses its power, but for what the kernel has."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()

    def end(self) -> None:
        """For good."""
        self.kill()
        self._port.release()

    def _started(self, log: IO[str]) -> subprocess.Popen[str]:
        raise NotImplementedError

    def _serves(self) -> bool:
        raise NotImplementedError


class S3Server(Server):
    """versitygw: objects are files of a folder."""

    def __init__(self, folder: Path, certificate: tuple[Path, Path] | None = None) -> None:
        super().__init__(folder)
        self._certificate = certificate
        self.endpoint = f"{'http' if certificate is None else 'https'}://127.0.0.1:{self.port}"
        for each in ("objects", "sidecar", "accounts"):
            (folder / each).mkdir(exist_ok=True)
        self.bucket = folder / "objects" / BUCKET
        self.bucket.mkdir(exist_ok=True)

    def _started(self, log: IO[str]) -> subprocess.Popen[str]:
        tls = [] if self._certificate is None else ["--cert", self._certificate[0], "--key", self._certificate[1]]
        command = [versitygw(), "--port", f"127.0.0.1:{self.port}", "--access", KEY, "--secret", SECRET, "--quiet"]
        command += ["--keep-alive", "--iam-dir", self.folder / "accounts", *tls]
        command += ["posix", "--sidecar", self.folder / "sidecar", self.folder / "objects"]
        return subprocess.Popen([str(each) for each in command], stdout=log, stderr=log, text=True)

    def _serves(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        except OSError:
            return False
        return True

    def add_reader(self) -> None:
        """The account that may nothing."""
        command = [versitygw(), "admin", "--access", KEY, "--secret", SECRET, "--endpoint-url", self.endpoint]
        command += ["create-user", "--access", READER[0], "--secret", READER[1], "--role", "user"]
        subprocess.run([str(each) for each in command], check=True, capture_output=True, timeout=60)


class HdfsServer(Server):
    """A name node and a data node."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._rpc = reserve_port()
        self.url = f"webhdfs://127.0.0.1:{self.port}"

    def _started(self, log: IO[str]) -> subprocess.Popen[str]:
        data = self.folder / "data"
        command = [
            "java",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            f"{hadoop()}/*",
            HDFS / "Hdfs.java",
            data,
        ]
        command += [self._rpc.value, self.port, *(["again"] if data.exists() else [])]
        self._said = self.folder / f"said-{time.monotonic_ns()}"
        with self._said.open("w") as said:
            return subprocess.Popen(
                [str(each) for each in command], stdin=subprocess.PIPE, stdout=said, stderr=log, text=True
            )

    def _serves(self) -> bool:
        if "ready" not in self._said.read_text():
            return False
        try:
            self.order("GET", "/", op="LISTSTATUS")  # the first request takes seconds
        except urllib3.exceptions.HTTPError:
            return False
        return True

    def end(self) -> None:
        super().end()
        self._rpc.release()

    def order(self, method: str, path: str, **query: str) -> None:
        """As the superuser, beside what is tested."""
        url = f"http://127.0.0.1:{self.port}/webhdfs/v1{path}?{urlencode({**query, 'user.name': getpass.getuser()})}"
        answer = urllib3.request(method, url, timeout=5.0, retries=False)
        assert answer.status == 200, (answer.status, answer.data)
