from __future__ import annotations

import json
import math
from dataclasses import replace

from graph_transformer.finetune.metrics import NumberMetrics
from graph_transformer.finetune.metrics.base import shown

FOUND = NumberMetrics(3, 1.0, 2.0, math.nan, 0.5, 0.5, 0.8, 0.9, 1.0, 2.0, 3.0, mae_by_step=(0.5, math.inf))


def test_what_is_undefined_is_null_in_json() -> None:
    """NaN, which JSON does not have, is written as null, within tuples too; numbers stay."""
    values = FOUND.to_dict()
    assert values["r2"] is None
    assert values["mae_by_step"] == [0.5, None]
    assert values["mae"] == 1.0
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_people_see_a_dash_where_there_is_none() -> None:
    """Figures are texts of few digits, and a dash where a number is undefined or was not asked for."""
    assert (shown(1234.5678), shown(None), shown(math.nan), shown(0.00123, 5)) == ("1,234.568", "-", "-", "0.00123")
    assert FOUND.figures()["R²"] == FOUND.figures()["NMAE"] == "-"
    assert replace(FOUND, r2=0.25).figures()["R²"] == "0.250"
