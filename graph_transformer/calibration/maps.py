"""Calibrations as frozen values: what they do to a model's outputs, and their plain form in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph_transformer.target import MEDIAN, QUANTILES, Target

SCALE_MIN = 1e-3
"""A smaller slope, or a negative one, would undo the ranking: the slice was too small or unlike the training."""

Floats = NDArray[np.float64]
Line = tuple[tuple[float, ...], tuple[float, ...]]
"""Knots, where values stand and where they are put; both rise."""
NO_LINE: Line = ((), ())


def between(value: Floats, line: Line, *, slope: float) -> Floats:
    """Return values on the straight pieces between the knots of a line, beyond its ends straight on with `slope`."""
    from_, to = line
    inside: Floats = np.interp(value, from_, to)
    beyond = np.minimum(value - from_[0], 0.0) + np.maximum(value - from_[-1], 0.0)
    return inside + slope * beyond


@dataclass(frozen=True, slots=True)
class Affine:
    """scale * raw + offset, one number for all outputs or one for each; the default leaves everything as it is.

    Temperature is a scale alone; Platt's method a scale and an offset.
    """

    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)

    def apply(self, raw: Floats) -> Floats:
        """Return float64 of raw's shape."""
        out: Floats = np.asarray(self.scale) * raw + np.asarray(self.offset)
        return out


@dataclass(frozen=True, slots=True)
class Isotonic:
    """A strictly rising line of straight pieces through the knots (raw, logit), beyond them straight on with `slope`.

    Strictly: equal answers to unequal questions would cost a ranking its order.
    """

    raw: tuple[float, ...]
    logit: tuple[float, ...]
    slope: float

    def __post_init__(self) -> None:
        rising = all(bool((np.diff(values) > 0).all()) for values in (self.raw, self.logit))
        if len(self.raw) != len(self.logit) or not self.raw or not rising or not self.slope > 0:
            raise ValueError("knots of an isotonic calibration rise, in both directions, and so does its slope")

    def apply(self, raw: Floats) -> Floats:
        """Return float64 of raw's shape."""
        return between(raw, (self.raw, self.logit), slope=self.slope)


class Scale(StrEnum):
    """What a shift is added to: the number; the number, but nothing falls below zero by it; its logarithm, likewise."""

    PLAIN = "plain"
    ABOVE_ZERO = "above_zero"
    LOG = "log"


def to_scale(value: Floats, scale: Scale) -> Floats:
    """Return numbers on a scale, of their shape; the logarithm is that of one more, with the number's sign."""
    if scale is not Scale.LOG:
        return value
    log: Floats = np.sign(value) * np.log1p(np.abs(value))
    return log


def moved(value: Floats, shift: Floats | float, scale: Scale) -> Floats:
    """Return numbers shifted on a scale, in their own unit again."""
    if scale is Scale.PLAIN:
        return value + shift
    placed = to_scale(value, scale)
    # What was below zero before stays where it was: a shift downwards ends at zero, or does nothing.
    out: Floats = np.maximum(placed + shift, np.minimum(placed, 0.0))
    return out if scale is Scale.ABOVE_ZERO else np.sign(out) * np.expm1(np.abs(out))


def lined(value: Floats, line: Line, scale: Scale) -> Floats:
    """Return numbers as a line puts them, beyond it side by side; off the plain scale none above zero falls below."""
    out = between(value, line, slope=1.0)
    return out if scale is Scale.PLAIN else np.maximum(out, np.minimum(value, 0.0))


@dataclass(frozen=True, slots=True)
class Conformal:
    """Sorted quantiles moved by `shift` on a scale (one number per output), made to nest around the median.

    `lines`, where there are any (one per step, or NO_LINE), put the medians in the place of their shifts. Where moved
    quantiles cross, the outer one moves outwards: an interval never loses what its own shift gave it.
    """

    steps: int
    shift: tuple[float, ...]
    scale: Scale = Scale.PLAIN
    lines: tuple[Line, ...] = ()

    def __post_init__(self) -> None:
        # A checkpoint gives a scale's name, and lists.
        object.__setattr__(self, "scale", Scale(self.scale))
        object.__setattr__(self, "lines", tuple((tuple(from_), tuple(to)) for from_, to in self.lines))
        if len(self.shift) != self.steps * len(QUANTILES):
            raise ValueError(f"expected {self.steps} * {len(QUANTILES)} shifts, found {len(self.shift)}")
        if len(self.lines) not in (0, self.steps):
            raise ValueError(f"expected a line for each of {self.steps} steps or none, found {len(self.lines)}")
        for line in self.lines:
            if len(line[0]) != len(line[1]) or any((np.diff(values) <= 0).any() for values in line):
                raise ValueError("knots of a median's line rise, in both directions")

    def apply(self, raw: Floats) -> Floats:
        """Return the quantiles float64[B, steps * QUANTILES], rising within each step."""
        quantiles = np.sort(raw.reshape(len(raw), self.steps, len(QUANTILES)), axis=-1)
        out = moved(quantiles, np.reshape(self.shift, (self.steps, len(QUANTILES))), self.scale)
        for step, line in enumerate(self.lines):
            if line == NO_LINE:
                continue
            out[:, step, MEDIAN] = lined(quantiles[:, step, MEDIAN], line, self.scale)
        return nested(out).reshape(raw.shape)


def nested(quantiles: Floats) -> Floats:
    """Return quantiles float64[..., QUANTILES] that rise, each moved away from the median where it must."""
    below = np.minimum.accumulate(quantiles[..., MEDIAN::-1], axis=-1)[..., ::-1]
    above = np.maximum.accumulate(quantiles[..., MEDIAN:], axis=-1)
    return np.concatenate([below[..., :-1], above], axis=-1)


Map = Affine | Isotonic | Conformal
_FORMS: dict[str, type[Affine | Isotonic | Conformal]] = {
    "affine": Affine,
    "isotonic": Isotonic,
    "conformal": Conformal,
}


@dataclass(frozen=True, slots=True)
class Calibration:
    """map(raw + prior). `prior` corrects logits for sampled negatives; `method` is the name of what validated best."""

    map: Map = Affine()
    prior: float | tuple[float, ...] = 0.0
    method: str = "none"

    @classmethod
    def of(cls, target: Target, *, prior: float | tuple[float, ...] = 0.0) -> Calibration:
        """Return the calibration of a model that no slice was held back for: the prior alone, or quantiles sorted."""
        if target.is_number:
            return cls(Conformal(target.steps, (0.0,) * target.outputs))
        return cls(prior=prior)

    def apply(self, raw: Floats) -> Floats:
        """Return the calibrated outputs float64[B, outputs]: logits, or quantiles in raw's unit."""
        return self.map.apply(raw + np.asarray(self.prior))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        form = next(name for name, kind in _FORMS.items() if isinstance(self.map, kind))
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.map).items()}
        prior = list(self.prior) if isinstance(self.prior, tuple) else self.prior
        return {"method": self.method, "prior": prior, "map": {"form": form, **values}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Build from `to_dict`'s values; raises KeyError, TypeError or ValueError for others."""
        parts: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values["map"].items()
        }
        form = _FORMS[parts.pop("form")]
        prior = values["prior"]
        return cls(form(**parts), tuple(prior) if isinstance(prior, list) else prior, values["method"])
