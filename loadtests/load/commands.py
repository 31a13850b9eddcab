"""The commands of loadtest.py: each starts its world, measures, prints its tables, and returns the exit code."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from loadtests.load import pictures, report
from loadtests.load.capacity import IN_FLIGHT, closed_loop, curve
from loadtests.load.clients import Outcome
from loadtests.load.independent import agree, h2load, k6, ours
from loadtests.load.runner import Ran, mixed_requests, run_scenario
from loadtests.load.scenario import Scenario, load_scenario
from loadtests.load.schedule import Arrivals, Constant, Poisson
from loadtests.load.soak import STALL_MS_P99_MAX, Memory, MemoryWatch, stall_ms_p99
from loadtests.load.verdict import EXIT_CODES, judge
from loadtests.load.worlds import Cores, Tested, started

WARM_UP_S = 3.0
GUESS_S = 4.0
# A host has quick moments and slow ones. Half of the capacity for ten minutes is half of what it mostly is.
SOAK_WINDOWS = 9
WINDOW_PAUSE_S = 2.0
PAUSE_S = 0.5
HALF_S = 20.0
COMPARE_S = 10.0
# Low enough that k6, whose callers are JavaScript engines, keeps up on the core that it shares with nobody.
COMPARE_SHARES = (0.1, 0.25)
K6_REQUESTS = 200


def scenario_of(options: argparse.Namespace, default: str) -> Scenario:
    """The scenario that was asked for, with what the command line says in place of its own."""
    scenario = load_scenario(Path(options.scenario or default))
    update: dict[str, object] = {}
    if options.seconds:
        update["seconds"] = options.seconds
    if options.workers:
        update["workers"] = options.workers
    if options.processes:
        update["clients"] = scenario.clients.model_copy(update={"processes": options.processes})
    if options.rate:
        update["arrivals"] = at_rate(scenario.arrivals, options.rate)
    return scenario_with(scenario, update)


def at_rate(arrivals: Arrivals, rate_per_s: float) -> Arrivals:
    """The same arrivals at so many a second; raises ValueError for those that have more than one rate."""
    if not isinstance(arrivals, Constant | Poisson):
        raise ValueError(  # noqa: TRY004 - what a caller asks for, not what a programmer passed
            f"--rate is for arrivals of one rate: {arrivals.kind} has others"
        )
    return arrivals.model_copy(update={"rate": rate_per_s, "unit": "per_s"})


def scenario_with(scenario: Scenario, update: dict[str, object]) -> Scenario:
    """The scenario with other values, checked as a file is."""
    return Scenario.model_validate(scenario.model_dump() | update)


def place(scenario: Scenario) -> Cores:
    """Where its processes run; this one goes to the senders' cores."""
    cores = Cores.of_machine(servers=scenario.workers, clients=scenario.clients.processes)
    os.sched_setaffinity(0, set(cores.clients))
    return cores


def guess_capacity(scenario: Scenario, tested: Tested, *, windows: int = 1) -> float:
    """Warms up, then the closed loop's capacity with the scenario's ingest behind: the median of the windows."""
    requests = mixed_requests(scenario, tested)
    tested.ingest(scenario.ingest_per_s)
    closed_loop(requests, seconds=WARM_UP_S)
    found = []
    for number in range(windows):
        if number:
            time.sleep(WINDOW_PAUSE_S)
        found.append(closed_loop(requests, seconds=GUESS_S))
    tested.ingest(0)
    capacity_per_s = statistics.median(found)
    if windows > 1:
        print(f"capacity: {capacity_per_s:,.0f}/s, of {windows} windows from {min(found):,.0f} to {max(found):,.0f}/s")
    return capacity_per_s


def run(options: argparse.Namespace) -> int:
    """One scenario."""
    scenario = scenario_of(options, "score")
    cores = place(scenario)
    with started(list(scenario.calls), cores, rows=options.rows, workers=scenario.workers) as tested:
        capacity_per_s = guess_capacity(scenario, tested)
        ran = run_scenario(scenario, tested, cores, capacity_per_s=capacity_per_s)
    return _report(scenario, ran, capacity_per_s, keep=not options.no_history)


