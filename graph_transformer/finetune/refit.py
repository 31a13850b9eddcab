"""What a refit keeps back: some of the validation's rows, so that what calibrates has seen the model that answers.

refit rows ─► fitted ─► the model that answers ─┐
          └─► kept back: some rows of the task's table, at the validation's times ─► its calibration
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.examples import Examples
from graph_transformer.splits import Interval
from graph_transformer.target import Target

SHARE = 0.4
"""Of the validation's rows. The place of a median is each model's own: two refitted models had an MAE of 6.26 (spend of
a month) and 172 (pieces bought) with the calibration of the model before, of 6.19 and 164 with their own."""
LEAST = 200
"""Of rows: the place that fewer give a median is too much of chance, however often each was asked about."""
MOST = 0.25
"""Of the refit's examples: keeping back more would cost the model more than it does for the calibration."""


def kept_back(target: Target, examples: Examples, validation: Interval, *, seed: int) -> NDArray[np.bool_]:
    """Return which of a refit's examples are kept back for its calibration, bool[n]: of numbers some, of kinds none.

    All examples of a row at the validation's times are kept back, or none: windows that overlap would give labels away.
    None are where they would be too few, or too large a part of the examples. The calibration of kinds carries over, as
    it leaves the order of two as it is.
    """
    inside = (examples.time_us >= validation.start_us) & (examples.time_us < validation.end_us)
    rows = np.unique(examples.row[inside])
    drawn = np.random.default_rng(seed).permutation(rows)[: round(SHARE * len(rows))]
    kept = inside & np.isin(examples.row, drawn)
    if not target.is_number or len(drawn) < LEAST or kept.sum() > MOST * len(examples):
        return np.zeros(len(examples), dtype=bool)
    return kept
