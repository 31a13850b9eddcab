"""`make bench-model`: the model's forward pass beside PyG's HGT on the same neighborhoods, on one thread of the CPU.

    python loadtests/bench_model.py [--device cuda] [--repeats 30] [--json] [--history PATH]

HGT (Hu et al., 2020, `torch_geometric.nn.HGTConv`) has our row encoders, width, heads and layers, and is given its
edges ready-made; both answer the same seeds, in alternating pairs, so that what else the machine does falls on both.
With a device it measures training and scoring there, of the size made for it, and says so where there is none.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from graph_transformer.config import ModelConfig
from graph_transformer.encoding.batch import Batch
from graph_transformer.encoding.collate import Encoding, collate
from graph_transformer.encoding.layout import Layout
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.hetero_module import HeteroModule
from graph_transformer.model import build_model
from graph_transformer.target import Kind, Target
from online_sampler.neighborhood import Neighborhood
from online_sampler.plan import SamplingPlan
from online_sampler.sampler import Sampler
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import parse_schema

HISTORY = Path(__file__).resolve().parent / "history.ndjson"
SCHEMA = """
version: 1
name: payments
tables:
  customers: {primary_key: {id: integer}}
  terminals: {primary_key: {id: integer}}
  payments:
    primary_key: {id: integer}
    time_column: at
    columns:
      amount: numerical
      fraud: {kind: boolean, outcome: true}
    links: {customer: customers, terminal: terminals}
