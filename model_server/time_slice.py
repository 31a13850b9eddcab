"""Shorter turns on the core while calls are refused: asked of Linux's own scheduler, for every thread of the process.

gRPC's threads, which refuse calls, wait for the core that the event loop and the model keep busy. By the kernel's own
slice, 1.4 ms on two cores, some of them wait for two or three slices of others: longer than a refusal may take.
A shorter slice takes no share of the core from anybody, in this process or beside it, as niceness would. Where nobody
is refused a batch would only be cut into more turns and answered later, so that it ends soon after the last refusal.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

# Soon enough for nearly all refusals of an overload that lasts seconds; a look takes a fraction of a millisecond.
LOOK_EVERY_S = 0.05
# An overload comes in waves; the kernel's own turns come back when none has come for so long.
CALM_S = 2.0
# By machine: the numbers of sched_setattr and sched_getattr, for which neither Python nor older C libraries have names.
_CALLS: Final = {"x86_64": (314, 315), "aarch64": (274, 275)}
_FAIR: Final = (os.SCHED_OTHER, os.SCHED_BATCH)


class _Attributes(ctypes.Structure):
    """The kernel's `struct sched_attr`, in its first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime_ns", ctypes.c_uint64),
        ("deadline_ns", ctypes.c_uint64),
        ("period_ns", ctypes.c_uint64),
    )


def time_slice_us(thread: int = 0) -> int:
    """The slice of a thread (0: the calling one) in microseconds; 0 where none is known.

    That is a kernel before 6.12, another machine than those in `_CALLS`, a sandbox, or a thread of a real-time policy.
    """
    found = _read(thread)
    return 0 if found is None else int(found.runtime_ns // 1_000)


def ask_for_slice(slice_us: int, thread: int = 0) -> None:
    """Asks for this slice for a thread and those that it starts from now on; 0 is the kernel's own. May be in vain."""
    found = _read(thread)
    if found is not None and found.runtime_ns:
        found.size, found.runtime_ns = ctypes.sizeof(found), slice_us * 1_000
        set_number, _ = _CALLS[platform.machine()]
        ctypes.CDLL(None).syscall(set_number, thread, ctypes.byref(found), 0)


async def give_turns(refuses: Callable[[], bool], slice_us: int) -> None:
    """Until it is cancelled: asks for the slice for all threads of the process while calls are refused.

    `refuses` says whether some were since it was last asked.
    """
    loop = asyncio.get_running_loop()
    until_s = 0.0  # of the event loop's clock; 0: the kernel's own slice is in force
    try:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if refuses():
                if not until_s:
                    _ask_for_all(slice_us)
                until_s = loop.time() + CALM_S
            elif until_s and loop.time() >= until_s:
                _ask_for_all(0)
                until_s = 0.0
    finally:
        if until_s:
            _ask_for_all(0)


def _ask_for_all(slice_us: int) -> None:
    with suppress(OSError):  # without /proc turns stay as they are
        for thread in Path("/proc/self/task").iterdir():
            ask_for_slice(slice_us, int(thread.name))  # one that has ended meanwhile needs none


def _read(thread: int) -> _Attributes | None:
    calls = _CALLS.get(platform.machine())
    if calls is None:
        return None
    found = _Attributes()
    size = ctypes.sizeof(found)
    if ctypes.CDLL(None).syscall(calls[1], thread, ctypes.byref(found), size, 0) or found.policy not in _FAIR:
        return None
    return found
