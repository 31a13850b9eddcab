"""A request id that comes again within its window gets the same answer, from whichever process it asks: by Redis.

    request id ─► claim (SET NX) ─┬─ first: work ─► answer kept ─► caller
                                  ├─ known: the kept answer ─► caller
                                  └─ being worked on: wait for it, within the deadline

The key is made of tenant, task, method, caller and request id, so that nobody gets another caller's answer; a second
request with the same id and other contents is refused. Errors are not kept: what failed may be asked again. A process
that dies while it works leaves a claim that ends with its request's deadline; then the next one works.

An answer reaches its caller only after it is kept. When Redis is away, `on_failure` decides: `refuse`, because an
answer without the promise is none, or `answer`, counted.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

import structlog
from google.protobuf.message import Message
from prometheus_client import Counter

from model_server.caller import current_caller
from model_server.errors import (
    DeadlinePassedError,
    IdempotencyUnavailableError,
    InvalidRequestError,
    NotConfiguredError,
)
from model_server.metrics import Families, Metrics
from model_server.redis_commands import Command, RedisCommands, RedisUnavailable
from model_server.settings import ServerSettings

log = structlog.get_logger(__name__)

ResponseT = TypeVar("ResponseT", bound=Message)

KEY_PREFIX = "nowgraph:answer:"
# SET with NX and GET together, which makes a claim one round trip, is Redis 7's.
REDIS_VERSION_MIN = (7, 0)
# How soon a waiter looks again: at first about as soon as a score takes.
POLL_S, POLL_MAX_S = 0.002, 0.05
# A Redis that is away is one line in the log now and then, not one for each request.
WARN_EVERY_S = 1.0
# A claim outlives its request's deadline by this, so that its owner can still keep what it found in time.
CLAIM_GRACE_S = 0.05

_DIGEST_BYTES, _OWNER_BYTES = 32, 16
_CLAIMED, _ANSWERED = b"C", b"A"

# Keeps an answer unless another one is kept already; gives what stands there now if it is not ours.
_KEEP = """
local now = redis.call('GET', KEYS[1])
if not now or now == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return false
end
return now
"""
# Gives a claim back, if it is still ours.
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class IdempotencyFamilies:
    """The metrics of repeated requests."""

    def __init__(self, families: Families) -> None:
        self.requests = Counter(
            "nowgraph_idempotent_requests",
            "Requests with an id, by what became of them.",
            ["outcome"],
            registry=families.registry,
        )


class Idempotency:
    """Remembers answers by request id. Belongs to one event loop; `start` and `close` it there."""

    def __init__(
        self, url: str, metrics: Metrics, *, window_s: float, timeout_s: float, on_failure: Literal["refuse", "answer"]
    ) -> None:
        """Raises NotConfiguredError for a URL that is none, and where the package `redis` is missing."""
        self._metrics = metrics.extension(IdempotencyFamilies).requests
        self._window_ms = round(window_s * 1e3)
        self._refuse = on_failure == "refuse"
        self._redis = RedisCommands(url, timeout_s=timeout_s)
        self._warn_s = 0.0
        self._releasing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Looks whether Redis is there and new enough; raises NotConfiguredError: half a promise is not made."""
        try:
            version = await self._redis.version()
        except RedisUnavailable as error:
            raise NotConfiguredError(f"idempotency: Redis does not answer ({error})") from None
        if tuple(int(part) for part in version.split(".")[:2]) < REDIS_VERSION_MIN:
            raise NotConfiguredError(f"idempotency: Redis {version} is too old, 7.0 is needed")

    async def close(self) -> None:
        """Gives back what is still claimed and closes the connections."""
        await asyncio.gather(*self._releasing, return_exceptions=True)
        await self._redis.close()

    async def answer(
        self,
        request: Message,
        place: tuple[str, ...],
        response_type: type[ResponseT],
        deadline_s: float,
        work: Callable[[], Awaitable[ResponseT]],
    ) -> ResponseT:
        """The answer that the request's id has or gets; `work` makes it, `place` is tenant, task and method.

        Raises InvalidRequestError for an id that was used for another request, DeadlinePassedError when somebody else
        works on it for too long, IdempotencyUnavailableError without Redis, and whatever `work` raises.
        """
        request_id: str = request.request_id  # type: ignore[attr-defined]
        key = key_of(place, current_caller().name, request_id)
        digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
        claim = _CLAIMED + digest + os.urandom(_OWNER_BYTES)
        pause_s = POLL_S
        waited = False
        while True:
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                raise DeadlinePassedError("the deadline passed while another request with this id was worked on")
            try:
                found = await self._claim(key, claim, remaining_s)
            except IdempotencyUnavailableError:
                if self._refuse:
                    raise
                return await work()
            if found is None:
                return await self._first(key, claim, response_type, work)
            known = self._known(found, digest, response_type)
            if known is not None:
                self._count("waited" if waited else "repeated")
                return known
            waited = True
            await asyncio.sleep(min(pause_s, remaining_s))
            pause_s = min(pause_s * 2, POLL_MAX_S)

    async def _first(
        self, key: str, claim: bytes, response_type: type[ResponseT], work: Callable[[], Awaitable[ResponseT]]
    ) -> ResponseT:
        try:
            response = await work()
        except BaseException:  # an error, or the caller went away: whoever asks next may try
            self._release_soon(key, claim)
            raise
        digest = claim[1 : 1 + _DIGEST_BYTES]
        kept = _ANSWERED + digest + response.SerializeToString()
        try:
            found = await self._call(lambda pipe: pipe.eval(_KEEP, 1, key, claim, kept, self._window_ms))
        except IdempotencyUnavailableError:
            if self._refuse:
                raise
            return response
        if found is not None:  # the claim ran out, and another process answered meanwhile: that answer is the answer
            other = self._known(found, digest, response_type)
            if other is not None:
                self._count("waited")
                return other
            raise DeadlinePassedError("the deadline passed before the answer could be kept")
        self._count("first")
        return response

    async def _claim(self, key: str, claim: bytes, remaining_s: float) -> bytes | None:
        """Claims the id for as long as its request may take; what stands there already, None if it is ours now."""
        lease_ms = max(1, round((remaining_s + CLAIM_GRACE_S) * 1e3))
        found: bytes | None = await self._call(lambda pipe: pipe.set(key, claim, nx=True, get=True, px=lease_ms))
        return None if found == claim else found  # ours already: the first try's reply was lost, not its effect

    def _known(self, found: bytes, digest: bytes, response_type: type[ResponseT]) -> ResponseT | None:
        """The kept answer, None while it is worked on. Raises InvalidRequestError for another request's."""
        if found[1 : 1 + _DIGEST_BYTES] != digest:
            self._count("conflict")
            window = f"{self._window_ms / 1e3:g} s"
            raise InvalidRequestError("request_id", f"another request had this id within the last {window}")
        if found[:1] == _CLAIMED:
            return None
        return response_type.FromString(found[1 + _DIGEST_BYTES :])

    def _release_soon(self, key: str, claim: bytes) -> None:
        """Gives the claim back beside what goes on: whoever was cancelled cannot wait for it."""

        async def release() -> None:
            try:
                await self._call(lambda pipe: pipe.eval(_RELEASE, 1, key, claim))
            except IdempotencyUnavailableError:
                return  # it runs out by itself

        task = asyncio.create_task(release())
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _call(self, command: Command) -> Any:
        try:
            return await self._redis.send(command)
        except RedisUnavailable as error:
            self._count("unavailable")
            now_s = time.monotonic()
            if now_s >= self._warn_s:
                self._warn_s = now_s + WARN_EVERY_S
                log.warning("redis_unavailable", error=str(error))
            raise IdempotencyUnavailableError("request ids cannot be looked up: send the request again") from None

    def _count(self, outcome: str) -> None:
        self._metrics.labels(outcome).inc()


