"""Before the service: who calls, and may they?

    call ─► health? open ─► token, else certificate ─► caller ─► role of the method ─► the service

Whom a token does not let in is refused before the request is parsed: a stranger's message costs nothing but its bytes.
A token says more than the connection it comes on, so it is read first. What is revoked ends within a second, open
streams included: their next request is not answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeAlias

import grpc
import structlog

from model_server.caller import NAME_LENGTH_MAX, Caller, Role, set_caller
from model_server.errors import PermissionDeniedError, ServerError, UnauthenticatedError, code_of
from model_server.security.access import Access
from model_server.security.metrics import SecurityMetrics
from model_server.security.watched import Watched

log = structlog.get_logger(__name__)

# Generic in the stubs alone.
Handler: TypeAlias = Any
Context: TypeAlias = Any

SERVICE = "/nowgraph.v1.PredictionService/"
# Probes carry no secrets, and whether a server serves is none.
OPEN = "/grpc.health.v1.Health/"
METHOD_ROLES: Mapping[str, Role] = {
    f"{SERVICE}Score": Role.SCORE,
    f"{SERVICE}ScoreBatch": Role.SCORE,
    f"{SERVICE}ScoreStream": Role.SCORE,
    f"{SERVICE}Rank": Role.RANK,
    f"{SERVICE}RankBatch": Role.RANK,
    f"{SERVICE}Neighborhood": Role.INSPECT,
    f"{SERVICE}Ingest": Role.INGEST,
}
"""Which role a method asks for; what is not listed, such as reflection, asks for `admin`."""

NO_CREDENTIALS = "no credentials: send the metadata `authorization: Bearer <token>`"
UNKNOWN_TOKEN = "the bearer token is not known here"  # noqa: S105 - a message
REASONS: Mapping[str, str] = {NO_CREDENTIALS: "no_credentials", UNKNOWN_TOKEN: "unknown_token"}
"""How refusals are counted by their message; those of a caller that is known by its role."""


class Authentication(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """Lets through whom the access file knows, and without one every client certificate. Belongs to one event loop."""

    def __init__(self, access: Watched[Access] | None, metrics: SecurityMetrics, *, certificates: bool) -> None:
        """`certificates`: clients show one of their own. Without it there is an access file."""
        self._access = access
        self._certificates = certificates
        self._metrics = metrics
        self._guarded: dict[str, tuple[Handler, Handler]] = {}
        self._refreshing: asyncio.Future[bool] | None = None

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Refuses a token that is no good; else a guard stands before the handler, made once for each method."""
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None or method.startswith(OPEN):
            return handler
        token = _token(handler_call_details.invocation_metadata or ())
        if self._access is not None and (token is not None or not self._certificates):
            await self._follow()
            try:
                set_caller(_allowed(self._known(token), METHOD_ROLES.get(method, Role.ADMIN)))
            except ServerError as error:
                return self._refusing(handler, method, error)
            if handler.unary_unary is not None:
                return handler
        known = self._guarded.get(method)
        if known is None or known[0] is not handler:
            known = handler, self._guard(handler, method)
            self._guarded[method] = known
        return known[1]

    def _guard(self, handler: Handler, method: str) -> Handler:
        role = METHOD_ROLES.get(method, Role.ADMIN)

        async def unary(request: Any, context: Context) -> Any:
            await self._admit(context, method, role)
            return await handler.unary_unary(request, context)

        async def stream(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            await self._admit(context, method, role)
            revoked: list[ServerError] = []
            async for response in handler.stream_stream(self._while_allowed(requests, context, role, revoked), context):
                yield response
            if revoked:
                await self._refuse(context, method, revoked[0])

        if handler.unary_unary is not None:
            make, behavior = grpc.unary_unary_rpc_method_handler, unary
        elif handler.stream_stream is not None:
            make, behavior = grpc.stream_stream_rpc_method_handler, stream  # type: ignore[assignment]
        else:
            raise NotImplementedError(f"{method}: no guard for calls of this form")
        return make(behavior, handler.request_deserializer, handler.response_serializer)

    def _refusing(self, handler: Handler, method: str, error: ServerError) -> Handler:
        """A handler that parses nothing and says no."""

        async def unary(_: bytes, context: Context) -> None:
            await self._refuse(context, method, error)

        async def stream(_: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
            await self._refuse(context, method, error)
            yield  # type: ignore[unreachable]  # it makes this an answer of a stream

        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(unary)
        return grpc.stream_stream_rpc_method_handler(stream)

    async def _while_allowed(
        self, requests: AsyncIterator[Any], context: Context, role: Role, revoked: list[ServerError]
    ) -> AsyncIterator[Any]:
        """The stream's requests until its caller's credentials are no longer good; `revoked` then says why."""
        version = self._version
        async for request in requests:
            await self._follow()
            if self._version != version:
                version = self._version
                try:
                    self._caller_of(context, role)
                except ServerError as error:
                    revoked.append(error)
                    return
            yield request

    async def _admit(self, context: Context, method: str, role: Role) -> None:
        await self._follow()
        try:
            caller = self._caller_of(context, role)
        except ServerError as error:
            await self._refuse(context, method, error)
        set_caller(caller)

    def _caller_of(self, context: Context, role: Role) -> Caller:
        """Who calls. Raises UnauthenticatedError, or PermissionDeniedError for a caller without the role."""
        token = _token(context.invocation_metadata() or ())
        if self._access is not None and (token is not None or not self._certificates):
            return _allowed(self._known(token), role)
        return _allowed(self._certified(context), role)

    def _known(self, token: str | None) -> Caller:
        assert self._access is not None
        if token is None:
            raise UnauthenticatedError(NO_CREDENTIALS)
        caller = self._access.value.by_token(token)
        if caller is None:
            raise UnauthenticatedError(UNKNOWN_TOKEN)
        return caller

    def _certified(self, context: Context) -> Caller:
        names = certificate_names(context.auth_context())
        if not names:
            raise UnauthenticatedError(NO_CREDENTIALS)
        if self._access is None:  # the CA alone says who may call
            return Caller(names[0][:NAME_LENGTH_MAX])
        return self._access.value.by_certificate(names) or Caller(names[0][:NAME_LENGTH_MAX], frozenset())

    async def _refuse(self, context: Context, method: str, error: ServerError) -> NoReturn:
        self._count(error)
        log.info("caller_refused", method=method, code=code_of(error).name)
        await context.abort(code_of(error), str(error))
        raise AssertionError("abort raises")

    async def _follow(self) -> None:
        """Reads the access file again when it changed, on another thread; whoever calls meanwhile waits for it."""
        if self._access is None:
            return
        if self._refreshing is None and self._access.changed():
            self._refreshing = asyncio.get_running_loop().run_in_executor(None, self._access.refresh)
            self._refreshing.add_done_callback(self._refreshed)
        if self._refreshing is not None:
            await asyncio.shield(self._refreshing)

    def _refreshed(self, _: asyncio.Future[bool]) -> None:
        self._refreshing = None

    @property
    def _version(self) -> int:
        return 0 if self._access is None else self._access.version

    def _count(self, error: ServerError) -> None:
        reason = REASONS.get(str(error), "role")
        self._metrics.refused.labels(reason).inc()


def _allowed(caller: Caller, role: Role) -> Caller:
    if role not in caller.roles:
        raise PermissionDeniedError(f"this needs the role {str(role)!r}, which {caller.name!r} does not have")
    return caller


def certificate_names(auth_context: Mapping[str, Iterable[bytes]]) -> list[str]:
    """The names of the client's certificate: its alternative names, or without any its common name."""
    for key in ("x509_subject_alternative_name", "x509_common_name"):
        names = [value.decode("utf-8", "replace") for value in auth_context.get(key, ())]
        if names:
            return names
    return []


def _token(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
    return None
