from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from model_server.worker_link import Ready
from model_server.workers import PortTakenError, WorkerFailedError, Workers, reserve_port

pytestmark = pytest.mark.integration

WORKER = """
import asyncio, os, signal, sys
from model_server.worker_link import Ready, SupervisorLink

async def main():
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    heard = []
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif "slow" in sys.argv:
        loop.add_signal_handler(signal.SIGTERM, lambda: heard.append(1) or (len(heard) > 1 and end.set()))
    else:
        loop.add_signal_handler(signal.SIGTERM, end.set)
    link = SupervisorLink.of_environment()
    link.watch(end.set, end.set)
    if os.path.exists(sys.argv[1]):
        sys.exit(3)
    while os.path.exists(sys.argv[1] + ".stuck") and not end.is_set():
        await asyncio.sleep(0.01)
    link.say(Ready(os.getpid(), 1, 2, 0.1, 1.0))
    await end.wait()

asyncio.run(main())
"""


class Counted:
    """What the supervisor said, in order."""

    def __init__(self) -> None:
        self.now_serving: list[int] = []
        self.reasons: list[str] = []

    def serving(self, workers: int) -> None:
        self.now_serving.append(workers)

    def started(self, ready: Ready, start_s: float) -> None:
        assert ready.pid
        assert start_s > 0

    def restarted(self, reason: str) -> None:
        self.reasons.append(reason)


def supervisor(broken: Path, count: int, *more: str, **options: Any) -> tuple[Workers, Counted]:
    """Workers that speak the link and nothing else; they end with 3 while the file `broken` is there."""
    counted = Counted()
    options = {"leave_s": 1.0, "drain_s": 10.0, "backoff_s": 0.05} | options
    command = [sys.executable, "-c", WORKER, str(broken), *more]
    return Workers(command, count, environment={}, metrics=counted, **options), counted


@asynccontextmanager
async def running(workers: Workers) -> Any:
    """Runs the supervisor, and stops it."""
    task = asyncio.create_task(workers.run())
    try:
        yield task
    finally:
        workers.stop()
        await task


async def until(condition: Any) -> None:
    """Waits, within a test's time, until it holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - of processes, not of this loop
            await asyncio.sleep(0.02)


def pids(workers: Workers) -> list[int]:
    """The processes that serve."""
    return [ready.pid for ready in workers.ready]


def alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_all_serve_and_all_drain(tmp_path: Path) -> None:
    """It is said once that all serve, when all do; `stop` ends every process."""
    heard: list[Sequence[Ready]] = []
    workers, counted = supervisor(tmp_path / "broken", 3, all_serve=heard.append)
    async with running(workers):
        await until(lambda: heard)
        (ready,) = heard
        assert len({one.pid for one in ready}) == 3
        assert counted.now_serving[-1] == 3
    assert [alive(one.pid) for one in ready] == [False] * 3


async def test_a_worker_that_dies_comes_back(tmp_path: Path) -> None:
    """A killed worker is started again, the others are left alone; while it cannot start, it is tried again, later."""
    broken = tmp_path / "broken"
    workers, counted = supervisor(broken, 2)
    async with running(workers):
        await until(lambda: len(workers.ready) == 2)
        first, second = pids(workers)
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(workers.ready) == 2 and first not in pids(workers))
        assert second in pids(workers)
        assert counted.reasons == ["crashed"]
        broken.touch()
        os.kill(second, signal.SIGKILL)
        await until(lambda: len(workers.ready) == 1)
        await asyncio.sleep(1.0)
        assert len(workers.ready) == 1
        broken.unlink()
        await until(lambda: len(workers.ready) == 2)


async def test_a_worker_that_is_stuck_at_its_start_keeps_no_other_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ended after a while, others get their turn, and all serve once it is mended."""
    monkeypatch.setattr("model_server.workers.REPLACE_S", 0.5)
    broken = tmp_path / "broken"
    workers, counted = supervisor(broken, 2)
    async with running(workers):
        await until(lambda: len(workers.ready) == 2)
        first, second = pids(workers)
        stuck = broken.with_name("broken.stuck")
        stuck.touch()
        os.kill(first, signal.SIGKILL)
        await until(lambda: first not in pids(workers))
        os.kill(second, signal.SIGKILL)
        await asyncio.sleep(2.0)
        assert pids(workers) == []
        stuck.unlink()
        await until(lambda: len(workers.ready) == 2)
    assert counted.reasons == ["crashed", "crashed"]


