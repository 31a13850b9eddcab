from __future__ import annotations

import resource
import socket

import pytest

from nowgraph import doctor_machine
from nowgraph.doctor import Status
from nowgraph.doctor_machine import CPU_FLAGS, FILES_MIN, cores


def test_a_processor_without_what_the_build_uses_is_named() -> None:
    """With the features that it lacks; more than are needed are fine, and other architectures have others."""
    (old,) = doctor_machine._processor(set(CPU_FLAGS - {"avx2", "fma"}))
    assert old.status is Status.FAIL
    assert "without avx2, fma" in old.found
    assert "NOWGRAPH_ARCH" in old.mend
    assert [found.status for found in doctor_machine._processor({*CPU_FLAGS, "avx512f"})] == [Status.OK]
    assert [found.status for found in doctor_machine._processor(None)] == [Status.OK]


@pytest.mark.parametrize(("threads", "available", "status"), [(1, 2.0, "ok"), (3, 2.0, "warn"), (1, 1.5, "warn")])
def test_threads_fit_the_cores(threads: int, available: float, status: str) -> None:
    """As many as there are; more, or less than two cores, is a warning."""
    (found,) = doctor_machine._threads(threads, available)
    assert found.status == status
    assert cores() >= 0.1


@pytest.mark.parametrize(
    ("limit", "status"), [(FILES_MIN - 1, "warn"), (FILES_MIN, "ok"), (resource.RLIM_INFINITY, "ok")]
)
def test_few_files_are_a_warning(limit: int, status: str) -> None:
    """The limit itself is enough."""
    (found,) = doctor_machine._files(limit)
    assert found.status == status


def test_a_port_is_free_or_taken() -> None:
    """By trying: while somebody listens it is taken, and who does may be our own server."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        (taken,) = doctor_machine._port("port", "127.0.0.1", port)
        assert taken.status is Status.WARN
        assert str(port) in taken.found
    (free,) = doctor_machine._port("port", "127.0.0.1", port)
    assert free.status is Status.OK
    assert next(doctor_machine._port("port", "127.0.0.1", 0)).found == "any"


def test_a_device_that_is_not_there_is_a_failure() -> None:
    """With the setting to change; the processor is always there."""
    (missing,) = doctor_machine._device("cuda:97")
    assert missing.status is Status.FAIL
    assert "cuda:97" in missing.found
    assert "NOWGRAPH_SERVER_DEVICE" in missing.mend
    assert [found.status for found in doctor_machine._device("cpu")] == [Status.OK]


def test_the_clock_and_the_shared_memory_are_looked_at() -> None:
    """On every machine they say something, and a warning says what to do."""
    for (found,) in (doctor_machine._clock(), doctor_machine._shared_memory()):
        assert found.found
        assert found.status is Status.OK or found.mend
