"""Who asks: the name that quotas, logs and idempotency count by, and the roles that say which methods are open.

    metadata of the call ─► interceptor ─► contextvar ─► current_caller() anywhere below the handler

Without authentication a caller is who they say they are, in the metadata `nowgraph-client`, and may do everything; with
it `model_server.security` finds the caller by token or certificate and this interceptor is not installed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import grpc

CLIENT_KEY = "nowgraph-client"
"""The metadata in which a client may say its name, such as the name of its service."""

# A name is a key of quotas and of Redis, and stands in logs: nobody needs more.
NAME_LENGTH_MAX = 64
ANONYMOUS_NAME = "anonymous"


class Role(StrEnum):
    """What a caller may do; each method asks for one."""

    SCORE = "score"
    RANK = "rank"
    INGEST = "ingest"
    # Neighborhood shows the graph's own rows.
    INSPECT = "inspect"
    # What changes a running server, and reflection.
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what they may."""

    name: str
    roles: frozenset[str] = frozenset(Role)


ANONYMOUS = Caller(ANONYMOUS_NAME)

_caller: ContextVar[Caller] = ContextVar("nowgraph_caller", default=ANONYMOUS)


def current_caller() -> Caller:
    """Who asked what is being answered now; `anonymous`, with every role, outside of a call."""
    return _caller.get()


def set_caller(caller: Caller) -> None:
    """Says who asks, to everything that this task and the tasks it starts do from now on."""
    _caller.set(caller)


def caller_named(name: str | bytes | None) -> Caller:
    """The caller that a client says it is; `anonymous` where the name is missing or none that could be written down."""
    if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH_MAX or not name.isprintable():
        return ANONYMOUS
    return Caller(name)


class NamedCallers(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """Takes every caller at its word: the interceptor of a server without authentication."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Names the caller; the handler runs in the same task and so sees it."""
        for key, value in handler_call_details.invocation_metadata:
            if key == CLIENT_KEY:
                set_caller(caller_named(value))
                break
        return await continuation(handler_call_details)