async def test_each_is_replaced_by_one_that_serves(tmp_path: Path) -> None:
    """A rolling restart ends no worker before its replacement serves, and leaves none of the old."""
    workers, counted = supervisor(tmp_path / "broken", 2)
    async with running(workers):
        await until(lambda: len(workers.ready) == 2)
        before = pids(workers)
        lowest = 2
        roll = asyncio.create_task(workers.replace_all())
        while not roll.done():
            lowest = min(lowest, len(workers.ready))
            await asyncio.sleep(0.001)
        assert await roll
        assert lowest == 2
        assert not set(before) & set(pids(workers))
        assert [alive(pid) for pid in before] == [False, False]
        assert counted.reasons == ["replaced", "replaced"]


async def test_a_stop_in_the_midst_of_a_restart_leaves_nobody(tmp_path: Path) -> None:
    """Whatever is being replaced, `stop` ends the old processes and the half started one."""
    workers, _ = supervisor(tmp_path / "broken", 2)
    async with running(workers):
        await until(lambda: len(workers.ready) == 2)
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.05)
        started = {worker.process.pid for worker in workers._running}
        assert len(started) == 3
    assert [pid for pid in started if alive(pid)] == []


async def test_a_bad_replacement_replaces_nobody(tmp_path: Path) -> None:
    """When a replacement does not come to serve, the old ones go on, all of them."""
    broken = tmp_path / "broken"
    workers, counted = supervisor(broken, 2)
    async with running(workers):
        await until(lambda: len(workers.ready) == 2)
        before = pids(workers)
        broken.touch()
        assert not await workers.replace_all()
        assert pids(workers) == before
        assert counted.reasons == []


async def test_what_cannot_start_is_an_error(tmp_path: Path) -> None:
    """A worker that ends before all served the first time ends the supervisor, with its exit code, and the others."""
    broken = tmp_path / "broken"
    broken.touch()
    workers, _ = supervisor(broken, 2)
    with pytest.raises(WorkerFailedError, match="ended with 3"):
        await workers.run()


async def test_a_worker_that_does_not_drain_is_killed(tmp_path: Path) -> None:
    """Beyond its grace a worker that ignores SIGTERM is killed: the supervisor ends in any case."""
    workers, _ = supervisor(tmp_path / "broken", 1, "stubborn", drain_s=-4.5)
    async with running(workers):
        await until(lambda: workers.ready)
        (pid,) = pids(workers)
    assert not alive(pid)


async def test_the_second_stop_is_passed_on(tmp_path: Path) -> None:
    """Workers that take their time to drain hear it again; the supervisor ends with them, long before their grace."""
    workers, _ = supervisor(tmp_path / "broken", 2, "slow", drain_s=60.0)
    async with running(workers) as task:
        await until(lambda: len(workers.ready) == 2)
        told = pids(workers)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert not task.done()
        assert all(alive(pid) for pid in told)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(asyncio.shield(task), 20)
    assert not any(alive(pid) for pid in told)


def test_a_port_that_somebody_has_is_refused() -> None:
    """Another server's port is an error; a free one is kept, on the number that was asked or on any."""
    with closing(socket.socket()) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"127\.0\.0\.1:{port}: "):
            reserve_port("127.0.0.1", port)
    kept, got = reserve_port("127.0.0.1", 0)
    with closing(kept), pytest.raises(PortTakenError):
        reserve_port("127.0.0.1", got)