class Repeats:
    """The idempotency of one method of one task."""

    def __init__(self, idempotency: Idempotency, *place: str) -> None:
        self._idempotency = idempotency
        self._place = place

    async def answer(
        self,
        request: Message,
        response_type: type[ResponseT],
        deadline_s: float,
        work: Callable[[], Awaitable[ResponseT]],
    ) -> ResponseT:
        """As `Idempotency.answer`."""
        return await self._idempotency.answer(request, self._place, response_type, deadline_s, work)


def idempotency_of(settings: ServerSettings, metrics: Metrics) -> Idempotency | None:
    """What the settings ask for; None where request ids are only echoed.

    Raises NotConfiguredError for a window without a Redis: one process alone could not hold the promise.
    """
    if settings.idempotency_window_s is None:
        return None
    if settings.redis_url is None:
        raise NotConfiguredError(
            "idempotency_window_s needs redis_url (NOWGRAPH_SERVER_REDIS_URL): a request id has one answer from any "
            "process, or from none"
        )
    return Idempotency(
        settings.redis_url.get_secret_value(),
        metrics,
        window_s=settings.idempotency_window_s,
        timeout_s=settings.redis_timeout_ms / 1e3,
        on_failure=settings.idempotency_on_failure,
    )


def key_of(place: tuple[str, ...], caller: str, request_id: str) -> str:
    """Where an answer is kept: of one length, and no two requests' the same; ids are not readable in it."""
    parts = b"".join(len(part).to_bytes(4) + part for part in (text.encode() for text in (*place, caller, request_id)))
    return KEY_PREFIX + hashlib.sha256(parts).hexdigest()
