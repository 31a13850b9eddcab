"""Results are readable tables, or JSON that any parser takes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from nowgraph.report import cell_text, emit, iso_text, row_bar, time_text, without_blank_columns
from temporal_graph.time_rule import ALWAYS_US


def test_json_has_no_nan_and_keeps_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    """NaN and infinity become null, also deep inside; numpy and paths are written as what they mean."""
    emit([], title="x", as_json=True, document={"a": math.nan, "b": [math.inf, {"c": 1.5}], "n": np.int64(3)})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, {"c": 1.5}], "n": 3}


def test_a_table_shows_every_cell_and_an_empty_one_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """The keys are the columns; without rows the title says that there are none."""
    emit([{"topic": "payments", "lag": 1234}], title="Lag", as_json=False)
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("Lag", "topic", "payments", "1,234"))
    emit([], title="Lag", as_json=False)
    assert "Lag: none" in capsys.readouterr().out


def test_columns_without_any_value_are_left_out() -> None:
    """A measure that no row has is not shown; one that any row has stays, with a dash in others; zero is a value."""
    rows = [{"on": "test", "MAE": "-", "AP": None, "n": 0}, {"on": "floor", "MAE": "2.5", "AP": math.nan, "n": 0}]
    assert without_blank_columns(rows) == [{"on": "test", "MAE": "-", "n": 0}, {"on": "floor", "MAE": "2.5", "n": 0}]
    assert without_blank_columns([]) == []


def test_cells_are_written_for_people() -> None:
    """A dash for nothing, words for truth, thousands apart, three digits that matter."""
    values = (None, math.nan, True, False, 1234567, 0.12345, 12345.6, "text")
    assert [cell_text(v) for v in values] == ["-", "-", "yes", "no", "1,234,567", "0.123", "12,346", "text"]


def test_times_are_written_for_people_and_exactly_for_machines() -> None:
    """UTC, whatever the machine's zone; before anything was seen there is none."""
    time_us = 1_700_000_000_123_456
    assert time_text(time_us) == "2023-11-14 22:13:20 UTC"
    assert iso_text(time_us) == "2023-11-14T22:13:20.123456+00:00"
    assert time_text(-1) == "1969-12-31 23:59:59 UTC"
    assert (time_text(ALWAYS_US), iso_text(ALWAYS_US)) == ("-", None)


def test_a_bar_of_rows_is_on_standard_error_or_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output stays the result's; quiet is quiet."""
    for quiet in (False, True):
        with row_bar("predicting", 7, quiet=quiet) as advance:
            advance(7)
        shown = capsys.readouterr()
        assert shown.out == ""
        assert ("predicting" in shown.err) is not quiet
