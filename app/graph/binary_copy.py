"""Rows as PostgreSQL's binary COPY has them, so that a drawing process reads and writes them and no event loop does.

https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4
"""

import struct
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = struct.pack(">h", -1)
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FORMATS: Final = {"uuid": "16s", "int4": "i", "float8": "d", "bool": "?", "timestamptz": "q"}
#: So many nodes, those of the highest degree, are stored as one value as well: a page of 50 and one more.
FIRST_NODES: Final = 51


def instant(value: datetime) -> int:
    """Return a timestamptz as it is written."""
    return (value - _EPOCH) // _MICROSECOND


def unpacked(payload: bytes, *kinds: str) -> Iterator[tuple[object, ...]]:
    """Yield the rows of a payload whose columns have these types and are never null."""
    row = struct.Struct(">h" + "".join(f"i{_FORMATS[kind]}" for kind in kinds))
    body = memoryview(payload)[len(_SIGNATURE) : len(payload) - len(_END)]
    for fields in row.iter_unpack(body):
        yield tuple(_read(kind, value) for kind, value in zip(kinds, fields[2::2], strict=True))


def packed(rows: Iterable[tuple[object, ...]], *kinds: str) -> bytes:
    """Return the payload of rows of these types; texts are ASCII."""
    parts = [_SIGNATURE]
    for row in rows:
        parts.append(struct.pack(">h", len(kinds)))
        for kind, value in zip(kinds, row, strict=True):
            if kind == "text":
                text = str(value).encode("ascii")
                parts.append(struct.pack(">i", len(text)) + text)
            else:
                written = value.bytes if isinstance(value, UUID) else value
                parts.append(_FIELDS[kind].pack(_SIZES[kind], written))
    parts.append(_END)
    return b"".join(parts)


def _read(kind: str, value: object) -> object:
    if kind == "uuid":
        return UUID(bytes=value)  # type: ignore[arg-type]
    if kind == "timestamptz":
        return _EPOCH + value * _MICROSECOND  # type: ignore[operator]
    return value


_SIZES: Final = {kind: struct.calcsize(f">{code}") for kind, code in _FORMATS.items()}
_FIELDS: Final = {kind: struct.Struct(f">i{code}") for kind, code in _FORMATS.items()}
