"""`make bench-takeover`: from the death of an updater to answers from the standby's generation, with all of the log.

    broker ◄─ events at a steady rate
      ├─► updater ───────────► generation n     ◄─ server ◄─ Score, every 10 ms
      │    SIGKILL                                   │
      └─► updater --standby ─► generation n + 1 ◄────┘  counted: kill ─► first answer with all sent before

Everything is a real process but the broker, which is the embedded one in a process of its own. Who took over is killed
next, so that each run begins as the last one ended.

    python loadtests/bench_takeover.py [--events 5e6] [--rate 20000] [--runs 3] [--no-history]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.append(str(Path(__file__).resolve().parents[1]))  # after the installed packages, which are what is measured

from loadtests.load.events import Events, payment_events
from loadtests.load.places import memory_folder
from loadtests.load.report import append_history
from loadtests.load.worlds import end, serve, wait_until_serving
from loadtests.serving import payments
from nowgraph.client import Client
from nowgraph.client_errors import ClientError
from stream.producer import EventProducer
from stream.settings import EVENTS_TOPIC, StreamSettings
from temporal_graph.capacity import Counts, graph_bytes
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, load_schema
from temporal_graph.view import GraphView

EXAMPLE = Path(__file__).resolve().parents[1] / "examples/payments"
PARTITIONS = 64
TICK_S = 0.02
ASK_S = 0.01
AHEAD_MAX = 400_000
"""Records that were sent and are not applied: far fewer than the embedded broker keeps."""
MODEL_ROWS = 20_000
WAIT_S = 300.0
SETTLE_S = 3.0


class Producer:
    """Sends events: many as fast as they are applied, then a steady rate on a thread."""

    def __init__(self, address: str, events: Events) -> None:
        self._producer = EventProducer(StreamSettings(kafka_bootstrap=address))
        self._events = events
        self._rate_per_s = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent = 0

    def fill(self, count: int, applied: Callable[[], int]) -> None:
        """Returns once so many are sent."""
        while self.sent < count:
            if self.sent - applied() > AHEAD_MAX:
                time.sleep(TICK_S)
                continue
            self._send(min(20_000, count - self.sent))
            self._producer.flush(WAIT_S)

    def start(self, rate_per_s: int) -> None:
        """From now on so many a second."""
        self._rate_per_s = rate_per_s
        self._thread.start()

    def close(self) -> None:
        """Sends no more; what was sent is with the broker. May be called again."""
        if self._ended.is_set():
            return
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._producer.close()

    def _send(self, count: int) -> None:
        for event in self._events.take(count):
            self._producer.publish(EVENTS_TOPIC, value=event)
        self.sent += count

    def _run(self) -> None:
        started_s, before = time.perf_counter(), self.sent
        while not self._ended.wait(TICK_S):
            due = int((time.perf_counter() - started_s) * self._rate_per_s) - (self.sent - before)
            self._send(max(0, due))


@dataclass(frozen=True)
class Answered:
    """One question: when it was answered, by which generation, how many records that held; or that it failed."""

    at_s: float
    generation: int
    applied: int
    failed: bool = False


class Asker:
    """Asks for a score every ASK_S on a thread, and keeps what came."""

    def __init__(self, target: str) -> None:
        self._client = Client(target, timeout_s=2.0)
        self._ended = threading.Event()
        self.answers: list[Answered] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """Asks no more."""
        self._ended.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        number = 0
        while not self._ended.wait(ASK_S):
            number += 1
            try:
                score = self._client.score(
                    "transactions", 10**12 + number, {"tx_amount": 20.0, "customer_id": 128, "terminal_id": 128}
                )
            except ClientError:
                self.answers.append(Answered(time.monotonic(), 0, 0, failed=True))
                continue
            position = score.graph_position
            self.answers.append(Answered(time.monotonic(), position.generation, sum(position.offsets.values())))


def updater(address: str, arena: Path, snapshots: Path, arena_bytes: int) -> subprocess.Popen[str]:
    """Starts an updater that stands by while there is another."""
    command = [sys.executable, "-P", "-m", "nowgraph.cli", "update", "--schema", str(EXAMPLE / "schema.yaml")]
    command += ["--arena", str(arena), "--arena-bytes", str(arena_bytes), "--standby", "--metrics-port", "0"]
    command += ["--snapshots", str(snapshots), "--snapshot-every", "10s", "--bootstrap-servers", address]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def said(process: subprocess.Popen[str], word: str) -> None:
    """Returns once the process has said it; from then on somebody reads what else it says."""
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return
    raise RuntimeError(f"an updater ended with {process.wait()}")


def wait_for(done: Callable[[], bool], what: str) -> None:
    """Returns once it holds; raises RuntimeError after WAIT_S."""
    until_s = time.monotonic() + WAIT_S
    while not done():
        if time.monotonic() > until_s:
            raise RuntimeError(f"{what}: not after {WAIT_S:g} s")
        time.sleep(0.005)


def save_model(schema: Schema, folder: Path) -> None:
    """A model of the payments task's shape, fitted on a graph of its own."""
    with TemporalGraph.create(schema, arena_bytes=256 << 20) as graph:
        graph.apply(payment_events().take(MODEL_ROWS), backfill=True)
        payments.save_model(graph, schema, EXAMPLE / "task.yaml", folder)
    (folder / "schema.yaml").write_bytes((EXAMPLE / "schema.yaml").read_bytes())


