"""The HTTP face of the metrics, on a thread of its own.

scrape ─► family by family: collect ─► text, or OpenMetrics with exemplars where the scraper takes it

Writing the text holds Python's lock, which the event loop needs to answer requests. So the lock is let go every hundred
lines: a scrape takes longer, and no request waits for all of it.
"""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from threading import Thread
from typing import Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import ThreadingWSGIServer, choose_encoder, gzip_accepted

from model_server.exposition import family_lines

# Long enough for another thread to take the lock.
LET_GO_S = 0.0002
# Less than a millisecond of writing.
LINES_AT_ONCE = 128


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
        _, content_type = choose_encoder(request.get("HTTP_ACCEPT", ""))
        openmetrics = content_type.startswith("application/openmetrics-text")
        body = exposition([metrics.registry for metrics in self._metrics], openmetrics=openmetrics)
        headers = [("Content-Type", content_type)]
        if gzip_accepted(request.get("HTTP_ACCEPT_ENCODING", "")):
            body = gzip.compress(body, compresslevel=1)  # releases the lock
            headers.append(("Content-Encoding", "gzip"))
        start("200 OK", headers)
        return [body]


def exposition(registries: Sequence[CollectorRegistry], *, openmetrics: bool) -> bytes:
    """The text of all families; lets Python's lock go after each, and within a long one."""
    lines: list[str] = []
    seen: set[str] = set()
    for registry in registries:
        for family in registry.collect():
            if family.name in seen:
                continue
            seen.add(family.name)
            for number, line in enumerate(family_lines(family, openmetrics=openmetrics)):
                lines.append(line)
                if number % LINES_AT_ONCE == LINES_AT_ONCE - 1:
                    time.sleep(LET_GO_S)
            time.sleep(LET_GO_S)
    return "".join([*lines, "# EOF\n" if openmetrics else ""]).encode()


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """A scrape is nothing to log."""
