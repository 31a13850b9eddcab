"""Clients that are dead, slow or strange: the others are answered as if they were not there, and nothing of them stays.

What a server holds of the machine is looked at from outside: its memory, its file descriptors, its queue.
"""

from __future__ import annotations

import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from nowgraph.client import Client
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc

pytestmark = pytest.mark.integration

# What a machine of two busy cores may add to an answer of milliseconds.
ANSWER_S_MAX, ANSWER_S_MEDIAN, ANSWERS_MIN = 3.0, 0.3, 20
GROWTH_BYTES_MAX = 64 << 20
# Each is answered some five hundred times before the buffers on the way are full.
AT_ONCE = 4
# What a dead client's connection may hold: what is on its way, and what the buffers of both sides take.
REQUEST_BYTES, TAKEN_BYTES_MAX = 4 << 10, 32 << 20


@dataclass
class Heard:
    """How long others waited for their answers, and what went wrong."""

    seconds: list[float] = field(default_factory=list)
    wrong: list[Exception] = field(default_factory=list)

    def check(self) -> None:
        assert self.wrong == []
        assert max(self.seconds) < ANSWER_S_MAX
        assert statistics.median(self.seconds) < ANSWER_S_MEDIAN


@contextmanager
def others(served: Any) -> Iterator[Heard]:
    """Somebody who scores twenty times a second until the block ends, and was answered well."""
    heard, stop = Heard(), threading.Event()

    def ask() -> None:
        with Client(served.target, timeout_s=10.0) as client:
            while not stop.wait(0.05):
                begun_s = time.monotonic()
                try:
                    client.score("transactions", 1, {"customer_id": 1, "tx_amount": 5.0})
                except Exception as error:  # noqa: BLE001 - told by check()
                    heard.wrong.append(error)
                heard.seconds.append(time.monotonic() - begun_s)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield heard
        until(lambda: len(heard.seconds) > ANSWERS_MIN, "the others are not answered")
    finally:
        stop.set()
        asking.join()
    heard.check()


@contextmanager
def nothing_stays(served: Any) -> Iterator[None]:
    """Soon after the block the server holds no more than before it."""
    with Client(served.target, timeout_s=10.0) as client:  # from the first answer on nothing is new to the process
        client.score("transactions", 1, {"customer_id": 1})
    time.sleep(0.5)
    descriptors, resident = served.descriptors, served.resident_bytes
    yield
    until(lambda: served.descriptors <= descriptors + 1, "file descriptors stay")
    until(lambda: sum(served.metric("nowgraph_queue_rows").values()) == 0, "rows stay in the queue")
    assert served.resident_bytes - resident < GROWTH_BYTES_MAX


def until(holds: Callable[[], bool], why: str) -> None:
    """Waits for it."""
    deadline_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline_s, why
        time.sleep(0.05)


@contextmanager
def channels(target: str, count: int) -> Iterator[list[grpc.Channel]]:
    """So many connections of their own."""
    with ExitStack() as stack:
        # Without probing its bandwidth a client takes 64 KiB that nobody reads, and not megabytes.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
        yield [stack.enter_context(grpc.insecure_channel(target, options=options)) for _ in range(count)]


def endless(served: Any, sent: list[int], place: int, size: int = 10) -> Iterator[service_pb2.ScoreStreamRequest]:
    """Requests without an end, of so many bytes, counted as they are taken."""
    request = service_pb2.ScoreStreamRequest(request=served.payment(place))
    next(cell for cell in request.request.row.cells if cell.column == "note").text = "x" * size
    while True:
        sent[place] += 1
        yield request


@pytest.mark.faults
def test_who_does_not_read_is_not_read_either(fraud_server: Any) -> None:
    """Four streams that ask without end and take no answer: the server stops taking requests of theirs."""
    sent = [0] * AT_ONCE
    with nothing_stays(fraud_server), others(fraud_server), channels(fraud_server.target, AT_ONCE) as opened:
        calls = [
            service_grpc.PredictionServiceStub(channel).ScoreStream(endless(fraud_server, sent, place, REQUEST_BYTES))
            for place, channel in enumerate(opened)
        ]
        before: list[int] = []
        until(lambda: stands_still(sent, before), "the server goes on reading")
        assert max(sent) * REQUEST_BYTES < TAKEN_BYTES_MAX
        print(f"{max(sent):,} requests of {REQUEST_BYTES:,} bytes taken, {fraud_server.resident_bytes / 2**20:.0f} MiB")
        assert next(calls[0]).result.HasField("response")  # it only waited
        for call in calls:
            call.cancel()


