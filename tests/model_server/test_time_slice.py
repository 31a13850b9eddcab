from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from model_server import time_slice
from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from model_server.time_slice import ask_for_slice, give_turns, time_slice_us
from model_server.unheard import Unheard

WAIT_S = 20.0


@pytest.fixture
def own_us() -> int:
    """The kernel's own slice."""
    own = time_slice_us()
    if not own:
        pytest.skip("the kernel (before 6.12) or a sandbox knows no slices")
    return own


def test_a_thread_and_those_that_it_starts_give_way_sooner(own_us: int) -> None:
    """The slice is in force for both, and for nobody beside them; niceness and policy stay; 0 is the kernel's again."""
    asked_us = own_us // 2
    seen: list[object] = []

    def policy() -> tuple[int, int]:
        return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def asking() -> None:
        as_it_was = policy()
        ask_for_slice(asked_us)
        thread = threading.Thread(target=lambda: seen.append(time_slice_us()))
        thread.start()
        thread.join()
        seen.extend([time_slice_us(), policy() == as_it_was])
        ask_for_slice(0)
        seen.append(time_slice_us())

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asking).result(timeout=WAIT_S)
    assert seen == [asked_us, asked_us, True, own_us]
    assert time_slice_us() == own_us


def test_where_there_are_no_slices_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose calls are not known here is left alone, and so is a thread that the kernel refuses."""
    before_us = time_slice_us()
    with monkeypatch.context() as patch:
        patch.setattr("platform.machine", lambda: "unknown")
        ask_for_slice(300)
        assert time_slice_us() == 0
        patch.setitem(time_slice._CALLS, "unknown", (-1, -1))
        ask_for_slice(300)
        assert time_slice_us() == 0
    assert time_slice_us() == before_us


async def _until(done: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < end_s
        await asyncio.sleep(0.005)


def _has_slice(wanted_us: int) -> bool:
    return time_slice_us() == wanted_us


def test_turns_are_short_only_while_calls_are_refused(own_us: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every thread of the process has them from a refusal on, until there was none for a while, or the server ends."""
    asked_us = own_us // 2
    monkeypatch.setattr(time_slice, "LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(time_slice, "CALM_S", 0.02)
    ended = threading.Event()
    other = threading.Thread(target=ended.wait)
    other.start()
    assert other.native_id is not None
    thread = other.native_id

    async def through() -> list[tuple[int, int]]:
        refused = False
        giving = asyncio.create_task(give_turns(lambda: refused, asked_us))
        found = []
        for refused in (False, True, False, True):
            wanted_us = asked_us if refused else own_us
            await _until(partial(_has_slice, wanted_us))
            found.append((time_slice_us(thread), time_slice_us()))
        giving.cancel()
        await asyncio.gather(giving, return_exceptions=True)
        return [*found, (time_slice_us(thread), time_slice_us())]

    try:
        found = asyncio.run(through())
    finally:
        ended.set()
        other.join()
    own, asked = (own_us, own_us), (asked_us, asked_us)
    assert found == [own, asked, own, asked, own]


@pytest.mark.integration
def test_a_server_that_refuses_takes_short_turns(world: Any, own_us: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is in force in its process while gRPC refuses for it, and no longer once it has ended."""
    asked_us = own_us // 2
    monkeypatch.setattr(Unheard, "refuses", lambda _, pending_limit: pending_limit == 7)
    settings = ServerSettings(port=0, metrics_port=0, accept_pending_limit=7, time_slice_us=asked_us)
    with BackgroundServer(lambda: world.server(settings)):
        asyncio.run(_until(partial(_has_slice, asked_us)))
    assert time_slice_us() == own_us
