"""The sender processes of a run and what came of them together.

due times ─► dealt out in turns ─► senders, all started at one moment ─► records ─► histograms ─► Outcome
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import numpy as np
from hdrh.histogram import HdrHistogram

from loadtests.load.histogram import empty, histogram_of, merged
from loadtests.load.sender import DROPPED, PART, RECORDS, Part

SENDER = Path(__file__).parent / "sender.py"
START_IN_S = 0.3
"""Between "all are ready" and the first due time: every process has heard it by then."""
OK = 0
CODES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Request:
    """A prepared request: the server's address, the gRPC method's full path, the message's bytes."""

    target: str
    path: str
    body: bytes

    @property
    def method(self) -> str:
        """The method's name alone."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Senders:
    """How a run is sent. `cores` pins process i to the i-th, in turns; empty leaves them to the scheduler."""

    processes: int = 1
    cores: tuple[int, ...] = ()
    connections: int = 4
    in_flight_max: int = 2_000
    timeout_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Second:
    """One second of a run, by when requests were due."""

    due: int
    latency: HdrHistogram
    """Of those answered with OK."""
    failed: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run. Latencies are histograms of microseconds from the moment a request was due.

    `service` counts from the moment it was really sent: what a generator that waits for answers would have reported.
    `send_delay` is the generator's own: from when a request was due to when it left. `by_method`, `by_code` are parts.
    """

    seconds: float
    due: int
    latency: HdrHistogram
    service: HdrHistogram
    send_delay: HdrHistogram
    by_method: dict[str, HdrHistogram]
    by_code: dict[str, HdrHistogram]
    dropped: int
    every_second: tuple[Second, ...]
    took_s: float

    @property
    def answered(self) -> int:
        """Requests answered with OK."""
        return int(self.latency.get_total_count())

    @property
    def failed(self) -> int:
        """Requests answered with another code."""
        return self.due - self.answered - self.dropped

    @property
    def offered_per_s(self) -> float:
        """Requests due in a second."""
        return self.due / self.seconds

    @property
    def achieved_per_s(self) -> float:
        """OK answers a second, until the last of them came."""
        return self.answered / max(self.seconds, self.took_s)

    @property
    def error_ratio(self) -> float:
        """Failed of those that were due."""
        return self.failed / max(1, self.due)

    @property
    def dropped_ratio(self) -> float:
        """Never sent, of those that were due."""
        return self.dropped / max(1, self.due)


def run(requests: Sequence[Request], due_us: np.ndarray, which: np.ndarray, *, seconds: float, how: Senders) -> Outcome:
    """Sends `requests[which[i]]` at `due_us[i]`; returns when every one has its answer, its error, or was dropped."""
    targets = tuple(dict.fromkeys(request.target for request in requests))
    prepared = tuple((targets.index(request.target), request.path, request.body) for request in requests)
    parts = [
        Part(
            targets,
            how.connections,
            max(1, how.in_flight_max // how.processes),
            how.timeout_s,
            how.cores[number % len(how.cores)] if how.cores else None,
            due_us[number :: how.processes],
            which[number :: how.processes],
            prepared,
        )
        for number in range(how.processes)
    ]
    _, found = sent(SENDER, parts)
    return _outcome(requests, due_us, which, found, seconds)


def sent(script: Path, parts: Sequence[Any]) -> tuple[int, list[dict[str, np.ndarray]]]:
    """Runs a process of the script for each part, all started at one moment (nanoseconds of the monotonic clock).

    Returns that moment and the records of each. Raises RuntimeError for a process that fails.
    """
    with TemporaryDirectory() as name, ExitStack() as stack:
        started: list[tuple[subprocess.Popen[str], Path]] = []
        for number, part in enumerate(parts):
            folder = Path(name) / str(number)
            folder.mkdir()
            (folder / PART).write_bytes(pickle.dumps(part))
            started.append((_start(script, folder, stack), folder))
        for process, _ in started:
            _heard(process, "ready")
        start_ns = time.monotonic_ns() + int(START_IN_S * 1e9)
        for process, _ in started:
            assert process.stdin is not None
            process.stdin.write(f"{start_ns}\n")
            process.stdin.flush()
        found = []
        for process, folder in started:
            if process.wait():
                raise RuntimeError(f"a sender ended with {process.returncode}")
            with np.load(folder / RECORDS) as arrays:
                found.append(dict(arrays))
    return start_ns, found


def _start(script: Path, folder: Path, stack: ExitStack) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-P", str(script), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"GRPC_VERBOSITY": "NONE"},  # a refused connection is counted, not logged
    )
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


def _heard(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    if process.stdout.readline().strip() != word:
        raise RuntimeError(f"a sender ended with {process.wait()}")


def _outcome(
    requests: Sequence[Request],
    due_us: np.ndarray,
    which: np.ndarray,
    found: Sequence[dict[str, np.ndarray]],
    seconds: float,
) -> Outcome:
    """Puts the processes' records back into the order of the schedule, and counts."""
    delay_us, latency_us = np.zeros(len(due_us), np.int64), np.zeros(len(due_us), np.int64)
    code = np.zeros(len(due_us), np.int16)
    for number, records in enumerate(found):
        delay_us[number :: len(found)] = records["delay_us"]
        latency_us[number :: len(found)] = records["latency_us"]
        code[number :: len(found)] = records["code"]
    ok, dropped = code == OK, code == DROPPED
    method = np.array([request.method for request in requests])[which] if len(which) else np.empty(0, "<U1")
    second = due_us // 1_000_000
    every = []
    for number in range(int(np.ceil(seconds))):
        here = second == number
        every.append(
            Second(
                int(here.sum()),
                histogram_of(latency_us[here & ok]),
                int((here & ~ok & ~dropped).sum()),
                int((here & dropped).sum()),
            )
        )
    done_us = (due_us + latency_us)[~dropped]
    return Outcome(
        seconds=seconds,
        due=len(due_us),
        latency=merged(one.latency for one in every) if every else empty(),
        service=histogram_of((latency_us - delay_us)[ok]),
        send_delay=histogram_of(delay_us),
        by_method={str(name): histogram_of(latency_us[ok & (method == name)]) for name in np.unique(method)},
        by_code={CODES[int(n)]: histogram_of(latency_us[code == n]) for n in np.unique(code[~dropped])},
        dropped=int(dropped.sum()),
        every_second=tuple(every),
        took_s=float(done_us.max() / 1e6) if len(done_us) else 0.0,
    )
