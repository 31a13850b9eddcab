"""The floor of the grocery example: LightGBM on features made by hand, a constant, the last value.

The same questions, labels and splits as examples/grocery/spend.yaml and churn.yaml; parameters are chosen on validation
and the model trained again on every label known when the test begins.

Usage: python loadtests/quality/grocery_floor.py HISTORY_FOLDER [--json out.json] [--draws 25] [--seeds 5]
"""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
from boosting import Part, binary_figures, boosted, measured, number_figures, report, write
from grocery_features import features, load, questions

ANCHORS = "select unnest(generate_series(timestamp '2017-03-01', timestamp '2017-11-29', interval 7 day))"
SPLITS = {
    "train": ("2017-03-01", "2017-07-31"),
    "validation": ("2017-08-30", "2017-10-02"),
    "refit": ("2017-03-01", "2017-10-02"),
    "test": ("2017-11-01", "2017-12-01"),
}

Figures = dict[str, dict[str, dict[str, float]]]


def main() -> None:
    """Measures and prints the floors of both tasks."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("history", type=Path, help="what examples/grocery/prepare.py wrote")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--draws", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    with duckdb.connect(config={"threads": 1}) as database:
        load(database, arguments.history)
        questions(database, ANCHORS)
        asked = database.execute("select * from questions order by question").fetchnumpy()
        found, names, categorical = features(database)
    chosen = {name: within(asked["t"], *interval) for name, interval in SPLITS.items()}
    test = chosen["test"]
    print(f"{len(names)} features; " + ", ".join(f"{name} {int(rows.sum()):,}" for name, rows in chosen.items()))
    budget = {"draws": arguments.draws, "seeds": arguments.seeds}
    content: dict[str, Any] = {"features": names, "questions": {k: int(v.sum()) for k, v in chosen.items()}}

    spend = asked["spend"].astype(np.float64)
    parts = {name: Part(found[rows], spend[rows]) for name, rows in chosen.items()}
    rows: Figures = {
        "constant (median)": measured(
            number_figures, spend[test], [np.full(test.sum(), np.median(parts["refit"].label))]
        ),
        "constant (mean)": measured(number_figures, spend[test], [np.full(test.sum(), parts["refit"].label.mean())]),
        "last value": measured(number_figures, spend[test], [found[test, names.index("spend_30")]]),
        "mean of 90 days": measured(number_figures, spend[test], [found[test, names.index("spend_90")] / 3]),
    }
    for objective in ("l1", "l2", "tweedie"):
        tuned, runs = boosted(objective, parts, categorical, **budget)
        rows[f"LightGBM {objective}"] = measured(number_figures, spend[test], runs)
        content[f"spend {objective}"] = tuned.parameters | {"rounds": tuned.rounds, "validation": tuned.loss}
    report("spend in the next 30 days", rows)
    content["spend"] = rows

    churn = asked["churn"].astype(np.float64)
    parts = {name: Part(found[rows], churn[rows]) for name, rows in chosen.items()}
    rate = float(parts["refit"].label.mean())
    rows = {
        "constant": measured(binary_figures, churn[test], [np.full(test.sum(), rate)]),
        "last value": measured(
            binary_figures, churn[test], [(found[test, names.index("lines_30")] == 0).astype(float)]
        ),
        "days since the last receipt": measured(binary_figures, churn[test], [found[test, names.index("recency")]]),
    }
    tuned, runs = boosted("binary", parts, categorical, **budget)
    rows["LightGBM"] = measured(binary_figures, churn[test], runs)
    content["churn binary"] = tuned.parameters | {"rounds": tuned.rounds, "validation": tuned.loss}
    report("no receipt in the next 30 days", rows)
    content["churn"] = rows
    if arguments.json is not None:
        write(arguments.json, content)


def within(times: npt.NDArray[np.datetime64], start: str, end: str) -> npt.NDArray[np.bool_]:
    """Which questions lie in the interval, the end left out."""
    return (times >= np.datetime64(datetime.fromisoformat(start))) & (
        times < np.datetime64(datetime.fromisoformat(end))
    )


if __name__ == "__main__":
    main()
