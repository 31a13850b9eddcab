"""The HTTP face of the metrics, on a thread of its own.

scrape ─► family by family: collect ─► text, or OpenMetrics with exemplars where the scraper takes it

Writing the text holds Python's lock, which the event loop needs to answer requests. So the lock is let go after each
family: a scrape takes longer, and no request waits for more than one family.
"""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Thread
from typing import Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import ThreadingWSGIServer, choose_encoder, gzip_accepted
from prometheus_client.metrics_core import Metric

# Long enough for another thread to take the lock; a hundred families then take twenty milliseconds more.
LET_GO_S = 0.0002
_END = b"# EOF\n"


class HasRegistry(Protocol):
    """Somebody's metrics."""

    @property
    def registry(self) -> CollectorRegistry:
        """Where they are."""


class MetricsEndpoint:
    """Answers scrapes of one registry or of several, in their order; port 0 takes a free one.

    Raises OSError when the port is taken.
    """

    def __init__(self, *metrics: HasRegistry, host: str, port: int) -> None:
        self._metrics = list(metrics)

        class Server(ThreadingWSGIServer):
            address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]

        self._server: WSGIServer = make_server(host, port, self._answer, Server, _Silent)
        self._thread = Thread(target=self._server.serve_forever, name="nowgraph-metrics", daemon=True)
        self._thread.start()
        self.port: int = self._server.server_port

    def add(self, metrics: HasRegistry) -> None:
        """Shows another registry too; a family that one before it has is left out."""
        self._metrics.append(metrics)

    def close(self) -> None:
        """Stops answering scrapes and frees the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(
        self, request: dict[str, Any], start: Callable[[str, list[tuple[str, str]]], object]
    ) -> Iterable[bytes]:
        if request["REQUEST_METHOD"] != "GET":
            start("405 Method Not Allowed", [("Allow", "GET")])
            return [b""]
        encode, content_type = choose_encoder(request.get("HTTP_ACCEPT", ""))
        body = exposition([metrics.registry for metrics in self._metrics], encode)
        headers = [("Content-Type", content_type)]
        if gzip_accepted(request.get("HTTP_ACCEPT_ENCODING", "")):
            body = gzip.compress(body, compresslevel=1)  # releases the lock
            headers.append(("Content-Encoding", "gzip"))
        start("200 OK", headers)
        return [body]


def exposition(registries: Sequence[CollectorRegistry], encode: Callable[[Any], bytes]) -> bytes:
    """The text of all families, by an encoder of prometheus_client; lets Python's lock go after each."""
    parts: list[bytes] = []
    end, seen = b"", set()
    for registry in registries:
        for family in registry.collect():
            if family.name in seen:
                continue
            seen.add(family.name)
            # When a child was made says nothing that a restart does not, and would double the number of series.
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            text = encode(_One(family))
            if text.endswith(_END):
                text, end = text[: -len(_END)], _END
            parts.append(text)
            time.sleep(LET_GO_S)
    return b"".join(parts) + end


class _One:
    """A registry of one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """A scrape is nothing to log."""
