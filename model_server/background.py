"""A server on a thread of its own, for a process that does other things too: the demo, a notebook, a test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import uvloop

from model_server.server import HURRIED_S, Server


class BackgroundServer:
    """Runs one server on its own event loop. A context manager: serving inside, drained after.

    `build` is called on the server's thread, whose event loop then owns everything it made.
    """

    def __init__(self, build: Callable[[], Server]) -> None:
        self._build = build
        self._thread = threading.Thread(target=self._run, name="nowgraph-server", daemon=True)
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._server: Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> Self:
        """Returns once the server is serving; raises what kept it from that."""
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    @property
    def server(self) -> Server:
        """The server, once started; its ports and metrics may be read from any thread."""
        assert self._server is not None
        return self._server

    @property
    def target(self) -> str:
        """What a client connects to."""
        return f"{self.server.settings.host}:{self.server.port}"

    def close(self) -> None:
        """Drains the server and ends its thread; what interrupts the wait, such as a signal, puts it in a hurry."""
        if self._loop is not None and self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self.server.drain(), self._loop)
        try:
            self._thread.join()
        except BaseException:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self.server.hurry)
                self._thread.join(HURRIED_S)
            raise

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for the start
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        server = self._build()
        await server.start()
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._started.set()
        await server.wait()
