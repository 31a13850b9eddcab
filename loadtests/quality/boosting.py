"""A LightGBM tuned as one would: parameters drawn and chosen on validation, then trained again on all that is known.

Part (train) ─► draws of parameters, early stopping on Part (validation) ─► the best ─► refit, several seeds ─► figures
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import yaml
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

Array = npt.NDArray[np.float64]
Figures = dict[str, dict[str, dict[str, float]]]
"""Who -> which figure -> mean, sd, ensemble."""

EXAMPLES = Path(__file__).parents[2] / "examples"
ROUNDS_MAX = 2000
PATIENCE = 60
OBJECTIVES = {"binary": "binary_logloss", "l1": "l1", "l2": "l2", "tweedie": "l2"}
"""Objective -> what early stopping watches; a Tweedie model is judged by the squares its mean is meant for."""


@dataclass(frozen=True)
class Part:
    """Questions of one split: features float64 [N, F] with NaN where unknown, labels float64 [N]."""

    features: Array
    label: Array


@dataclass(frozen=True)
class Tuned:
    """The draw that was best on validation, its rounds and its loss there."""

    parameters: dict[str, Any]
    rounds: int
    loss: float


def splits_of(task: Path) -> dict[str, tuple[date, date]]:
    """The splits a task file names."""
    splits = yaml.safe_load(task.read_text(encoding="utf-8"))["splits"]
    return {name: (interval["start"], interval["end"]) for name, interval in splits.items()}


def anchors(newest_event: str, window_days: int, first: date) -> str:
    """The SQL of weekly times of asking, as nowgraph chooses them: back from the last whose window has ended."""
    newest = f"date_trunc('day', ({newest_event}) - to_days({window_days}))"
    return f"select unnest(range({newest}, timestamp '{first}' - interval 1 microsecond, interval (-7) day)) as t"


def within(times: npt.NDArray[np.datetime64], interval: tuple[date, date]) -> npt.NDArray[np.bool_]:
    """Which times lie in the interval, its end left out."""
    start, end = (np.datetime64(time) for time in interval)
    return (times >= start) & (times < end)


def drawn(random: np.random.Generator, objective: str) -> dict[str, Any]:
    """One draw of parameters."""
    parameters = {
        "objective": objective,
        "learning_rate": float(random.choice([0.015, 0.03, 0.05])),
        "num_leaves": int(random.choice([4, 7, 15, 31, 63])),
        "min_data_in_leaf": int(random.choice([20, 50, 100, 200, 400])),
        "feature_fraction": float(random.choice([0.2, 0.4, 0.6, 0.9])),
        "bagging_fraction": float(random.choice([0.5, 0.7, 0.9])),
        "bagging_freq": 1,
        "lambda_l2": float(random.choice([0.0, 1.0, 10.0, 50.0])),
        "max_cat_threshold": 16,
        "cat_smooth": float(random.choice([10.0, 50.0])),
    }
    if objective == "tweedie":
        parameters["tweedie_variance_power"] = float(random.choice([1.1, 1.3, 1.5]))
    return parameters


def tune(
    objective: str, train: Part, validation: Part, categorical: Sequence[int], *, draws: int, seed: int = 0
) -> Tuned:
    """Draw parameters, keep those with the lowest loss on validation."""
    random = np.random.default_rng(seed)
    best: Tuned | None = None
    for _ in range(draws):
        parameters = drawn(random, objective)
        fixed = {"verbosity": -1, "num_threads": 1, "seed": seed, "metric": OBJECTIVES[objective]}
        data = lightgbm.Dataset(train.features, train.label, categorical_feature=list(categorical))
        held_out = lightgbm.Dataset(validation.features, validation.label, reference=data)
        stop = lightgbm.early_stopping(PATIENCE, verbose=False)
        model = lightgbm.train(parameters | fixed, data, ROUNDS_MAX, valid_sets=[held_out], callbacks=[stop])
        loss = float(model.best_score["valid_0"][OBJECTIVES[objective]])
        if best is None or loss < best.loss:
            best = Tuned(parameters, model.best_iteration, loss)
    assert best is not None
    return best


def answers(tuned: Tuned, train: Part, features: Array, categorical: Sequence[int], seed: int) -> Array:
    """Train with the chosen parameters and rounds, and answer."""
    fixed = {"verbosity": -1, "num_threads": 1, "seed": seed, "bagging_seed": seed, "feature_fraction_seed": seed}
    data = lightgbm.Dataset(train.features, train.label, categorical_feature=list(categorical))
    model = lightgbm.train(tuned.parameters | fixed, data, tuned.rounds)
    return np.asarray(model.predict(features), np.float64)


def binary_figures(label: Array, score: Array) -> dict[str, float]:
    """AUROC, AP and, where the scores are probabilities, the log loss and Brier score."""
    figures = {"auroc": float(roc_auc_score(label, score)), "ap": float(average_precision_score(label, score))}
    if score.min() >= 0 and score.max() <= 1:
        clipped = score.clip(1e-6, 1 - 1e-6)
        figures |= {"log_loss": float(log_loss(label, clipped)), "brier": float(np.mean((score - label) ** 2))}
    return figures


def number_figures(label: Array, value: Array) -> dict[str, float]:
    """MAE, RMSE and R2."""
    error = value - label
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r2": float(1 - (error**2).sum() / ((label - label.mean()) ** 2).sum()),
    }


def measured(
    figures: Callable[[Array, Array], dict[str, float]], label: Array, runs: Sequence[Array]
) -> dict[str, dict[str, float]]:
    """The mean and standard deviation of each figure over the runs, and that of the runs' mean answer."""
    each = [figures(label, run) for run in runs]
    together = figures(label, np.mean(runs, axis=0))
    return {
        name: {
            "mean": float(np.mean([one[name] for one in each])),
            "sd": float(np.std([one[name] for one in each], ddof=1)) if len(each) > 1 else 0.0,
            "ensemble": together[name],
        }
        for name in each[0]
    }


def boosted(
    objective: str,
    parts: Mapping[str, Part],
    categorical: Sequence[int],
    *,
    draws: int,
    seeds: int,
) -> tuple[Tuned, list[Array]]:
    """Tune on "train" and "validation", train again on "refit", answer "test": one array per seed."""
    started = time.perf_counter()
    tuned = tune(objective, parts["train"], parts["validation"], categorical, draws=draws)
    runs = [answers(tuned, parts["refit"], parts["test"].features, categorical, seed) for seed in range(seeds)]
    print(f"  {objective}: {tuned.rounds} rounds, {tuned.parameters}, {time.perf_counter() - started:.0f} s")
    return tuned, runs


def report(title: str, rows: Figures) -> None:
    """Print a table: who, and each figure as mean, spread and that of the mean answer."""
    print(f"\n{title}")
    for who, figures in rows.items():
        cells = (f"{name} {f['mean']:.4f} ± {f['sd']:.4f} ({f['ensemble']:.4f})" for name, f in figures.items())
        print(f"  {who:28} " + "  ".join(cells))


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write the figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"\n{path}")
