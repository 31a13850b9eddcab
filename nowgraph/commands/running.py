"""What commands that run until they are stopped share: the stop, and a line that says how they are doing."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from nowgraph.report import progress_console

_LINE_EVERY_S = 10.0


class Show(Protocol):
    """Shows how a command is doing."""

    def __call__(self, text: str, *, lasting: bool = False) -> None:
        """Replaces the line; a lasting one stays."""


class Stop:
    """Set by the signals it was made for, once; the second time they do what they always did."""

    def __init__(self, *signals: signal.Signals) -> None:
        self._event = threading.Event()
        self._before: dict[signal.Signals, Callable[..., object] | int | None] = {}
        for number in signals:
            self._before[number] = signal.signal(number, self._set)

    @property
    def came(self) -> bool:
        """Whether it is time to stop."""
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Waits for the stop at most so long; returns whether it came."""
        return self._event.wait(timeout_s)

    def _set(self, *_: object) -> None:
        self._event.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)


def end_on(*signals: signal.Signals) -> None:
    """From here on these signals end the process with exit code 0, wherever it is: for a start that makes nothing.

    Loading libraries and models takes seconds in which nobody asks whether to stop. What serves sets its own handlers.
    """
    for number in signals:
        signal.signal(number, _end)


def _end(*_: object) -> None:
    raise SystemExit(0)


@contextmanager
def progress_line(*, quiet: bool) -> Iterator[Show]:
    """A line on standard error that is replaced on a terminal and printed now and then elsewhere."""
    console = progress_console()
    next_s = 0.0

    if quiet:
        yield lambda text, *, lasting=False: None  # noqa: ARG005
        return
    if console.is_terminal:
        with console.status("starting") as status:

            def replace(text: str, *, lasting: bool = False) -> None:
                if lasting:
                    console.print(text, highlight=False)
                else:
                    status.update(text)

            yield replace
        return

    def print_now_and_then(text: str, *, lasting: bool = False) -> None:
        nonlocal next_s
        if lasting or time.monotonic() >= next_s:
            console.print(text, highlight=False, soft_wrap=True)
            if not lasting:
                next_s = time.monotonic() + _LINE_EVERY_S

    yield print_now_and_then
