"""The floor of the grocery example: LightGBM on features made by hand, a constant, the last value.

The same questions, labels and splits as examples/grocery/spend.yaml and churn.yaml; parameters are chosen on validation
and the model trained again on every label known when the test begins.

Usage: python loadtests/quality/grocery_floor.py HISTORY_FOLDER [--json out.json] [--draws 25] [--seeds 5]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from boosting import (
    EXAMPLES,
    Figures,
    Part,
    binary_figures,
    boosted,
    measured,
    number_figures,
    report,
    splits_of,
    within,
    write,
)
from grocery_features import features, load, questions

TASK = EXAMPLES / "grocery" / "spend.yaml"
"""Both tasks ask on the same days."""


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
        splits = splits_of(TASK)
        questions(database, splits["train"][0])
        asked = database.execute("select * from questions order by question").fetchnumpy()
        found, names, categorical = features(database)
    chosen = {name: within(asked["t"], interval) for name, interval in splits.items()}
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


if __name__ == "__main__":
    main()
