"""A prefix in an S3 bucket, of Amazon or of whoever else speaks S3.

Four requests are needed: put where nothing is yet, get, list, delete. They are sent from here, not by an SDK, because
none of those that were tried tells an upload that stands still from a slow one (ADR 0040). Finding keys and signing
with them is minio's: a laptop's profiles and a cluster's roles are where everybody expects them.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode, urlsplit
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from minio.credentials.credentials import Credentials
from minio.credentials.providers import AWSConfigProvider, ChainedProvider, EnvAWSProvider, IamAwsProvider, Provider
from minio.signer import sign_v4_s3
from urllib3 import PoolManager
from urllib3.exceptions import HTTPError

from drivetrain.snapshot.errors import Exists, Missing, StorageError
from drivetrain.snapshot.storage import Chunks
from drivetrain.snapshot.storage.http import Answer, Http
from drivetrain.snapshot.storage.said import Said
from drivetrain_api.older_python import UTC

_KEYS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_MOST_DELETED: Final = 100
"""At once. S3 takes 1000, but a busy server may need longer for these than an answer may take."""
_TRY_OUT_BYTES: Final = 64 << 10
_CA: Final = "ca.crt"
_ROLE_SECONDS: Final = 2.0
_ADVICE: Final = "put the certificate of its authority into AWS_CA_BUNDLE, or ca.crt of the Secret"


class S3:
    """Objects of a bucket whose names begin with the prefix."""

    def __init__(self, url: str, options: Mapping[str, str], secret: Path | None) -> None:
        """`secret`: a folder with files that are named as the usual environment variables, which then do not count."""
        parts = urlsplit(url)
        self._url = url.rstrip("/")
        self._bucket = parts.netloc
        self._prefix = f"{parts.path.strip('/')}/".lstrip("/")
        self._secret = secret
        self._region = options.get("region") or _environment("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1"
        self._base = self._endpoint(options)
        bundle = _environment("AWS_CA_BUNDLE", "SSL_CERT_FILE")
        ca = Path(bundle) if bundle else None
        if secret is not None and (secret / _CA).exists():
            ca = secret / _CA
        self._keys = _providers(self._region)
        self._lock = threading.Lock()
        self._http = Http(ca, _ADVICE)
        self._is_conditional = False
        """Whether a second object of a name was refused."""

    def __str__(self) -> str:
        return self._url

    def _endpoint(self, options: Mapping[str, str]) -> str:
        """What all URLs begin with: of the bucket."""
        given = options.get("endpoint") or _environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        domain = "amazonaws.com.cn" if self._region.startswith("cn-") else "amazonaws.com"
        endpoint = given or f"https://s3.{self._region}.{domain}"
        # A certificate for *.s3.REGION.amazonaws.com does not fit a bucket with dots.
        addressing = options.get("addressing") or ("path" if given or "." in self._bucket else "virtual")
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise StorageError(f"{self}: options.endpoint must be https://HOST or http://HOST, got {endpoint}")
        if addressing not in ("path", "virtual"):
            raise StorageError(f"{self}: options.addressing must be path or virtual, got {addressing}")
        if addressing == "virtual":
            return f"{parts.scheme}://{self._bucket}.{parts.netloc}"
        return f"{endpoint.rstrip('/')}/{self._bucket}"

    # --- what a storage does ------------------------------------------------------------------------------------------

    def create(self, name: str, chunks: Chunks) -> None:
        self._put(name, chunks)
        if not self._is_conditional and sum(len(each) for each in chunks) <= _TRY_OUT_BYTES:
            self._try_out(name, chunks)

    def _put(self, name: str, chunks: Chunks) -> None:
        said = Said(f"cannot write {self._url}/{name}", "s3:PutObject", self._bucket)
        answer = self._sent(said, "PUT", name, {}, {"If-None-Match": "*"}, chunks)
        if answer.status in (409, 412):
            self._is_conditional = True
            raise Exists(f"{self._url}/{name} is there already")
        if answer.status != 200:
            raise said.refused(answer)

    def _try_out(self, name: str, chunks: Chunks) -> None:
        """Does this server refuse a second object of the same name? All that keeps two runs apart rests on it. The same
        bytes under the same name do no harm."""
        try:
            self._put(name, chunks)
        except Exists:
            return
        raise StorageError(
            f"{self._url} takes a second object of the same name: its server does not know If-None-Match, which "
            "snapshots need"
        )

    def replace(self, name: str, chunks: Chunks) -> None:
        said = Said(f"cannot write {self._url}/{name}", "s3:PutObject", self._bucket)
        answer = self._sent(said, "PUT", name, {}, {}, chunks)
        if answer.status != 200:
            raise said.refused(answer)

    def read_part(self, name: str, offset: int, length: int) -> bytes:
        said = Said(f"cannot read {self._url}/{name}", "s3:GetObject", self._bucket)
        answer = self._sent(said, "GET", name, {}, {"Range": f"bytes={offset}-{offset + length - 1}"})
        if answer.status == 404 and said.code(answer) != "NoSuchBucket":
            raise Missing(f"there is no {self._url}/{name}")
        if answer.status == 416:  # it ends before
            return b""
        if answer.status == 200:  # a server without ranges
            return answer.body[offset : offset + length]
        if answer.status != 206:
            raise said.refused(answer)
        return answer.body

    def read(self, name: str) -> bytes:
        said = Said(f"cannot read {self._url}/{name}", "s3:GetObject", self._bucket)
        answer = self._sent(said, "GET", name, {})
        if answer.status == 404 and said.code(answer) != "NoSuchBucket":
            raise Missing(f"there is no {self._url}/{name}")
        if answer.status != 200:
            raise said.refused(answer)
        return answer.body

    def list(self, prefix: str) -> dict[str, int]:
        return {name: int(each.findtext("{*}Size") or 0) for name, each in self._entries(prefix).items()}

    def modified(self, prefix: str) -> dict[str, float]:
        """When each was written, by the server's clock: see `Dated`."""
        return {
            name: datetime.fromisoformat(each.findtext("{*}LastModified") or "").timestamp()
            for name, each in self._entries(prefix).items()
        }

    def _entries(self, prefix: str) -> dict[str, Element]:
        said = Said(f"cannot list {self._url}/{prefix}", "s3:ListBucket", self._bucket)
        found: dict[str, Element] = {}
        query = {"list-type": "2", "prefix": self._prefix + prefix}
        while True:
            answer = self._sent(said, "GET", None, query)
            if answer.status != 200:
                raise said.refused(answer)
            root = said.document(answer)
            for each in root.iterfind("{*}Contents"):
                key = each.findtext("{*}Key") or ""
                found[key.removeprefix(self._prefix)] = each
            token = root.findtext("{*}NextContinuationToken")
            if root.findtext("{*}IsTruncated") != "true" or not token:
                return found
            query["continuation-token"] = token

    def delete(self, names: Sequence[str]) -> None:
        said = Said(f"cannot delete in {self._url}", "s3:DeleteObject", self._bucket)
        for at in range(0, len(names), _MOST_DELETED):
            keys = "".join(
                f"<Object><Key>{escape(self._prefix + each)}</Key></Object>" for each in names[at : at + _MOST_DELETED]
            )
            body = f"<Delete><Quiet>true</Quiet>{keys}</Delete>".encode()
            md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
            answer = self._sent(said, "POST", None, {"delete": ""}, {"Content-MD5": md5}, [body])
            if answer.status != 200:
                raise said.refused(answer)
            failed = said.document(answer).find("{*}Error")
            if failed is not None:
                raise said.failed(200, failed)

    # --- how it is said -----------------------------------------------------------------------------------------------

    def _sent(
        self,
        said: Said,
        method: str,
        name: str | None,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        chunks: Chunks = (),
    ) -> Answer:
        """`name` None: about the bucket. Raises `StorageError` where there is no answer."""
        url = self._base if name is None else f"{self._base}/{quote(self._prefix + name, safe='/~')}"
        url += f"?{urlencode(query, quote_via=quote)}" if query else ""
        try:
            signed = self._signed(method, url, headers or {}, chunks)
            if method == "GET":
                return self._http.look(url, signed)
            return self._http.send(method, url, signed, chunks)
        except StorageError as error:
            raise StorageError(f"{said.what}: {error}") from error

    def _signed(self, method: str, url: str, headers: Mapping[str, str], chunks: Chunks) -> dict[str, str]:
        """With the sum of the body in it, so that the server finds out what is damaged on its way."""
        sha256, parts = hashlib.sha256(), urlsplit(url)
        for chunk in chunks:
            sha256.update(chunk)
        now = datetime.now(UTC)
        ours: dict[str, str | list[str] | tuple[str]] = {
            **headers,
            "Host": parts.netloc,
            "x-amz-content-sha256": sha256.hexdigest(),
            "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"),
        }
        keys = self._credentials()
        if keys.session_token:
            ours["x-amz-security-token"] = keys.session_token
        signed = sign_v4_s3(
            method=method,
            url=parts,
            region=self._region,
            headers=ours,
            credentials=keys,
            content_sha256=sha256.hexdigest(),
            date=now,
        )
        return {name: str(value) for name, value in signed.items()}

    def _credentials(self) -> Credentials:
        if self._secret is not None and any((self._secret / key).exists() for key in _KEYS):
            return self._of_secret(self._secret)  # every time, because it may be changed while training goes on
        try:
            with self._lock:
                return self._keys.retrieve()
        except (ValueError, configparser.Error, HTTPError, OSError) as error:
            raise StorageError(
                f"there are no credentials: neither {_KEYS[0]} and {_KEYS[1]} in the environment, nor a profile, nor "
                "a role; in a TrainingJob, spec.snapshots.storage.secretName names a Secret with these keys"
            ) from error

    def _of_secret(self, folder: Path) -> Credentials:
        found: dict[str, str] = {}
        for key in _KEYS:
            try:
                found[key] = (folder / key).read_text().strip()
            except FileNotFoundError:
                if key != _KEYS[2]:
                    raise StorageError(f"the Secret of spec.snapshots.storage.secretName has no {key}") from None
            except (OSError, UnicodeDecodeError) as error:
                raise StorageError(f"{key} of the Secret cannot be read: {type(error).__name__}") from None
        return Credentials(found[_KEYS[0]], found[_KEYS[1]], found.get(_KEYS[2]))


def _environment(*names: str) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


def _providers(region: str) -> Provider:
    """Where keys are looked for."""
    # Asked when there is nothing else, and on most machines nobody answers there.
    roles = PoolManager(retries=False, timeout=_ROLE_SECONDS)
    return ChainedProvider([EnvAWSProvider(), AWSConfigProvider(), IamAwsProvider(http_client=roles, region=region)])


__all__ = ["S3"]
