"""Calibrations as frozen values: what they do to a model's outputs, and their plain form in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph_transformer.target import MEDIAN, QUANTILES, Target

SCALE_MIN = 1e-3
"""A smaller slope, or a negative one, would undo the ranking: the slice was too small or unlike the training."""

Floats = NDArray[np.float64]


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
        inside: Floats = np.interp(raw, self.raw, self.logit)
        beyond = np.minimum(raw - self.raw[0], 0.0) + np.maximum(raw - self.raw[-1], 0.0)
        return inside + self.slope * beyond


@dataclass(frozen=True, slots=True)
class Conformal:
    """Sorted quantiles plus `shift` (one number per output), made to nest around the median.

    Where shifted quantiles cross, the outer one moves outwards: an interval never loses what its own shift gave it.
    """

    steps: int
    shift: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.shift) != self.steps * len(QUANTILES):
            raise ValueError(f"expected {self.steps} * {len(QUANTILES)} shifts, found {len(self.shift)}")

    def apply(self, raw: Floats) -> Floats:
        """Return the quantiles float64[B, steps * QUANTILES], rising within each step."""
        quantiles = np.sort(raw.reshape(len(raw), self.steps, len(QUANTILES)), axis=-1)
        return nested(quantiles + np.reshape(self.shift, (self.steps, len(QUANTILES)))).reshape(raw.shape)


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
