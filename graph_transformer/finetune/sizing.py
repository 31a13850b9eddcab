"""How large a model and how long its training: from the number of labelled examples, by what experiments found.

labels of the training split ─► Counts ─► ModelConfig, Training, and the reason for each number
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from graph_transformer.config import ModelConfig
from graph_transformer.finetune.examples import Examples
from graph_transformer.splits import Splits
from graph_transformer.target import Kind, Target
from graph_transformer.training import Training

Size = Literal["cpu", "gpu"]
DAY_US = 86_400_000_000

# (labels of the rarer side, value), straight lines between over their logarithm. The measured ends: 600 frauds among
# 67,000 payments want little and regularized much (a larger model overfits within 600 steps); 1,400 finished races of
# 11,400 want more width with the same dropout; 7,000 frauds bear width 64 with a third of the dropout.
DROPOUT = ((600, 0.3), (1_400, 0.3), (6_500, 0.1))
TOKEN_DROPOUT = ((700, 0.5), (1_400, 0.4), (6_500, 0.2))
WEIGHT_DECAY = ((700, 0.1), (6_500, 0.05))
RARE_STEPS = ((200, 300), (600, 600), (7_000, 1_800), (100_000, 4_000))
EPOCHS = ((1_000, 12.0), (11_000, 6.0), (100_000, 5.0), (1_000_000, 2.0))
NUMBER_EPOCHS = 1.5
"""Of a number, to those of a yes or no. Of three, places in races and spend are best with fewer (places after 240 steps
3.94, after 110 3.65), and pieces bought with more: an error of 124 after 340 steps, of 133 after 170."""
WIDTHS: dict[Size, tuple[tuple[int, int, int], ...]] = {
    # from this many labels of the rarer side on: width, layers
    "cpu": ((0, 32, 1), (1_000, 48, 2), (5_000, 64, 2)),
    "gpu": ((0, 32, 1), (1_000, 64, 2), (5_000, 96, 2), (50_000, 128, 3), (500_000, 256, 4)),
}
MEMBERS = ((0, 3), (1_000, 2), (20_000, 1))
"""(labels of the rarer side from here on, models that answer together): the fewer labels, the more models differ. Three
of one layer, or two of two layers, take about 2.5 ms for a score on one core."""
TALLIES_LEAST = 1_000
"""Labels of the rarer side from which on a kind of entities has tallies; of four data sets none lost by them."""
RARE_SHARE = 0.125
RARE_BATCH = 192
RARE = 0.06
"""Below this share batches of the data's own shares would hold too few of the rarer kind to learn from."""
BATCH_LEAST, BATCH_MOST = 64, 512
STEPS_LEAST, STEPS_MOST = 120, 6_000
LOOKS = 8
"""Validations a training has."""
LOOK_SHARE = 0.5
"""Examples of all looks to those of all steps: a sixth of the time, as answering costs a third of learning."""
LOOK_LEAST, LOOK_MOST = 2_000, 10_000
PATIENCE = 4
"""A training whose best look lies in its first half ends early."""
STALE_DAYS_LEAST = 30.0
STALE_SHARE = 0.5
"""Of the training questions, where answers will be asked of an old graph: .3 to .7 was best, with all paths and few."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Labelled examples of the training split, and how many are on the rarer side: not of the commonest kind.

    Of numbers and of several classes at once that is half of them, or the middle class.
    """

    examples: int
    rarer: int

    @classmethod
    def of(cls, target: Target, label: NDArray[np.float32]) -> Counts:
        """Count labels as `Examples` has them."""
        total = len(label)
        if target.kind in (Kind.BINARY, Kind.MULTICLASS):
            _, counts = np.unique(label, return_counts=True)
            return cls(total, total - int(counts.max(initial=0)))
        if target.kind is Kind.MULTILABEL:
            positives = label.sum(axis=0)
            return cls(total, int(np.median(np.minimum(positives, total - positives))))
        return cls(total, total // 2)


def apart(target: Target, examples: Examples) -> Examples:
    """Return the examples whose label windows do not overlap: of the times asked those a window apart, newest first.

    An entity asked every week what the next month brings gives four labels that say nearly the same: counted as four
    they gave models that knew the training households by heart after a tenth of their steps.
    """
    if target.event_level or not target.horizon_us:
        return examples
    kept: list[int] = []
    for time_us in np.unique(examples.time_us)[::-1].tolist():
        if not kept or time_us + target.horizon_us <= kept[-1]:
            kept.append(time_us)
    return examples.select(np.isin(examples.time_us, kept))


@dataclass(frozen=True, slots=True)
class Sized:
    """A model and its training, with reasons by key (`model.width`)."""

    model: ModelConfig
    training: Training
    reasons: dict[str, str]


def size_of(target: Target, counts: Counts, *, size: Size = "cpu", stale_days: float = 0.0) -> Sized:
    """Return the model and training that fit so many labels; `stale_days`: how old the graph of the answers will be."""
    rarer, is_rare = counts.rarer, is_rare_kind(target, counts)
    width, layers = next((w, n) for least, w, n in reversed(WIDTHS[size]) if rarer >= least)
    members = next(count for least, count in reversed(MEMBERS) if rarer >= least)
    model = ModelConfig(
        width=width,
        layers=layers,
        dropout=round(between(DROPOUT, rarer), 2),
        token_dropout=round(between(TOKEN_DROPOUT, rarer), 2),
        members=members,
        tallies=rarer >= TALLIES_LEAST and not target.event_level and not target.is_number,
    )
    if is_rare:
        batch, steps = RARE_BATCH, between(RARE_STEPS, rarer)
        seen = f"{steps * batch * RARE_SHARE / max(1, rarer):.0f} times each of the rarer kind"
    else:
        batch = 2 ** round(math.log2(max(BATCH_LEAST, min(BATCH_MOST, counts.examples / 20))))
        epochs = between(EPOCHS, counts.examples) * (NUMBER_EPOCHS if target.is_number else 1.0)
        seen = f"each label about {epochs:.0f} times, of overlapping windows one"
        steps = epochs * counts.examples / batch
    steps = _round(max(STEPS_LEAST, min(STEPS_MOST, steps)))
    training = Training(
        steps=steps,
        batch=batch,
        rare_share=RARE_SHARE,
        learning_rate=1e-3 if width > 96 else 2e-3,
        weight_decay=round(between(WEIGHT_DECAY, rarer), 2),
        ema=round(min(0.995, max(0.97, 1.0 - 3.0 / steps)), 3),
        evaluate_every=max(10, -(-steps // LOOKS)),
        patience=PATIENCE,
        validation_examples=_round(max(LOOK_LEAST, min(LOOK_MOST, LOOK_SHARE * steps * batch / LOOKS))),
        staleness_share=STALE_SHARE if stale_days else 0.0,
        staleness_days=round(stale_days),
        bfloat16=size == "gpu",
    )
    what = f", {rarer:,} of them not of the commonest kind" if target.kind in (Kind.BINARY, Kind.MULTICLASS) else ""
    reasons = {
        "model.width": f"for {counts.examples:,} labels, of overlapping windows one{what}",
        "model.dropout": "more where labels are few",
        "model.members": "models whose outputs are averaged; more where labels are few",
        "training.steps": seen,
        "training.evaluate_every": f"{LOOKS} looks at the validation split",
        "training.validation_examples": "most examples of a look: all looks take about a sixth of the fitting",
    }
    if model.tallies:
        reasons["model.tallies"] = (
            "how often and how lately, in growing windows: for kinds of entities, with labels enough"
        )
    if is_rare:
        share = rarer / max(1, counts.examples)
        reasons["training.rare_share"] = (
            f"{share:.2%} of the examples are of the rarer kind; answers are corrected for it"
        )
    if stale_days:
        reasons["training.staleness_days"] = "answers will be asked of a graph that ended so long before"
    return Sized(model, training, reasons)


def is_rare_kind(target: Target, counts: Counts) -> bool:
    """Return whether batches will hold more of a binary label's rarer kind than the examples do."""
    return target.kind is Kind.BINARY and counts.rarer < RARE * counts.examples


def stale_days(splits: Splits, newest_us: int) -> float:
    """Return by how many days the last question comes after the newest row it can see; 0 where that is no long time.

    `newest_us` is the newest event time of the graph's own tables.
    """
    if splits.test is None:
        return 0.0
    newest_us = min(newest_us, splits.frozen_us if splits.frozen_us is not None else newest_us)
    days = (splits.test.end_us - newest_us) / DAY_US
    spanned = (splits.test.start_us - splits.train.start_us) / DAY_US
    return days if days >= max(STALE_DAYS_LEAST, 0.02 * spanned) else 0.0


def between(points: Sequence[tuple[int, float]], examples: int) -> float:
    """Return the value at so many examples: straight lines over the logarithm, level beyond the ends."""
    at = [math.log(count) for count, _ in points]
    return float(np.interp(math.log(max(1, examples)), at, [value for _, value in points]))


def _round(number: float) -> int:
    """Return a number of two digits that matter."""
    unit = 10 ** max(1, len(str(int(number))) - 2)
    return int(max(1, round(number / unit)) * unit)
