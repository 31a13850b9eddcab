"""A gRPC client that costs next to nothing: one HTTP/2 connection, frames made beforehand, no header read.

    request bytes ─► HEADERS + DATA with the next stream id ─► server ─► DATA: an answer; trailers alone: refused

The client of grpc.aio costs more CPU than the server spends on a refusal, so on one machine it could not overload it.
Here what has a DATA frame was answered, and what ends without one was not; of that one trailer is looked for.
For load tests on loopback alone.
"""

from __future__ import annotations

import asyncio
import gc
import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import cast

import numpy as np

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
WINDOW_MAX = 2**31 - 1
INITIAL_WINDOW = 65_535
# The trailer of a refusal that says when to ask again: written out, as gRPC's encoder does.
HINT = b"grpc-retry-pushback-ms"

# How often the open loop looks what is due, and how soon a closed one asks again after a refusal.
TICK_S = 0.001
AGAIN_S = 0.01


class End(Enum):
    """How a request ended; `HINTED` is a refusal that says when to ask again, `REFUSED` one that does not."""

    ANSWERED = auto()
    HINTED = auto()
    REFUSED = auto()


Ended = Callable[[End], None]
"""Called when a request ends."""


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _literal(name: int | bytes, value: bytes) -> bytes:
    """A header by its place in HPACK's static table or by name, written out and remembered by nobody."""
    if isinstance(name, int):
        head = bytes((name,)) if name < 15 else bytes((15, name - 15))
    else:
        head = bytes((0, len(name))) + name
    return head + bytes((len(value),)) + value


