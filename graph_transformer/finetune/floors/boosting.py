"""Boosted trees on raw columns: early stopping on validation, then as many rounds again on later rows.

After Ke and others, "LightGBM: A Highly Efficient Gradient Boosting Decision Tree" (2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graph_transformer.calibration import fit_calibration
from graph_transformer.calibration.maps import nested
from graph_transformer.finetune.floors.columns import SeedColumns
from graph_transformer.finetune.floors.constant import constant_output
from graph_transformer.target import MEDIAN, QUANTILES, Kind, Target

if TYPE_CHECKING:
    import lightgbm

LIGHTGBM = "LightGBM, own columns"
ROUNDS_MAX = 500
PATIENCE = 50
EXAMPLES_MAX = 300_000
"""Examples that trees are grown on, evenly spaced: a few columns are learned from fewer."""
CATEGORIES_MAX = 1000
"""Categories of a column that are told apart, the most frequent of training; the others count as null."""
MODELS_MAX = 64
"""Labels or steps with trees of their own; those beyond keep the constant."""
PARAMETERS: dict[str, Any] = {
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 20,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}

Floats = NDArray[np.float64]
Label = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Part:
    """Columns of examples, and their labels."""

    columns: SeedColumns
    label: Label

    def thinned(self) -> Part:
        """Return at most EXAMPLES_MAX of them."""
        if len(self.label) <= EXAMPLES_MAX:
            return self
        chosen = np.linspace(0, len(self.label) - 1, EXAMPLES_MAX).astype(np.int64)
        columns = SeedColumns(self.columns.matrix[chosen], self.columns.names, self.columns.categorical)
        return Part(columns, self.label[chosen])


def boosted_output(target: Target, train: Part, validation: Part, refit: Part | None, asked: SeedColumns) -> Floats:
    """Return outputs float64[n, outputs] for the columns asked about, calibrated on validation as a model's are.

    Numbers: trees for the median, and around it the quantiles of its errors on validation.
    """
    train, validation = train.thinned(), validation.thinned()
    later = train if refit is None else refit.thinned()
    known = _frequent(later.columns)
    columns = [_told_apart(part, known) for part in (train.columns, validation.columns, later.columns, asked)]
    raw_validation = np.tile(constant_output(target, train.label), (len(validation.label), 1))
    raw_asked = np.tile(constant_output(target, later.label), (len(asked.matrix), 1))
    for place, name in _models(target):
        labels = [_label(part.label, name) for part in (train, validation, later)]
        if labels[0].min() == labels[0].max() or labels[2].min() == labels[2].max():
            continue
        objective = _objective(target)
        chosen = _fitted(objective, columns[0], labels[0], (columns[1], labels[1]), ROUNDS_MAX)
        final = chosen if refit is None else _fitted(objective, columns[2], labels[2], None, chosen.best_iteration)
        around = _around(target, chosen, columns[1], labels[1])
        raw_validation[:, place] = _raw(chosen, columns[1]) + around
        raw_asked[:, place] = _raw(final, columns[3]) + around
    if target.kind is Kind.BINARY and validation.label.min() == validation.label.max():
        return raw_asked  # one kind alone calibrates nothing; boosting's own log loss has to do
    return fit_calibration(target, raw_validation, validation.label).apply(raw_asked)


def _models(target: Target) -> list[tuple[slice, int | None]]:
    """Return for each model of trees the outputs it gives, and which column of the labels is its own."""
    if target.kind is Kind.MULTICLASS:
        return [(slice(0, target.outputs), None)]
    if target.kind is Kind.MULTILABEL:
        return [(slice(index, index + 1), index) for index in range(min(target.outputs, MODELS_MAX))]
    if target.kind is Kind.FORECAST:
        width = len(QUANTILES)
        return [(slice(step * width, (step + 1) * width), step) for step in range(min(target.steps, MODELS_MAX))]
    return [(slice(0, target.outputs), None)]


def _label(label: Label, column: int | None) -> Floats:
    truth = label.astype(np.float64)
    return truth if column is None or truth.ndim == 1 else truth[:, column]


def _objective(target: Target) -> dict[str, Any]:
    if target.is_number:
        return {"objective": "regression_l1"}
    if target.kind is Kind.MULTICLASS:
        return {"objective": "multiclass", "num_class": len(target.classes)}
    return {"objective": "binary"}


def _fitted(
    objective: dict[str, Any],
    columns: SeedColumns,
    label: Floats,
    validation: tuple[SeedColumns, Floats] | None,
    rounds: int,
) -> lightgbm.Booster:
    import lightgbm

    data = lightgbm.Dataset(columns.matrix, label, categorical_feature=list(columns.categorical))
    if validation is None:
        return lightgbm.train(PARAMETERS | objective, data, max(rounds, 1))
    held_out = lightgbm.Dataset(validation[0].matrix, validation[1], reference=data)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    return lightgbm.train(PARAMETERS | objective, data, rounds, valid_sets=[held_out], callbacks=[stop])


def _raw(model: lightgbm.Booster, columns: SeedColumns) -> Floats:
    """Return logits float64[n, classes], float64[n, 1] where there is one, or the median."""
    found = np.asarray(model.predict(columns.matrix, raw_score=True), dtype=np.float64)
    return found.reshape(len(columns.matrix), -1)


def _around(target: Target, model: lightgbm.Booster, columns: SeedColumns, label: Floats) -> Floats:
    """Return what is added to the median for each quantile, from the errors on examples; nothing of classes."""
    if not target.is_number:
        return np.zeros(1)
    around = np.quantile(label - _raw(model, columns)[:, 0], QUANTILES)
    around[MEDIAN] = 0.0
    return nested(around)


def _frequent(columns: SeedColumns) -> dict[int, Floats]:
    """Return the codes that are told apart, rising, by position of their column."""
    kept = {}
    for position in columns.categorical:
        values = columns.matrix[:, position]
        codes, counts = np.unique(values[np.isfinite(values)], return_counts=True)
        kept[position] = np.sort(codes[np.argsort(-counts, kind="stable")[:CATEGORIES_MAX]])
    return kept


def _told_apart(columns: SeedColumns, known: dict[int, Floats]) -> SeedColumns:
    """Return the columns with each category as its place among those known, and all others null."""
    matrix = columns.matrix.copy()
    for position, codes in known.items():
        values = matrix[:, position]
        place = np.clip(np.searchsorted(codes, values), 0, max(len(codes) - 1, 0))
        is_known = codes[place] == values if len(codes) else np.zeros(len(values), dtype=bool)
        matrix[:, position] = np.where(is_known, place, np.nan)
    return SeedColumns(matrix, columns.names, columns.categorical)