def _report(
    scenario: Scenario,
    ran: Ran,
    capacity_per_s: float,
    *,
    keep: bool,
    more: dict[str, float | str] | None = None,
    memory: Memory | None = None,
) -> int:
    outcome, verdict = ran.outcome, judge(ran.outcome, scenario.objectives)
    print(report.outcome_table(f"{scenario.name}: {scenario.about}", outcome, verdict))
    print(f"  capacity {capacity_per_s:,.0f}/s; {ran.ingested_per_s:,.0f} events/s; {ran.server_cpu_cores:.2f} cores")
    document: dict[str, object] = {
        "scenario": report.scenario_document(scenario),
        "capacity_per_s": capacity_per_s,
        "ingested_per_s": ran.ingested_per_s,
        "server_cpu_cores": ran.server_cpu_cores,
        "verdict": report.verdict_document(verdict),
        "outcome": report.outcome_document(outcome),
        **(more or {}),
    }
    if memory is not None:
        document["memory"] = {"seconds": memory.seconds.tolist(), "mib": memory.mib.tolist()}
    stem = report.save(scenario.name, document)
    if memory is not None:
        pictures.memory(stem.with_name(stem.name + "-memory.png"), memory, title=scenario.name)
    draw(stem, scenario, outcome)
    print(f"  {stem}.json and pictures beside it")
    if keep:
        figures = _figures(ran, capacity_per_s) | (more or {}) | {"verdict": verdict.word.value}
        report.append_history(f"load {scenario.name}", figures)
    return EXIT_CODES[verdict.word]


def _figures(ran: Ran, capacity_per_s: float) -> dict[str, float | str]:
    outcome = ran.outcome
    latency = {f"latency_ms_{name}": value for name, value in report.percentiles_ms(outcome.latency).items()}
    return {
        "seconds": outcome.seconds,
        "capacity_per_s": capacity_per_s,
        "events_per_s": ran.ingested_per_s,
        "offered_per_s": outcome.offered_per_s,
        "achieved_per_s": outcome.achieved_per_s,
        "error_ratio": outcome.error_ratio,
        "dropped_ratio": outcome.dropped_ratio,
        "send_delay_ms_p99": report.at_ms(outcome.send_delay, 99),
        **latency,
    }


def draw(stem: Path, scenario: Scenario, outcome: Outcome) -> None:
    """The two pictures of a run."""
    shown = {"from the due time": outcome.latency, "from the real send": outcome.service}
    if len(outcome.by_method) > 1:
        shown = dict(outcome.by_method)
    title = f"{scenario.name}: {outcome.offered_per_s:,.0f}/s for {outcome.seconds:g} s"
    bound_ms = scenario.objectives.p99_ms
    pictures.percentiles(stem.with_name(stem.name + "-percentiles.png"), shown, title=title, bound_ms=bound_ms)
    pictures.over_time(stem.with_name(stem.name + "-over-time.png"), outcome, title=title)


def draw_curve(options: argparse.Namespace) -> int:
    """The capacity curve, then a run at half of the capacity that it found, which is what the verdict is about."""
    scenario = scenario_of(options, "steps")
    cores = place(scenario)

    def at(rate_per_s: float, seconds: float) -> Ran:
        asked = scenario_with(scenario, {"arrivals": {"kind": "poisson", "rate": rate_per_s}, "seconds": seconds})
        ran = run_scenario(asked, tested, cores, capacity_per_s=rate_per_s)
        time.sleep(PAUSE_S)
        return ran

    with started(list(scenario.calls), cores, rows=options.rows, workers=scenario.workers) as tested:
        guess = guess_capacity(scenario, tested)
        found = curve(guess, lambda rate: at(rate, scenario.seconds).outcome, scenario.objectives)
        half = at(found.saturated_per_s / 2, HALF_S if options.seconds is None else options.seconds)
    print(report.curve_table(found))
    verdict = judge(half.outcome, scenario.objectives)
    print(report.outcome_table("at half of the saturated rate:", half.outcome, verdict))
    document = {
        "scenario": report.scenario_document(scenario),
        "guess_per_s": guess,
        "within_objectives_per_s": found.within_objectives_per_s,
        "saturated_per_s": found.saturated_per_s,
        "steps": [step.row | {"outcome": report.outcome_document(step.outcome)} for step in found.steps],
        "half": report.outcome_document(half.outcome),
        "verdict": report.verdict_document(verdict),
    }
    stem = report.save("curve", document)
    bound_ms = scenario.objectives.p99_ms
    title = f"{', '.join(scenario.calls)}: {scenario.ingest_per_s:,} events/s behind"
    pictures.capacity(stem.with_name(stem.name + "-capacity.png"), found, title=title, bound_ms=bound_ms)
    draw(stem, scenario, half.outcome)
    print(f"{stem}.json and pictures beside it")
    if not options.no_history:
        figures = _figures(half, guess) | {
            "within_objectives_per_s": found.within_objectives_per_s,
            "saturated_per_s": found.saturated_per_s,
            "verdict": verdict.word.value,
        }
        report.append_history("load curve", figures)
    return EXIT_CODES[verdict.word]


