from __future__ import annotations

import asyncio
import os
import socket

import pytest

from model_server.worker_link import ENVIRONMENT, LEAVE, Ready, SupervisorLink

READY = Ready(pid=7, port=50051, metrics_port=9465, attach_ms=0.2, model_ms=8.0)


def test_a_worker_says_that_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker says arrives as it was said, as one line; the descriptor is not handed on to its own children."""
    ours, theirs = socket.socketpair()
    monkeypatch.setenv(ENVIRONMENT, str(theirs.detach()))
    link = SupervisorLink.of_environment()
    assert link is not None
    assert ENVIRONMENT not in os.environ
    link.say(READY)
    assert Ready.from_line(ours.recv(1024)) == READY
    ours.close()


def test_a_process_without_a_supervisor_has_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that nobody supervises serves as it always did."""
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert SupervisorLink.of_environment() is None


async def test_a_worker_is_told_to_leave() -> None:
    """What the supervisor says is heard as such, and is not taken for its end."""
    ours, theirs = socket.socketpair()
    told: list[str] = []
    SupervisorLink(theirs).watch(lambda: told.append("gone"), lambda: told.append("leave"))
    ours.send(LEAVE)
    await asyncio.sleep(0.05)
    assert told == ["leave"]
    ours.close()
    await asyncio.sleep(0.05)
    assert told == ["leave", "gone"]


async def test_the_end_of_the_supervisor_is_heard_once() -> None:
    """However the supervisor ends, its socket closes, and the worker hears it; not before, and not twice."""
    ours, theirs = socket.socketpair()
    gone: list[bool] = []
    SupervisorLink(theirs).watch(lambda: gone.append(True), gone.clear)
    await asyncio.sleep(0.05)
    assert gone == []
    ours.close()
    await asyncio.sleep(0.05)
    assert gone == [True]
