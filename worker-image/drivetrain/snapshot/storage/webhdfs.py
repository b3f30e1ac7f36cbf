"""A folder in HDFS, over WebHDFS: HTTP, so that no Java is needed here.

HDFS shows a file while it is being written, and keeps what is there of it when its writer dies. So objects are written
beside their place and renamed, which HDFS does once and only where nothing is: whoever comes second is told.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from drivetrain.snapshot.errors import Exists, Missing, StorageError
from drivetrain.snapshot.storage import Chunks
from drivetrain.snapshot.storage.http import Answer, Http, NoAnswer

_SCHEMES: Final = {"webhdfs": "http", "swebhdfs": "https"}
_TEMPORARY: Final = ".tmp-"
_USER: Final = "HADOOP_USER_NAME"
_ADVICE: Final = "put the certificate of its authority into ca.crt of the Secret, or SSL_CERT_FILE"
_MEANINGS: Final = {
    "AccessControlException": "user {user} may not: the folder must be theirs, or writable for them",
    "SafeModeException": "the name node is in safe mode: it takes nothing until it leaves it",
    "RetriableException": "the name node is not ready yet",
    "StandbyException": "this is the standby name node: spec.snapshots.storage.url must name the active one",
    "DSQuotaExceededException": "the folder's space quota is used up",
    "NSQuotaExceededException": "the folder's quota of names is used up",
    "SecurityException": "this cluster wants Kerberos, which is not spoken here",
    "AuthenticationException": "this cluster wants Kerberos, which is not spoken here",
}


class WebHdfs:
    """Objects are files below the folder of the URL."""

    def __init__(self, url: str, options: Mapping[str, str], secret: Path | None) -> None:
        parts = urlsplit(url)
        self._url = url.rstrip("/")
        self._base = f"{_SCHEMES[parts.scheme]}://{parts.netloc}/webhdfs/v1"
        self._root = parts.path.rstrip("/")
        self._user = options.get("user") or os.environ.get(_USER) or getpass.getuser()
        bundle = os.environ.get("SSL_CERT_FILE")
        ca = Path(bundle) if bundle else None
        if secret is not None and (secret / "ca.crt").exists():
            ca = secret / "ca.crt"
        self._http = Http(ca, _ADVICE)

    def __str__(self) -> str:
        return self._url

    # --- what a storage does ------------------------------------------------------------------------------------------

    def create(self, name: str, chunks: Chunks) -> None:
        self._written(name, chunks, "NONE")

    def replace(self, name: str, chunks: Chunks) -> None:
        self._written(name, chunks, "OVERWRITE")

    def _written(self, name: str, chunks: Chunks, options: str) -> None:
        what = f"cannot write {self._url}/{name}"
        folder, _, _ = name.rpartition("/")
        temporary = f"{folder}/{_TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}".lstrip("/")
        try:
            self._write(what, temporary, chunks)
            self._place(what, temporary, name, options)
        except NoAnswer:
            raise  # asked to clear up, it would not answer either; what stays counts for nothing
        except StorageError:
            self._forget(temporary)
            raise

    def _write(self, what: str, name: str, chunks: Chunks) -> None:
        """Two requests: the name node says which data node takes the bytes."""
        # More than one answer may be lost on the way: the name is new, so nobody else's is overwritten.
        answer = self._sent(what, "PUT", name, {"op": "CREATE", "overwrite": "true"})
        if answer.status != 307 or "location" not in answer.headers:
            raise self._refused(what, answer)
        answer = self._there(what, "PUT", answer.headers["location"], chunks)
        if answer.status != 201:
            raise self._refused(what, answer)

    def _place(self, what: str, temporary: str, name: str, options: str) -> None:
        query = {"op": "RENAME", "destination": f"{self._root}/{name}", "renameoptions": options}
        answer = self._sent(what, "PUT", temporary, query)
        if answer.status == 200:
            return
        if _exception(answer) == "FileAlreadyExistsException":
            raise Exists(f"{self._url}/{name} is there already")
        raise self._refused(what, answer)

    def _forget(self, temporary: str) -> None:
        try:
            self._sent("", "DELETE", temporary, {"op": "DELETE"})
        except StorageError:
            pass  # it stays, as after a crash, and counts for nothing

    def read(self, name: str) -> bytes:
        what = f"cannot read {self._url}/{name}"
        # The length is asked for, because a data node that dies ends its answer as if that were all.
        answer = self._sent(what, "GET", name, {"op": "GETFILESTATUS"})
        if answer.status == 404:
            raise Missing(f"there is no {self._url}/{name}")
        size = int(self._document(what, answer)["FileStatus"]["length"])
        return self._opened(what, name, {}, size)

    def read_part(self, name: str, offset: int, length: int) -> bytes:
        what = f"cannot read {self._url}/{name}"
        answer = self._sent(what, "GET", name, {"op": "GETFILESTATUS"})
        if answer.status == 404:
            raise Missing(f"there is no {self._url}/{name}")
        size = min(length, int(self._document(what, answer)["FileStatus"]["length"]) - offset)
        if size <= 0:
            return b""
        return self._opened(what, name, {"offset": str(offset), "length": str(size)}, size)

    def _opened(self, what: str, name: str, part: Mapping[str, str], size: int) -> bytes:
        answer = self._sent(what, "GET", name, {"op": "OPEN", **part})
        if "location" in answer.headers:  # of a data node; an empty file has none
            answer = self._there(what, "GET", answer.headers["location"])
        if answer.status == 404 and _exception(answer) == "FileNotFoundException":
            raise Missing(f"there is no {self._url}/{name}")
        if answer.status != 200:
            raise self._refused(what, answer)
        if len(answer.body) != size:
            raise StorageError(f"{what}: {len(answer.body)} of its {size} bytes came")
        return answer.body

    def list(self, prefix: str) -> dict[str, int]:
        return {name: int(each["length"]) for name, each in self._objects(prefix).items()}

    def modified(self, prefix: str) -> dict[str, float]:
        """When each was written, by the data nodes' clocks: see `Dated`."""
        return {name: int(each["modificationTime"]) / 1000 for name, each in self._objects(prefix).items()}

    def _objects(self, prefix: str) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        folders = [prefix.rpartition("/")[0]]
        while folders:
            folder = folders.pop()
            for each in self._entries(folder):
                name = f"{folder}/{each['pathSuffix']}".lstrip("/")
                if each["type"] == "DIRECTORY":
                    if f"{name}/".startswith(prefix) or prefix.startswith(f"{name}/"):
                        folders.append(name)
                elif name.startswith(prefix) and not each["pathSuffix"].startswith(_TEMPORARY):
                    found[name] = each
        return found

    def _entries(self, folder: str) -> Sequence[Mapping[str, Any]]:
        what = f"cannot list {self._url}/{folder}"
        answer = self._sent(what, "GET", folder, {"op": "LISTSTATUS"})
        if answer.status == 404 and _exception(answer) == "FileNotFoundException":
            return []
        found: Sequence[Mapping[str, Any]] = self._document(what, answer)["FileStatuses"]["FileStatus"]
        return found

    def delete(self, names: Sequence[str]) -> None:
        folders = set()
        for name in names:
            what = f"cannot delete {self._url}/{name}"
            answer = self._sent(what, "DELETE", name, {"op": "DELETE"})
            if answer.status != 200:
                raise self._refused(what, answer)
            folders.add(name.rpartition("/")[0])
        for folder in folders:
            while folder:
                # Refused where something is left in it.
                answer = self._sent(f"cannot delete {self._url}/{folder}", "DELETE", folder, {"op": "DELETE"})
                if answer.status != 200:
                    break
                folder = folder.rpartition("/")[0]

    # --- how it is said -----------------------------------------------------------------------------------------------

    def _there(self, what: str, method: str, location: str, chunks: Chunks = ()) -> Answer:
        """At a data node."""
        try:
            if method == "GET":
                return self._http.look(location, {})
            return self._http.send(method, location, {}, chunks)
        except StorageError as error:
            raise type(error)(f"{what}: data node {error}") from error

    def _sent(self, what: str, method: str, name: str, query: Mapping[str, str]) -> Answer:
        path = quote(f"{self._root}/{name}".rstrip("/") or "/")
        url = f"{self._base}{path}?{urlencode({**query, 'user.name': self._user})}"
        try:
            if method == "GET":
                return self._http.look(url, {})
            return self._http.send(method, url, {})
        except StorageError as error:
            raise type(error)(f"{what}: {error}") from error

    def _document(self, what: str, answer: Answer) -> Any:
        if answer.status != 200:
            raise self._refused(what, answer)
        try:
            return json.loads(answer.body)
        except ValueError as error:
            raise StorageError(f"{what}: its answer is no JSON: is that a name node's HTTP port?") from error

    def _refused(self, what: str, answer: Answer) -> StorageError:
        name = _exception(answer)
        text = _MEANINGS[name].format(user=self._user) if name in _MEANINGS else _message(answer)
        return StorageError(f"{what}: {f'{answer.status} {name}'.strip()}{f': {text}' if text else ''}")


def _remote(answer: Answer) -> Mapping[str, Any]:
    try:
        found = json.loads(answer.body)["RemoteException"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _exception(answer: Answer) -> str:
    return str(_remote(answer).get("exception", ""))


def _message(answer: Answer) -> str:
    """The first line: a stack trace may follow."""
    return str(_remote(answer).get("message", "")).partition("\n")[0][:200]


__all__ = ["WebHdfs"]
