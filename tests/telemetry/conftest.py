"""One API process as operators run it: in production, its log for machines, /metrics behind a token, with traces."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import Api, own_valkey, run_api

TOKEN = "a token that is long enough"
#: The number of the Valkey database that this process and its worker speak through.
VALKEY = 12


@dataclass
class Collector:
    """What a receiver of OTLP over HTTP was sent."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """A receiver that keeps everything."""
    received = Collector()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        received.url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield received
        server.shutdown()


@pytest.fixture(scope="session")
def operated(worker_database: str, collector: Collector) -> Iterator[Api]:
    """The process."""
    environment = {
        "FLASH_ENV": "production",
        "FLASH_LOG_FORMAT": "json",
        "FLASH_METRICS_TOKEN": TOKEN,
        "FLASH_TRACES_URL": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "REDIS_URL": own_valkey(VALKEY),
    }
    with run_api(worker_database, **environment) as api:
        yield api
