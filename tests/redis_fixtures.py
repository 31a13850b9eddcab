"""A real Redis for the tests, on a free port of loopback; loaded as a plugin by conftest.py."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from online_sampler import SamplingPlan
from online_sampler.redis_sampler import RedisSampler
from temporal_graph.graph import Applied
from temporal_graph.redis.graph import RedisGraph
from temporal_graph.redis.view import RedisView
from temporal_graph.schema import Schema

START_TIMEOUT_S = 20


BUS_OFFSET = 10_000  # the port of a cluster's node that the others speak to
CLUSTER_NODES = 6
CLUSTER_SHARDS = 3

FreePorts = Callable[..., list[int]]

_NAMESPACES = itertools.count()


class RedisServer:
    """One Redis process that keeps nothing on disk; `options` are those of its configuration file."""

    def __init__(self, folder: Path, port: int, options: Mapping[str, object] | None = None) -> None:
        self.port = port
        self._folder = folder
        self._options = dict(options or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """What clients connect to."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Starts the process, on the same port each time, and returns once it answers."""
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": self._folder}
        options |= self._options
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._process = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
        until_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < until_s:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(7) == b"+PONG\r\n":
                        return
            except OSError:
                assert self._process.poll() is None, "redis-server ended"
            time.sleep(0.02)
        raise TimeoutError("redis-server does not answer")

    def flush(self) -> None:
        """Makes it forget everything."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            assert connection.recv(5) == b"+OK\r\n"

    def freeze(self) -> None:
        """Stops it from doing anything; its connections stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends it at once, with all that it held."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def say(self, *words: str) -> str:
        """Sends one command and returns what came back, as redis-cli writes it."""
        command = ["redis-cli", "-h", "127.0.0.1", "-p", str(self.port), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=START_TIMEOUT_S).stdout

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


class RedisCluster:
    """Six nodes of this machine: three shards, each with a replica."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        options = {"cluster-enabled": "yes", "cluster-node-timeout": 2000, "repl-diskless-sync-delay": 0}
        self.nodes: list[RedisServer] = []
        try:
            for number, port in enumerate(ports):
                (folder / str(number)).mkdir()
                self.nodes.append(RedisServer(folder / str(number), port, options))
            addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
            create = ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"]
            subprocess.run(create, check=True, capture_output=True, timeout=START_TIMEOUT_S * 3)
            self.wait_until_whole()
        except BaseException:
            self.kill()
            raise

    @property
    def url(self) -> str:
        """What clients connect to: its first node."""
        return self.nodes[0].url

    def wait_until_whole(self) -> None:
        """Returns once every node knows all slots served, and every replica and its primary agree that it follows."""
        until_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < until_s:
            served = all("cluster_state:ok" in node.say("cluster", "info") for node in self.nodes)
            told = [node.say("info", "replication") for node in self.nodes]
            following = sum("role:slave" in one and "master_link_status:up" in one for one in told)
            followed = sum("role:master" in one and "state=online" in one for one in told)
            if served and following == CLUSTER_NODES - CLUSTER_SHARDS and followed == CLUSTER_SHARDS:
                return
            time.sleep(0.05)
        raise TimeoutError("the Redis cluster does not come up")

    def primaries(self) -> list[RedisServer]:
        """The nodes that own slots."""
        return [node for node in self.nodes if "role:master" in node.say("info", "replication")]

    def flush(self) -> None:
        """Empties every shard."""
        for node in self.primaries():
            node.say("flushall")

    def kill(self) -> None:
        """Ends all nodes."""
        for node in self.nodes:
            node.kill()


class RedisStore:
    """A graph in Redis, in a namespace of its own: its writer, and readers' samplers."""

    place = ("events", 0)

    def __init__(self, url: str, schema: Schema, namespace: str, *, serves: bool) -> None:
        self.url, self.schema, self.namespace = url, schema, namespace
        self.graph = RedisGraph.open(url, schema, namespace=namespace)
        if serves:
            self.graph.expect({})
        self.view = RedisView.open(url, schema, namespace=namespace)
        self._next = 0

    def reopen(self, **options: Any) -> None:
        """Another writer in place of the first."""
        self.graph.close()
        self.graph = RedisGraph.open(self.url, self.schema, namespace=self.namespace, **options)

    def apply(self, events: Sequence[bytes]) -> Applied:
        """Applies events at the next offsets of one partition."""
        self._next += len(events)
        return self.graph.apply(events, positions={self.place: self._next})

    def sampler(self, plan: SamplingPlan) -> RedisSampler:
        """A reader."""
        return RedisSampler(self.view, plan)

    def close(self) -> None:
        """Closes both faces."""
        self.graph.close()
        self.view.close()


@pytest.fixture
def redis_stores() -> Iterator[Callable[..., RedisStore]]:
    """Makes graphs at a URL, `RedisStore(url, schema, serves=True)`; closed at the test's end."""
    made: list[RedisStore] = []

    def make(url: str, schema: Schema, *, serves: bool = True) -> RedisStore:
        made.append(RedisStore(url, schema, f"t{next(_NAMESPACES)}", serves=serves))
        return made[-1]

    yield make
    for store in made:
        store.close()


ServerT = TypeVar("ServerT", RedisServer, RedisCluster)


def _needs_redis() -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")


@pytest.fixture(scope="session")
def start_redis(tmp_path_factory: pytest.TempPathFactory, free_ports: FreePorts) -> Callable[[], RedisServer]:
    """Starts a Redis."""

    def start() -> RedisServer:
        _needs_redis()
        return RedisServer(tmp_path_factory.mktemp("redis"), *free_ports(1))

    return start


@pytest.fixture(scope="session")
def start_redis_cluster(tmp_path_factory: pytest.TempPathFactory, free_ports: FreePorts) -> Callable[[], RedisCluster]:
    """Starts a cluster."""

    def start() -> RedisCluster:
        _needs_redis()
        return RedisCluster(tmp_path_factory.mktemp("cluster"), free_ports(CLUSTER_NODES, bus=BUS_OFFSET))

    return start


def _shared(start: Callable[[], ServerT]) -> Iterator[Callable[[], str]]:
    """Gives a function that starts one when it is first asked for its URL."""
    started: list[ServerT] = []

    def url() -> str:
        if not started:
            started.append(start())
        return started[0].url

    yield url
    for server in started:
        server.kill()


@pytest.fixture
def redis_server(start_redis: Callable[[], RedisServer]) -> Iterator[RedisServer]:
    """A Redis of the test's own, to be frozen and killed."""
    server = start_redis()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def shared_redis(start_redis: Callable[[], RedisServer]) -> Iterator[Callable[[], str]]:
    """Gives the URL of a Redis that is started once and not disturbed."""
    yield from _shared(start_redis)


@pytest.fixture
def redis_cluster(start_redis_cluster: Callable[[], RedisCluster]) -> Iterator[RedisCluster]:
    """A cluster of the test's own, to be frozen and killed."""
    cluster = start_redis_cluster()
    yield cluster
    cluster.kill()


@pytest.fixture(scope="session")
def shared_redis_cluster(start_redis_cluster: Callable[[], RedisCluster]) -> Iterator[Callable[[], str]]:
    """Gives the URL of a cluster that is started once and not disturbed; tests take namespaces of their own."""
    yield from _shared(start_redis_cluster)