def stands_still(numbers: list[int], before: list[int]) -> bool:
    """Whether numbers are what they were half a second ago, when this was asked before."""
    time.sleep(0.5)
    same = before == numbers and min(numbers) > 0
    before[:] = numbers
    return same


def test_what_is_opened_and_never_used_costs_nobody(fraud_server: Any) -> None:
    """A hundred connections without a word, and a hundred streams without a request."""
    host, _, port = fraud_server.target.rpartition(":")
    with nothing_stays(fraud_server), others(fraud_server), ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection((host, int(port))))
        never = threading.Event()
        stack.callback(never.set)
        for channel in stack.enter_context(channels(fraud_server.target, 5)):
            stub = service_grpc.PredictionServiceStub(channel)
            for _ in range(20):
                stack.callback(stub.ScoreStream(silent(never)).cancel)
        time.sleep(2)


def silent(never: threading.Event) -> Iterator[service_pb2.ScoreStreamRequest]:
    """No request, for a long time."""
    never.wait(60)
    yield from ()


KILLED = """
import sys
from nowgraph.client import Client, Row
with Client(sys.argv[1], timeout_s=60.0) as client:
    rows = (Row("transactions", number, {"customer_id": 1}) for number in range(10**9))
    for number, _ in enumerate(client.score_stream(rows)):
        if number == 20:
            print("asking", flush=True)
"""


def test_a_client_that_is_killed_is_forgotten(fraud_server: Any) -> None:
    """Three processes end by SIGKILL with requests on their way."""
    with nothing_stays(fraud_server), others(fraud_server):
        clients = [
            subprocess.Popen([sys.executable, "-c", KILLED, fraud_server.target], stdout=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        try:
            for client in clients:
                assert client.stdout is not None
                assert client.stdout.readline() == "asking\n"
        finally:
            for client in clients:
                client.send_signal(signal.SIGKILL)
                client.communicate()


class Wire:
    """A connection's way to a server, which can be cut so that neither side hears of it."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._cut = threading.Event()
        self.dropped = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def cut(self) -> None:
        """From now on nothing arrives at the other side; both connections stay open."""
        self._cut.set()

    def close(self) -> None:
        self._listener.close()

    def _run(self) -> None:
        client, _ = self._listener.accept()
        host, _, port = self._target.rpartition(":")
        server = socket.create_connection((host, int(port)))
        threading.Thread(target=self._carry, args=(client, server), daemon=True).start()
        self._carry(server, client)
        self.dropped.set()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                if not self._cut.is_set():
                    sink.sendall(data)
        except OSError:
            pass


def test_half_of_a_connection_is_closed_by_the_server(fraud_server: Any) -> None:
    """The network goes away in the middle of a stream, without a word: unanswered pings end it on the server's side."""
    with nothing_stays(fraud_server), others(fraud_server):
        wire, sent = Wire(fraud_server.target), [0]
        with grpc.insecure_channel(wire.target) as channel:
            call = service_grpc.PredictionServiceStub(channel).ScoreStream(endless(fraud_server, sent, 0))
            assert next(call).result.HasField("response")
            wire.cut()
            assert wire.dropped.wait(15), "the server keeps a connection that is dead"
            call.cancel()
        wire.close()


def test_a_clients_clock_that_runs_ahead_is_told(fraud_server: Any) -> None:
    """Five minutes, which the schema allows, are scored; a second more is refused by its field, and so is an event."""
    now_us = time.time_ns() // 1_000
    with grpc.insecure_channel(fraud_server.target) as channel:
        stub = service_grpc.PredictionServiceStub(channel)
        asked = fraud_server.payment()
        asked.row.event_time_us = now_us + 299_000_000
        assert stub.Score(asked, timeout=20).cutoff_time_us == asked.row.event_time_us - 1
        asked.row.event_time_us = now_us + 330_000_000
        with pytest.raises(grpc.RpcError, match="ahead of the server's clock, 300000000 us are allowed") as refused:
            stub.Score(asked, timeout=20)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError, match=r"event\.event_time_us"):
            stub.Ingest(service_pb2.IngestRequest(event=asked.row), timeout=20)
