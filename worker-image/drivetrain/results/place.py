"""Which storage is the URL of spec.storage?"""

from __future__ import annotations

from drivetrain.results.folder import where_mounted
from drivetrain.snapshot.errors import StorageError
from drivetrain.snapshot.storage import Files
from drivetrain.snapshot.storage.place import storage_at
from drivetrain_api.runtime import RuntimeStorage


def files_of(storage: RuntimeStorage) -> Files:
    """Looks at nothing yet. Raises `StorageError` that names what is wrong."""
    if storage.url is None:
        raise StorageError("spec.storage has no url")
    secret = None if storage.secret is None else where_mounted(storage.secret)
    found = storage_at(storage.url, storage.options, secret)
    if not isinstance(found, Files):
        raise StorageError(f"{found} keeps no files that change")
    return found
