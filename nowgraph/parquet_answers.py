"""Predictions as columns beside the rows that were asked about, in the shapes of the wire.

Prediction, AskedRow, History [N] ─► probability | classes | value, quantiles | steps, cutoff_time, history_count, ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph_transformer.target import QUANTILES, Kind, Target
from model_server.answer import History
from model_server.request import AskedRow

if TYPE_CHECKING:
    from graph_transformer.predictor import Prediction

_QUANTILES = pa.list_(pa.struct({"level": pa.float64(), "value": pa.float64()}))
_CLASSES = pa.list_(pa.struct({"name": pa.string(), "probability": pa.float64(), "logit": pa.float64()}))
_STEPS = pa.list_(pa.struct({"value": pa.float64(), "quantiles": _QUANTILES}))
_ABOUT = [
    pa.field("cutoff_time", pa.timestamp("us", tz="UTC")),
    pa.field("history_count", pa.int32()),
    pa.field("model_version", pa.string()),
]


def answer_fields(target: Target) -> list[pa.Field]:
    """Returns the columns that answers of a target have.

    `class` is the most likely one. `classes`, `quantiles` and `steps` are lists of the wire's messages, in its order.
    """
    fields = {
        Kind.BINARY: [pa.field("probability", pa.float64()), pa.field("logit", pa.float64())],
        Kind.MULTICLASS: [pa.field("class", pa.string()), pa.field("classes", _CLASSES)],
        Kind.MULTILABEL: [pa.field("classes", _CLASSES)],
        Kind.REGRESSION: [pa.field("value", pa.float64()), pa.field("quantiles", _QUANTILES)],
        Kind.FORECAST: [pa.field("steps", _STEPS)],
    }
    return fields[target.kind] + _ABOUT


def answer_columns(
    target: Target, prediction: Prediction, asked: Sequence[AskedRow], history: Sequence[History], version: str
) -> list[pa.Array]:
    """Returns the columns of N answers, in the order of `answer_fields`."""
    cutoff_time_us = np.array([one.cutoff_time_us for one in asked], np.int64)
    return [
        *_answers(target, prediction),
        pa.array(cutoff_time_us).cast(pa.timestamp("us", tz="UTC")),
        pa.array([one.history_count for one in history], pa.int32()),
        pa.repeat(version, len(asked)),
    ]


def _answers(target: Target, prediction: Prediction) -> list[pa.Array]:
    output, probability, value = prediction.output, prediction.probability, prediction.value
    if value is not None:
        quantiles = output.reshape(-1, len(QUANTILES))
        if target.kind is Kind.REGRESSION:
            return [pa.array(value), _quantiles(quantiles)]
        steps = pa.StructArray.from_arrays([pa.array(value.ravel()), _quantiles(quantiles)], ["value", "quantiles"])
        return [_lists(steps, len(output), target.steps)]
    assert probability is not None
    if target.kind is Kind.BINARY:
        return [pa.array(probability), pa.array(output[:, 0])]
    names = pa.array(list(target.classes) * len(output), pa.string())
    values = [names, pa.array(probability.ravel()), pa.array(output.ravel())]
    classes = _lists(
        pa.StructArray.from_arrays(values, ["name", "probability", "logit"]), len(output), len(target.classes)
    )
    if target.kind is Kind.MULTILABEL:
        return [classes]
    best = probability.argmax(axis=1) if len(probability) else np.empty(0, np.int64)
    return [pa.array([target.classes[index] for index in best.tolist()], pa.string()), classes]


def _quantiles(values: NDArray[np.float64]) -> pa.Array:
    """float64 [N, levels] to N lists."""
    levels = np.tile(np.array(QUANTILES), len(values))
    structs = pa.StructArray.from_arrays([pa.array(levels), pa.array(values.ravel())], ["level", "value"])
    return _lists(structs, len(values), len(QUANTILES))


def _lists(values: pa.Array, rows: int, length: int) -> pa.Array:
    return pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * length, values)
