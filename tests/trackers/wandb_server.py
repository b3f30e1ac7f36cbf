"""As much of a W&B server as `wandb sync` talks to: it keeps the lines of a run's files by their numbers, as W&B does.

It was written after what wandb 0.31 sends. What W&B makes of the lines it cannot show.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harness.ports import reserve_network

_PORT = 8080


@dataclass
class Server:
    """What it was told of the one run."""

    address: str
    run: dict[str, Any] = field(default_factory=dict)
    """As it was when it was made, or made again."""
    path: str = ""
    files: dict[str, dict[int, Any]] = field(default_factory=dict)
    """Lines by name and number."""
    exit_code: int | None = None

    def history(self) -> list[dict[str, Any]]:
        """In the order of their numbers, of which none is missing."""
        lines = self.files["wandb-history.jsonl"]
        assert sorted(lines) == list(range(len(lines)))
        return [lines[number] for number in sorted(lines)]


@contextmanager
def served() -> Iterator[Server]:
    """One, for a while."""
    network = reserve_network()
    host = f"{network.value}.1"
    server = Server(f"http://{host}:{_PORT}")
    http = ThreadingHTTPServer((host, _PORT), _handler(server))
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
        network.release()


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer({}, 404)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/graphql":
                asked = json.loads(body)
                self._answer({"data": _upserted(server, asked) if "upsertBucket" in asked["query"] else {}})
            elif self.path.endswith("/file_stream"):
                server.path = self.path
                _streamed(server, json.loads(body))
                self._answer({"exitcode": None, "limits": {}})
            else:
                self._answer({}, 404)

        def _answer(self, content: Any, status: int = 200) -> None:
            told = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

    return Handler


def _upserted(server: Server, asked: dict[str, Any]) -> dict[str, Any]:
    told = asked["variables"]
    server.run |= {name: value for name, value in told.items() if value is not None}
    project = {"id": "p", "name": told.get("project"), "entity": {"id": "e", "name": told.get("entity") or "me"}}
    bucket = {"id": "b", "name": told.get("name"), "displayName": told.get("displayName"), "project": project}
    return {"upsertBucket": {"bucket": {**bucket, "config": "{}", "historyLineCount": 0}, "inserted": True}}


def _streamed(server: Server, told: dict[str, Any]) -> None:
    for name, chunk in told.get("files", {}).items():
        lines = server.files.setdefault(name, {})
        for number, line in enumerate(chunk["content"], chunk["offset"]):
            lines[number] = json.loads(line)
    if told.get("complete"):
        server.exit_code = told["exitcode"]
