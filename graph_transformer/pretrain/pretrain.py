"""Pre-training from a live graph to weights that a task begins with: the entry that the command calls.

seeds ─► sampled at their cut-offs ─► cells hidden ─► collate ─► model ─► loss of cells and next events
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graph_transformer.encoding.batch import Batch
from graph_transformer.encoding.collate import collate
from graph_transformer.encoding.encoding import Encoding
from graph_transformer.encoding.statistics import Statistics
from graph_transformer.errors import NotEnoughExamples
from graph_transformer.finetune.ahead import Ahead
from graph_transformer.finetune.choice import Choice, Validator
from graph_transformer.finetune.feed import rounds, sample, statistics_of
from graph_transformer.finetune.loop import Fitted, KnowsPrior, Limits, Loop, Report, dice_kept, silent
from graph_transformer.finetune.runtime import Runtime
from graph_transformer.finetune.state import forget, key_of
from graph_transformer.finetune.steps import Steps
from graph_transformer.model import build_model
from graph_transformer.pretrain.cells import CellMask
from graph_transformer.pretrain.next_event import NextEvents
from graph_transformer.pretrain.pretrained import Pretrained, learned_until_us
from graph_transformer.pretrain.questions import Answers, Question, losses_of, outputs_of, shares_of
from graph_transformer.pretrain.seeds import Seeds, seeds_of
from online_sampler.sampler import Sampler

if TYPE_CHECKING:
    from graph_transformer.finetune.examples import Labels
    from graph_transformer.task import Task
    from temporal_graph.schema import Schema
    from temporal_graph.view import GraphView

STATISTICS_SEEDS = 2048
SEEDS = 256
"""Neighborhoods per call where nothing is learned."""
HELD_ASKED = 2048
"""Seeds that were held back and are asked at each validation."""
PHASE = "pretrain"

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Asked:
    """One step's input: the batch with cells hidden, and the answers' ranges, int64[B, Q] each."""

    batch: Batch
    low: Tensor
    high: Tensor
    weight: float = 1.0


@dataclass(frozen=True)
class PretrainResult:
    """What pre-training left: its folder, and a line per question of what was learned of it."""

    folder: Path
    pretrained: Pretrained
    steps: int
    wait_share: float


@dataclass(frozen=True)
class Questioner:
    """Asks seeds about themselves; `asked` may be called from several threads, each with a sampler of its own."""

    task: Task
    seeds: Seeds
    encoding: Encoding
    cells: CellMask
    events: NextEvents

    @property
    def questions(self) -> tuple[Question, ...]:
        """All that is asked: cells, then next events."""
        return (*(found.question for found in self.cells.questions), *self.events.questions)

    def asked(self, sampler: Sampler, chosen: Ints, random: np.random.Generator, *, request: int) -> Asked:
        """Return the seeds at these positions with cells hidden, and the answers."""
        batch, answers = self.answered(sampler, chosen, random, request=request)
        return Asked(batch, torch.from_numpy(answers.low), torch.from_numpy(answers.high))

    def answered(
        self, sampler: Sampler, chosen: Ints, random: np.random.Generator, *, request: int
    ) -> tuple[Batch, Answers]:
        """Return the batch and the answers as arrays."""
        neighborhood = sample(sampler, self.task.target, self.seeds.at(chosen), request=request)
        hidden, held = self.cells.hide(neighborhood, random)
        return collate(hidden, self.encoding), Answers.joined([held, self.events.answers(chosen)])


def pretrain(
    view: GraphView,
    schema: Schema,
    task: Task,
    out_dir: Path,
    *,
    labels: Labels | None = None,
    budget_s: float | None = None,
    seed: int = 0,
    progress: Report = silent,
    runtime: Runtime | None = None,
) -> PretrainResult:
    """Learn the rows of a graph by a task's plan, model and training options, without its labels; save in `out_dir`.

    Only what is visible before the task's validation split is learned from. `labels` of an entity-level task say when
    its entities are asked about; what they answer is not read.

    Raises:
        NotEnoughExamples: there are hardly any rows in the training period, or nothing can be asked of them.
        SchemaError, PlanError: the task does not fit the schema.
        StateMismatch, TrainingDiverged: as `finetune.loop.fit`.
        OSError: `out_dir` can not be written.
    """
    runtime = Runtime() if runtime is None else runtime
    until_us = learned_until_us(task.splits)
    end_us = view.watermark_us + 1 if until_us is None else until_us
    seeds = seeds_of(view, task.target, labels, end_us=end_us, seed=seed)
    statistics = _statistics(view, task, seeds, seed)
    encoding = Encoding(statistics, schema, view.strings)
    with _strings(view) as strings:
        events = NextEvents(view, task.target, seeds)
        questioner = Questioner(task, seeds, encoding, CellMask(encoding, strings), events)
        if not questioner.questions:
            raise NotEnoughExamples(f"{task.table}: no cell and no next event could be asked about")
        config = replace(task.model, members=1)
        fitted = _fit(
            view,
            questioner,
            replace(task, model=config),
            budget_s=budget_s,
            seed=seed,
            report=progress,
            runtime=runtime,
        )
        learned = _learned(view, questioner, fitted.model, seed, runtime.device)
    pretrained = Pretrained(
        fingerprint=schema.fingerprint(statistics.tables()),
        statistics=statistics,
        model=config,
        sampling_plan=task.sampling_plan,
        weights=dict(fitted.model.state_dict()),
        end_us=end_us,
        learned=learned,
    )
    if runtime.ranks.is_first:
        pretrained.save(out_dir)
        if runtime.state is not None:
            forget(runtime.state)
    return PretrainResult(out_dir, pretrained, fitted.step, fitted.wait_share)


def _fit(
    view: GraphView,
    questioner: Questioner,
    task: Task,
    *,
    budget_s: float | None,
    seed: int,
    report: Report,
    runtime: Runtime,
) -> Fitted:
    questions, training, ranks, device = questioner.questions, task.training, runtime.ranks, runtime.device

    def made(sampler: Sampler, step: int, chosen: Ints) -> Asked:
        part = ranks.part(chosen)
        random = np.random.default_rng([seed, ranks.rank, step])
        asked = questioner.asked(sampler, part, random, request=step * ranks.size + ranks.rank)
        return replace(asked, weight=ranks.weight(len(chosen)))

    def source(first: int) -> Ahead[Ints, Asked]:
        size = min(training.batch, questioner.seeds.learned)
        drawn = rounds(np.arange(questioner.seeds.learned), size, np.random.default_rng(seed))
        samplers = [Sampler(view, task.sampling_plan, seed=seed) for _ in range(runtime.samplers)]
        return Ahead([partial(made, sampler) for sampler in samplers], islice(drawn, first, None), first=first)

    def loss(model: nn.Module, asked: Asked) -> Tensor:
        raw = model(asked.batch.to(device))
        sums, counts = losses_of(questions, raw, asked.low.to(device), asked.high.to(device))
        return sums.sum() / counts.sum().clamp(min=1) * asked.weight

    held = [(asked, _on(asked, device)) for asked in _held(view, questioner, seed)]

    @torch.inference_mode()
    def held_loss(model: nn.Module) -> float:
        sums, counts = 0.0, 0
        for _, asked in held:
            found, times = losses_of(questions, model(asked.batch), asked.low, asked.high)
            sums, counts = sums + float(found.sum()), counts + int(times.sum())
        return sums / max(1, counts)

    with dice_kept(device):
        torch.manual_seed(seed)
        model = build_model(questioner.encoding.layout(), task.model, outputs_of(questions))
        if isinstance(model, KnowsPrior):
            model.start_at(torch.from_numpy(_prior(view, questioner, seed)))
    seeds = questioner.seeds
    return Loop(
        steps=Steps(model, loss, training, seed=seed, runtime=runtime),
        source=source,
        training=training,
        limits=Limits(training.steps, budget_s),
        phase=PHASE,
        key=key_of(
            {"task": task.to_dict(), "seed": seed, "statistics": questioner.encoding.statistics.to_dict()},
            {"row": seeds.row, "cutoff": seeds.cutoff_time_us},
        ),
        runtime=runtime,
        choice=Choice(Validator("held-out loss", False, held_loss), training.patience, []),
        report=report,
    ).run()


def _on(asked: Asked, device: str) -> Asked:
    return Asked(asked.batch.to(device), asked.low.to(device), asked.high.to(device))


def _held(view: GraphView, questioner: Questioner, seed: int) -> list[Asked]:
    """Return some of the seeds that are not learned from, asked the same each time."""
    sampler = Sampler(view, questioner.task.sampling_plan, seed=seed)
    random = np.random.default_rng(seed)
    late = np.arange(questioner.seeds.learned, len(questioner.seeds))
    chosen = np.sort(random.permutation(late)[:HELD_ASKED])
    return [
        questioner.asked(sampler, chosen[start : start + SEEDS], random, request=start)
        for start in range(0, len(chosen), SEEDS)
    ]


def _some(view: GraphView, questioner: Questioner, seed: int) -> Answers:
    """Return the answers of some of the seeds that are learned from."""
    sampler = Sampler(view, questioner.task.sampling_plan, seed=seed)
    random = np.random.default_rng(seed)
    chosen = random.permutation(questioner.seeds.learned)[:STATISTICS_SEEDS]
    parts = [
        questioner.answered(sampler, chosen[start : start + SEEDS], random, request=start)[1]
        for start in range(0, len(chosen), SEEDS)
    ]
    return Answers(np.concatenate([p.low for p in parts]), np.concatenate([p.high for p in parts]))


def _prior(view: GraphView, questioner: Questioner, seed: int) -> NDArray[np.float32]:
    return shares_of(questioner.questions, _some(view, questioner, seed))


@torch.inference_mode()
def _learned(
    view: GraphView, questioner: Questioner, model: nn.Module, seed: int, device: str
) -> tuple[dict[str, Any], ...]:
    """Return a line per question asked: its mean loss on held-back seeds, beside that of its shares alone."""
    questions = questioner.questions
    prior = torch.from_numpy(_prior(view, questioner, seed)).to(device)
    sums, floor = np.zeros(len(questions)), np.zeros(len(questions))
    counts = np.zeros(len(questions), dtype=np.int64)
    for asked in _held(view, questioner, seed):
        here = _on(asked, device)
        found, times = losses_of(questions, model(here.batch), here.low, here.high)
        alone, _ = losses_of(questions, prior.expand(here.batch.size, -1), here.low, here.high)
        sums += found.cpu().numpy()
        floor += alone.cpu().numpy()
        counts += times.cpu().numpy()
    return tuple(
        {
            "question": question.name,
            "classes": question.classes,
            "asked": int(counts[at]),
            "loss": float(sums[at] / counts[at]),
            "loss of shares": float(floor[at] / counts[at]),
        }
        for at, question in enumerate(questions)
        if counts[at]
    )


def _statistics(view: GraphView, task: Task, seeds: Seeds, seed: int) -> Statistics:
    chosen = np.random.default_rng(seed).permutation(seeds.learned)[:STATISTICS_SEEDS]
    parts = (seeds.at(np.sort(chosen[start : start + SEEDS])) for start in range(0, len(chosen), SEEDS))
    return statistics_of(view, task, parts, seed=seed)


@contextmanager
def _strings(view: GraphView) -> Iterator[Any]:
    """Give a view's strings for several threads: of a view of its own, one call at a time."""
    twin, one_at_a_time = view.twin(), Lock()

    def strings(table: str, column: str, codes: NDArray[np.int32]) -> Sequence[str | None]:
        with one_at_a_time:
            return twin.strings(table, column, codes)

    try:
        yield strings
    finally:
        twin.close()
