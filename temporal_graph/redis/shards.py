"""The shards of a Redis Cluster, or one Redis, as a place to run scripts: all shards asked at once, each in one go.

    items, each of a slice ─► grouped by the shard that owns it ─► one pipeline a shard, sent to all ─► replies in order

The only module that knows the Redis client.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog

from temporal_graph.redis.errors import (
    ErasingError,
    StaleWriterError,
    StoreError,
    StoreLostError,
    StoreUnavailableError,
)
from temporal_graph.redis.keys import SLICES
from temporal_graph.redis.scripts import ERASING, LOST, STALE, Script

log = structlog.get_logger(__name__)

Item = tuple[int, tuple[bytes | int, ...]]
"""The slice an item belongs to, and its arguments."""

CALL_ITEMS_MAX: Final = 256
"""Items of one call: while a script runs, its shard does nothing else."""
TIMEOUT_S: Final = 2.0
"""How long a reply may take."""
PATIENCE_S: Final = 5.0
"""How long a round is tried again while shards are away or move: a replica takes over in about that time."""
_PAUSE_S = 0.05
_COUNT_S = 10.0
"""How long a replica that has come may go unnoticed: a cluster may be written to before its replicas are there."""


@dataclass(frozen=True, slots=True)
class _Shard:
    name: str
    pool: Any


class Shards:
    """Where the slices are. For any number of threads; a script may be run twice, so each must bear that."""

    def __init__(
        self, url: str, *, replicas: int | None = None, timeout_s: float = TIMEOUT_S, patience_s: float = PATIENCE_S
    ) -> None:
        """Connects.

        Args:
            url: redis://host:port, of one Redis or of any node of a cluster.
            replicas: how many replicas of a shard must have what was written before it counts; None: one, where every
                shard has any.
            timeout_s: bounds each wait for a reply.
            patience_s: bounds how long a round is tried again.

        Raises:
            StoreUnavailableError: nothing answers, or it is no Redis of version 7 or later.
            StoreError: the URL is none, the client's package is not installed, or Redis may evict what it holds.
        """
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise StoreError("a graph in Redis needs the extra `redis`: pip install 'nowgraph[redis]'") from None
        self._replicas = replicas if replicas is not None else 0
        self._replicas_found = replicas is None
        self._next_count_s = 0.0
        self._timeout_s, self._patience_s = timeout_s, patience_s
        self._lost_connection = (redis.RedisError, redis.exceptions.RedisClusterException, OSError)
        self._refused = redis.ResponseError
        options = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 0),  # rounds are tried again, not commands
        }
        try:
            one = redis.Redis.from_url(url, **options)
        except ValueError:
            raise StoreError("the store's URL: expected redis://host:port or rediss://") from None
        self._one: Any = one
        self._cluster: Any = None
        try:
            server: Any = one.info("server")
            if int(str(server["redis_version"]).split(".")[0]) < 7:
                raise StoreUnavailableError(f"Redis {server['redis_version']}: 7 or later is needed")
            if server.get("redis_mode") == "cluster":
                self._cluster = redis.RedisCluster.from_url(url, **options)
            self._place()
            self._refuse_eviction()
        except self._lost_connection as error:
            raise StoreUnavailableError(f"Redis does not answer: {_said(error)}") from error

    def __len__(self) -> int:
        """The number of shards."""
        return len(self._placed[0])

    def run(self, script: Script, items: Sequence[Item], *, head: Sequence[bytes | int] = ()) -> list[Any]:
        """Runs a script over items, `head` before each call's; returns their replies in order.

        A script that is refused may have been run on other shards: what is written in two steps must bear that.

        Raises:
            StoreUnavailableError: a shard is away, or has too few replicas, for longer than `patience_s`.
            StoreLostError: a shard lacks what it had.
            StaleWriterError: a guarded script was refused.
            ErasingError: something is being erased, or was since.
        """
        until_s = time.monotonic() + self._patience_s
        if script.writes and time.monotonic() >= self._next_count_s:
            with suppress(*self._lost_connection):  # the round says so
                self._count_replicas()
        while True:
            try:
                return self._round(script, items, head)
            except _TryAgain as error:
                if time.monotonic() + _PAUSE_S > until_s:
                    raise StoreUnavailableError(str(error)) from error.__cause__
                time.sleep(_PAUSE_S)
                self._look_again()

    def drop(self, pattern: bytes, *, keep: bytes, going_on: Callable[[], bool] = lambda: True) -> None:
        """Deletes every key of a pattern, as far as shards answer, but those that begin with `keep`.

        `going_on` is asked before each thousand or so.
        """
        for shard in self._placed[0]:
            try:
                with _borrowed(shard) as connection:
                    _drop(connection, pattern, keep, going_on)
            except self._lost_connection as error:
                log.warning("keys of an older graph stay where they are", shard=shard.name, error=_said(error))

    def bytes_used(self) -> int:
        """The memory that all shards use, replicas not counted, by their own account."""
        return sum(int(self._told(shard, "memory", "used_memory")) for shard in self._placed[0])

    def close(self) -> None:
        """Closes all connections."""
        self._one.close()
        if self._cluster is not None:
            self._cluster.close()

    def _place(self) -> None:
        """Notes which shard owns each slice."""
        if self._cluster is None:
            self._placed = [_Shard("redis", self._one.connection_pool)], [0] * SLICES
            return
        nodes = self._cluster.nodes_manager
        shards: dict[str, _Shard] = {}
        owner = []
        for number in range(SLICES):
            node = nodes.get_node_from_slot(self._cluster.keyslot(str(number)))
            if node.name not in shards:
                shards[node.name] = _Shard(node.name, self._cluster.get_redis_connection(node).connection_pool)
            owner.append(list(shards).index(node.name))
        self._placed = list(shards.values()), owner
        self._count_replicas()

    def _count_replicas(self) -> None:
        """Once every shard of a cluster has a replica, one must have each write: while it is away, writing waits."""
        self._next_count_s = time.monotonic() + _COUNT_S
        if self._cluster is None or not self._replicas_found or self._replicas:
            return
        if all(int(self._told(shard, "replication", "connected_slaves")) for shard in self._placed[0]):
            self._replicas = 1

    def _refuse_eviction(self) -> None:
        for shard in self._placed[0]:
            policy = self._told(shard, "memory", "maxmemory_policy").strip()
            if policy.startswith("allkeys"):  # others leave alone what has no time to live
                raise StoreError(
                    f"{shard.name}: maxmemory-policy {policy} forgets rows without a word; expected noeviction"
                )

    @staticmethod
    def _told(shard: _Shard, section: str, name: str) -> str:
        """One figure of what a shard tells of itself."""
        with _borrowed(shard) as connection:
            connection.send_command("INFO", section)
            told = bytes(connection.read_response()).decode()
        return dict(line.split(":", 1) for line in told.splitlines() if ":" in line)[name]

    def _look_again(self) -> None:
        if self._cluster is None:
            return
        try:
            self._cluster.nodes_manager.initialize()
            self._place()
        except self._lost_connection as error:
            log.warning("the cluster does not say where its slots are", error=_said(error))

    def _round(self, script: Script, items: Sequence[Item], head: Sequence[bytes | int]) -> list[Any]:
        shards, owner = self._placed  # both at once: another thread may look again
        by_shard: dict[int, list[int]] = {}
        for at, (number, _) in enumerate(items):
            by_shard.setdefault(owner[number], []).append(at)
        replies: list[Any] = [None] * len(items)
        open_: list[tuple[_Shard, Any, list[list[int]]]] = []
        whole = False
        try:
            for place, mine in by_shard.items():
                shard = shards[place]
                calls = [mine[at : at + CALL_ITEMS_MAX] for at in range(0, len(mine), CALL_ITEMS_MAX)]
                with self._answering(shard):
                    connection = shard.pool.get_connection()
                open_.append((shard, connection, calls))
                with self._answering(shard):
                    self._send(connection, script, items, head, calls)
            errors: list[Exception] = []
            for shard, connection, calls in open_:
                for call in calls:
                    reply = self._read(shard, connection, errors)
                    if isinstance(reply, list):
                        for at, one in zip(call, reply, strict=True):
                            replies[at] = one
                if script.writes and self._replicas:
                    have = self._read(shard, connection, errors)
                    if isinstance(have, int) and have < self._replicas:
                        errors.append(_TryAgain(f"{shard.name}: {have} of {self._replicas} replicas have the write"))
            whole = True
        finally:
            for shard, connection, _ in open_:
                if not whole:  # replies that nobody waits for
                    connection.disconnect()
                shard.pool.release(connection)
        self._raise(errors, script)
        return replies

    def _send(
        self,
        connection: Any,
        script: Script,
        items: Sequence[Item],
        head: Sequence[bytes | int],
        calls: list[list[int]],
    ) -> None:
        commands: list[tuple[Any, ...]] = [
            ("EVALSHA", script.sha, 0, *head, *[argument for at in call for argument in items[at][1]]) for call in calls
        ]
        if script.writes and self._replicas:
            commands.append(("WAIT", self._replicas, int(self._timeout_s * 500)))
        connection.send_packed_command(connection.pack_commands(commands))

    def _read(self, shard: _Shard, connection: Any, errors: list[Exception]) -> Any:
        """A reply; a refusal is noted, so that the other replies are read."""
        with self._answering(shard):
            try:
                return connection.read_response()
            except self._refused as error:
                errors.append(error)
        return None

    @contextmanager
    def _answering(self, shard: _Shard) -> Iterator[None]:
        try:
            yield
        except self._lost_connection as error:
            raise _TryAgain(f"shard {shard.name} does not answer: {_said(error)}") from error

    def _raise(self, errors: list[Exception], script: Script) -> None:
        for kind, refusal in ((LOST, StoreLostError), (STALE, StaleWriterError), (ERASING, ErasingError)):
            for error in errors:
                if str(error).startswith(kind):
                    raise refusal(str(error))
        for error in errors:
            if type(error).__name__ == "NoScriptError":
                self._load(script)
                raise _TryAgain("a shard did not know the script") from error
            if isinstance(error, _TryAgain):
                raise error
            if type(error).__name__ == "OutOfMemoryError" or "OOM" in str(error):
                raise StoreUnavailableError(f"a shard's memory is full: {_said(error)}") from error
            if any(word in str(error) for word in _PASSING) or type(error).__name__ in _PASSING:
                raise _TryAgain(f"a shard cannot answer now: {_said(error)}") from error
            raise StoreError(f"a script was refused: {_said(error)}") from error

    def _load(self, script: Script) -> None:
        for shard in self._placed[0]:
            try:
                with _borrowed(shard) as connection:
                    connection.send_command("SCRIPT LOAD", script.text)
                    connection.read_response()
            except self._lost_connection:
                continue  # the round says so


class _TryAgain(Exception):
    """A round that may succeed when it is tried again."""


@contextmanager
def _borrowed(shard: _Shard) -> Iterator[Any]:
    """A connection, for one use; what it may still be sent after an error nobody reads."""
    connection = shard.pool.get_connection()
    try:
        yield connection
    except BaseException:
        connection.disconnect()
        raise
    finally:
        shard.pool.release(connection)


def _drop(connection: Any, pattern: bytes, keep: bytes, going_on: Callable[[], bool]) -> None:
    cursor: bytes = b"0"
    while True:
        connection.send_command("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
        cursor, matching = connection.read_response()
        found = [key for key in matching if not key.startswith(keep)]
        if found and not going_on():
            return
        if found:
            # One key a command: in a cluster they lie in many slots.
            connection.send_packed_command(connection.pack_commands([("UNLINK", key) for key in found]))
            for _ in found:
                connection.read_response()
        if cursor in (b"0", 0):
            return


# What Redis says while slots move, a replica takes over, a shard starts, is kept busy, or cannot write to its disk.
_PASSING = (
    "non local key",
    "ClusterDownError",
    "CLUSTERDOWN",
    "MovedError",
    "AskError",
    "TryAgainError",
    "LOADING",
    "BusyLoadingError",
    "ReadOnlyError",
    "MASTERDOWN",
    "MasterDownError",
    "NOREPLICAS",
    "Cluster is down",
    "BUSY ",
    "MISCONF",
)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200]
