"""How calls come from gRPC's own threads to the event loop: looked up by name, and no more than it can take.

connection ─► gRPC's threads ─► pending, bounded ─► event loop: one call at a time ─► handler
                                    └► beyond the bound: refused, beside Python
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import grpc


class ByName:
    """A server whose methods are found by name when a call comes, and not registered with gRPC beforehand.

    For every call it takes, grpc.aio waits anew for one of each registered method: with ten of them that costs more
    than the look-up that it saves.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler[Any, Any]]) -> None:
        """As the server's own."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """The generic handlers have them too."""


def by_name_on(server: grpc.aio.Server) -> grpc.aio.Server:
    """What generated code and gRPC's own services add themselves to, in place of the server."""
    return cast("grpc.aio.Server", ByName(server))


def pending_options(limit: int) -> list[tuple[str, int]]:
    """Server options: at most `limit` calls wait for the event loop; more are refused as they come.

    gRPC does it in its own threads at a tenth of what it costs in Python, whose time answers need. It resets the
    stream: clients see CANCELLED, and there is no way to say when to ask again. From the first number on it refuses at
    random, from the second on everybody: here both are one.
    """
    return [
        ("grpc.server.max_pending_requests", limit - 1),
        ("grpc.server.max_pending_requests_hard_limit", limit),
    ]
