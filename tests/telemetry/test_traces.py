"""Traces. Without these they could carry what people typed, or a process that can't trace could pretend to."""

import asyncio
import os
import subprocess
import sys
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app import ids
from tests.conftest import Api
from tests.factories import CREATE_POOL, ENROLL_MEMBER, Shop
from tests.operate.processes import eventually
from tests.telemetry.conftest import Collector

WITHOUT = """
import os, sys
from app.config import settings
from app.web.application import application
application()
print(sorted(name for name in sys.modules if name.startswith("opentelemetry")))
os.environ["FLASH_TRACES_URL"] = "http://127.0.0.1:1/v1/traces"
settings.cache_clear()
sys.modules["opentelemetry"] = None
application()
"""


def _spans(collector: Collector) -> list[dict[str, Any]]:
    """Return what was received, flat."""
    found = []
    for body in list(collector.bodies):
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"]
            found += [
                {
                    "name": span.name, "service": service, "id": span.span_id, "parent": span.parent_span_id,
                    "failed": span.status.code == 2, "seconds": span.end_time_unix_nano - span.start_time_unix_nano,
                    "about": {each.key: each.value.string_value for each in span.attributes},
                }
                for scope in resource.scope_spans
                for span in scope.spans
            ]  # fmt: skip
    return found


async def test_an_operation_is_a_span_and_its_statements_are_its_children(
    shop: Shop, operated: Api, collector: Collector
) -> None:
    url = f"{operated.url}/graphql"
    document = ENROLL_MEMBER.replace("mutation (", "mutation Join (", 1)
    body = {
        "query": document,
        "variables": {
            "input": {"source": "STORE", "email": "traced@example.com", "displayName": "Traced", "externalId": "T-77"}
        },
    }
    headers = {"authorization": f"Bearer {shop.admin}", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    response = await shop.http.post(url, json=body, headers=headers)
    request_id = response.headers["x-request-id"]
    await shop.post(CREATE_POOL, {"input": {"name": "", "kind": "PERCENT"}}, url=url)

    def whole() -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        spans = _spans(collector)
        named = [span for span in spans if span["about"].get("flash.request_id") == request_id]
        children = [span for span in spans if named and span["parent"] == named[0]["id"]]
        return (named[0], children) if children else None

    operation, statements = await asyncio.to_thread(eventually, whole)

    assert (operation["name"], operation["service"], operation["parent"]) == ("mutation enrollMember", "flash-api", b"")
    assert operation["about"] == {
        "graphql.operation.type": "mutation",
        "graphql.operation.name": "Join",
        "flash.field": "enrollMember",
        "flash.transport": "http",
        "flash.role": "ADMIN",
        "flash.merchant": ids.encode("merchant", shop.merchant_id),
        "flash.outcome": "OK",
        "flash.request_id": request_id,
    }
    assert any("INSERT INTO member" in span["about"].get("db.query.text", "") for span in statements)
    assert all(0 < span["seconds"] <= operation["seconds"] for span in statements)
    assert not operation["failed"]
    sent = b"".join(collector.bodies)
    for secret in (b"traced@example.com", b"Traced", b"T-77", shop.admin.split("_", 2)[2].encode(), b"a" * 32):
        assert secret not in sent


def test_who_does_not_trace_imports_nothing_of_it_and_who_can_not_says_so(worker_database: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        env=os.environ | {"DATABASE_URL": worker_database},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (said.returncode, said.stdout) == (1, "[]\n")
    assert said.stderr.splitlines()[-1] == (
        "app.errors.ConfigurationError: FLASH_TRACES_URL is set, and OpenTelemetry isn't installed: "
        "install flash-engine[otel], or unset it."
    )
