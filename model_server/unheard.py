"""Calls that end before the event loop hears of them, most of them refused by gRPC itself: counted by what gRPC counts.

calls that gRPC began ─┐
calls that came here ──┴─► the difference, at its least in the last looks ─► requests, shed: buffer `accept`

A call that waits to be taken is begun and has not come: only what stays a difference for some looks is one that never
will. While calls wait all the time, as many as wait are counted too, and not again later.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

# gRPC's channelz, as the package grpcio-channelz takes it: there is no public face.
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # it has no stubs

from model_server.metrics import Metrics

# A look a second: a call that was taken at all was taken long before.
LOOKS = 3

_creating = threading.Lock()


class Unheard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """Counts what came, as a server's first interceptor, and at each `look` what gRPC began and never will come."""

    def __init__(self, metrics: Metrics) -> None:
        self._shed = metrics.shed.labels("accept")
        self._requests = metrics.requests
        self._came = 0
        self._counted = 0
        self._missing: deque[int] = deque(maxlen=LOOKS)
        self._refused = 0
        self._server_id: int | None = None

    def server(self, create: Callable[[], grpc.aio.Server]) -> grpc.aio.Server:
        """What `create` gives, whose calls are counted from now on."""
        with _creating:  # its number is the one that was not there before
            before = _server_ids()
            created = create()
            found = _server_ids() - before
        self._server_id = found.pop() if len(found) == 1 else None
        return created

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """One that came."""
        self._came += 1
        return await continuation(handler_call_details)

    def look(self) -> None:
        """Counts those that are missing since `LOOKS` looks; a fraction of a millisecond."""
        if self._server_id is None:
            return
        self._missing.append(_begun(self._server_id) - self._came)
        lost = min(self._missing) - self._counted
        if len(self._missing) == LOOKS and lost > 0:
            self._counted += lost
            self._shed.inc(lost)
            # Their callers heard CANCELLED, which here is a caller who gave up: it would be nobody's failure.
            self._requests.labels("", "RESOURCE_EXHAUSTED").inc(lost)

    def refuses(self, pending_limit: int) -> bool:
        """Whether gRPC has refused calls since this was last asked: more are missing than may wait to be taken."""
        if self._server_id is None:
            return False
        refused = _begun(self._server_id) - self._came - pending_limit
        more, self._refused = refused > self._refused, max(refused, self._refused)
        return more


def _server_ids() -> set[int]:
    servers: set[int] = set()
    start, end = 0, False
    while not end:
        page = json.loads(cygrpc.channelz_get_servers(start))
        servers.update(int(one["ref"]["serverId"]) for one in page.get("server", ()))
        start, end = max(servers, default=0) + 1, bool(page.get("end"))
    return servers


def _begun(server_id: int) -> int:
    found = json.loads(cygrpc.channelz_get_server(server_id))
    return int(found["server"]["data"].get("callsStarted", 0))