def soak(options: argparse.Namespace) -> int:
    """A scenario that lasts: its objectives, and whether memory stays flat and the event loop answers."""
    scenario = scenario_of(options, "soak")
    cores = place(scenario)
    with started(list(scenario.calls), cores, rows=options.rows, workers=scenario.workers) as tested:
        server = next(iter(tested.servers.values()))
        capacity_per_s = guess_capacity(scenario, tested, windows=1 if options.rate else SOAK_WINDOWS)
        before = server.metrics()
        with MemoryWatch(server.private_bytes) as watch:
            ran = run_scenario(scenario, tested, cores, capacity_per_s=capacity_per_s)
        stall_ms = stall_ms_p99(before, server.metrics())
    memory = watch.memory
    loop_answers = not stall_ms > STALL_MS_P99_MAX  # of several processes the supervisor's metrics say nothing
    more: dict[str, float | str] = {
        "memory_growth_mib_per_hour": memory.growth_mib_per_hour,
        "memory_growth_of_all_mib_per_hour": memory.growth_of_all_mib_per_hour,
        "memory_lows_mib": f"{memory.lows[0]:.0f} to {memory.lows[-1]:.0f}",
        "server_cpu_cores": ran.server_cpu_cores,
        "memory_mib": float(memory.mib[-1]),
        "stall_ms_p99": stall_ms,
    }
    code = _report(scenario, ran, capacity_per_s, keep=not options.no_history, more=more, memory=memory)
    word = "flat" if memory.flat else "grows"
    lows = ", ".join(f"{low:.0f}" for low in memory.lows)
    print(f"  memory's lows {lows} MiB: {memory.growth_mib_per_hour:+.1f} MiB an hour: {word}")
    least, most, growth = memory.mib.min(), memory.mib.max(), memory.growth_of_all_mib_per_hour
    print(f"  of all samples {least:.0f} to {most:.0f} MiB: {growth:+.1f} MiB an hour")
    print(f"  event loop's stalls: p99 within {stall_ms:g} ms (objective {STALL_MS_P99_MAX:g} ms)")
    return code or int(not (memory.flat and loop_answers))


def compare(options: argparse.Namespace) -> int:
    """The same rates by our generator and by k6, in turns, and a closed loop by h2load; whether they agree."""
    # Without ingest: the writer would share the generators' core.
    scenario = scenario_with(scenario_of(options, "score"), {"ingest_per_s": 0})
    seconds = options.seconds or COMPARE_S
    cores = place(scenario)
    with started(list(scenario.calls), cores, rows=options.rows, workers=scenario.workers) as tested:
        requests = mixed_requests(scenario, tested)
        capacity_per_s = guess_capacity(scenario, tested)
        by_h2load = h2load(requests[0], seconds=GUESS_S, in_flight=IN_FLIGHT)
        pairs = []
        for share in COMPARE_SHARES:
            rate_per_s = capacity_per_s * share
            asked = scenario_with(scenario, {"arrivals": {"kind": "constant", "rate": rate_per_s}, "seconds": seconds})
            mine = ours(run_scenario(asked, tested, cores, capacity_per_s=capacity_per_s).outcome)
            timeout_s = scenario.clients.timeout_s
            theirs = k6(requests[:K6_REQUESTS], rate_per_s=rate_per_s, seconds=seconds, timeout_s=timeout_s)
            pairs.append((mine, theirs))
    print(report.compare_table(pairs))
    said = "h2load is not installed" if by_h2load is None else f"by h2load {by_h2load:,.0f}/s"
    print(f"closed loop, {IN_FLIGHT} in flight: ours {capacity_per_s:,.0f}/s, {said}")
    document = {
        "pairs": [[asdict(one) for one in pair] for pair in pairs],
        "closed_loop_per_s": capacity_per_s,
        "h2load_per_s": by_h2load,
    }
    print(f"{report.save('compare', document)}.json")
    return int(not all(agree(*pair) for pair in pairs))


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": run,
    "curve": draw_curve,
    "soak": soak,
    "compare": compare,
}
