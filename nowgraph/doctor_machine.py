"""The machine: interpreter, processor, native module, threads, files, clock, ports, shared memory."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import shutil
import socket
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from nowgraph.doctor import Finding, Patient, Status, guarded

# What a build of x86-64-v3 uses beyond every 64-bit processor; the kernel's names.
CPU_FLAGS = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "abm"})
# Below it a server that is asked by a thousand callers, beside Kafka and the graph, runs out.
FILES_MIN = 4_096
# Graphs live there.
SHM = Path("/dev/shm")  # noqa: S108 - nothing is written to it
SHM_FREE_MIN_BYTES = 1 << 30
# What adjtimex answers while nobody disciplines the clock.
_CLOCK_ERROR = 5
_TIMEX_BYTES = 512


def examine(patient: Patient) -> Iterator[Finding]:
    """All of them."""
    settings = patient.settings
    yield from guarded("python", _python)
    yield from guarded("processor", lambda: _processor(_cpu_flags()))
    yield from guarded("native module", _native, "reinstall nowgraph, or `make develop` in a clone")
    yield from guarded("torch", _torch, "pip install torch")
    yield from guarded("device", lambda: _device(settings.device))
    yield from guarded("threads", lambda: _threads(settings.compute_threads, cores()))
    yield from guarded("open files", lambda: _files(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
    yield from guarded("clock", _clock)
    yield from guarded("shared memory", _shared_memory)
    for name, host, port in (
        ("port of gRPC", settings.host, settings.port),
        ("port of metrics", settings.metrics_host, settings.metrics_port),
    ):
        yield from guarded(name, partial(_port, name, host, port))


def cores() -> float:
    """The cores this process may use: of the machine, of its affinity, of its container's quota."""
    count = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else min(count, int(quota) / int(period))


def _python() -> Iterator[Finding]:
    yield Finding("python", Status.OK, f"{platform.python_version()}, {sys.executable}")


def _cpu_flags() -> set[str] | None:
    """The processor's features, None where it is another architecture."""
    if platform.machine() != "x86_64":
        return None
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return None


def _processor(flags: set[str] | None) -> Iterator[Finding]:
    found = f"{platform.machine()}, {cores():g} cores"
    missing = set() if flags is None else CPU_FLAGS - flags
    if missing:
        mend = "build with -DNOWGRAPH_ARCH=x86-64-v2, or run on a newer processor"
        yield Finding("processor", Status.FAIL, f"{found}, without {', '.join(sorted(missing))}", mend)
    else:
        yield Finding("processor", Status.OK, found)


def _native() -> Iterator[Finding]:
    from temporal_graph import _native

    yield Finding("native module", Status.OK, Path(_native.__file__ or "").name)


def _torch() -> Iterator[Finding]:
    import torch

    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    yield Finding("torch", Status.OK, ", ".join([torch.__version__, torch.backends.cpu.get_cpu_capability(), *devices]))


def _device(name: str) -> Iterator[Finding]:
    from graph_transformer.device import find_device
    from graph_transformer.errors import DeviceUnavailable

    try:
        find_device(name)
    except DeviceUnavailable as error:
        mend = "NOWGRAPH_SERVER_DEVICE as one that is there, or cpu; a driver and a PyTorch that belong together"
        yield Finding("device", Status.FAIL, str(error), mend)
    else:
        yield Finding("device", Status.OK, name)


def _threads(threads: int, available: float) -> Iterator[Finding]:
    found = f"{threads} of torch, {available:g} cores"
    if threads > available:
        mend = "NOWGRAPH_SERVER_COMPUTE_THREADS at most the cores: more wait for each other"
        yield Finding("threads", Status.WARN, found, mend)
    elif available < 2:
        mend = "two cores: the event loop and the model take turns on one"
        yield Finding("threads", Status.WARN, found, mend)
    else:
        yield Finding("threads", Status.OK, found)


def _files(limit: int) -> Iterator[Finding]:
    found = "no limit" if limit == resource.RLIM_INFINITY else f"at most {limit:,}"
    if limit != resource.RLIM_INFINITY and limit < FILES_MIN:
        mend = f"ulimit -n {FILES_MIN}, LimitNOFILE= of systemd, or --ulimit nofile= of the container"
        yield Finding("open files", Status.WARN, found, mend)
    else:
        yield Finding("open files", Status.OK, found)


def _clock() -> Iterator[Finding]:
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    if state < 0:
        yield Finding("clock", Status.OK, "this system does not say whether it is synchronized")
    elif state == _CLOCK_ERROR:
        mend = "run chrony or systemd-timesyncd: cut-offs and freshness are the wall clock's"
        yield Finding("clock", Status.WARN, "not synchronized, or so its kernel says", mend)
    else:
        yield Finding("clock", Status.OK, "synchronized")


def _shared_memory() -> Iterator[Finding]:
    if not SHM.is_dir():
        yield Finding("shared memory", Status.WARN, f"no {SHM}", "put the arena on a tmpfs")
        return
    free = shutil.disk_usage(SHM).free
    found = f"{free / 2**30:.1f} GiB free in {SHM}"
    if free < SHM_FREE_MIN_BYTES:
        mend = "docker run --shm-size, or an emptyDir with medium: Memory; a container's default is 64 MiB"
        yield Finding("shared memory", Status.WARN, found, mend)
    else:
        yield Finding("shared memory", Status.OK, found)


def _port(name: str, host: str, port: int) -> Iterator[Finding]:
    if port == 0 or host.startswith("unix:"):
        yield Finding(name, Status.OK, "any" if port == 0 else host)
        return
    address = host.strip("[]")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: old connections are in no way
        try:
            probe.bind((address, port))
        except OSError as error:
            mend = "if it is not nowgraph's own server: end what listens there, or choose another port"
            yield Finding(name, Status.WARN, f"{host}:{port}: {error.strerror}", mend)
        else:
            yield Finding(name, Status.OK, f"{host}:{port} is free")
