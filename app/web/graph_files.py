"""/graph/{snapshot}.svg and .json: the files of a snapshot, to whoever holds a URL that was signed a short while ago.

Files never change, so they are kept for ever by whoever got them.
"""

import asyncio
import gzip
from typing import Final, TypedDict
from uuid import UUID

from cachetools import LRUCache
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app import ids
from app.graph.signing import is_signed
from app.merchants.tenants import tenant
from app.storage.database import database, is_away, took_too_long
from app.storage.statements import statement

_KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
_MEDIA_TYPES: Final = {"svg": "image/svg+xml", "json": "application/json"}
_HEADERS: Final = {
    "cache-control": "private, max-age=31536000, immutable",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "vary": "accept-encoding, origin",
}


class _FileRow(TypedDict):
    body: bytes


READ: Final = statement(
    _FileRow,
    """
SELECT f.body FROM graph_snapshot s JOIN graph_file f ON f.merchant_id = s.merchant_id AND f.drawing_id = s.drawing_id
WHERE s.merchant_id = :merchant_id AND s.id = :snapshot_id AND f.format = :form
""",
)

#: Files that were read lately, by what they are: the snapshot's id is never used again.
_kept: LRUCache[tuple[UUID, UUID, str], bytes] = LRUCache(_KEPT_BYTES_MAX, getsizeof=len)


async def graph_file(request: Request) -> Response:
    """Answer with a file. Whatever is wrong with the URL, and whatever isn't there, is the same 404."""
    try:
        return await _answer(request)
    except Exception as error:
        if is_away(error):
            return JSONResponse({"error": "The engine can't reach its database; try again."}, status_code=503)
        if took_too_long(error):
            return JSONResponse({"error": "This takes too long; try again."}, status_code=503)
        raise


async def _answer(request: Request) -> Response:
    name = request.path_params["name"]
    named, _, form = name.rpartition(".")
    snapshot_id, merchant_id = ids.decode("graph", named), ids.decode("merchant", _one(request, "merchant"))
    owner = None if merchant_id is None else await tenant(merchant_id)
    if snapshot_id is None or form not in _MEDIA_TYPES or owner is None:
        return _missing()
    if not is_signed(owner, name, _one(request, "expires"), _one(request, "signature")):
        return _missing()
    etag = f'"{snapshot_id.hex}-{form}"'
    zipped_etag = f'"{snapshot_id.hex}-{form}-gzip"'
    if {etag, zipped_etag, "*"} & {each.strip().removeprefix("W/") for each in _listed(request, "if-none-match")}:
        # Nothing is read: the URL proves that the file was there, and files don't change.
        return Response(status_code=304, headers=_HEADERS | {"etag": etag})
    body = await _body(owner.id, snapshot_id, form)
    if body is None:
        return _missing()
    headers = _HEADERS | {"content-type": _MEDIA_TYPES[form]}
    if _takes_gzip(request):
        return Response(body, headers=headers | {"content-encoding": "gzip", "etag": zipped_etag})
    return Response(await asyncio.to_thread(gzip.decompress, body), headers=headers | {"etag": etag})


def _one(request: Request, name: str) -> str:
    values = request.query_params.getlist(name)
    return values[0] if len(values) == 1 else ""


def _listed(request: Request, name: str) -> list[str]:
    return ",".join(request.headers.getlist(name)).split(",")


def _takes_gzip(request: Request) -> bool:
    """Whether gzip may be sent: what is said of it counts before what is said of all codings (RFC 9110, 12.5.3)."""
    said = {}
    for each in _listed(request, "accept-encoding"):
        coding, _, quality = each.partition(";")
        said[coding.strip().lower()] = quality.replace(" ", "").lower().rstrip("0") not in {"q=", "q=0."}
    return said.get("gzip", said.get("*", False))


async def _body(merchant_id: UUID, snapshot_id: UUID, form: str) -> bytes | None:
    key = (merchant_id, snapshot_id, form)
    kept = _kept.get(key)
    if kept is not None:
        return kept
    row = await database().row(READ, merchant_id=merchant_id, snapshot_id=snapshot_id, form=form)
    if row is None:
        return None
    body = row["body"]
    if len(body) <= _KEPT_BYTES_MAX:
        _kept[key] = body
    return body


def _missing() -> Response:
    return JSONResponse({"error": "There is no such file."}, status_code=404, headers={"cache-control": "no-store"})
