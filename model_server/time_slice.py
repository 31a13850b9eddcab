"""How long a thread of this process keeps a core before the next one has its turn: a request of Linux's own scheduler.

gRPC's threads, which refuse calls, wait for the core that the event loop and the model keep busy. By the kernel's own
slice, 1.4 ms on two cores, some of them wait for two or three slices of others: longer than a refusal may take.
A shorter slice takes no share of the core from anybody, in this process or beside it, as niceness would.
"""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Final

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


def shorten_time_slice(slice_us: int) -> int:
    """Asks for this slice for the calling thread and those that it starts from now on; 0 asks for nothing.

    Returns the slice that is in force, in microseconds: 0 where the kernel (before 6.12), a sandbox or a real-time
    policy of the thread knows none, which stays as it is.
    """
    calls = _CALLS.get(platform.machine())
    if calls is None:
        return 0
    set_number, get_number = calls
    system = ctypes.CDLL(None, use_errno=True)
    found = _Attributes()

    def read() -> bool:
        size = ctypes.sizeof(found)
        return bool(system.syscall(get_number, 0, ctypes.byref(found), size, 0) == 0 and found.policy in _FAIR)

    if not read():
        return 0
    if slice_us:
        found.size, found.runtime_ns = ctypes.sizeof(found), slice_us * 1_000
        system.syscall(set_number, 0, ctypes.byref(found), 0)
        read()
    return int(found.runtime_ns // 1_000)
