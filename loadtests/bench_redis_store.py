"""`make bench-redis`: the same neighborhoods from RAM, from Redis, and from Redis by a call a row, in one table.

    payments with hubs ─► graph in RAM, in one Redis, in a Redis Cluster of six nodes
    customers, as of now ─► latency of one at a time, neighborhoods/s in batches, bytes of memory an event

Everything is on this machine, over loopback: six nodes, the writer and the reader share its cores, and a round trip
takes microseconds; over a network it takes hundreds, so they are counted. The naive reader asks for each row and each
list alone, as one would without scripts; it only fetches, and neither folds nor samples.

    python loadtests/bench_redis_store.py [--events 200000] [--questions 500] [--url redis://...] [--no-history]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import redis

sys.path.append(str(Path(__file__).resolve().parents[1]))  # after the installed packages, which are what is measured

from loadtests.bench_graph import START_US, Events, powerlaw_events
from loadtests.load.report import append_history
from loadtests.load.worlds import free_ports
from online_sampler import Sampler, SamplingPlan
from online_sampler.redis_sampler import RedisSampler
from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.redis.account import NAMESPACE, Account
from temporal_graph.redis.frames import unpack
from temporal_graph.redis.graph import RedisGraph
from temporal_graph.redis.keys import Names, entity, key_bytes
from temporal_graph.redis.shards import Shards
from temporal_graph.redis.view import RedisView
from temporal_graph.schema import Schema, parse_schema

SCHEMA = """
version: 1
name: bench
tables:
  users: {primary_key: {user_id: integer}}
  merchants: {primary_key: {merchant_id: integer}}
  events:
    primary_key: {event_id: integer}
    time_column: at
    columns: {amount: numerical, kind: categorical}
    links: {user_id: users, merchant_id: merchants}
