"""Trusted documents. Without these a published app's key could be used to ask what the app never asks."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.config import Settings
from app.errors import ConfigurationError
from app.web.trusted_documents import manifest_of, trusted_documents
from tests.conftest import Api, run_api
from tests.factories import CLAIM_CODE, Shop
from tests.wallets.sockets import joined

VIEWER = "query Viewer { viewer { role } }"
POOL = "query Pool($id: ID!) { pool(id: $id) { id } }"
OTHER = "{ viewer { merchant { currency } } }"
NOT_FOUND = [{"message": "PersistedQueryNotFound", "extensions": {"code": "PERSISTED_QUERY_NOT_FOUND"}}]
UNTRUSTED = [
    {
        "message": "Only documents that the engine was told of are executed here.",
        "extensions": {"code": "UNTRUSTED_DOCUMENT"},
    }
]
ADMIN = {"viewer": {"role": "ADMIN"}}


def _sha256(document: str) -> str:
    return hashlib.sha256(document.encode()).hexdigest()


def _by_hash(document: str, **more: Any) -> dict[str, Any]:
    return {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": _sha256(document)}}} | more


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of three documents, as `flash documents` writes it."""
    folder = tmp_path_factory.mktemp("documents")
    for name, document in (("viewer.graphql", VIEWER), ("pool.gql", POOL), ("claim.graphql", CLAIM_CODE)):
        (folder / name).write_text(document)
    (folder / "README.md").write_text("no document")
    path = folder / "manifest.json"
    path.write_text(json.dumps(manifest_of(folder)))
    return path


@pytest.fixture(scope="module")
def trusting_api(worker_database: str, manifest: Path) -> Iterator[Api]:
    """An API process that executes nothing but the manifest's documents."""
    with run_api(
        worker_database, FLASH_TRUSTED_DOCUMENTS=str(manifest), FLASH_TRUSTED_DOCUMENTS_REQUIRED="true"
    ) as api:
        yield api


async def _post(shop: Shop, asked: dict[str, Any], api: Api | None = None, **headers: str) -> httpx.Response:
    url = f"{api.url}/graphql" if api else shop.url
    return await shop.http.post(url, json=asked, headers={"authorization": f"Bearer {shop.admin}"} | headers)


def test_a_manifest_holds_each_document_of_a_folder_by_its_hash(manifest: Path) -> None:
    assert json.loads(manifest.read_text()) == {_sha256(document): document for document in (CLAIM_CODE, POOL, VIEWER)}


async def test_a_trusted_document_is_asked_for_by_its_hash_or_its_text(shop: Shop, trusting_api: Api) -> None:
    pool = await shop.pool(codes=0, active=False)
    persisted = {"extensions": json.dumps(_by_hash(VIEWER)["extensions"])}
    by_get = await shop.http.get(
        f"{trusting_api.url}/graphql", params=persisted, headers={"authorization": f"Bearer {shop.admin}"}
    )
    found = await _post(shop, _by_hash(POOL, variables={"id": pool["id"]}), trusting_api)

    assert by_get.json()["data"] == ADMIN
    assert found.json()["data"] == {"pool": {"id": pool["id"]}}
    for asked in (_by_hash(VIEWER), {"query": VIEWER}, _by_hash(VIEWER, query=VIEWER)):
        assert (await _post(shop, asked, trusting_api)).json()["data"] == ADMIN


@pytest.mark.parametrize("media_type", ["application/json", "application/graphql-response+json"])
async def test_nothing_else_is_executed_where_trust_is_required(shop: Shop, trusting_api: Api, media_type: str) -> None:
    before = await shop.state()
    create = 'mutation { createPool(input: { name: "x", kind: PERCENT, percentOff: 1.0 }) { __typename } }'
    for asked, errors in (
        ({"query": OTHER}, UNTRUSTED),
        (_by_hash(OTHER, query=OTHER), UNTRUSTED),
        ({"query": VIEWER + " "}, UNTRUSTED),
        ({"query": create}, UNTRUSTED),
        ({"query": "{ __schema { queryType { name } } }"}, UNTRUSTED),
        ({"query": "{"}, UNTRUSTED),
        (_by_hash(OTHER), NOT_FOUND),
    ):
        answer = await _post(shop, asked, trusting_api, accept=media_type)
        assert answer.status_code == (200 if media_type == "application/json" else 400)
        assert answer.json() == {"errors": errors}
    assert await shop.state() == before


