"""What happens to brokers and to the way there while an updater reads: killed, frozen, moved, slow, cut off, grown."""

from __future__ import annotations

import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Self

import confluent_kafka.admin
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.kafka, pytest.mark.faults]

SEED = 61
PIECES = 40


class SlowNetwork:
    """The way to a broker: what comes at one port leaves late to the other; `cut` breaks every connection."""

    def __init__(self, outer: int, inner: int, *, delay_s: float, jitter_s: float) -> None:
        self._inner, self._delay_s, self._jitter_s = inner, delay_s, jitter_s
        self._chance = random.Random(SEED)
        self._open: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", outer))
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Breaks all connections that there are."""
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            broker = socket.create_connection(("127.0.0.1", self._inner))
            self.connections += 1
            self._open += [client, broker]
            for source, target in ((client, broker), (broker, client)):
                threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while received := source.recv(65_536):
                time.sleep(self._delay_s + self._chance.uniform(0.0, self._jitter_s))
                target.sendall(received)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()
        for one in self._open:
            one.close()


@contextmanager
def told(world: Any, *, over_s: float) -> Iterator[None]:
    """The world's log is published meanwhile, piece by piece; all of it is when the block has ended."""
    errors: list[BaseException] = []

    def tell() -> None:
        try:
            for piece in range(PIECES):
                world.tell(piece, PIECES)
                time.sleep(over_s / PIECES)
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        yield
    finally:
        thread.join(240)
    assert not thread.is_alive()
    for error in errors:
        raise error


def test_a_broker_is_killed_and_comes_back(one_kafka: Any, make_world: Callable[..., Any], updaters: Any) -> None:
    """The same updater reads on, and sends its dead letters, once the broker is back."""
    world = make_world(one_kafka.bootstrap, seed=SEED, count=1_200)
    broker = one_kafka.brokers[0]
    with told(world, over_s=12):
        updaters.start(world)
        for _ in range(2):
            time.sleep(2)
            broker.send(signal.SIGKILL)
            time.sleep(3)
            broker.start()
            one_kafka.wait()
    updaters.finish(world, timeout_s=180)
    world.check()


def test_a_broker_is_frozen(one_kafka: Any, make_world: Callable[..., Any], updaters: Any) -> None:
    """It answers nothing for longer than requests wait; the same updater reads on when it does again."""
    world = make_world(one_kafka.bootstrap, seed=SEED + 1, count=1_200)
    with told(world, over_s=8):
        updaters.start(world, BROKER_TIMEOUT_S="3")
        time.sleep(2)
        one_kafka.brokers[0].send(signal.SIGSTOP)
        time.sleep(8)
        one_kafka.brokers[0].send(signal.SIGCONT)
    updaters.finish(world)
    world.check()


def test_an_updater_is_frozen(one_kafka: Any, make_world: Callable[..., Any], updaters: Any) -> None:
    """It goes on where it stood, as if nothing had been."""
    world = make_world(one_kafka.bootstrap, seed=SEED + 2, count=1_200)
    with told(world, over_s=8):
        updaters.start(world)
        for _ in range(2):
            time.sleep(1)
            updaters.send(signal.SIGSTOP)
            time.sleep(3)
            updaters.send(signal.SIGCONT)
    updaters.finish(world)
    world.check()


def moved(kafka: Any, topic: str, leader: Any) -> bool:
    """Whether another broker leads the first partition."""
    return kafka.leader(topic, 0) not in {None, leader}


@pytest.mark.timeout(400)
def test_leaders_move(three_kafkas: Any, make_world: Callable[..., Any], updaters: Any) -> None:
    """Leader after leader is killed while records come that two brokers must have: none is lost, none twice."""
    world = make_world(three_kafkas.bootstrap, seed=SEED + 3, count=2_000)
    topic = next(iter(world.topics))
    with told(world, over_s=30):
        updaters.start(world)
        for _ in range(2):
            time.sleep(2)
            leader = three_kafkas.leader(topic, 0)
            leader.send(signal.SIGKILL)
            updaters.until(partial(moved, three_kafkas, topic, leader))
            leader.start()
            three_kafkas.wait()
    updaters.finish(world)
    world.check()


def test_the_network_is_slow_and_breaks(one_kafka: Any, make_world: Callable[..., Any], updaters: Any) -> None:
    """A tenth of a second each way, as much jitter, and every connection cut now and then, in the midst of answers."""
    world = make_world(one_kafka.bootstrap, seed=SEED + 4, count=1_200)
    broker = one_kafka.brokers[0]
    chance = random.Random(SEED)
    with SlowNetwork(broker.outer, broker.inner, delay_s=0.1, jitter_s=0.1) as network, told(world, over_s=10):
        updaters.start(world, bootstrap=f"127.0.0.1:{broker.outer}", BROKER_TIMEOUT_S="3")
        updaters.until(lambda: world.offsets() != {})
        for _ in range(10):
            time.sleep(chance.uniform(0.2, 2.0))
            network.cut()
        updaters.finish(world)
    assert network.connections > 10
    world.check()


def test_a_partition_is_added(one_kafka: Any, make_world: Callable[..., Any], updaters: Any) -> None:
    """Records of a partition that came later are read from its beginning; another stays empty."""
    world = make_world(one_kafka.bootstrap, seed=SEED + 5, count=600)
    topic = next(iter(world.topics))
    updaters.start(world, PARTITION_CHECK_S="0.2")
    world.tell(0, 2)
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": world.bootstrap, "log_level": 0})
    new, more = world.topics[topic], 2
    for future in admin.create_partitions([confluent_kafka.admin.NewPartitions(topic, new + more)]).values():
        future.result(30)
    other = make_world(one_kafka.bootstrap, seed=SEED + 6, count=300)
    world.tell(1, 2)
    world.log[topic, new] = other.log[next(iter(other.topics)), 0]
    world.send({(topic, new): world.log[topic, new]})
    updaters.finish(world)
    world.check()
