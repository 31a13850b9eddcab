"""What Prometheus and a readiness probe see of several workers, on ports that stay while processes are replaced.

    metrics_port          the supervisor: /metrics (workers, restarts, starts), /ready (200 once all serve, else 503)
    metrics_port + 1 + i  worker i: passed on, byte by byte, to whichever process is worker i now

A worker itself takes a free port. So a replacement and what it replaces, which run side by side for a moment, are never
scraped in turns under one name.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from model_server.worker_link import Ready

LOOPBACK = "127.0.0.1"
PIPE_BYTES = 64 * 1024


class SupervisorMetrics:
    """The supervisor's own registry."""

    def __init__(self, workers: int) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self._wanted = workers
        self._serving = 0
        Gauge("nowgraph_workers_wanted", "Server processes that there should be.", registry=r).set(workers)
        self._gauge = Gauge("nowgraph_workers_serving", "Server processes that serve.", registry=r)
        self._restarts = Counter("nowgraph_worker_restarts", "Processes started again.", ["reason"], registry=r)
        for reason in ("crashed", "replaced"):
            self._restarts.labels(reason)
        self._start = Gauge(
            "nowgraph_worker_start_seconds",
            "Of the newest process: attach, model, and all of it.",
            ["phase"],
            registry=r,
        )

    @property
    def all_serve(self) -> bool:
        """Whether as many serve as there should be."""
        return self._serving >= self._wanted

    def serving(self, workers: int) -> None:
        """So many workers serve now."""
        self._serving = workers
        self._gauge.set(workers)

    def started(self, ready: Ready, start_s: float) -> None:
        """A worker serves since now; from its process's start that took so long."""
        phases = {"attach": ready.attach_ms / 1e3, "model": ready.model_ms / 1e3, "all": start_s}
        for phase, seconds in phases.items():
            self._start.labels(phase).set(seconds)

    def restarted(self, reason: str) -> None:
        """A worker was started in place of another: `crashed` or `replaced`."""
        self._restarts.labels(reason).inc()


class SupervisorEndpoint:
    """The supervisor's /metrics and /ready, on a thread of its own; port 0 takes a free one."""

    def __init__(self, metrics: SupervisorMetrics, *, host: str, port: int) -> None:
        exposition = make_wsgi_app(metrics.registry)

        def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            if environ.get("PATH_INFO") != "/ready":
                found: Iterable[bytes] = exposition(environ, start_response)
                return found
            ready = metrics.all_serve
            start_response("200 OK" if ready else "503 Service Unavailable", [("Content-Type", "application/json")])
            return [json.dumps({"ready": ready}).encode() + b"\n"]

        self._server = make_server(host, port, answer, ThreadingWSGIServer, _SilentHandler)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="supervisor-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops answering and frees the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Scrapes are no news."""


async def pass_on(current: Callable[[], Ready | None], *, host: str, port: int) -> asyncio.Server:
    """Passes connections of the port on to the metrics port of the worker that `current` names, if there is one."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            ready = current()
            if ready is None:
                return
            there = await asyncio.open_connection(LOOPBACK, ready.metrics_port)
            try:
                await asyncio.gather(_pipe(reader, there[1]), _pipe(there[0], writer))
            finally:
                there[1].close()
        except OSError:
            pass  # the worker went meanwhile: the scrape fails, as it should
        finally:
            writer.close()

    return await asyncio.start_server(connected, host, port)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while some := await reader.read(PIPE_BYTES):
        writer.write(some)
        await writer.drain()
    with suppress(OSError, RuntimeError):
        writer.write_eof()
