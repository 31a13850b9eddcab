from __future__ import annotations

import pytest

from graph_transformer.errors import TaskError
from graph_transformer.training import Training


def test_options_travel_as_plain_values() -> None:
    """What was written down reads back equal, and what is left out has its default."""
    training = Training(steps=5, batch=64, rare_share=0.25, patience=3, transform="identity", bfloat16=True)
    assert Training.from_dict(training.to_dict()) == training
    assert Training.from_dict({"steps": 5}) == Training(steps=5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("steps", 2.5),
        ("batch", 0),
        ("batch", True),
        ("evaluate_every", 0),
        ("validation_examples", -1),
        ("patience", -1),
        ("warm_up", 1.5),
        ("ema", -0.1),
        ("rare_share", 0.6),
        ("staleness_share", 2.0),
        ("staleness_days", -1.0),
        ("learning_rate", 0.0),
        ("clip_norm", 0.0),
        ("weight_decay", -0.1),
        ("transform", "square"),
        ("epochs", 5),
    ],
)
def test_what_can_not_be_followed_is_refused_by_its_name(name: str, value: object) -> None:
    """Every option out of its range, and every name that is none, is an error that says which."""
    with pytest.raises(TaskError) as refused:
        Training.from_dict({name: value})
    assert refused.value.path == f"training.{name}"


def test_words_where_numbers_belong_are_refused() -> None:
    """A text for a number is an error of the file, not of the program."""
    with pytest.raises(TaskError):
        Training.from_dict({"learning_rate": "fast"})


def test_limits_themselves_are_allowed() -> None:
    """The ends of each range are in it."""
    Training(warm_up=0.0, ema=1.0, rare_share=0.5, staleness_share=1.0, weight_decay=0.0, patience=0, steps=1)
