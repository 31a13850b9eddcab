"""The metrics of any target, from its calibrated outputs and its labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.metrics.base import Metrics
from graph_transformer.finetune.metrics.binary import card_precision, measure_binary
from graph_transformer.finetune.metrics.classes import measure_multiclass, measure_multilabel
from graph_transformer.finetune.metrics.number import measure_number
from graph_transformer.target import Kind, Target


def measure(
    target: Target,
    output: NDArray[np.float64],
    label: NDArray[np.floating],
    *,
    time_us: NDArray[np.int64] | None = None,
    entity: NDArray[np.int64] | None = None,
    precision_at: int = 100,
    label_std: float | None = None,
) -> Metrics:
    """Return the metrics of calibrated outputs float64[n, outputs] for labels as the target's examples hold them.

    With `time_us` and `entity` int64[n] a binary target has card precision too; with `label_std`, the standard
    deviation of the training labels, a number has its error relative to it.

    Raises:
        ValueError: there are no examples, or the target is a ranking, whose items are measured together.
    """
    if not len(label):
        raise ValueError("nothing is measured on no examples")
    if target.is_number:
        return measure_number(output, label.astype(np.float64), label_std=label_std)
    if target.kind is Kind.MULTICLASS:
        return measure_multiclass(output, label.astype(np.int64))
    if target.kind is Kind.MULTILABEL:
        return measure_multilabel(output, label > 0.5)
    if target.kind is not Kind.BINARY:
        raise ValueError(f"a {target.kind.value} target is not measured by example")
    logit, truth = output[:, 0], label > 0.5
    found = measure_binary(logit, truth)
    if time_us is None or entity is None:
        return found
    cards = card_precision(logit, truth, time_us, entity, at=precision_at)
    return replace(found, card_precision=cards, precision_at=precision_at)