"""
TARGET = Target(Kind.BINARY, "payments", event_level=True, column="fraud")
PAYMENTS, CUSTOMERS, TERMINALS = 40_000, 200, 200
SECOND_US = 1_000_000
SEEDS = 256
SHAPES = ((32, 1, 8), (64, 2, 8))
"""Width, layers, heads of what is compared: the sizes for a week and for months of payments."""
BATCHES = (1, 64)


def event(number: int, random: np.random.Generator) -> bytes:
    """A payment, a minute after the one before."""
    row = row_event_pb2.RowEvent(table="payments", operation=row_event_pb2.OPERATION_INSERT)
    row.key.parts.add(integer=number)
    row.event_time_us = number * 60 * SECOND_US
    row.cells.add(column="amount", number=float(random.exponential(50.0)))
    row.cells.add(column="customer", integer=int(random.integers(CUSTOMERS)))
    row.cells.add(column="terminal", integer=int(random.integers(TERMINALS)))
    return row.SerializeToString()


class World:
    """A graph of payments whose neighborhoods are full: 64 payments of the customer, 64 of the terminal."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.graph = TemporalGraph.create(parse_schema(SCHEMA), arena_bytes=1 << 28)
        self.graph.apply([event(number, random) for number in range(PAYMENTS)])
        view = self.graph.view()
        plan = SamplingPlan.from_dict({"num_neighbors": [{"hop1": {"default": 1}}, {"hop2": {"default": 64}}]})
        self._sampler = Sampler(view, plan)
        self._rows = np.sort(random.integers(PAYMENTS // 2, PAYMENTS, SEEDS))
        statistics_of = fit_statistics([self.sampled(0, SEEDS)], view.schema, view.strings, target=TARGET)
        self.encoding = Encoding(statistics_of, view.schema, view.strings)

    def sampled(self, first: int, count: int) -> Neighborhood:
        """The neighborhoods of some seeds, each just before it happened."""
        rows = self._rows[first : first + count]
        return self._sampler.sample_rows("payments", rows, rows * 60 * SECOND_US - 1)

    def batch(self, first: int, count: int) -> Batch:
        """The same, collated."""
        return collate(self.sampled(first, count), self.encoding)


class Hgt(HeteroModule):
    """The peer: HGTConv layers over our row vectors; the seed's vector is read."""

    def __init__(self, layout: Layout, config: ModelConfig, outputs: int) -> None:
        from torch_geometric.nn import HGTConv

        super().__init__(layout, config, outputs)
        width = config.width
        self.layers = nn.ModuleList(HGTConv(width, width, self.metadata, config.heads) for _ in range(config.layers))
        self.head = nn.Linear(width, outputs)
        self._ready: tuple[int, Any] = (0, None)

    def answer(self, data: Any) -> Tensor:
        """Return the outputs float32[B, outputs]."""
        vectors = data.x_dict
        for layer in self.layers:
            vectors = layer(vectors, data.edge_index_dict)
        output: Tensor = self.head(vectors[self.seed_table][data[self.seed_table].seed])
        return output

    def forward(self, batch: Batch) -> Tensor:
        """As the base class, with nodes and edges turned once per batch: only vectors and messages are timed."""
        if self._ready[0] != id(batch):
            self._ready = id(batch), self.hetero_data(batch)
        data, vectors = self._ready[1], self.rows(batch)
        for position, table in enumerate(self.tables):
            data[table].x = vectors[batch.table == position]
        return self.answer(data)


def timed(work: Callable[[], object]) -> float:
    """Seconds of CPU, all threads."""
    started = time.process_time()
    work()
    return time.process_time() - started


def run(model: nn.Module, batch: Batch, times: int) -> None:
    """Forward passes, one after the other."""
    for _ in range(times):
        model(batch)


def compare(world: World, shape: tuple[int, int, int], seeds: int, repeats: int) -> dict[str, Any]:
    """Median milliseconds of both, and the median of the pairs' ratios."""
    width, layers, heads = shape
    config, layout = ModelConfig(width=width, layers=layers, heads=heads), world.encoding.layout()
    torch.manual_seed(0)
    ours, theirs = build_model(layout, config, 1).eval(), Hgt(layout, config, 1).eval()
    batch = world.batch(0, seeds)
    times = 1 + 64 // seeds  # short runs are measured several at a time
    pairs = []
    with torch.inference_mode():
        for _ in range(3):
            ours(batch), theirs(batch)
        for _ in range(repeats):
            pairs.append(tuple(timed(partial(run, model, batch, times)) / times for model in (ours, theirs)))
    return {
        "width": width,
        "layers": layers,
        "heads": heads,
        "seeds": seeds,
        "rows_per_seed": batch.nodes / seeds,
        "ours_ms": 1_000 * statistics.median(pair[0] for pair in pairs),
        "hgt_ms": 1_000 * statistics.median(pair[1] for pair in pairs),
        "ratio": statistics.median(pair[1] / pair[0] for pair in pairs),
    }


def score_alone(world: World, repeats: int) -> dict[str, float]:
    """Milliseconds of CPU of the parts of one score of the size for a core: sample, collate, forward, seed by seed."""
    torch.manual_seed(0)
    model = build_model(world.encoding.layout(), ModelConfig.preset("cpu"), 1).eval()
    parts: dict[str, list[float]] = {"sample": [], "collate": [], "forward": []}
    with torch.inference_mode():
        for first in range(min(SEEDS, 8 * repeats)):
            times = [time.process_time()]
            sampled = world.sampled(first, 1)
            times.append(time.process_time())
            batch = collate(sampled, world.encoding)
            times.append(time.process_time())
            model(batch)
            times.append(time.process_time())
            for spent, (start, end) in zip(parts.values(), pairwise(times), strict=True):
                spent.append(end - start)
    return {f"{name}_cpu_ms": 1_000 * statistics.median(spent) for name, spent in parts.items()}


def on_device(world: World, device: str, repeats: int) -> dict[str, Any]:
    """Seeds a second of the size for a GPU: training steps in bfloat16, and scoring."""
    torch.manual_seed(0)
    model = build_model(world.encoding.layout(), ModelConfig.preset("gpu"), 1).to(device)
    batch = world.batch(0, SEEDS).to(device)
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = model.train()(batch).float().square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def score() -> None:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
            model.eval()(batch)

    figures: dict[str, Any] = {"device": torch.cuda.get_device_name(device), "seeds": SEEDS}
    for name, work in (("train", step), ("score", score)):
        for _ in range(3):
            work()
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        torch.cuda.synchronize()
        figures[f"{name}_seeds_per_s"] = repeats * SEEDS / (time.perf_counter() - started)
    return figures


def show(console: Console, report: dict[str, Any]) -> None:
    """The report as a table."""
    table = Table(
        "width", "layers", "heads", "seeds", "rows/seed", "ours ms", "HGT ms", "ratio", title="Forward pass, one thread"
    )
    for row in report["forward"]:
        figures = (
            f"{row['rows_per_seed']:.0f}",
            f"{row['ours_ms']:.2f}",
            f"{row['hgt_ms']:.2f}",
            f"{row['ratio']:.1f}x",
        )
        table.add_row(*(str(row[name]) for name in ("width", "layers", "heads", "seeds")), *figures)
    console.print(table)
    parts = report["score"]
    console.print(
        ", ".join(f"{name.removesuffix('_cpu_ms')} {value:.2f} ms" for name, value in parts.items()),
        "(CPU of one score, medians)",
    )


def main() -> None:
    """Runs the bench."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--device", help="measure training and scoring on this device instead")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print the report as one line of JSON")
    parser.add_argument("--history", type=Path, help=f"append the line to this file ({HISTORY.name} beside the bench)")
    arguments = parser.parse_args()
    console = Console(stderr=arguments.json)
    conditions = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "bench": "model", "torch": torch.__version__}
    if arguments.device is not None:
        if not torch.cuda.is_available():
            console.print("there is no GPU on this machine: nothing was measured")
            sys.exit(0)
        report = {**conditions, **on_device(World(), arguments.device, arguments.repeats)}
        table = Table("seeds", "trained seeds/s", "scored seeds/s", title=f"{report['device']}, bfloat16, size gpu")
        table.add_row(str(SEEDS), *(f"{report[f'{name}_seeds_per_s']:,.0f}" for name in ("train", "score")))
        console.print(table)
    else:
        torch.set_num_threads(1)
        world = World()
        rows = [compare(world, shape, seeds, arguments.repeats) for shape in SHAPES for seeds in BATCHES]
        report = {
            **conditions,
            "machine": platform.machine(),
            "forward": rows,
            "ratio": statistics.geometric_mean(row["ratio"] for row in rows),
            "score": score_alone(world, arguments.repeats),
        }
        show(console, report)
    if arguments.json:
        print(json.dumps(report))
    if arguments.history is not None:
        with arguments.history.open("a", encoding="utf-8") as history:
            history.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
