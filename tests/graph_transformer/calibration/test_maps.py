from __future__ import annotations

import json

import numpy as np
import pytest

from graph_transformer.calibration.maps import (
    NO_LINE,
    Affine,
    Calibration,
    Conformal,
    Isotonic,
    Scale,
    lined,
    moved,
    nested,
)
from graph_transformer.target import QUANTILES, Kind, Target

CALIBRATIONS = [
    Calibration(),
    Calibration(Affine((0.7,), (-0.1,)), -2.5, "platt"),
    Calibration(Affine((0.7, 1.2), (-0.1, 0.0)), (0.5, -0.5), "platt"),
    Calibration(Isotonic((-1.0, 0.5), (-3.0, 0.25), 0.8), -1.0, "isotonic"),
    Calibration(Conformal(2, tuple(np.linspace(-1, 1, 14).tolist())), method="conformal"),
    Calibration(Conformal(1, (-0.1,) * 7, Scale.LOG), method="conformal_log"),
    Calibration(Conformal(2, (0.1,) * 14, lines=(NO_LINE, ((1.0, 2.5), (0.0, 9.0)))), method="conformal"),
]


@pytest.mark.parametrize("calibration", CALIBRATIONS, ids=lambda found: f"{found.method}-{type(found.map).__name__}")
def test_calibrations_travel_as_plain_values(calibration: Calibration) -> None:
    """A calibration read back from JSON is the same, whatever its form."""
    assert Calibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("map", {"form": "spline"}),
        ("map", {"form": "affine", "slope": 1.0}),
        ("map", {"form": "conformal", "steps": 1}),
        ("map", {"form": "conformal", "steps": 1, "shift": [0.0] * 7, "scale": "cube"}),
        ("map", {"form": "conformal", "steps": 1, "shift": [0.0] * 7, "lines": [[[0.0], [1.0]]] * 2}),
        ("map", {"form": "conformal", "steps": 1, "shift": [0.0] * 7, "lines": [[[0.0, 1.0], [1.0]]]}),
        ("map", {"form": "conformal", "steps": 1, "shift": [0.0] * 7, "lines": [[[0.0, 1.0], [1.0, 1.0]]]}),
    ],
)
def test_values_of_something_else_are_refused(part: str, value: object) -> None:
    """An unknown form, or one with other numbers, is an error that a checkpoint's reader catches."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        Calibration.from_dict(Calibration().to_dict() | {part: value})


def test_the_prior_comes_before_the_map() -> None:
    """map(raw + prior), for one logit and for a prior per class."""
    one = Calibration(Affine((2.0,), (1.0,)), -3.0).apply(np.array([[4.0]]))
    assert one.tolist() == [[3.0]]
    several = Calibration(prior=(1.0, -1.0)).apply(np.zeros((2, 2)))
    assert several.tolist() == [[1.0, -1.0]] * 2


def test_isotonic_goes_through_its_knots_and_on_with_its_slope() -> None:
    """Between knots straight, beyond them with the slope, and nowhere equal for unequal logits."""
    line = Isotonic((-1.0, 1.0), (-4.0, 0.0), 0.5)
    assert line.apply(np.array([-1.0, 0.0, 1.0])).tolist() == [-4.0, -2.0, 0.0]
    assert line.apply(np.array([-3.0, 3.0])).tolist() == [-5.0, 1.0]
    raw = np.sort(np.random.default_rng(0).normal(0, 3, 1000))
    assert bool((np.diff(line.apply(raw)) > 0).all())


@pytest.mark.parametrize(
    ("raw", "logit", "slope"),
    [((0.0, 0.0), (0.0, 1.0), 1.0), ((0.0, 1.0), (1.0, 1.0), 1.0), ((0.0, 1.0), (0.0, 1.0), 0.0), ((), (), 1.0)],
)
def test_knots_that_do_not_rise_are_refused(raw: tuple[float, ...], logit: tuple[float, ...], slope: float) -> None:
    """A flat piece would make ties of a ranking."""
    with pytest.raises(ValueError, match="rise"):
        Isotonic(raw, logit, slope)


def test_quantiles_come_out_rising_around_the_median() -> None:
    """Crossed outputs are sorted; shifts that cross them again move the outer ones out and leave the median alone."""
    target = Target(Kind.FORECAST, "items", event_level=False, steps=2)
    raw = np.random.default_rng(0).normal(size=(20, 14))
    plain = Calibration.of(target).apply(raw)
    assert plain.reshape(20, 2, 7).tolist() == np.sort(raw.reshape(20, 2, 7)).tolist()
    shift = (0.0, 0.0, 5.0, 0.0, 0.0, 0.0, -9.0)
    shifted = Conformal(2, shift * 2).apply(raw).reshape(20, 2, 7)
    assert bool((np.diff(shifted) >= 0).all())
    assert shifted[..., 3].tolist() == plain.reshape(20, 2, 7)[..., 3].tolist()


def test_a_conformal_map_without_a_scale_is_on_the_numbers_own() -> None:
    """Checkpoints name no scale where there was none to choose; what they answer stays."""
    values = {"method": "conformal", "prior": 0.0, "map": {"form": "conformal", "steps": 1, "shift": [-1.0] * 7}}
    found = Calibration.from_dict(values)
    assert found.map == Conformal(1, (-1.0,) * 7, Scale.PLAIN)
    assert found.apply(np.zeros((1, 7))).tolist() == [[-1.0] * 7]


@pytest.mark.parametrize(
    ("scale", "wanted"),
    [
        (Scale.PLAIN, [-3.0, -0.5, 3.0]),
        (Scale.ABOVE_ZERO, [-2.0, 0.0, 3.0]),
        (Scale.LOG, [-2.0, 0.0, 5 * np.exp(-1.0) - 1]),
    ],
)
def test_what_a_shift_downwards_does(scale: Scale, wanted: list[float]) -> None:
    """One less; nothing above zero falls below it but on the plain scale; on the logarithmic a number over e."""
    assert moved(np.array([-2.0, 0.5, 4.0]), -1.0, scale) == pytest.approx(wanted)


def test_a_shift_upwards_moves_what_is_below_zero_too() -> None:
    """Whatever the scale, more is more: also across zero."""
    value = np.linspace(-3, 3, 31)
    for scale in Scale:
        assert bool((moved(value, 0.7, scale) > value).all())
        assert bool((np.diff(moved(value, 0.7, scale)) > 0).all())


def test_a_line_puts_medians_in_place_of_their_shift() -> None:
    """Through its knots, straight between and side by side beyond; a step without one keeps its shift."""
    line = ((1.0, 3.0), (0.0, 6.0))
    assert lined(np.array([0.0, 1.0, 2.0, 3.0, 5.0]), line, Scale.PLAIN).tolist() == [-1.0, 0.0, 3.0, 6.0, 8.0]
    assert lined(np.array([-1.0, 0.0, 2.0]), line, Scale.ABOVE_ZERO).tolist() == [-1.0, 0.0, 3.0]
    raw = np.tile(np.arange(-1.0, 6.0), (1, 2))
    out = Conformal(2, (1.0,) * 14, lines=(NO_LINE, line)).apply(raw).reshape(2, 7)
    assert out[0].tolist() == (np.arange(-1.0, 6.0) + 1.0).tolist()
    assert out[1].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_nesting_never_narrows_an_interval() -> None:
    """Every interval holds at least what it held before; quantiles that nest already stay."""
    crossed = np.random.default_rng(1).normal(size=(100, len(QUANTILES)))
    fixed = nested(crossed)
    assert bool((fixed[:, :3] <= crossed[:, :3]).all())
    assert bool((fixed[:, 4:] >= crossed[:, 4:]).all())
    assert nested(fixed).tolist() == fixed.tolist()


def test_as_many_shifts_as_outputs() -> None:
    """A conformal map of another length is refused where it is made."""
    with pytest.raises(ValueError, match="found 7"):
        Conformal(2, (0.0,) * 7)
