"""PURE: spans as the body of an OTLP/HTTP request, in protobuf.

Of `opentelemetry/proto/trace/v1/trace.proto` only what we use, by the numbers of its fields: so the operator carries
neither SDK nor protobuf. A test reads it with OpenTelemetry's own `opentelemetry-proto`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from drivetrain_operator.traces.span import Span, Value

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INTERNAL: Final = 1
"""SPAN_KIND_INTERNAL"""
_ERROR: Final = 2
"""STATUS_CODE_ERROR"""
_VARINT, _FIXED64, _BYTES = 0, 1, 2
_TEXT_LIMIT: Final = 4096


def request(spans: Iterable[Span], resource: Mapping[str, Value]) -> bytes:
    """An ExportTraceServiceRequest: all spans as those of one resource."""
    scope = _message(1, _text(1, "drivetrain"))
    scoped = scope + b"".join(_message(2, _span(span)) for span in spans)
    return _message(1, _message(1, _attributes(1, resource)) + _message(2, scoped))


def _span(span: Span) -> bytes:
    parts = [
        _bytes(1, span.trace),
        _bytes(2, span.id),
        _bytes(4, span.parent) if span.parent is not None else b"",
        _text(5, span.name),
        _number(6, _INTERNAL),
        _time(7, span.start),
        _time(8, span.end),
        _attributes(9, span.attributes),
    ]
    if span.error is not None:
        parts.append(_message(15, _text(2, span.error) + _number(3, _ERROR)))
    return b"".join(parts)


def _attributes(number: int, values: Mapping[str, Value]) -> bytes:
    return b"".join(_message(number, _text(1, name) + _message(2, _any(value))) for name, value in values.items())


def _any(value: Value) -> bytes:
    """An AnyValue. Its parts are written also where they are 0: they say of which kind it is."""
    if isinstance(value, bool):
        return _number(2, int(value))
    if isinstance(value, int):
        return _number(3, value)
    if isinstance(value, float):
        return _key(4, _FIXED64) + struct.pack("<d", value)
    return _text(1, value)


def _time(number: int, when: datetime) -> bytes:
    nanoseconds = (when - _EPOCH) // timedelta(microseconds=1) * 1000
    return _key(number, _FIXED64) + struct.pack("<Q", max(0, nanoseconds))


def _text(number: int, text: str) -> bytes:
    return _bytes(number, text[:_TEXT_LIMIT].encode(errors="replace"))


def _message(number: int, content: bytes) -> bytes:
    return _bytes(number, content)


def _bytes(number: int, content: bytes) -> bytes:
    return _key(number, _BYTES) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _key(number, _VARINT) + _varint(
        value & 0xFFFF_FFFF_FFFF_FFFF
    )  # negative ones as 64 bits of two's complement


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