def takeover(writer: subprocess.Popen[str], asker: Asker, producer: Producer) -> dict[str, float]:
    """Kills the writer; returns how long it took until answers held all that was sent before, and what failed."""
    generation, sent = asker.answers[-1].generation, producer.sent
    first = len(asker.answers)
    killed_s = time.monotonic()
    writer.kill()
    writer.wait()

    def whole() -> Answered | None:
        after = (one for one in asker.answers[first:] if one.generation > generation and one.applied >= sent)
        return next(after, None)

    wait_for(lambda: whole() is not None, "an answer of the standby's generation")
    found = whole()
    assert found is not None
    answers = asker.answers[first:]
    between = [after.at_s - before.at_s for before, after in pairwise(answers)]
    return {
        "takeover_s": found.at_s - killed_s,
        "failed": sum(one.failed for one in answers),
        "longest_without_answer_s": max(between, default=0.0),
    }


def bench(options: argparse.Namespace, stack: ExitStack) -> dict[str, float]:
    """Fills a graph through the broker, then kills one updater after another."""
    count, schema = int(options.events), load_schema(EXAMPLE / "schema.yaml")
    folder = Path(stack.enter_context(TemporaryDirectory(dir=memory_folder())))
    snapshots = Path(stack.enter_context(TemporaryDirectory(dir=options.folder, prefix="bench-takeover-")))
    topics = [f"{topic}=1" for topic in ("transactions", "fraud_reports", "nowgraph.dead-letters")]
    command = [sys.executable, "-P", "-m", "stream.embedded_broker"]
    command += [word for each in (*topics, f"{EVENTS_TOPIC}={PARTITIONS}") for word in ("--topic", each)]
    broker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stack.callback(end, broker)
    assert broker.stdout is not None
    address = broker.stdout.readline().strip()
    rows = {"customers": payments.CUSTOMERS * 4, "terminals": payments.TERMINALS * 2, "transactions": 2 * count}
    arena_bytes = graph_bytes(schema, Counts(rows)).total + (1 << 30)

    writer = updater(address, folder / "arena", snapshots, arena_bytes)
    stack.callback(end, writer)
    said(writer, "serves")
    view = GraphView.attach(schema, folder / "arena")
    producer = Producer(address, payment_events())
    stack.callback(producer.close)
    filling_s = time.monotonic()
    producer.fill(count, lambda: sum(view.position().offsets.values()))
    wait_for(lambda: sum(view.position().offsets.values()) >= count, "the graph")
    filled_s = time.monotonic() - filling_s
    view.close()
    save_model(schema, folder / "model")
    server = serve(folder, tuple(sorted(os.sched_getaffinity(0))), 1, stack)
    wait_until_serving(server)
    producer.start(options.rate)
    asker = Asker(server.target)
    stack.callback(asker.close)
    runs = []
    for _ in range(options.runs):
        started_s = time.monotonic()
        standby = updater(address, folder / "arena", snapshots, arena_bytes)
        stack.callback(end, standby)
        said(standby, "Standing by")
        ready_s = time.monotonic() - started_s
        time.sleep(SETTLE_S)
        runs.append({"standby_ready_s": ready_s, **takeover(writer, asker, producer)})
        print(", ".join(f"{name} {value:.2f}" for name, value in runs[-1].items()), flush=True)
        writer = standby
    producer.close()
    view = GraphView.attach(schema, folder / "arena")
    wait_for(lambda: view.row_count("transactions") == producer.sent, "every event that was sent")
    view.close()
    image_bytes = max(path.stat().st_size for path in snapshots.glob("*/graph.image"))
    result = {"events": count, "rate_per_s": options.rate, "bytes": image_bytes, "filled_per_s": count / filled_s}
    for name in runs[0]:
        values = [run[name] for run in runs]
        result |= {f"{name}_median": statistics.median(values), f"{name}_max": max(values)}
    return {**result, "runs": len(runs)}


def main() -> None:
    """Measures, prints and keeps a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=float, default=5e6, help="in the graph before the first is killed")
    parser.add_argument("--rate", type=int, default=20_000, help="events a second meanwhile")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk that keeps snapshots")
    parser.add_argument("--no-history", action="store_true", help="do not append to loadtests/history.ndjson")
    options = parser.parse_args()
    with ExitStack() as stack:
        result = bench(options, stack)
    print(
        f"{result['events']:,.0f} payments, {result['bytes'] / 1e9:.2f} GB, {options.rate:,} events/s: taken over in "
        f"{result['takeover_s_median']:.2f} s (at most {result['takeover_s_max']:.2f}); a standby is ready "
        f"{result['standby_ready_s_median']:.1f} s after its start; {result['failed_max']:.0f} answers failed"
    )
    if not options.no_history:
        append_history("takeover", result)


if __name__ == "__main__":
    main()
