"""How many neighborhoods a second one thread samples, beside pyg-lib's sampler on the same rows where it is there."""

from __future__ import annotations

import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from bench_graph import Events

from online_sampler import Sampler, SamplingPlan
from temporal_graph.view import GraphView

# From an event: to its parents, to their events, to the other parents of those, and so on.
FAN_OUTS = {"small": (16, 16, 16), "large": (128, 128, 128), "deep": (16, 16, 8, 8)}
SEEDS = {"small": 20_000, "large": 4_000, "deep": 4_000}
SEEDS_PER_CALL = 512
PEER_SEEDS_MAX = 2_048
REPEATS = 5
PYG_LIB_VARIABLE = "NOWGRAPH_BENCH_PYG_LIB"
# int64: two lists of edges each way, their offsets, the times; and what sorting one list takes meanwhile.
PYG_LIB_BYTES_PER_EVENT = 8 * 8

Int64 = npt.NDArray[np.int64]
Part = Callable[[slice], int]
Timed = tuple[float, float]


@dataclass(frozen=True)
class SamplingResult:
    """Neighborhoods per second of CPU (all threads), median; edges of one; the other sampler's rate or None."""

    fan_out: str
    strategy: str
    moment: str
    seeds_per_s: float
    edges_per_seed: float
    peer_seeds_per_s: float | None
    peer_edges_per_seed: float | None

    @classmethod
    def of_medians(
        cls, fan_out: str, strategy: str, moment: str, mine: list[Timed], other: list[Timed]
    ) -> SamplingResult:
        """Of CPU seconds and edges a seed, run by run."""
        sides = [(1 / statistics.median(one for one, _ in runs), runs[0][1]) for runs in (mine, other) if runs]
        return cls(fan_out, strategy, moment, *sides[0], *(sides[1] if other else (None, None)))

    @property
    def ratio(self) -> float | None:
        """Ours by theirs."""
        return None if self.peer_seeds_per_s is None else self.seeds_per_s / self.peer_seeds_per_s


def bench_sampling(view: GraphView, events: Events, *, with_peer: bool) -> list[SamplingResult]:
    """Every fan-out by strategy by moment: "now" asks after the last event, "hist" at each seed's own time."""
    peer = PygLib(events) if with_peer else None
    results = []
    for name, fan_outs in FAN_OUTS.items():
        for strategy, moment, rows, cutoffs, ours in cases_of(view, events, name):
            theirs = None if peer is None else partial(peer.sample, rows, cutoffs, fan_outs, strategy)
            results.append(SamplingResult.of_medians(name, strategy, moment, *_in_turns(ours, theirs, len(rows))))
    return results


def cases_of(view: GraphView, events: Events, fan_out: str) -> Iterator[tuple[str, str, Int64, Int64, Part]]:
    """Strategy, moment, rows, cut-offs, and what samples a part of them and returns the number of edges."""
    random = np.random.default_rng(3)
    drawn = {name: random.integers(0, len(events), count) for name, count in SEEDS.items()}
    rows = drawn[fan_out]
    moments = {
        "now": np.full(len(rows), events.event_time_us[-1] + 1),
        "hist": events.event_time_us[rows] - 1,
    }
    for strategy in ("most_recent", "uniform"):
        hops = [{f"hop{i + 1}": number} for i, number in enumerate(FAN_OUTS[fan_out])]
        plan = SamplingPlan.from_dict({"num_neighbors": hops, "strategy": strategy, "node_limit": 2**20 - 1})
        sampler = Sampler(view, plan)
        for moment, cutoffs in moments.items():
            yield strategy, moment, rows, cutoffs, partial(_ours, sampler, rows, cutoffs)


def _ours(sampler: Sampler, rows: Int64, cutoffs: Int64, part: slice) -> int:
    return len(sampler.sample_rows("events", rows[part], cutoffs[part]).edge_source)


def _in_turns(ours: Part, theirs: Part | None, seeds: int) -> tuple[list[Timed], list[Timed]]:
    """Both sides in turns: what else the machine does falls on both."""
    mine, other = [], []
    for _ in range(REPEATS):
        mine.append(timed(ours, seeds))
        if theirs is not None:
            other.append(timed(theirs, min(seeds, PEER_SEEDS_MAX)))
    return mine, other


def timed(sample: Part, seeds: int) -> Timed:
    """CPU seconds and edges a seed."""
    started, edges = time.process_time(), 0
    for low in range(0, seeds, SEEDS_PER_CALL):
        edges += sample(slice(low, min(low + SEEDS_PER_CALL, seeds)))
    return (time.process_time() - started) / seeds, edges / seeds


def pyg_lib_is_there() -> bool:
    """Whether pyg-lib is installed, or NOWGRAPH_BENCH_PYG_LIB names a library with its operators."""
    return PYG_LIB_VARIABLE in os.environ or importlib.util.find_spec("pyg_lib") is not None


def available_bytes() -> int:
    """What the kernel says can be allocated now."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def peer_left_out(events: int) -> str | None:
    """Why pyg-lib is not benched on so many events; None when it is."""
    if not pyg_lib_is_there():
        return "not installed"
    needed, there = events * PYG_LIB_BYTES_PER_EVENT, available_bytes()
    if needed <= there:
        return None
    return f"it takes {needed / 1e9:.1f} GB beside the graph, {there / 1e9:.1f} GB are available"


class PygLib:
    """pyg-lib's heterogeneous temporal sampler over the same rows: disjoint, time-sorted lists, int64 times."""

    def __init__(self, events: Events) -> None:
        import torch

        if PYG_LIB_VARIABLE in os.environ:
            torch.ops.load_library(os.environ[PYG_LIB_VARIABLE])  # type: ignore[no-untyped-call]
        else:
            importlib.import_module("pyg_lib")
        torch.set_num_threads(1)
        self._torch = torch
        count = len(events)
        self._types = ["users", "merchants", "events"]
        self._rowptr, self._col = {}, {}
        self._edge_types = []
        for name, column in (("users", events.user), ("merchants", events.merchant)):
            keys = column.astype(np.int64)
            nodes = int(keys.max()) + 1
            self._edge_types += [("events", f"to_{name}", name), (name, "to_events", "events")]
            self._rowptr[f"events__to_{name}__{name}"] = torch.arange(count + 1)
            self._col[f"events__to_{name}__{name}"] = torch.from_numpy(keys)
            self._rowptr[f"{name}__to_events__events"] = torch.from_numpy(
                np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=nodes))])
            )
            self._col[f"{name}__to_events__events"] = torch.from_numpy(np.argsort(keys, kind="stable"))
        self._times = {"events": torch.from_numpy(events.event_time_us)}

    def sample(self, rows: Int64, cutoffs: Int64, fan_outs: tuple[int, ...], strategy: str, part: slice) -> int:
        """Samples around a part of the event rows and returns the number of edges."""
        torch = self._torch
        numbers = {"__".join(edge_type): list(fan_outs) for edge_type in self._edge_types}
        result: Any = torch.ops.pyg.hetero_neighbor_sample(
            self._types,
            self._edge_types,
            self._rowptr,
            self._col,
            {"events": torch.from_numpy(rows[part])},
            numbers,
            self._times,
            None,
            {"events": torch.from_numpy(cutoffs[part])},
            None,
            False,
            False,
            True,
            True,
            "last" if strategy == "most_recent" else "uniform",
            False,
        )
        return sum(len(row) for row in result[0].values())
