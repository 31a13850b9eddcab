"""The example's tasks ask what their text says: each list is what SQL makes of the same files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest

from graph_transformer.finetune.question import question_of
from graph_transformer.finetune.ranking.histories import Interactions
from nowgraph.loading import load_files
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("NOWGRAPH_DATA" not in os.environ, reason="needs the real data"),
]
DAY_US = 86_400_000_000


def _prepared(repository: Path, script: str, output: Path) -> Path:
    path = repository / "examples" / "recommendation" / script
    subprocess.run([sys.executable, str(path), str(output)], check=True, timeout=200, capture_output=True)
    return output


def test_a_basket_is_what_a_customer_bought_in_one_minute(repository: Path, tmp_path: Path) -> None:
    """Every basket of a known customer is one question, of the distinct products of its minute."""
    example, folder = repository / "examples" / "recommendation", _prepared(repository, "prepare.py", tmp_path / "out")
    question = question_of(load_schema(example / "schema.yaml"), task=example / "next_basket.yaml")
    with TemporalGraph.create(question.schema) as graph:
        load_files(graph, sorted(folder.glob("*.parquet")), quiet=True, dead_letters=tmp_path / "letters")
        view = graph.view()
        found, splits = question.ranking(view)
        customers, products = view.keys("customers", found.user), view.keys("products", found.item)
    mine = {
        (customer, time_us + 1): sorted(products[low:high])  # type: ignore[type-var]  # keys are strings
        for customer, time_us, low, high in zip(
            customers, found.time_us.tolist(), found.item_offset[:-1], found.item_offset[1:], strict=True
        )
    }
    with duckdb.connect() as database:
        rows = database.execute(f"""
            select customer_id, epoch_us(invoiced_at), list_sort(list(distinct product_id))
            from '{folder}/lines.parquet' where customer_id is not null group by all""").fetchall()
    assert mine == {(customer, time_us): products for customer, time_us, products in rows}
    assert splits.test is not None
    assert len(found.interval(splits.test)) > 2_900


@pytest.mark.parametrize("protocol", ["live", "strict"])
def test_the_last_toy_is_asked_of_what_the_protocol_shows(repository: Path, tmp_path: Path, protocol: str) -> None:
    """Live: all but everybody's last; strict: all but the last two, and one's own last but one as a session."""
    example = repository / "examples" / "recommendation" / "toys"
    folder = _prepared(repository, "toys/prepare.py", tmp_path / "out")
    question = question_of(load_schema(example / "schema.yaml"), task=example / f"{protocol}.yaml")
    ranked = question.target.ranked
    assert ranked is not None
    with TemporalGraph.create(question.schema) as graph:
        load_files(graph, sorted(folder.glob("*.parquet")), quiet=True, dead_letters=tmp_path / "letters")
        view = graph.view()
        found, splits = question.ranking(view)
        assert splits.test is not None
        test = found.interval(splits.test).frozen(splits.frozen_us, view, ranked)
        seen = Interactions.of(view, ranked)
        own, of_all = seen.histories(test), [len(seen.visible(int(time))) for time in np.unique(test.cutoff_time_us)]
    assert (len(test), len(test.item)) == (19_412, 19_412)
    assert of_all == [167_597 - 19_412 * (1 if protocol == "live" else 2)]
    assert len(own.item) == 167_597 - 19_412
    assert (test.sessions is None) == (protocol == "live")