class LightClient(asyncio.Protocol):
    """One connection to one method. `send` returns False, and sends nothing, while the server takes no more bytes."""

    def __init__(self, method: str, *, timeout_ms: int) -> None:
        self._headers = b"".join(
            (
                bytes((0x83, 0x86)),  # :method POST, :scheme http
                _literal(4, method.encode()),  # :path
                _literal(1, b"localhost"),  # :authority
                _literal(31, b"application/grpc"),  # content-type
                _literal(b"te", b"trailers"),
                _literal(b"grpc-timeout", f"{timeout_ms}m".encode()),
            )
        )
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._next_stream = 1
        self._window = INITIAL_WINDOW
        self._ended: dict[int, Ended] = {}
        self._answered: set[int] = set()

    @property
    def in_flight(self) -> int:
        """Requests without an end yet."""
        return len(self._ended)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says hello, with windows so large that the server is never held back."""
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        settings = struct.pack(">HIHI", 4, WINDOW_MAX, 1, 0)  # INITIAL_WINDOW_SIZE; HEADER_TABLE_SIZE 0
        grow = struct.pack(">I", WINDOW_MAX - INITIAL_WINDOW)
        transport.write(PREFACE + _frame(SETTINGS, 0, 0, settings) + _frame(WINDOW_UPDATE, 0, 0, grow))

    def connection_lost(self, _: Exception | None) -> None:
        """Everything in flight has failed."""
        for ended in self._ended.values():
            ended(End.REFUSED)
        self._ended.clear()

    def send(self, message: bytes, ended: Ended) -> bool:
        """Sends a request; False where the server's window has no room for it."""
        size = len(message) + 5
        if self._window < size or self._transport is None:
            return False
        self._window -= size
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._ended[stream] = ended
        body = b"\0" + struct.pack(">I", len(message)) + message
        self._transport.write(
            _frame(HEADERS, END_HEADERS, stream, self._headers) + _frame(DATA, END_STREAM, stream, body)
        )
        return True

    def close(self) -> None:
        """Hangs up."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Takes the frames that are whole; the rest waits for its bytes."""
        buffer = self._buffer + data
        at = 0
        while len(buffer) - at >= 9:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if len(buffer) - at < 9 + length:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            stream = int.from_bytes(buffer[at + 5 : at + 9], "big") & WINDOW_MAX
            self._take(kind, flags, stream, buffer[at + 9 : at + 9 + length])
            at += 9 + length
        self._buffer = buffer[at:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == DATA:
            self._answered.add(stream)
        if kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM):
            ended = self._ended.pop(stream, None)
            if ended is not None:
                refused = End.HINTED if HINT in payload else End.REFUSED
                ended(End.ANSWERED if stream in self._answered else refused)
            self._answered.discard(stream)
        elif kind == SETTINGS and not flags & ACK:
            self._transport.write(_frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self._transport.write(_frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")


async def connect(target: str, method: str, *, timeout_ms: int) -> LightClient:
    """A client of `host:port`."""
    host, _, port = target.rpartition(":")
    _, client = await asyncio.get_running_loop().create_connection(
        lambda: LightClient(method, timeout_ms=timeout_ms), host, int(port)
    )
    return client


@dataclass
class Phase:
    """What came of one phase; times are milliseconds. `late_ms` is how long after they were due requests left.

    `hinted` counts those of the refused that heard when to ask again.
    """

    name: str
    offered_per_s: float
    seconds: float
    latency_ms: list[float] = field(default_factory=list)
    answered_at_s: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    hinted: int = 0
    unsent: int = 0

    def goodput_per_s(self, deadline_ms: float) -> float:
        """Answers within the deadline per second of the phase."""
        return sum(latency <= deadline_ms for latency in self.latency_ms) / self.seconds


def percentile(values: list[float], q: float) -> float:
    """NaN of none."""
    return float(np.percentile(values, q)) if values else float("nan")


class Load:
    """The connections, and the requests that they send in turn."""

    def __init__(self, clients: list[LightClient], messages: list[bytes]) -> None:
        self._clients, self._messages = clients, messages
        self._number = 0

    def send(self, ended: Ended) -> bool:
        """Sends the next request on the next connection."""
        self._number += 1
        client = self._clients[self._number % len(self._clients)]
        return client.send(self._messages[self._number % len(self._messages)], ended)

    async def capacity(self, seconds: float, *, in_flight: int) -> float:
        """Calls answered per second with so many always under way; what is refused is sent again a little later."""
        loop = asyncio.get_running_loop()
        until_s, answered = time.perf_counter() + seconds, 0
        done = asyncio.Event()
        flying = 0

        def ended(end: End) -> None:
            nonlocal answered, flying
            answered += end is End.ANSWERED
            flying -= 1
            if end is End.ANSWERED:
                again()
            else:
                loop.call_later(AGAIN_S, again)

        def again() -> None:
            nonlocal flying
            if time.perf_counter() < until_s:
                flying += 1
                self.send(ended)
            elif not flying:
                done.set()

        start_s = time.perf_counter()
        for _ in range(in_flight):
            again()
        await done.wait()
        return answered / (time.perf_counter() - start_s)

    async def phase(self, name: str, rate_per_s: float, seconds: float) -> Phase:
        """Sends at a constant rate; what the server's window has no room for is counted and not sent."""
        phase = Phase(name, rate_per_s, seconds)
        start_s = time.perf_counter() + 0.01
        sent, count = 0, int(rate_per_s * seconds)

        def send(intended_s: float) -> None:
            left_s = time.perf_counter()
            phase.late_ms.append((left_s - intended_s) * 1e3)

            def ended(end: End) -> None:
                now_s = time.perf_counter()
                if end is End.ANSWERED:
                    phase.latency_ms.append((now_s - intended_s) * 1e3)
                    phase.answered_at_s.append(intended_s - start_s)
                else:
                    phase.refused_ms.append((now_s - left_s) * 1e3)
                    phase.hinted += end is End.HINTED

            phase.unsent += not self.send(ended)

        while sent < count:
            due = min(count, int((time.perf_counter() - start_s) * rate_per_s) + 1)
            for number in range(sent, due):
                send(start_s + number / rate_per_s)
            sent = max(sent, due)
            await asyncio.sleep(TICK_S)
        return phase


def without_pauses() -> None:
    """Ends the garbage collector: it holds a generator up for milliseconds, and calls leave it nothing to find."""
    gc.collect()
    gc.freeze()
    gc.disable()


def first_in_line() -> None:
    """Lets this process run before others where that is allowed: who measures must not wait for what it measures."""
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)


def never_waiting() -> None:
    """Gives this process its core whenever it has something to do, where that is allowed: else it measures itself.

    Niceness is not enough, as Linux divides a core among sessions first. Processes that it starts are as others are.
    """
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
