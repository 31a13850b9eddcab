"""Neighborhoods a second beside `diskgraph` of the kumo-engine wheel: the same rows, cut-offs and fan-outs, ids only.

    events (.npz) -> this file, run by the interpreter that has the wheel -> index -> CPU seconds and edges a seed

The wheel pins versions of its own: NOWGRAPH_BENCH_DISKGRAPH may name another interpreter that has it. Its index takes
far longer to build than our rows, so both sides have 2M events. Its `uniform` takes no notice of cut-offs,
so that case is compared "now" alone; its clock counts seconds, which moves the edges of "hist" by a few.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from bench_graph import Events
    from bench_sampling import SamplingResult

DISKGRAPH_VARIABLE = "NOWGRAPH_BENCH_DISKGRAPH"
DISKGRAPH_EVENTS = 2_000_000
SEEDS_PER_CALL = 512
REPEATS = 5
MODES = {"most_recent": "temporal_most_recent", "uniform": "uniform"}


def diskgraph_interpreter() -> str | None:
    """The interpreter that can import diskgraph: the named one, this one, or None."""
    named = os.environ.get(DISKGRAPH_VARIABLE)
    if named is not None:
        return named
    return sys.executable if importlib.util.find_spec("diskgraph") is not None else None


def bench_diskgraph(interpreter: str, events: Events) -> list[SamplingResult]:
    """Small and large fan-outs by strategy by moment, in turns; `peer` is diskgraph."""
    from bench_graph import build
    from bench_sampling import FAN_OUTS, PEER_SEEDS_MAX, SamplingResult, cases_of, timed

    graph, _ = build(events, 0)
    results = []
    with graph, tempfile.TemporaryDirectory() as folder, _Peer(interpreter, Path(folder), events) as peer:
        for name in ("small", "large"):
            for strategy, moment, rows, cutoffs, ours in cases_of(graph.view(), events, name):
                if (strategy, moment) == ("uniform", "hist"):
                    continue
                few = slice(0, PEER_SEEDS_MAX)
                peer.ask(rows=rows[few].tolist(), cutoffs=cutoffs[few].tolist())
                mine, other = [], []
                for _ in range(REPEATS):
                    mine.append(timed(ours, len(rows)))
                    other.append(peer.ask(fan_outs=FAN_OUTS[name], mode=MODES[strategy]))
                results.append(SamplingResult.of_medians(name, strategy, moment, mine, other))
    return results


class _Peer:
    """The other interpreter: an index, then an answer a line."""

    def __init__(self, interpreter: str, folder: Path, events: Events) -> None:
        columns = {"user": events.user, "merchant": events.merchant, "event_time_us": events.event_time_us}
        np.savez(folder / "events.npz", **columns)
        command = [interpreter, "-P", str(Path(__file__).resolve()), str(folder)]
        self._said = folder / "said.txt"
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
            )
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, **question: Any) -> tuple[float, float]:
        """CPU seconds and edges a seed, of the seeds that were given last."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> tuple[float, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"diskgraph's interpreter ended: {self._said.read_text()[-2_000:]}")
        seconds, edges = json.loads(line)
        return seconds, edges


# ---- in the other interpreter, which has nothing of ours ------------------------------------------------------


def serve(folder: Path) -> None:
    """Builds the index, says so, then answers: seeds are kept, fan-outs are sampled around them."""
    import diskgraph

    answers = os.fdopen(os.dup(1), "w")  # what the wheel prints goes to the errors
    os.dup2(2, 1)
    engine = diskgraph.SamplerEngine(index_of(folder), random_seed=1, num_threads=1)
    rows, cutoffs = np.zeros(0, np.int64), np.zeros(0, np.int64)
    print("[0, 0]", file=answers, flush=True)
    for line in sys.stdin:
        question, seconds, edges = json.loads(line), 0.0, 0
        if "rows" in question:
            rows, cutoffs = (np.array(question[name], np.int64) for name in ("rows", "cutoffs"))
        for low in range(0, len(rows) if "mode" in question else 0, SEEDS_PER_CALL):
            part = slice(low, low + SEEDS_PER_CALL)
            started = time.process_time()
            found = list(
                engine.sample(
                    {"events": rows[part]},
                    plan_of(question["fan_outs"], question["mode"]),
                    False,
                    {"events": cutoffs[part]},
                    None,
                    diskgraph.TimeUnit.Microseconds,
                )
            )
            seconds += time.process_time() - started
            edges += sum(len(one["batch"]) for one in found if one["type"] == "edge")
        print(json.dumps([seconds / max(len(rows), 1), edges / max(len(rows), 1)]), file=answers, flush=True)


def plan_of(fan_outs: list[int], mode: str) -> str:
    """The wheel's sampling plan: the same number for every link, hop by hop."""
    hop = {"mode": mode, "absent_key_policy": "uniform_fallback"}
    return json.dumps({"layers": [{"fanouts": {}, "default_fanout": hop | {"fanout": number}} for number in fan_outs]})


def index_of(folder: Path) -> str:
    """Writes the rows as Parquet and has the wheel ingest them; returns the index's path."""
    import pyarrow as pa
    from pyarrow import parquet

    ingest = importlib.import_module("kumo_core.diskgraph.ingest")
    events = np.load(folder / "events.npz")
    user, merchant = events["user"].astype(np.int64), events["merchant"].astype(np.int64)
    columns = {
        "users": {"user_id": np.arange(user.max() + 1)},
        "merchants": {"merchant_id": np.arange(merchant.max() + 1)},
        "events": {
            "event_id": np.arange(len(user)),
            "user_id": user,
            "merchant_id": merchant,
            "at": pa.array(events["event_time_us"], pa.timestamp("us")),
        },
    }
    tables = []
    for name, values in columns.items():
        (folder / name).mkdir()
        parquet.write_table(pa.table(values), folder / name / "rows.parquet")
        key = {"name": next(iter(values)), "dtype": "int", "stype": "ID"}
        table = {"table_name": name, "source_table_name": name, "connector_id": "files", "pkey": key, "cols": []}
        tables.append(table | {"fkeys": []})
    tables[2]["fkeys"] = [
        tables[i]["pkey"] | {"dst_table": name, "dst_key": key}
        for i, name, key in ((0, "users", "user_id"), (1, "merchants", "merchant_id"))
    ]
    tables[2]["time_col"] = {"name": "at", "dtype": "time", "stype": "timestamp"}
    specification = ingest.DiskgraphIngestSpec(
        data_persist_dir=str(folder),
        table_data_versions=dict.fromkeys(columns, "1"),
        output_dir=str(folder / "index"),
        source_paths={name: str(folder / name) for name in columns},
    )
    ingest.execute_diskgraph_ingest({"name": "bench", "tables": tables}, specification)
    return str(folder / "index")


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
