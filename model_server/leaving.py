"""How one of several processes leaves a port without failing a request: no new connections, then none at all.

    listeners closed ─► the kernel gives new connections to the other processes
                     ─► each connection reaches its age and is told to go (GOAWAY); its requests are answered here
                     ─► no connection is left: nothing can fail any more

gRPC's own stop does it the other way round. It tells clients to go while it still listens, so that they come back, and
it cancels requests that have arrived and were not looked at yet. Python has no call for the first half alone, so the
listening sockets are found among the process's own descriptors.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

DESCRIPTORS = Path("/proc/self/fd")
POLL_S = 0.02
# gRPC spreads the ages of connections by a tenth to both sides.
AGE_SPREAD = 1.1


async def leave(port: int, *, age_s: float) -> int:
    """Closes the port's listeners and waits until no connection is left, at most as long as one may live.

    Returns how many are left: those with a stream that does not end.
    """
    close_listeners(port)
    until_s = time.monotonic() + age_s * AGE_SPREAD + POLL_S
    while (left := connections(port)) and time.monotonic() < until_s:  # noqa: ASYNC110 - of the kernel
        await asyncio.sleep(POLL_S)
    return left


def close_listeners(port: int) -> None:
    """Takes this process's listeners out of the port; connections that it has stay."""
    for found in _sockets(port):
        if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            found.shutdown(socket.SHUT_RD)


def connections(port: int) -> int:
    """Connections that this process has on the port."""
    count = 0
    for found in _sockets(port):
        with suppress(OSError):
            found.getpeername()
            count += 1
    return count


def _sockets(port: int) -> Iterator[socket.socket]:
    """This process's TCP sockets on a local port, each a duplicate that is closed after."""
    for link in list(DESCRIPTORS.iterdir()):
        with suppress(OSError):
            if not str(link.readlink()).startswith("socket:"):
                continue
            with closing(socket.socket(fileno=os.dup(int(link.name)))) as found:
                tcp = found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM
                if tcp and found.getsockname()[1] == port:
                    yield found
