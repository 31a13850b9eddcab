"""What a worker tells its supervisor, and how it hears that the supervisor is gone: one socket pair.

worker ── {"pid": ..., "port": ..., "attach_ms": ...} once it serves ──► supervisor
worker ◄── "leave": another serves in its place
worker ◄── end of the stream: the supervisor ended, however it did ── so the worker drains
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Self

LEAVE = b"leave\n"
ENVIRONMENT = "NOWGRAPH_WORKER_SOCKET"
"""The descriptor of the worker's end, inherited; set by the supervisor alone."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker that serves: where, and how long the parts of its start took, in milliseconds."""

    pid: int
    port: int
    metrics_port: int
    attach_ms: float
    """Mapping the arena: no event is replayed."""
    model_ms: float
    """Loading the model for that graph."""

    def to_line(self) -> bytes:
        """As one line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """What `to_line` wrote."""
        return cls(**json.loads(line))


class SupervisorLink:
    """The worker's end."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._end.setblocking(False)

    @classmethod
    def of_environment(cls) -> Self | None:
        """The link of a process that a supervisor started, once; None in any other."""
        descriptor = os.environ.pop(ENVIRONMENT, None)  # not for processes that this one starts
        return None if descriptor is None else cls(socket.socket(fileno=int(descriptor)))

    def say(self, ready: Ready) -> None:
        """Tells the supervisor that this worker serves."""
        self._end.send(ready.to_line())

    def watch(self, gone: Callable[[], None], leave: Callable[[], None]) -> None:
        """Calls `gone` on the running loop when the supervisor has ended, `leave` when it says so."""
        loop = asyncio.get_running_loop()

        def look() -> None:
            try:
                if self._end.recv(1024):
                    leave()
                    return
            except BlockingIOError:
                return
            except OSError:
                pass
            loop.remove_reader(self._end)
            gone()

        loop.add_reader(self._end, look)
