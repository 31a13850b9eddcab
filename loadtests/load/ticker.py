"""Sleeps of an event loop that end within some ten microseconds, by a timer of the kernel.

asyncio and uvloop round timeouts up to whole milliseconds; a client that sends half a millisecond late would report
its own delay as the server's. `os.timerfd_create` needs Python 3.13, so libc is called.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from contextlib import suppress
from typing import Self

_CLOCK_MONOTONIC = 1
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_ABSOLUTE = 1
_SECOND_NS = 1_000_000_000
_libc = ctypes.CDLL(None, use_errno=True)


class _Moment(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Moment), ("value", _Moment))


class Ticker:
    """Waits for moments of `time.monotonic_ns()`, one at a time. A context manager; belongs to the running loop."""

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._file = _libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._due: asyncio.Future[None] | None = None
        self._loop.add_reader(self._file, self._fired)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._file)
        os.close(self._file)

    async def until(self, moment_ns: int) -> None:
        """Returns at that moment, or at once where it has passed."""
        if moment_ns <= time.monotonic_ns():
            return
        self._due = self._loop.create_future()
        seconds, nanoseconds = divmod(moment_ns, _SECOND_NS)
        setting = _Setting(_Moment(0, 0), _Moment(seconds, nanoseconds))
        if _libc.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(setting), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        await self._due

    def _fired(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._file, 8)
        if self._due is not None and not self._due.done():
            self._due.set_result(None)
