"""Is the metadata of an object right, and what does the server itself put there?

Names, labels, owner references: the checks that every kind shares, with the wording of apimachinery.
"""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Iterator

from drivetrain_local.apiserver import errors
from drivetrain_local.apiserver.errors import FieldError
from drivetrain_local.objects import Obj, meta, now, rfc3339

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_META_FIELDS = (
    "name", "generateName", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp",
    "deletionTimestamp", "deletionGracePeriodSeconds", "labels", "annotations", "ownerReferences", "finalizers",
)  # fmt: skip
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_DNS_LABEL = re.compile(_LABEL)
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")

_SUBDOMAIN_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_MESSAGE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_DNS_1035_MESSAGE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_VALUE_MESSAGE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation "
    "is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_KEY_MESSAGE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


def generated_name(base: str) -> str:
    """`generateName` as the server completes it: five letters that spell no words."""
    # The server's alphabet; nothing secret depends on it.
    return base[:58] + "".join(random.choices(_ALPHABET, k=5))


def fresh(metadata: Obj, namespace: str) -> Obj:
    """Metadata of a new object: known fields only, and what the server decides."""
    made = {key: value for key, value in metadata.items() if key in _META_FIELDS and value not in (None, {}, [])}
    for decided in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
        made.pop(decided, None)
    if not made.get("name") and made.get("generateName"):
        made["name"] = generated_name(made["generateName"])
    if namespace:
        made["namespace"] = namespace
    else:
        made.pop("namespace", None)
    made["uid"] = str(uuid.uuid4())
    made["creationTimestamp"] = rfc3339(now())
    return made


def carried_over(new: Obj, old: Obj) -> Obj:
    """Metadata of an update: what only the server may change is taken from the old object."""
    made = {key: value for key, value in new.items() if key in _META_FIELDS and value not in (None, {}, [])}
    for decided in ("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "namespace",
                    "generateName"):  # fmt: skip
        made.pop(decided, None)
        if decided in old:
            made[decided] = old[decided]
    made.setdefault("uid", old["uid"])
    made.setdefault("name", old["name"])
    return made


def validate(obj: Obj, kind: str) -> list[FieldError]:
    """Findings about name, labels, annotations, finalizers and owner references."""
    return list(_findings(meta(obj), kind))


def validate_update(new: Obj, old: Obj) -> list[FieldError]:
    """Findings about fields of the metadata that never change."""
    found = []
    if meta(new).get("uid") != meta(old)["uid"]:
        found.append(errors.bad_value("metadata.uid", meta(new).get("uid"), "field is immutable"))
    if meta(old).get("deletionTimestamp"):
        added = set(meta(new).get("finalizers", [])) - set(meta(old).get("finalizers", []))
        if added:
            names = ", ".join(sorted(added))
            detail = (
                "no new finalizers can be added if the object is being deleted, found new finalizers "
                f'[]string{{"{names}"}}'
            )
            found.append(errors.forbidden_field("metadata.finalizers", detail))
    return found


def _findings(metadata: Obj, kind: str) -> Iterator[FieldError]:
    name = metadata.get("name", "")
    if not name:
        yield errors.required("metadata.name", "name or generateName is required")
    else:
        yield from _name(name, kind)
    for key, value in (metadata.get("labels") or {}).items():
        yield from _key(key, "metadata.labels")
        if len(value) > 63:
            yield errors.bad_value("metadata.labels", value, "must be no more than 63 bytes")
        if value and not _QUALIFIED.fullmatch(value):
            yield errors.bad_value("metadata.labels", value, _LABEL_VALUE_MESSAGE)
    for key in metadata.get("annotations") or {}:
        yield from _key(key.lower(), "metadata.annotations")
    if sum(len(k) + len(v) for k, v in (metadata.get("annotations") or {}).items()) > 256 * 1024:
        yield errors.too_long("metadata.annotations", 256 * 1024)
    controllers = 0
    for owner in metadata.get("ownerReferences") or []:
        for part in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(part):
                yield errors.bad_value(f"metadata.ownerReferences.{part}", owner.get(part, ""), "must not be empty")
        controllers += owner.get("controller") is True
    if controllers > 1:
        detail = "Only one reference can have Controller set to true"
        yield errors.bad_value("metadata.ownerReferences", None, detail)


def _name(name: str, kind: str) -> Iterator[FieldError]:
    if kind == "Service":
        limit, pattern, message = 63, _DNS_1035, _DNS_1035_MESSAGE
    elif kind == "Namespace":
        limit, pattern, message = 63, _DNS_LABEL, _LABEL_MESSAGE
    else:
        limit, pattern, message = 253, _SUBDOMAIN, _SUBDOMAIN_MESSAGE
    if len(name) > limit:
        yield errors.bad_value("metadata.name", name, f"must be no more than {limit} bytes")
    if not pattern.fullmatch(name):
        yield errors.bad_value("metadata.name", name, message)


def _key(key: str, field: str) -> Iterator[FieldError]:
    prefix, slash, name = key.rpartition("/")
    if slash and not _SUBDOMAIN.fullmatch(prefix):
        yield errors.bad_value(field, key, f"prefix part {_SUBDOMAIN_MESSAGE}")
    if len(name) > 63:
        yield errors.bad_value(field, key, "name part must be no more than 63 bytes")
    if not _QUALIFIED.fullmatch(name):
        yield errors.bad_value(field, key, _KEY_MESSAGE)
