"""Log lines go to standard error, from the level that was asked for."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from opentelemetry import trace

from nowgraph.logs import configure_logs
from stream.errors import GapError


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before, hook, handlers = structlog.get_config(), threading.excepthook, list(logging.getLogger().handlers)
    yield
    structlog.configure(**before)
    threading.excepthook = hook
    logging.getLogger().handlers[:] = handlers


def test_lines_are_json_on_standard_error_from_the_level_on(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe gets one JSON object a line; what is below the level is not written."""
    configure_logs("warning")
    log = structlog.get_logger("x")
    log.info("hidden")
    log.warning("shown", table="payments")
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    found = json.loads(line)
    assert (found["event"], found["level"], found["table"]) == ("shown", "warning", "payments")


def lines_of(shown: str) -> list[dict[str, Any]]:
    """The JSON objects of an output."""
    return [json.loads(line) for line in shown.splitlines()]


def test_a_line_names_the_trace_it_belongs_to(capsys: pytest.CaptureFixture[str]) -> None:
    """Within a span a line has its ids, as a tracing backend writes them; outside of one it has none."""
    configure_logs("info")
    span = trace.NonRecordingSpan(trace.SpanContext(0xAB, 0xCD, is_remote=True))
    log = structlog.get_logger("x")
    with trace.use_span(span):
        log.info("inside")
    log.info("outside")
    inside, outside = lines_of(capsys.readouterr().err)
    assert (inside["trace_id"], inside["span_id"]) == (f"{0xAB:032x}", f"{0xCD:016x}")
    assert "trace_id" not in outside


def test_an_error_is_its_type_and_its_places(capsys: pytest.CaptureFixture[str]) -> None:
    """What an error of somebody else says may quote a row: it is left out, with the local variables; ours is said."""
    configure_logs("info")
    log = structlog.get_logger("x")
    card = "4999-0000-1111"
    try:
        try:
            int(card)
        except ValueError as error:
            raise GapError("payments", 0, 5, 7) from error
    except GapError:
        log.exception("stopped")
    text = capsys.readouterr().err
    (line,) = lines_of(text)
    ours, cause = line["exceptions"]
    assert ours["type"] == "GapError"
    assert "payments" in ours["message"]
    assert cause["type"] == "ValueError"
    assert "message" not in cause
    assert cause["where"][0].endswith("test_an_error_is_its_type_and_its_places")
    assert card not in text


async def test_lines_of_libraries_are_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard logging, a task whose error nobody took and a thread that fails are JSON without what they quote."""
    configure_logs("info")
    card = "4999-0000-1111"
    logging.getLogger("library").warning("cannot read %s", card)
    logging.getLogger("library").info("too low")

    async def fail() -> None:
        raise ValueError(card)

    loop = asyncio.get_running_loop()
    loop.call_exception_handler({"message": "a callback failed", "exception": ValueError(card), "future": fail})
    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    del task
    gc.collect()
    thread = threading.Thread(target=lambda: int(card), name="worker")
    thread.start()
    thread.join()
    text = capsys.readouterr().err
    lines = lines_of(text)
    assert [line["event"] for line in lines] == [
        "cannot read %s",
        "a callback failed",
        "Task exception was never retrieved",
        "thread_failed",
    ]
    assert [line["exceptions"][0]["type"] for line in lines[1:]] == ["ValueError"] * 3
    assert card not in text


def test_a_reader_that_is_gone_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines to a closed standard error are lost, and nobody fails; to the next one they are written again."""
    configure_logs("info")
    log, closed = structlog.get_logger("x"), io.StringIO()
    closed.close()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", closed)
        log.info("lost")
        logging.getLogger("library").warning("lost")
    log.info("written")
    assert [line["event"] for line in lines_of(capsys.readouterr().err)] == ["written"]
