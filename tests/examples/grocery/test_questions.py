"""The example's tasks ask what their text says: each label is what SQL makes of the same files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from graph_transformer.finetune.question import question_of
from nowgraph.loading import load_files
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema
from temporal_graph.time_rule import time_us_from_datetime

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("NOWGRAPH_DATA" not in os.environ, reason="needs the real data"),
]
LABELS = {"spend": "coalesce(sum(sales_value) filter (next), 0)", "churn": "(count(*) filter (next) = 0)::int"}


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("grocery")
    script = repository / "examples" / "grocery" / "prepare.py"
    subprocess.run([sys.executable, str(script), str(output)], check=True, timeout=200, capture_output=True)
    return output


@pytest.mark.parametrize("name", list(LABELS))
def test_labels_are_of_the_next_thirty_days(repository: Path, folder: Path, tmp_path: Path, name: str) -> None:
    """Saturdays, the households that bought in the 90 days before; spend and absence in the 30 days after."""
    example = repository / "examples" / "grocery"
    question = question_of(load_schema(example / "schema.yaml"), task=example / f"{name}.yaml")
    with TemporalGraph.create(question.schema) as graph:
        # Labels rest on receipts alone.
        load_files(graph, [folder / "transactions.parquet"], quiet=True, dead_letters=tmp_path / "letters")
        view = graph.view()
        found = question.label_table(view)
        assert found is not None
        keys = view.keys("households", found[0].row)
        times, labels = found[0].anchor_time_us.tolist(), found[0].label.tolist()
    with duckdb.connect() as database:
        rows = database.execute(f"""
            with asked as (select unnest(range(timestamp '2017-03-04', timestamp '2017-12-03', interval 7 day)) as t),
            lines as (
              select household_id, t, sales_value,
                transaction_timestamp > t and transaction_timestamp <= t + interval 30 day as next,
                transaction_timestamp > t - interval 90 day and transaction_timestamp <= t as recent
              from asked cross join '{folder}/transactions.parquet')
            select household_id, t, {LABELS[name]} from lines group by household_id, t
            having count(*) filter (recent) > 0""").fetchall()
    theirs = {(key, time_us_from_datetime(t)): label for key, t, label in rows}
    mine = dict(zip(zip(keys, times, strict=True), labels, strict=True))
    assert mine.keys() == theirs.keys()
    assert [mine[key] for key in theirs] == pytest.approx(list(theirs.values()))


def test_the_next_products_are_those_of_one_minute(repository: Path, folder: Path, tmp_path: Path) -> None:
    """A question before each receipt of a household, answered by what it bought in the minute from then on."""
    example = repository / "examples" / "grocery"
    question = question_of(load_schema(example / "schema.yaml"), task=example / "next_products.yaml")
    with TemporalGraph.create(question.schema) as graph:
        load_files(graph, [folder / "transactions.parquet"], quiet=True, dead_letters=tmp_path / "letters")
        view = graph.view()
        found, _ = question.ranking(view)
        households, products = view.keys("households", found.user), view.keys("products", found.item)
    with duckdb.connect() as database:
        rows = database.execute(f"""
            with lines as (select household_id, product_id, epoch_us(transaction_timestamp) as t
              from '{folder}/transactions.parquet')
            select a.household_id, a.t, list_sort(list(distinct b.product_id))
            from (select distinct household_id, t from lines) a
            join lines b on a.household_id = b.household_id and b.t >= a.t and b.t < a.t + 60000000
            group by all""").fetchall()
    ends = found.item_offset.tolist()
    mine = {
        (household, time_us + 1): sorted(products[low:high])  # type: ignore[type-var]  # keys are strings
        for household, time_us, low, high in zip(households, found.time_us.tolist(), ends[:-1], ends[1:], strict=True)
    }
    assert mine == {(household, time_us): listed for household, time_us, listed in rows}
