"""All floors of a target: fitted on the model's own training examples, asked the model's own test examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.examples import Examples
from graph_transformer.finetune.floors.boosting import LIGHTGBM, Part, boosted_output
from graph_transformer.finetune.floors.columns import seed_columns
from graph_transformer.finetune.floors.constant import CONSTANT, constant_output
from graph_transformer.finetune.floors.last_value import LAST_VALUE, History, LastValue
from graph_transformer.finetune.metrics import Metrics, measure, primary
from graph_transformer.target import Kind, Target
from temporal_graph.time_rule import ALWAYS_US

if TYPE_CHECKING:
    from temporal_graph.view import GraphView

HELD_OUT_SHARE = 0.2
"""The latest part of the training examples that stands in for validation where a task has none."""

Floats = NDArray[np.float64]
Measured = Callable[[Floats, Examples], Metrics]
"""(outputs, examples) -> metrics: how the model itself is measured."""


@dataclass(frozen=True)
class Floor:
    """What a floor answers on the test examples, calibrated outputs float64[n, outputs], and how good that is."""

    output: Floats
    metrics: Metrics


def measure_floors(
    view: GraphView,
    target: Target,
    train: Examples,
    validation: Examples | None,
    test: Examples,
    *,
    refit: Examples | None = None,
    past: Examples | None = None,
    entity: str | None = None,
    frozen_us: int | None = None,
    measured: Measured | None = None,
) -> dict[str, Floor]:
    """Return the floors by name, on exactly the test examples.

    `refit` are the later rows a model is fitted on again, where it is. `past` are all labels with the time from which
    they are known (default: those of the splits). At event level the last value is that of rows with the same parent by
    the link `entity`, or by whichever link validates best; a table without links has no last value. `frozen_us` is the
    latest time the test examples may read the graph at. `measured` is how the model is measured, where that is more
    than `metrics.measure`. A ranking has no floors.
    """
    if target.kind is Kind.RANKING:
        return {}
    given = [part for part in (train, validation, refit, test) if part is not None]
    past = joined(given) if past is None else past
    asked_until_us = max(int(part.cutoff_time_us.max(initial=ALWAYS_US)) for part in given)
    past = past.select(past.visible_time_us <= asked_until_us)  # what no question may know need not be looked up
    if validation is None:
        refit = train if refit is None else refit
        train, validation = _halves(train)
    parts = _Parts(train, validation, train if refit is None else refit, test)
    outputs = {CONSTANT: np.tile(constant_output(target, parts.fitted.label), (len(test), 1))}
    links: list[str | None] = [entity]
    if target.event_level and entity is None:
        links = [link.name for link in view.schema.table(target.table).links]
    histories = (History.of(view, target, link, past) for link in links)
    last = _last_value(histories, parts, frozen_us=frozen_us)
    if last is not None:
        outputs[LAST_VALUE] = last
    grown = [Part(seed_columns(view, target, examples), examples.label) for examples in (train, validation)]
    again = None if refit is None else Part(seed_columns(view, target, refit), refit.label)
    asked = seed_columns(view, target, test, read_until_us=frozen_us)
    outputs[LIGHTGBM] = boosted_output(target, grown[0], grown[1], again, asked)
    if measured is None:
        spread = float(parts.fitted.label.std()) if target.is_number else None
        measured = lambda output, examples: measure(target, output, examples.label, label_std=spread)  # noqa: E731
    return {name: Floor(output, measured(output, test)) for name, output in outputs.items()}


def joined(parts: Sequence[Examples]) -> Examples:
    """Return the examples one after the other."""
    return Examples(
        np.concatenate([part.row for part in parts]),
        np.concatenate([part.time_us for part in parts]),
        np.concatenate([part.cutoff_time_us for part in parts]),
        np.concatenate([part.visible_time_us for part in parts]),
        np.concatenate([part.label for part in parts]),
    )


def _halves(train: Examples) -> tuple[Examples, Examples]:
    """Return the earlier and the later part, each of one example at least where there are two."""
    order = np.argsort(train.time_us, kind="stable")
    later = max(1, round(len(train) * HELD_OUT_SHARE))
    return train.select(order[:-later] if len(order) > later else order), train.select(order[-later:])


@dataclass(frozen=True)
class _Parts:
    """Examples of the splits; `fitted` are those that the finished model is of."""

    train: Examples
    validation: Examples
    fitted: Examples
    test: Examples


def _last_value(histories: Iterable[History], parts: _Parts, *, frozen_us: int | None) -> Floats | None:
    """Return the answers on test by the history that validates best; None where there is none."""
    best: tuple[float, History] | None = None
    for history in histories:
        judge = primary(history.target)
        floor = LastValue(history.target, parts.train, *history.last(parts.train))
        found = judge.compute(floor.answer(*history.last(parts.validation)), parts.validation.label, None)
        found = found if judge.higher_is_better else -found
        if best is None or found > best[0]:
            best = found, history
    if best is None:
        return None
    history = best[1]
    floor = LastValue(history.target, parts.fitted, *history.last(parts.fitted))
    return floor.answer(*history.last(parts.test, read_until_us=frozen_us))
