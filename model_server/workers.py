"""Several server processes on one port over one shared arena: started, watched, restarted, replaced one by one.

                        ┌─► worker 0 ─┐
    supervisor ─ starts ┼─► worker 1 ─┼─ SO_REUSEPORT: the kernel gives each connection to one of them
                        └─► worker 2 ─┘
    SIGTERM, SIGINT: all drain.   SIGHUP: each is replaced by a newly started process that already serves.

The supervisor answers no request and imports neither torch nor gRPC: it has nothing that could fail with a worker.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from model_server.worker_link import ENVIRONMENT, LEAVE, Ready

log = structlog.get_logger(__name__)

# A worker that ends by itself comes back after this, twice as long each time: a fault that stays must not fill the log
# and the machine with starts.
BACKOFF_S = 0.5
BACKOFF_MAX_S = 30.0
# A worker that served so long is well again: its next end is a new fault.
WELL_AFTER_S = 60.0
# Beyond its own grace a draining worker is killed.
DRAIN_MARGIN_S = 5.0
# How long a process that takes another's place may take to serve before it is ended; loading a large model is seconds.
REPLACE_S = 120.0


class WorkerFailedError(Exception):
    """A worker ended before all served for the first time: what is wrong with it is wrong with all."""

    def __init__(self, code: int) -> None:
        super().__init__(f"a worker ended with {code} before it served; its own log says why")
        self.code = code


class PortTakenError(Exception):
    """Somebody else serves on the port, or it may not be had."""


class WorkersMetrics(Protocol):
    """What the supervisor counts."""

    def serving(self, workers: int) -> None:
        """So many workers serve now."""

    def started(self, ready: Ready, start_s: float) -> None:
        """A worker serves since now; from its process's start that took so long."""

    def restarted(self, reason: str) -> None:
        """A worker was started in place of another: `crashed` or `replaced`."""


@dataclass(eq=False, slots=True)
class Worker:
    """One process of a slot, compared by identity. `ready` is set once it serves."""

    slot: int
    process: asyncio.subprocess.Process
    exited: asyncio.Task[int]
    link: socket.socket
    since_s: float
    ready: Ready | None = None
    # Whether it was told to drain.
    ending: bool = False


