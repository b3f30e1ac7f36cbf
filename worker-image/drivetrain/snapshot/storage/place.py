"""Which storage does this place mean? Folders have no scheme; what others need is imported only for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from drivetrain.results.folder import where_mounted
from drivetrain.snapshot.errors import StorageError
from drivetrain.snapshot.storage import Storage
from drivetrain.snapshot.storage.local import Local
from drivetrain_api.constants import ENV_POD_ROOT, STORES
from drivetrain_api.runtime import RuntimeSnapshots

_HDFS: Final = "hdfs:// is spoken by Java only; with webhdfs://NAMENODE:9870/… it is the same files"


def storage_of(settings: RuntimeSnapshots) -> Storage:
    """That of a job. Looks at nothing yet. Raises `StorageError` that names what is wrong with its settings."""
    secret = None if settings.secret is None else Path(os.environ.get(ENV_POD_ROOT, "") + settings.secret)
    return storage_at(settings.storage, settings.options, secret)


def storage_at(place: str, options: Mapping[str, str] = MappingProxyType({}), secret: Path | None = None) -> Storage:
    """The same, of its parts."""
    scheme, separator, _ = place.partition("://")
    if not separator:
        if options:
            raise StorageError(f"snapshots: {place} is a folder, and has no options")
        return Local(where_mounted(place))
    if scheme not in STORES:
        known = _HDFS if scheme == "hdfs" else f"{scheme}:// is not known, but {', '.join(STORES)}"
        raise StorageError(f"snapshots: {known}")
    for name in options:
        if name not in STORES[scheme]:
            raise StorageError(
                f"snapshots: options.{name} is not known of {scheme}://, but {', '.join(STORES[scheme])}"
            )
    try:
        if scheme == "s3":
            from drivetrain.snapshot.storage.s3 import S3

            return S3(place, options, secret)
        from drivetrain.snapshot.storage.webhdfs import WebHdfs

        return WebHdfs(place, options, secret)
    except ModuleNotFoundError as error:
        raise StorageError(
            f"snapshots: {scheme}:// needs the Python package {(error.name or '').partition('.')[0]}: "
            "pip install drivetrain[worker]"
        ) from error


__all__ = ["storage_at", "storage_of"]
