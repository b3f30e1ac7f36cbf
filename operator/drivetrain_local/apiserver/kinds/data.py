"""What do Secrets and ConfigMaps refuse? Bad base64, bad keys, and any change once they are immutable."""

from __future__ import annotations

import base64
import binascii
import re

from drivetrain_local.apiserver import errors
from drivetrain_local.apiserver.errors import FieldError
from drivetrain_local.apiserver.kinds.base import Kind
from drivetrain_local.objects import Obj

_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_KEY_MESSAGE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  "
    "or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_IMMUTABLE = "field is immutable when `immutable` is set"
_LIMIT = 1024 * 1024


class ConfigMaps(Kind):
    """Plain text by key."""

    fields: tuple[str, ...] = ("data", "binaryData")

    def validate(self, obj: Obj) -> list[FieldError]:
        found = []
        for field in self.fields:
            for key in sorted(obj.get(field) or {}):
                if not _KEY.fullmatch(key) or len(key) > 253:
                    found.append(errors.bad_value(f"{field}[{key}]", key, _KEY_MESSAGE))
        size = sum(len(value) for field in self.fields for value in (obj.get(field) or {}).values())
        if size > _LIMIT:
            found.append(errors.too_long("", _LIMIT))
        return found

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        if old.get("immutable") is not True:
            return []
        found = []
        if new.get("immutable") is not True:
            found.append(errors.forbidden_field("immutable", _IMMUTABLE))
        found += [
            errors.forbidden_field(field, _IMMUTABLE)
            for field in self.fields
            if (new.get(field) or {}) != (old.get(field) or {})
        ]
        return found


class Secrets(ConfigMaps):
    """Base64 by key; `stringData` is write-only."""

    fields = ("data",)

    def prepare_create(self, obj: Obj) -> None:
        _fold_string_data(obj)
        obj.setdefault("type", "Opaque")

    def prepare_update(self, new: Obj, old: Obj) -> None:
        _fold_string_data(new)
        new.setdefault("type", old["type"])

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        found = super().validate_update(new, old)
        if new["type"] != old["type"]:
            found.append(errors.bad_value("type", new["type"], "field is immutable"))
        return found


def _fold_string_data(obj: Obj) -> None:
    for key, value in (obj.get("data") or {}).items():
        try:
            base64.b64decode(value or "", validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            message = f'Secret in version "v1" cannot be handled as a Secret: illegal base64 data in data[{key}]'
            raise errors.bad_request(message) from error
    for key, text in (obj.pop("stringData", None) or {}).items():
        obj.setdefault("data", {})[key] = base64.b64encode(str(text).encode()).decode()
