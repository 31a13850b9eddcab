"""The children lists alone beside another native temporal adjacency: its events, its cases, pair by pair.

    python loadtests/bench_adjacency.py --prototype FOLDER [--events 20e6] [--nodes 1e6] [--pairs 7] [--no-history]

The folder has powerlaw_graph.py, which gives the events, and temporal_adjacency.cpp, which is compiled as the core is
(it takes a C++ compiler and nanobind). Both take the same events; then, in turn, the neighborhoods of the same nodes at
the same cut-offs, others in each pair. "now" asks after the last event, "hist" at a random event's own time less one.
Rates are of CPU time; a ratio is the median of the pairs' own.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import itertools
import math
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.append(str(Path(__file__).resolve().parents[1]))  # after the installed packages, which are what is measured

from loadtests.load.report import append_history
from temporal_graph import _native

FLAGS = ("-std=c++20", "-O3", "-DNDEBUG", "-march=x86-64-v3", "-fPIC", "-shared", "-fvisibility=hidden")
TICK_MS = 2  # an entry of the core has 31 bits of time, and the events span thirty days
INGESTS = 3
SEEDS = {"small": 20_000, "large": 5_000}
FAN_OUTS = {"small": [16, 8], "large": [128, 16]}
STRATEGIES = {"most_recent": 0, "uniform": 1}
MOMENTS = ("now", "hist")
ARENA_BYTES_PER_EVENT, ARENA_BYTES = 60, 1 << 29
DRAWN_APART = 0.01  # what two draws may differ by, in edges

Uint32 = npt.NDArray[np.uint32]


class Pairs:
    """The same work by either, one right after the other; who is first changes from pair to pair."""

    def __init__(self) -> None:
        self._ours: list[float] = []
        self._theirs: list[float] = []

    def measure(self, ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[Any, Any]:
        """One pair; returns what both gave."""
        given: list[Any] = [None, None]
        turns = [(0, self._ours, ours), (1, self._theirs, theirs)]
        for at, seconds, work in turns if len(self._ours) % 2 == 0 else turns[::-1]:
            started_s = time.process_time()
            given[at] = work()
            seconds.append(time.process_time() - started_s)
        return given[0], given[1]

    def figures(self, name: str, count: int) -> dict[str, float]:
        """Rates of both, and our share of theirs."""
        ratios = [theirs / ours for ours, theirs in zip(self._ours, self._theirs, strict=True)]
        return {
            f"{name}_per_s": count / statistics.median(self._ours),
            f"{name}_prototype_per_s": count / statistics.median(self._theirs),
            f"{name}_ratio": statistics.median(ratios),
            f"{name}_ratio_min": min(ratios),
            f"{name}_ratio_max": max(ratios),
        }


def module_of(path: Path, name: str) -> Any:
    """The module that a file is."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"not a module: {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiled(source: Path, folder: Path) -> Any:
    """The prototype's module, built in the folder."""
    bindings = Path(str(importlib.import_module("nanobind").__file__)).parent
    places = (sysconfig.get_path("include"), bindings / "include", bindings / "ext/robin_map/include")
    target = folder / "tg3.so"
    sources = [str(bindings / "src/nb_combined.cpp"), str(source)]
    subprocess.run(["c++", *FLAGS, *(f"-I{place}" for place in places), *sources, "-o", str(target)], check=True)
    return module_of(target, "tg3")


def bench_lists(prototype: Any, events: tuple[Uint32, Uint32, Uint32], nodes: int, pairs: int) -> dict[str, float]:
    """Ingest into stores of their own, then every case from the last of them; events are both ends and the tick."""
    source, target, tick = events
    arena_bytes, ingests, ticks = len(source) * ARENA_BYTES_PER_EVENT + ARENA_BYTES, Pairs(), tick.astype(np.int64)
    for _ in range(INGESTS):
        ours, theirs = _native.AdjacencyBench(nodes, arena_bytes), prototype.StoreH8(nodes, 0, arena_bytes)
        ingests.measure(lambda: ours.ingest(source, target, tick), lambda: theirs.ingest(source, target, ticks))  # noqa: B023
    figures = ingests.figures("ingest", len(source))
    sampler, random = prototype.SamplerH8(theirs, 1), np.random.default_rng(4)
    for size, strategy, moment in itertools.product(FAN_OUTS, STRATEGIES, MOMENTS):
        fan_out, code, cases = FAN_OUTS[size], STRATEGIES[strategy], Pairs()
        for pair in range(-1, pairs):
            at = random.integers(0, len(source), SEEDS[size])
            seeds = np.where(random.random(len(at)) < 0.5, source[at], target[at]).astype(np.uint32)
            last = np.maximum(tick[at], 1) - 1 if moment == "hist" else np.full(len(at), tick[-1])
            own, other = last.astype(np.uint32), last.astype(np.int64)
            found, expected = (cases if pair >= 0 else Pairs()).measure(  # the first makes room for what is written
                lambda: ours.sample(seeds, own, fan_out, code),  # noqa: B023
                lambda: sampler.sample_inplace(seeds, other, fan_out, code),  # noqa: B023
            )
            if abs(found[1] - expected[1]) > (DRAWN_APART * expected[1] if code else 0):
                raise RuntimeError(f"{strategy} {moment} {size}: {found[1]:,} edges, the prototype's {expected[1]:,}")
        figures |= cases.figures(f"{strategy}_{moment}_{size}", SEEDS[size])
    for moment in MOMENTS:
        ratios = [figures[f"{strategy}_{moment}_{size}_ratio"] for strategy in STRATEGIES for size in FAN_OUTS]
        figures[f"{moment}_ratio"] = math.exp(statistics.mean(map(math.log, ratios)))
    return figures


def main() -> None:
    """Measures, prints and keeps a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prototype", type=Path, required=True, metavar="FOLDER", help="of the other adjacency")
    parser.add_argument("--events", type=float, default=20e6, help="two entries each (default 20e6)")
    parser.add_argument("--nodes", type=float, default=1e6, help="(default 1e6)")
    parser.add_argument("--pairs", type=int, default=7, help="of each case (default 7)")
    parser.add_argument("--no-history", action="store_true", help="do not append to loadtests/history.ndjson")
    options = parser.parse_args()
    nodes = int(options.nodes)
    powerlaw = module_of(options.prototype / "powerlaw_graph.py", "powerlaw_graph")
    source, target, time_ms = powerlaw.generate(nodes, int(options.events))
    tick = ((time_ms - time_ms[0]) // TICK_MS).astype(np.uint32)
    with TemporaryDirectory() as folder:
        prototype = compiled(options.prototype / "temporal_adjacency.cpp", Path(folder))
        figures = bench_lists(prototype, (source, target, tick), nodes, options.pairs)
    print("| case | ours/s | the prototype's/s | ratio |\n|---|---|---|---|")
    for name in (key.removesuffix("_prototype_per_s") for key in figures if key.endswith("_prototype_per_s")):
        least, most = figures[f"{name}_ratio_min"], figures[f"{name}_ratio_max"]
        rates = f"{figures[f'{name}_per_s']:,.0f} | {figures[f'{name}_prototype_per_s']:,.0f}"
        print(f"| {name} | {rates} | {figures[f'{name}_ratio']:.2f} ({least:.2f} to {most:.2f}) |")
    print(f"geometric mean of the ratios now {figures['now_ratio']:.2f}, in the past {figures['hist_ratio']:.2f}")
    if not options.no_history:
        append_history("adjacency", {"events": len(source), **figures})


if __name__ == "__main__":
    main()
