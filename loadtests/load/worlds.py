"""What a load test asks: arenas with a writer each, servers beside them, and prepared requests.

    writer (core 1) ── events ──► arena ◄── server (core 0) ◄── gRPC ── senders (core 1)

Everything is a real process; on a machine with more cores each gets its own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from loadtests.load.clients import Request
from loadtests.load.places import memory_folder

WRITER = Path(__file__).parent / "writer.py"
SERVICE = "/nowgraph.v1.PredictionService/"
REQUESTS = 1_000
READY_S = 180.0
ARENA_BYTES = 8 << 30
WORLD_OF = {"Score": "payments", "Rank": "shop"}
RANK_K = 10
_SERVE = """
import os, sys
if sys.argv[1]: os.sched_setaffinity(0, set(map(int, sys.argv[1].split(","))))
from nowgraph.cli import app
app(sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores serve, write and send; each at least one, apart where there are enough."""

    server: tuple[int, ...]
    writer: int
    clients: tuple[int, ...]

    @classmethod
    def of_machine(cls, *, servers: int = 1, clients: int = 1) -> Cores:
        """The cores that this process may use: the servers' first, then the writer's, then the senders'."""
        cores = sorted(os.sched_getaffinity(0))
        serving = tuple(cores[: max(1, min(servers, len(cores) - 1))])
        rest = cores[len(serving) :] or cores
        return cls(serving, rest[0], tuple(rest[1 : 1 + clients] or rest[:1]))


class Served:
    """A server's process (with `workers`, their supervisor), where it answers, and what it says of itself."""

    def __init__(
        self, process: subprocess.Popen[bytes] | subprocess.Popen[str], target: str, metrics_url: str = ""
    ) -> None:
        self.process = process
        self.target = target
        self.metrics_url = metrics_url

    def cpu_s(self) -> float:
        """CPU seconds used so far, of all threads and of the workers."""
        return sum(_cpu_s(pid) for pid in self.pids())

    def private_bytes(self) -> int:
        """Memory of its own, the workers' too: without the arena, which is shared and grows with the events."""
        return sum(_private_bytes(pid) for pid in self.pids())

    def metrics(self) -> str:
        """What Prometheus would scrape; of workers, the supervisor's."""
        with urlopen(self.metrics_url, timeout=5) as answer:
            return str(answer.read().decode())

    def pids(self) -> list[int]:
        """The process and its children."""
        found = [self.process.pid]
        with suppress(OSError):
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
            found += [int(pid) for pid in children.split()]
        return found


class Writer:
    """The writer's process of a world; a context manager."""

    def __init__(self, world: str, folder: Path, *, rows: int, core: int | None, arena_bytes: int) -> None:
        command = [sys.executable, "-P", str(WRITER), "--world", world, "--folder", str(folder), "--rows", str(rows)]
        command += ["--arena-bytes", str(arena_bytes), *([] if core is None else ["--core", str(core)])]
        self.folder = folder
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait(self) -> None:
        """Returns once the arena is filled and the model saved."""
        assert self._heard() == "ready"

    def rate(self, rate_per_s: int) -> float:
        """From now on so many events a second; returns how many were applied a second since it was last told."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"rate {rate_per_s}\n")
        self.process.stdin.flush()
        applied, seconds = self._heard().split()
        return int(applied) / max(float(seconds), 1e-9)

    def _heard(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"the writer ended with {self.process.wait()}")
        return line


@dataclass(frozen=True, slots=True)
class Tested:
    """A started world of each method: its server, its writer, and the requests to send."""

    servers: dict[str, Served]
    writers: dict[str, Writer]
    requests: dict[str, tuple[Request, ...]]

    def ingest(self, rate_per_s: int) -> float:
        """Sets the writers' rate; returns the smallest rate at which one really applied events before."""
        return min(writer.rate(rate_per_s) for writer in self.writers.values())


@contextmanager
def written(methods: Sequence[str], *, rows: int, core: int) -> Iterator[dict[str, Writer]]:
    """Fills the arena of each method and saves its model, in `folder` of its writer; ends the writers again."""
    os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})  # many processes share few cores
    with TemporaryDirectory(dir=memory_folder()) as name, ExitStack() as stack:
        writers = {}
        for method in methods:
            world = WORLD_OF[method]
            writer = Writer(world, Path(name) / world, rows=rows, core=core, arena_bytes=ARENA_BYTES)
            stack.callback(end, writer.process)
            writers[method] = writer
        for writer in writers.values():
            writer.wait()
        yield writers


@contextmanager
def started(methods: Sequence[str], cores: Cores, *, rows: int, workers: int = 1) -> Iterator[Tested]:
    """Starts what the methods need and ends it again; the servers serve inside."""
    with written(methods, rows=rows, core=cores.writer) as writers, ExitStack() as stack:
        servers = {}
        for method, writer in writers.items():
            servers[method] = serve(writer.folder, cores.server, workers if method == "Score" else 1, stack)
        for server in servers.values():
            wait_until_serving(server)
        requests = {method: tuple(_requests(method, server.target)) for method, server in servers.items()}
        yield Tested(servers, writers, requests)


def free_ports(count: int) -> list[int]:
    """So many ports on loopback that nobody has just now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def serve(folder: Path, cores: tuple[int, ...], workers: int, stack: ExitStack) -> Served:
    """Starts a server over the folder's arena and model; it ends with the stack."""
    port, metrics_port = free_ports(2)
    command = [sys.executable, "-P", "-c", _SERVE, ",".join(map(str, cores)), "serve"]
    command += ["--checkpoint", str(folder / "model"), "--arena", str(folder / "arena")]
    command += ["--port", str(port), "--metrics-port", str(metrics_port), "--quiet"]
    if workers > 1:
        command += ["--workers", str(workers)]
    process = subprocess.Popen(command)
    stack.callback(end, process)
    return Served(process, f"127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}/metrics")


def wait_until_serving(server: Served) -> None:
    """Returns once its health says so; raises RuntimeError where it ends before or takes too long."""
    until_s = time.monotonic() + READY_S
    with grpc.insecure_channel(server.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            if server.process.poll() is not None:
                raise RuntimeError(f"the server ended with {server.process.returncode}")
            with suppress(grpc.RpcError):
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            if time.monotonic() > until_s:
                raise RuntimeError(f"the server does not serve after {READY_S:g} s")
            time.sleep(0.1)


def _requests(method: str, target: str) -> Iterator[Request]:
    from loadtests.serving import payments, shop

    made = payments.requests(REQUESTS, after=10**9) if method == "Score" else shop.requests(REQUESTS, k=RANK_K)
    for message in made:
        yield Request(target, SERVICE + method, message.SerializeToString())


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Ends a process, gently first."""
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # utime, stime, and those of children that have ended: workers that were replaced.
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _private_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
