"""For tests of the runtime: one thread for torch, scripts in processes, and a store of files on a real local server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch

from unit.runtime.scripts import Scripts

# Several workers of pytest and their ranks share few cores: a pool of threads in each would spin for the others' time.
torch.set_num_threads(1)


class Ranges(BaseHTTPRequestHandler):
    """A store that answers requests for ranges, as object stores do."""

    files: dict[str, bytes] = {}  # noqa: RUF012

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        data = self.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        if asked:
            start, stop = asked.removeprefix("bytes=").split("-")
            piece = data[int(start) : int(stop) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{int(start) + len(piece) - 1}/{len(data)}")
        else:
            piece = data
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(piece)))
        self.end_headers()
        if body:
            self.wfile.write(piece)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Ranges.files = {"/a.txt": b"".join(b"%d\n" % each for each in range(300)), "/b.txt": b"300\n301\n"}
    found = ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()
    thread.join()
    found.server_close()


@pytest.fixture(scope="session")
def scripts() -> Iterator[Scripts]:
    """Where scripts are started: it loads torch once for all that one worker of pytest runs."""
    made = Scripts()
    yield made
    made.close()
