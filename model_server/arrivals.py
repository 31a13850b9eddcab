"""Calls that come together are read together, one after the other, and not each between two others' bytes.

    call ─► unread ─► nothing under way, and the last one came alone: now
                  └► turns of the event loop until no more calls come, enough of them, or a bound ─► now: a task each

What a call costs from its bytes to the backlog is Python, and between two calls of gRPC's nothing of it is in the
processor's caches any more: in a row of calls only the first one pays for that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass

from model_server.in_flight import InFlight
from model_server.quiet import Quiet

# No call waits longer to be read: what is to be refused must hear so within 5 ms.
UNREAD_S = 0.003
# So many are read at once: a few milliseconds of the event loop's time.
UNREAD_LIMIT = 32

Work = Callable[[], Awaitable[bytes]]

_came_s: ContextVar[float | None] = ContextVar("nowgraph_call_came", default=None)


def came_s() -> float:
    """When the call being answered came (time.monotonic); now, outside of one."""
    found = _came_s.get()
    return time.monotonic() if found is None else found


@dataclass(slots=True)
class _Call:
    work: Work
    context: Context
    answer: asyncio.Future[bytes]
    task: asyncio.Task[None] | None = None


class Arrivals:
    """The calls that nobody has read yet; belongs to one event loop, that of its first call."""

    def __init__(self, in_flight: InFlight) -> None:
        """`in_flight` counts a call from the moment at which it comes."""
        self._in_flight = in_flight
        self._unread: list[_Call] = []
        self._alone = True
        self._quiet: Quiet | None = None

    def unread(self) -> int:
        """How many calls have come of which nothing is known yet."""
        return len(self._unread)

    async def answer(self, work: Work) -> bytes:
        """What `work` gives, begun together with that of others, in the caller's context. Raises what it raises."""
        _came_s.set(time.monotonic())  # a call has a context of its own
        call = _Call(work, copy_context(), asyncio.get_running_loop().create_future())
        with self._in_flight:
            self._unread.append(call)
            self._came()
            try:
                return await call.answer
            except asyncio.CancelledError:
                if call.task is not None:
                    call.task.cancel()
                raise
            finally:
                self._in_flight.tasks.discard(call.task)
                del call  # an error's traceback would hold what holds the error

    def _came(self) -> None:
        if len(self._unread) >= UNREAD_LIMIT or (self._alone and self._in_flight.count == 1):
            self._read()
            return
        if self._quiet is None:
            self._quiet = Quiet(self.unread, self._read, limit_s=UNREAD_S)
        self._quiet.begin()

    def _read(self) -> None:
        calls, self._unread = self._unread, []
        if not calls:
            return
        self._alone = len(calls) <= 1
        loop = asyncio.get_running_loop()
        for call in calls:
            if not call.answer.done():  # its caller has not gone away
                call.task = loop.create_task(_answer(call), context=call.context)
                self._in_flight.tasks.add(call.task)


async def _answer(call: _Call) -> None:
    try:
        answer = await call.work()
    except asyncio.CancelledError:
        call.answer.cancel()
        raise
    except Exception as error:  # noqa: BLE001 - it is its caller's
        if not call.answer.done():
            call.answer.set_exception(error)
    else:
        if not call.answer.done():
            call.answer.set_result(answer)
    finally:
        del call  # as in `Arrivals.answer`
