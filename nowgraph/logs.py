"""Where our processes' log lines go: standard error, so that standard output stays the result.

    structlog ─► trace of the request ─► level, time ─► errors without their values ─► JSON, or colors on a terminal
    logging (libraries, asyncio, threads) ─► the same

A traceback quotes what it failed on, and that may be a card number. So of an error a line has the type and the places,
and its message only where our own packages wrote it, whose messages hold no value of a row.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog
from opentelemetry import trace

# Errors that say in a sentence of ours what is wrong: an operator needs it.
_OWN_ERRORS = ("model_server.errors", "stream.errors", "temporal_graph.errors", "nowgraph.errors")
_PLACES_MAX = 12
_CAUSES_MAX = 4


def configure_logs(level: str) -> None:
    """Sends log lines of ``level`` and above to standard error: colored on a terminal, JSON elsewhere.

    Lines of libraries come from warnings on; an error that ends a thread is a line too.
    """
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_trace,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            describe_error,
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _StandardError())),
    )
    root = logging.getLogger()
    for handler in root.handlers:
        if isinstance(handler, _ToStructlog):
            root.removeHandler(handler)
    root.addHandler(_ToStructlog(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()])))
    threading.excepthook = _thread_failed


def add_trace(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Names the trace and the span that a line belongs to, if it belongs to one."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        line["trace_id"] = trace.format_trace_id(context.trace_id)
        line["span_id"] = trace.format_span_id(context.span_id)
    return line


def describe_error(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replaces an error by its type and places, with its message where it is ours, and by those of its causes."""
    error = line.pop("exc_info", None)
    if isinstance(error, tuple):
        error = error[1]
    elif error and not isinstance(error, BaseException):
        error = sys.exception()
    described: list[dict[str, Any]] = []
    while isinstance(error, BaseException) and len(described) < _CAUSES_MAX:
        one: dict[str, Any] = {"type": type(error).__name__, "where": _places(error)}
        if type(error).__module__ in _OWN_ERRORS:
            one["message"] = str(error)
        elif isinstance(error, OSError) and error.strerror:
            one["message"] = error.strerror
        described.append(one)
        inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None
        error = inner or error.__cause__ or error.__context__
    if described:
        line["exceptions"] = described
    return line


def _places(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)[-_PLACES_MAX:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


class _StandardError:
    """Standard error as it is when a line is written. Whoever reads it may be gone; that must stop no answer."""

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # a broken pipe, a closed file
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()


class _ToStructlog(logging.Handler):
    """Lines of the standard library's logging: the text as the library wrote it, without what it filled in."""

    def emit(self, record: logging.LogRecord) -> None:
        # The first line of asyncio's text says what happened; the others show the objects it happened to.
        text = str(record.msg).partition("\n")[0]
        error = record.exc_info[1] if record.exc_info else None
        log = structlog.get_logger(record.name)
        log.log(max(record.levelno, logging.WARNING), text, logger=record.name, exc_info=error)


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    name = "" if failed.thread is None else failed.thread.name
    structlog.get_logger(__name__).error("thread_failed", thread=name, exc_info=failed.exc_value)
