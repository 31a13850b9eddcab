from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from graph_transformer.calibration import probability_of
from graph_transformer.finetune.floors import boosting
from graph_transformer.finetune.floors.boosting import Part, boosted_output
from graph_transformer.finetune.floors.columns import SeedColumns
from graph_transformer.finetune.floors.constant import constant_output
from graph_transformer.finetune.metrics import measure
from graph_transformer.target import MEDIAN, Kind, Target

Floats = NDArray[np.float64]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosting, "ROUNDS_MAX", 60)


def target(kind: Kind, *, classes: int = 0, steps: int = 1) -> Target:
    """A target of a kind."""
    return Target(kind, "items", event_level=False, classes=tuple("abcdef"[:classes]), steps=steps)


def columns(count: int, seed: int) -> SeedColumns:
    """A number, a category of five codes beginning at 3, and nulls in both."""
    random = np.random.default_rng(seed)
    number, code = random.normal(size=count), random.integers(3, 8, count).astype(np.float64)
    number[::50], code[::70] = np.nan, np.nan
    return SeedColumns(np.stack([number, code], axis=1), ("number", "code"), (1,))


def signal(found: SeedColumns) -> Floats:
    """What columns say: the number, and two of the codes."""
    number, code = np.nan_to_num(found.matrix).T
    return number + 2.0 * np.isin(code, (4.0, 7.0))


def parts(kind: Kind, count: int = 3000, *, steps: int = 1) -> list[Part]:
    """Training, validation and fresh examples whose labels follow the columns."""
    made = []
    for seed in range(3):
        found, random = columns(count, seed), np.random.default_rng(100 + seed)
        noisy = signal(found) + random.normal(0, 0.3, count)
        if kind is Kind.BINARY:
            label = noisy > 1.0
        elif kind is Kind.MULTICLASS:
            label = np.digitize(noisy, (0.0, 2.0))
        elif kind is Kind.MULTILABEL:
            label = np.stack([noisy > 1.0, noisy < 0.0, np.zeros(count, dtype=bool)], axis=1)
        elif kind is Kind.FORECAST:
            label = np.stack([noisy, 10.0 * noisy], axis=1)
        else:
            label = noisy
        made.append(Part(found, label.astype(np.float32)))
    return made


@pytest.mark.parametrize(
    ("asked", "metric"),
    [
        (target(Kind.BINARY), "log_loss"),
        (target(Kind.MULTICLASS, classes=3), "log_loss"),
        (target(Kind.MULTILABEL, classes=3), "log_loss"),
        (target(Kind.REGRESSION), "mae"),
        (target(Kind.FORECAST, steps=2), "mae"),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Target) else "",
)
def test_what_columns_say_is_found(asked: Target, metric: str) -> None:
    """For every kind the answers to fresh examples are much better than the constant, the same each time."""
    train, validation, fresh = parts(asked.kind)
    output = boosted_output(asked, train, validation, None, fresh.columns)
    constant = np.tile(constant_output(asked, train.label), (len(fresh.label), 1))
    found, floor = (measure(asked, each, fresh.label).to_dict()[metric] for each in (output, constant))
    assert found < 0.6 * floor
    assert np.isfinite(output).all()
    assert output.tolist() == boosted_output(asked, train, validation, None, fresh.columns).tolist()


def test_intervals_hold_on_fresh_examples() -> None:
    """Numbers have intervals around the median that hold as often as they say."""
    train, validation, fresh = parts(Kind.REGRESSION)
    found = measure(target(Kind.REGRESSION), boosted_output(target(Kind.REGRESSION), train, validation, None,
                                                            fresh.columns), fresh.label).to_dict()  # fmt: skip
    assert found["coverage_80"] == pytest.approx(0.8, abs=0.04)
    assert found["coverage_90"] == pytest.approx(0.9, abs=0.04)


def test_later_rows_change_what_is_learned() -> None:
    """Grown again on rows in which the column says the opposite, the answers follow those."""
    asked = target(Kind.REGRESSION)
    train, validation, fresh = parts(Kind.REGRESSION)
    output = boosted_output(asked, train, validation, Part(train.columns, -train.label), fresh.columns)
    assert np.corrcoef(output[:, MEDIAN], signal(fresh.columns))[0, 1] < -0.8


def test_unknown_categories_count_as_null(monkeypatch: pytest.MonkeyPatch) -> None:
    """A code that training did not have, and one beyond the most frequent, are answered as a null is."""
    asked = target(Kind.BINARY)
    train, validation, _ = parts(Kind.BINARY)
    matrix = np.array([[0.5, np.nan], [0.5, 99.0], [0.5, 4.0]])
    output = boosted_output(asked, train, validation, None, SeedColumns(matrix, ("number", "code"), (1,)))
    assert output[0] == output[1] != output[2]
    monkeypatch.setattr(boosting, "CATEGORIES_MAX", 0)
    output = boosted_output(asked, train, validation, None, SeedColumns(matrix, ("number", "code"), (1,)))
    assert output[0] == output[1] == output[2]


def test_labels_that_do_not_differ_get_the_constant() -> None:
    """A label that training never had has no trees; validation of one kind alone leaves logits as they are."""
    asked = target(Kind.MULTILABEL, classes=3)
    train, validation, fresh = parts(Kind.MULTILABEL)
    output = boosted_output(asked, train, validation, None, fresh.columns)
    assert np.unique(probability_of(asked, output)[:, 2]).size == 1
    one, held_out, _ = parts(Kind.BINARY)
    alike = Part(held_out.columns, np.zeros_like(held_out.label))
    assert np.isfinite(boosted_output(target(Kind.BINARY), one, alike, None, fresh.columns)).all()


def test_trees_are_grown_on_a_bounded_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit examples are thinned evenly, columns and labels together."""
    monkeypatch.setattr(boosting, "EXAMPLES_MAX", 100)
    train = parts(Kind.REGRESSION)[0]
    thinned = train.thinned()
    assert len(thinned.label) == len(thinned.columns.matrix) == 100
    assert thinned.label[[0, -1]].tolist() == train.label[[0, -1]].tolist()