async def test_sockets_and_event_streams_trust_the_same_documents(shop: Shop, trusting_api: Api) -> None:
    async with joined(f"{trusting_api.url.replace('http', 'ws')}/graphql", shop.admin) as socket:
        for number, (asked, kind) in enumerate(
            ((_by_hash(VIEWER), "next"), ({"query": OTHER}, "error"), (_by_hash(OTHER), "error"))
        ):
            await socket.send(type="subscribe", id=str(number), payload=asked)
            answer = await socket.receive()
            assert answer["type"] == kind
            if kind == "next":
                assert answer["payload"]["data"] == ADMIN
                await socket.receive()
    streamed = [
        (await _post(shop, asked, trusting_api, accept="text/event-stream")).text
        for asked in (_by_hash(VIEWER), {"query": OTHER}, _by_hash(OTHER))
    ]

    for text, told in zip(streamed, ('"ADMIN"', "UNTRUSTED_DOCUMENT", "PERSISTED_QUERY_NOT_FOUND"), strict=True):
        assert told in text
        assert text.endswith("event: complete\ndata:\n\n")


async def test_without_a_manifest_a_hash_stands_for_what_was_sent_with_it(shop: Shop) -> None:
    """The handshake of automatic persisted queries: the hash, then the hash and the document, then the hash again."""
    document = f"query Q{shop.merchant_id.hex} {{ viewer {{ role }} }}"
    answers = [
        (await _post(shop, asked)).json()
        for asked in (_by_hash(document), _by_hash(document, query=document), _by_hash(document))
    ]

    assert answers[0] == {"errors": NOT_FOUND}
    assert answers[1]["data"] == answers[2]["data"] == ADMIN


async def test_a_document_under_another_ones_hash_is_refused_and_not_kept(shop: Shop) -> None:
    document = f"query Q{shop.merchant_id.hex} {{ viewer {{ role }} }}"
    forged = await _post(shop, _by_hash(document, query=OTHER))

    assert forged.json() == {
        "errors": [{"message": "provided sha does not match query", "extensions": {"code": "BAD_USER_INPUT"}}]
    }
    assert (await _post(shop, _by_hash(document))).json() == {"errors": NOT_FOUND}


@pytest.mark.parametrize(
    "persisted",
    [
        7,
        {},
        [],
        "x",
        {"version": 2, "sha256Hash": "0" * 64},
        {"version": 1},
        {"version": 1, "sha256Hash": 7},
        {"version": 1, "sha256Hash": "0" * 63},
        {"version": 1, "sha256Hash": "A" * 64},
        {"version": 1, "sha256Hash": "\u0660" * 64},
    ],
    ids=str,
)
async def test_a_malformed_hash_is_a_bad_request(shop: Shop, persisted: Any) -> None:
    for asked in ({}, {"query": VIEWER}):
        answer = await _post(shop, asked | {"extensions": {"persistedQuery": persisted}})
        assert (answer.status_code, answer.json()["errors"][0]["extensions"]) == (400, {"code": "BAD_REQUEST"})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "can't be read"),
        ("{", "is not JSON"),
        ("[]", "must be an object"),
        ('{"x": 7}', "must be an object"),
        (json.dumps({"0" * 64: VIEWER}), "isn't the SHA-256 of its document"),
    ],
)
def test_a_wrong_manifest_stops_the_start(tmp_path: Path, content: str | None, sentence: str) -> None:
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ConfigurationError, match=sentence):
        trusted_documents(Settings(trusted_documents=path))


def test_requiring_what_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs FLASH_TRUSTED_DOCUMENTS"):
        trusted_documents(Settings(trusted_documents_required=True))
    with pytest.raises(ConfigurationError, match=r"no \.graphql files"):
        manifest_of(tmp_path)