def reserve_port(host: str, port: int) -> tuple[socket.socket, int]:
    """A bound socket that keeps the port for the workers, and the port; it never listens, so it gets no connection.

    Raises PortTakenError when somebody else has it: with SO_REUSEPORT alone one would silently share its requests.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            alone.bind((host, port))
        except OSError as error:
            raise PortTakenError(f"{host}:{port}: {error.strerror}") from error
        port = alone.getsockname()[1]
    kept = socket.socket(family, socket.SOCK_STREAM)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    kept.bind((host, port))
    return kept, port


class Workers:
    """The supervisor of `count` workers. `run` belongs to one event loop."""

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        *,
        environment: Mapping[str, str],
        leave_s: float,
        drain_s: float,
        metrics: WorkersMetrics,
        all_serve: Callable[[Sequence[Ready]], None] = lambda _: None,
        backoff_s: float = BACKOFF_S,
    ) -> None:
        """`command` starts a worker, in this process's environment with `environment` on top.

        `all_serve` hears once when each has said that it serves.
        """
        self._command = list(command)
        self._environment = os.environ | environment
        self._count = count
        self._drain_s = drain_s + DRAIN_MARGIN_S
        self._leave_s = leave_s + self._drain_s
        self._metrics = metrics
        self._all_serve = all_serve
        self._backoff_s = backoff_s
        self._slots: list[Worker | None] = [None] * count
        self._running: set[Worker] = set()
        self._stop = asyncio.Event()
        self._rolling = asyncio.Lock()

    @property
    def ready(self) -> tuple[Ready, ...]:
        """What the workers that serve said."""
        return tuple(worker.ready for worker in self._slots if worker is not None and worker.ready is not None)

    def current(self, slot: int) -> Ready | None:
        """What the slot's worker said; None while there is none that serves."""
        worker = self._slots[slot]
        return None if worker is None else worker.ready

    async def run(self) -> None:
        """Serves until `stop` or a signal; returns when all workers have drained.

        Raises WorkerFailedError when one cannot even start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        rolls: set[asyncio.Task[bool]] = set()

        def roll() -> None:
            task = asyncio.create_task(self.replace_all())
            rolls.add(task)
            task.add_done_callback(rolls.discard)

        loop.add_signal_handler(signal.SIGHUP, roll)
        try:
            await self._first_start()
            async with asyncio.TaskGroup() as group:
                keepers = [group.create_task(self._keep(slot)) for slot in range(self._count)]
                await self._stop.wait()
                for task in (*keepers, *rolls):
                    task.cancel()
        finally:
            await self._drain()

    def stop(self) -> None:
        """Drains all workers; `run` returns then. The second time they hear so again, and end at once."""
        if self._stop.is_set():
            for worker in self._running:
                if worker.ending:
                    _tell(worker)
        self._stop.set()

    async def replace_all(self) -> bool:
        """Replaces each worker by a newly started one that already serves; returns whether all were.

        The first replacement that does not come to serve ends it: the rest stay as they are.
        """
        async with self._rolling:
            for slot in range(self._count):
                old = self._slots[slot]
                worker = await self._start(slot)
                if not await self._serves_in_time(worker):
                    return False
                self._take(worker, "replaced")
                if old is not None:
                    await self._leave(old)
            return True

    async def _first_start(self) -> None:
        workers = [await self._start(slot) for slot in range(self._count)]
        for worker in workers:
            self._slots[worker.slot] = worker
        waits = [asyncio.create_task(self._serves(worker)) for worker in workers]
        stopped = asyncio.create_task(self._stop.wait())
        try:
            pending = set(waits)
            while pending and not stopped.done():
                done, _ = await asyncio.wait({*pending, stopped}, return_when=asyncio.FIRST_COMPLETED)
                for worker, wait in zip(workers, waits, strict=True):
                    if wait in done and not wait.result():
                        raise WorkerFailedError(await worker.exited)
                pending -= done
                self._metrics.serving(len(self.ready))
            if not stopped.done():
                log.info("all_workers_serve", workers=self._count)
                self._all_serve(self.ready)
        finally:
            for task in (*waits, stopped):
                task.cancel()

    async def _keep(self, slot: int) -> None:
        """Starts the slot's worker again whenever it ends by itself."""
        backoff_s = self._backoff_s
        while True:
            worker = self._slots[slot]
            assert worker is not None
            code = await asyncio.shield(worker.exited)
            if self._slots[slot] is not worker:  # replaced
                continue
            self._slots[slot] = None
            self._metrics.serving(len(self.ready))
            if worker.ready is not None and time.monotonic() - worker.since_s > WELL_AFTER_S:
                backoff_s = self._backoff_s
            log.error("worker_ended", slot=slot, pid=worker.process.pid, code=code, restart_in_s=backoff_s)
            self._forget(worker)
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
            async with self._rolling:
                if self._slots[slot] is None:
                    fresh = await self._start(slot)
                    self._slots[slot] = fresh
                    if await self._serves_in_time(fresh):
                        self._take(fresh, "crashed")

    async def _start(self, slot: int) -> Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment | {ENVIRONMENT: str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C of the terminal is the supervisor's to pass on
            )
        worker = Worker(slot, process, asyncio.create_task(process.wait()), ours, time.monotonic())
        self._running.add(worker)
        log.info("worker_started", slot=slot, pid=process.pid)
        return worker

    async def _serves(self, worker: Worker) -> bool:
        """Waits until the worker says that it serves; False when it ends before."""
        line = b""
        while not line.endswith(b"\n"):
            some = await asyncio.get_running_loop().sock_recv(worker.link, 1024)
            if not some:
                return False
            line += some
        worker.ready = Ready.from_line(line)
        start_s = time.monotonic() - worker.since_s
        self._metrics.started(worker.ready, start_s)
        log.info("worker_serves", slot=worker.slot, pid=worker.process.pid, start_s=round(start_s, 2))
        return True

    async def _serves_in_time(self, worker: Worker) -> bool:
        """As `_serves`, of one that takes another's place; ended where it does not: others wait for their turn."""
        with suppress(TimeoutError):
            async with asyncio.timeout(REPLACE_S):
                if await self._serves(worker):
                    return True
        log.error("replacement_failed", slot=worker.slot, pid=worker.process.pid)
        await self._end(worker)
        return False

    def _take(self, worker: Worker, reason: str) -> None:
        self._slots[worker.slot] = worker
        self._metrics.restarted(reason)
        self._metrics.serving(len(self.ready))

    async def _leave(self, worker: Worker) -> None:
        """Lets a worker that was replaced leave its connections to the others, then end."""
        with suppress(OSError):
            worker.link.send(LEAVE)
        try:
            async with asyncio.timeout(self._leave_s):
                await asyncio.shield(worker.exited)
        except TimeoutError:
            log.warning("worker_does_not_leave", slot=worker.slot, pid=worker.process.pid)
        await self._end(worker)

    async def _end(self, worker: Worker) -> int:
        """Lets a worker drain, and kills it when it does not end."""
        if not worker.ending:
            worker.ending = True
            _tell(worker)
        try:
            async with asyncio.timeout(self._drain_s):
                code = await asyncio.shield(worker.exited)
        except TimeoutError:
            log.warning("worker_killed", slot=worker.slot, pid=worker.process.pid)
            with suppress(ProcessLookupError):
                worker.process.kill()
            code = await worker.exited
        self._forget(worker)
        return code

    def _forget(self, worker: Worker) -> None:
        worker.link.close()
        self._running.discard(worker)

    async def _drain(self) -> None:
        await asyncio.gather(*(self._end(worker) for worker in list(self._running)))
        log.info("workers_drained")


def _tell(worker: Worker) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        worker.process.terminate()
