"""What the model's outputs mean, by kind of target: the loss they are fitted with, and their unit.

raw float[B, outputs] ─► loss against labels (training)
                      └► decode ─► logits, or quantiles in the label's own unit ─► calibration
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from graph_transformer.target import MEDIAN, QUANTILES, Kind, Target

SKEW_LOG = 2.0
"""A label more skewed than this is learned on a signed log scale: its few largest would rule every gradient."""
BEND = 10.0
"""The log bends at a typical label other than zero over this, or at one where that is less. When it always bent at one,
payments of 30,000 lay far apart from zeros, and the intervals of a model came out twice too wide."""
SCALE_MIN = 1e-6

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Unit:
    """From labels to the numbers a model fits: (f(label) - center) / scale, f the identity or the signed log.

    The log is that of 1 + |label| / bend: far below `bend` a label counts as it is, far above by its ratio to others.
    Where no label of the training was below `least`, which is then zero, none that is decoded is.
    """

    signed_log: bool = False
    center: float = 0.0
    scale: float = 1.0
    bend: float = 1.0
    least: float | None = None

    def encode(self, label: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the numbers the model fits, of the labels' shape."""
        value = label.astype(np.float64)
        if self.signed_log:
            value = _signed_log(value, self.bend)
        return ((value - self.center) / self.scale).astype(np.float32)

    def decode(self, raw: Floats) -> Floats:
        """Return the model's numbers in the label's unit."""
        value = raw * self.scale + self.center
        if self.signed_log:
            value = np.sign(value) * np.expm1(np.abs(value)) * self.bend
        return value if self.least is None else np.maximum(value, self.least)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; a bend at one is left out, and no least, as in checkpoints that know neither."""
        return {name: value for name, value in asdict(self).items() if (name, value) not in _UNSAID}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Unit:
        """Build from `to_dict`'s values."""
        return cls(**values)


_UNSAID = (("bend", 1.0), ("least", None))


def fit_unit(target: Target, label: NDArray[np.float32], transform: str) -> Unit:
    """Return the unit of training labels; the identity for classes. `transform` as in `Training`."""
    if not target.is_number:
        return Unit()
    value = label.astype(np.float64).reshape(-1)
    spread = float(value.std())
    skew = float(np.mean((value - value.mean()) ** 3)) / max(spread, SCALE_MIN) ** 3
    least = None if (value < 0.0).any() else 0.0
    is_log = transform == "signed_log" or (transform == "auto" and abs(skew) > SKEW_LOG)
    bend = 1.0
    if is_log and value.any():
        bend = max(1.0, float(np.median(np.abs(value[value != 0.0]))) / BEND)
    if is_log:
        value = _signed_log(value, bend)
    return Unit(is_log, float(np.median(value)), max(float(value.std()), SCALE_MIN), bend, least)


def _signed_log(value: Floats, bend: float) -> Floats:
    out: Floats = np.sign(value) * np.log1p(np.abs(value) / bend)
    return out


def loss_of(target: Target, raw: Tensor, label: Tensor) -> Tensor:
    """Return the mean loss of raw outputs float[B, outputs] for labels as the unit encodes them.

    Binary and multilabel: cross entropy of logits; multiclass: softmax cross entropy; numbers: pinball loss at
    QUANTILES, the median's counted twice, so that the value is as good as a model of the value alone.
    """
    raw = raw.float()
    if target.kind is Kind.BINARY:
        return functional.binary_cross_entropy_with_logits(raw[:, 0], label)
    if target.kind is Kind.MULTILABEL:
        return functional.binary_cross_entropy_with_logits(raw, label)
    if target.kind is Kind.MULTICLASS:
        return functional.cross_entropy(raw, label.long())
    error = label.reshape(len(raw), -1, 1) - raw.view(len(raw), -1, len(QUANTILES))
    level = torch.tensor(QUANTILES, dtype=raw.dtype, device=raw.device)
    pinball = torch.maximum(level * error, (level - 1.0) * error)
    return pinball.mean() + pinball[..., MEDIAN].mean()


def start_of(target: Target, label: NDArray[np.float32], rare_share: float) -> Tensor:
    """Return float32[outputs]: what the outputs start at, so that no steps are spent on finding the prior.

    `label` as the unit encodes it; `rare_share` is the share of positives that batches of a binary target hold.
    """
    if target.kind is Kind.BINARY:
        return torch.logit(torch.tensor([rare_share]), eps=1e-6)
    if target.kind is Kind.MULTILABEL:
        return torch.logit(torch.from_numpy(label.mean(axis=0)), eps=1e-4)
    if target.kind is Kind.MULTICLASS:
        counts = np.bincount(label.astype(np.int64), minlength=len(target.classes)) + 1.0
        return torch.from_numpy(np.log(counts / counts.sum()).astype(np.float32))
    quantiles = np.quantile(label.reshape(len(label), -1), QUANTILES, axis=0)
    return torch.from_numpy(quantiles.T.reshape(-1).astype(np.float32))
