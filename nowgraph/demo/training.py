"""The demo's two models: one that sees the neighborhood, and the same one on the payment's own columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from graph_transformer.finetune.train import own_columns, train
from graph_transformer.predictor import Predictor
from graph_transformer.task import Interval, Splits, Task
from nowgraph.client_values import Row, row_to_wire
from nowgraph.demo.settings import DemoSettings
from nowgraph.payments_data import PaymentColumns
from online_sampler.sampler import Sampler
from temporal_graph.graph import TemporalGraph

OnStep = Callable[[int, int, float], None]
"""Takes the steps done, the steps there are, and the last loss."""

_SCORED_TOGETHER = 512


def demo_task(task: Task, settings: DemoSettings, *, steps: int) -> Task:
    """The task on the demo's dates: it trains on labels known when the live stretch begins, and holds nothing back."""
    return replace(
        task,
        # Months of history need less against overfitting than the week that the example's task trains on, and one model
        # scores in a third of three's time.
        model=replace(task.model, dropout=0.1, token_dropout=0.2, members=1),
        splits=Splits(train=Interval(settings.train_us, settings.live_us), known_by_us=settings.live_us),
        training=replace(task.training, steps=steps),
    )


def train_both(graph: TemporalGraph, task: Task, settings: DemoSettings, on_step: OnStep) -> tuple[Path, Path]:
    """Trains both models and returns their checkpoints: with the graph, and alone."""
    # The feed samples on another thread: a second one for torch would only make the two wait for each other.
    torch.set_num_threads(1)
    folders = settings.output / "model", settings.output / "model-alone"
    with_graph = demo_task(task, settings, steps=settings.steps)
    alone = own_columns(demo_task(task, settings, steps=settings.alone_steps))
    total = settings.steps + settings.alone_steps
    budgets = settings.train_budget_s, settings.alone_budget_s
    done = 0
    for chosen, folder, budget_s in zip((with_graph, alone), folders, budgets, strict=True):
        before = done
        train(
            graph,
            graph.schema,
            chosen,
            folder,
            budget_s=budget_s,
            progress=lambda at, before=before: on_step(before + at.step, total, at.loss),  # type: ignore[misc]
        )
        done += chosen.training.steps
    return folders


def payment_row(payments: PaymentColumns, index: int) -> Row:
    """A payment as a client asks about it: key, time and cells, no label."""
    return Row(
        table="transactions",
        key=int(payments.transaction_id[index]),
        cells={
            "customer_id": int(payments.customer_id[index]),
            "terminal_id": int(payments.terminal_id[index]),
            "tx_amount": float(payments.tx_amount[index]),
        },
        event_time=int(payments.event_time_us[index]),
    )


def scores_alone(graph: TemporalGraph, folder: Path, payments: PaymentColumns) -> npt.NDArray[np.float64]:
    """The probabilities float64[payments] of the model that sees nothing but the payment."""
    view = graph.view()
    predictor = Predictor.load(folder, view)
    sampler = Sampler(view, predictor.plan)
    scores = np.empty(len(payments))
    for first in range(0, len(payments), _SCORED_TOGETHER):
        part = range(first, min(first + _SCORED_TOGETHER, len(payments)))
        events = [row_to_wire(payment_row(payments, index)).row.SerializeToString() for index in part]
        neighborhood = sampler.sample_events(events, payments.event_time_us[part.start : part.stop] - 1)
        scores[part.start : part.stop] = predictor.predict(neighborhood).probability
    return scores