"""
FAN_OUTS = (16, 8, 8)
PLAN = SamplingPlan.from_dict({"num_neighbors": [{f"hop{n + 1}": number} for n, number in enumerate(FAN_OUTS)]})
BATCH_EVENTS = 10_000
BATCH_SEEDS = 32
NODES = 6
START_TIMEOUT_S = 30.0
NAIVE_QUESTIONS_MAX = 50
"""Of the naive reader: each takes hundreds of round trips."""

Ask = Callable[[list[int]], Any]


class Rounds(Shards):
    """Counts round trips."""

    count = 0

    def run(self, *arguments: Any, **options: Any) -> list[Any]:
        """A round, counted."""
        Rounds.count += 1
        return super().run(*arguments, **options)


def wire(events: Events) -> list[bytes]:
    """The events as RowEvents."""
    found = []
    for number in range(len(events)):
        row = pb.RowEvent(table="events", operation=pb.OPERATION_INSERT)
        row.event_time_us = int(events.event_time_us[number])
        row.key.parts.add(integer=number)
        row.cells.add(column="amount", number=float(number % 997))
        row.cells.add(column="kind", text=f"kind {number % 7}")
        row.cells.add(column="user_id", integer=int(events.user[number]))
        row.cells.add(column="merchant_id", integer=int(events.merchant[number]))
        found.append(row.SerializeToString())
    return found


@contextmanager
def servers(count: int) -> Iterator[str]:
    """One Redis, or a cluster of six nodes in three shards; gives its URL and ends it."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        found = free_ports(2 * count)
        ports, buses = found[:count], found[count:]
        for port, bus in zip(ports, buses, strict=True):
            place = Path(folder) / str(port)
            place.mkdir()
            words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(place)]
            words += ["--cluster-enabled", "yes", "--cluster-port", str(bus)] if count > 1 else []
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
        clients = [redis.Redis(port=port) for port in ports]
        wait(lambda: all(client.ping() for client in clients))
        if count > 1:
            words = [f"127.0.0.1:{port}@{bus}" for port, bus in zip(ports, buses, strict=True)]
            create = ["redis-cli", "--cluster", "create", *words, "--cluster-replicas", "1", "--cluster-yes"]
            subprocess.run(create, check=True, capture_output=True, timeout=START_TIMEOUT_S)
            wait(lambda: all(c.execute_command("CLUSTER INFO")["cluster_state"] == "ok" for c in clients))
            wait(lambda: sum(c.info("replication").get("master_link_status") == "up" for c in clients) == count // 2)
        yield f"redis://127.0.0.1:{ports[0]}"


def wait(ready: Callable[[], bool]) -> None:
    """Returns once it is; raises TimeoutError where it is not in time."""
    until_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until_s:
        try:
            if ready():
                return
        except redis.RedisError:
            pass
        time.sleep(0.05)
    raise TimeoutError("Redis does not come up")


def fill(graph: Any, events: list[bytes]) -> float:
    """Applies the events; returns how many a second."""
    begun_s = time.perf_counter()
    for low in range(0, len(events), BATCH_EVENTS):
        graph.apply(events[low : low + BATCH_EVENTS], positions={("bench", 0): low})
    return len(events) / (time.perf_counter() - begun_s)


def measure(ask: Ask, users: np.ndarray, count: int, *, batches: bool = True) -> dict[str, float]:
    """Latency and round trips of one neighborhood at a time; and how many a second in batches."""
    for user in users[:20].tolist():
        ask([user])
    took, Rounds.count = [], 0
    for user in users[:count].tolist():
        begun_s = time.perf_counter()
        ask([user])
        took.append(time.perf_counter() - begun_s)
    figures = {"p50_us": float(np.percentile(took, 50)) * 1e6, "p99_us": float(np.percentile(took, 99)) * 1e6}
    figures["rounds"] = Rounds.count / count
    if batches:
        begun_s, asked = time.perf_counter(), 0
        for low in range(0, count, BATCH_SEEDS):
            asked += len(ask(users[low : low + BATCH_SEEDS].tolist()))
        figures["per_s"] = asked / (time.perf_counter() - begun_s)
    return figures


def naive(url: str, schema: Schema, names: Names, cutoff_us: int) -> Ask:
    """Fetches a neighborhood by one command a row and a list, over the client's own cluster or single connection."""
    client: Any = redis.Redis.from_url(url)
    if client.info("server")["redis_mode"] == "cluster":
        client = redis.RedisCluster.from_url(url)
    newest = b"(" + (cutoff_us + (1 << 63)).to_bytes(8, "big") + b"\xff"
    tables = [schema.table_index(name) for name in ("users", "merchants", "events")]

    def call(command: Callable[..., Any], *arguments: Any) -> Any:
        Rounds.count += 1
        return command(*arguments)

    def ask(users: list[int]) -> list[bytes]:
        frontier = [entity(tables[0], key_bytes((user,))) for user in users]
        for number in FAN_OUTS:
            reached: dict[bytes, None] = {}
            for named in frontier:
                for version, _ in unpack(call(client.get, names.row(named)[1]) or b""):
                    reached.update({bytes((tables[link],)) + key: None for link, key in version.links})
                if named[0] != tables[2]:
                    children = names.children(named, tables.index(named[0]))[1]
                    found = call(client.zrevrangebylex, children, newest, "-", 0, number)
                    reached.update({bytes((tables[2],)) + member[8:]: None for member in found})
            frontier = list(reached)
        return [call(client.get, names.row(named)[1]) for named in frontier]

    return ask


def stored(url: str, schema: Schema, events: list[bytes], users: np.ndarray, count: int) -> dict[str, dict[str, float]]:
    """What one Redis or cluster gives: by our reader that has asked before, by a new one each time, and naively."""
    cutoff_us = START_US * 2
    shards = Rounds(url)
    view = RedisView(schema, shards, Account(shards, schema, NAMESPACE))
    with RedisGraph.open(url, schema) as graph, view:
        graph.expect({})
        before = graph.bytes_used()
        loaded = {"events_per_s": fill(graph, events), "bytes_per_event": (graph.bytes_used() - before) / len(events)}
        sampler = RedisSampler(view, PLAN)

        def ask(asked: list[int]) -> Any:
            return sampler.sample_keys("users", asked, np.full(len(asked), cutoff_us))

        def anew(asked: list[int]) -> Any:
            return RedisSampler(view, PLAN).sample_keys("users", asked, np.full(len(asked), cutoff_us))

        names, few = view.names(view.state()), min(count, NAIVE_QUESTIONS_MAX)
        return {
            "store": loaded | measure(ask, users, count),
            "nothing kept": measure(anew, users, few, batches=False),
            "a call a row": measure(naive(url, schema, names, cutoff_us), users, few, batches=False),
        }


def main() -> None:
    """Measures and prints; one line for the history."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=float, default=200_000)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--url", help="a Redis or cluster, empty, in place of those that are started here")
    parser.add_argument("--no-history", action="store_true")
    given = parser.parse_args()
    schema, columns = parse_schema(SCHEMA), powerlaw_events(int(given.events))
    events, users = wire(columns), np.random.default_rng(0).choice(columns.user, given.questions)
    graph = TemporalGraph.create(schema, arena_bytes=2 << 30)
    before = graph.memory().used_bytes
    ram = {"events_per_s": fill(graph, events)}
    ram["bytes_per_event"] = (graph.memory().used_bytes - before) / len(events)
    sampler, cutoff_us = Sampler(graph.view(), PLAN), START_US * 2
    ram |= measure(lambda asked: sampler.sample_keys("users", asked, np.full(len(asked), cutoff_us)), users, len(users))
    rows = {"RAM": ram}
    if given.url is not None:
        rows |= {f"given, {name}": row for name, row in stored(given.url, schema, events, users, len(users)).items()}
    else:
        for label, count in (("one Redis", 1), ("cluster of six", NODES)):
            with servers(count) as url:
                found = stored(url, schema, events, users, len(users))
            rows |= {f"{label}, {name}": row for name, row in found.items()}
    print(f"{'':34}{'p50 µs':>10}{'p99 µs':>10}{'rounds':>10}{'per s':>10}{'bytes/event':>13}{'events/s':>12}")
    for name, row in rows.items():
        cells = [row.get(key) for key in ("p50_us", "p99_us", "rounds", "per_s", "bytes_per_event", "events_per_s")]
        widths = (10, 10, 10, 10, 13, 12)
        print(
            f"{name:34}"
            + "".join(f"{'' if c is None else f'{c:,.0f}':>{w}}" for c, w in zip(cells, widths, strict=True))
        )
    if not given.no_history:
        flat = {f"{name}: {key}": value for name, row in rows.items() for key, value in row.items()}
        append_history("redis store", {"events": len(events), "questions": len(users), **flat})


if __name__ == "__main__":
    main()
