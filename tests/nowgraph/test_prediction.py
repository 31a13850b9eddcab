"""A file's answers are the server's: one path, whichever way a question comes in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graph_transformer.target import Kind
from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from nowgraph.client import Client, Row, Score
from nowgraph.errors import UsageError
from nowgraph.prediction import BATCH_ROWS, count_questions, predict_file

MINUTE_US = 60_000_000
ROWS = BATCH_ROWS + 44  # more than a batch, and not a whole number of them


def payments(world: Any) -> tuple[pa.Table, list[Row]]:
    """Payments of known and unknown customers, as a file and as a client's rows."""
    number = np.arange(ROWS)
    time_us = world.start_us + (1 + number) * MINUTE_US
    customer, terminal, amount = number % 23, number % 11, 1.0 + number % 9
    channels = np.array(["web", "shop", "never seen"])[number % 3]
    table = pa.table(
        {
            "transaction_id": 10_000 + number,
            "tx_datetime": pa.array(time_us).cast(pa.timestamp("us")),
            "tx_amount": amount,
            "channel": channels,
            "customer_id": customer,
            "terminal_id": terminal,
        }
    )
    cells = (
        {"tx_amount": float(a), "channel": str(ch), "customer_id": int(c), "terminal_id": int(t)}
        for a, ch, c, t in zip(amount, channels, customer, terminal, strict=True)
    )
    rows = [Row("transactions", 10_000 + n, cell, int(time_us[n])) for n, cell in enumerate(cells)]
    return table, rows


def customers(world: Any) -> tuple[pa.Table, list[Row]]:
    """Customers, some of them unknown, at many times, as a file and as a client's rows."""
    number = np.arange(ROWS)
    time_us = world.start_us + number * MINUTE_US // 2
    table = pa.table({"customer_id": number % 23, "anchor_time": pa.array(time_us).cast(pa.timestamp("us"))})
    return table, [Row("customers", n % 23, event_time=int(time_us[n])) for n in range(ROWS)]


def numbers(score: dict[str, Any]) -> list[float]:
    """Every number that the model gave, whatever the kind: logits, or values and quantiles."""
    found = [score["logit"]] if score.get("logit") is not None else []
    found += [part["logit"] for part in score.get("classes") or []]
    for part in [score, *(score.get("steps") or [])]:
        if part.get("value") is not None:
            quantiles = part["quantiles"]
            found.append(part["value"])
            found += quantiles.values() if isinstance(quantiles, dict) else [one["value"] for one in quantiles]
    return found


def both_ways(
    world: Any, tmp_path: Path, *, fixed_shape: bool
) -> tuple[Any, list[dict[str, Any]], list[dict[str, Any]]]:
    """The same rows answered by `predict_file` and over gRPC, in batches as they come."""
    view = world.graph.view()
    predictor = world.predictor(view, fixed_shape=fixed_shape)
    table, rows = (payments if predictor.task.target.event_level else customers)(world)
    pq.write_table(table, tmp_path / "asked.parquet")
    done: list[int] = []
    predicted = predict_file(
        view,
        predictor,
        tmp_path / "asked.parquet",
        tmp_path / "answers.parquet",
        privacy=world.privacy,
        advance=done.append,
    )
    assert predicted.rows == sum(done) == count_questions(tmp_path / "asked.parquet") == ROWS
    settings = ServerSettings(port=0, metrics_port=0, deadline_default_ms=60_000, fixed_shape=fixed_shape)
    with (
        BackgroundServer(lambda: world.server(settings)) as server,
        Client(server.target, timeout_s=60) as client,
    ):
        scores = client.score_batch(rows)
    assert all(isinstance(score, Score) for score in scores)
    offline = pq.read_table(tmp_path / "answers.parquet")
    assert offline.select(table.schema.names) == table
    online = [dataclasses.asdict(score) for score in scores]  # type: ignore[call-overload]
    return predicted, offline.to_pylist(), online


@pytest.mark.integration
@pytest.mark.parametrize("task", ["fraud", "spend", "channel", "tags", "hours"])
def test_a_file_and_the_server_answer_alike(
    task: str, world_of: Callable[[str], Any], world_labels: Callable[[Any], None], tmp_path: Path
) -> None:
    """Every kind of task, on rows and on entities: the same history, cut-off and version, and numbers within 1e-5."""
    world = world_of(task)
    world_labels(world)
    predicted, offline, online = both_ways(world, tmp_path, fixed_shape=False)
    assert 0 < predicted.empty_history == sum(score["history_count"] == 0 for score in online) < ROWS
    for ours, theirs in zip(offline, online, strict=True):
        assert numbers(ours)
        assert numbers(ours) == pytest.approx(numbers(theirs), abs=1e-5, rel=1e-5)
        assert (ours["history_count"], ours["model_version"]) == (theirs["history_count"], theirs["model_version"])
        assert round(ours["cutoff_time"].timestamp() * 1e6) == theirs["cutoff_time_us"]
    assert len({tuple(numbers(score)) for score in offline}) > ROWS // 4  # a constant would agree with anything


@pytest.mark.integration
@pytest.mark.parametrize("task", ["fraud", "spend", "channel"])
def test_in_the_fixed_shape_they_are_the_same_bits(
    task: str, world_of: Callable[[str], Any], world_labels: Callable[[Any], None], tmp_path: Path
) -> None:
    """Computed each alone on one thread, not one bit differs, however the rows were batched."""
    world = world_of(task)
    world_labels(world)
    _, offline, online = both_ways(world, tmp_path, fixed_shape=True)
    assert [numbers(score) for score in offline] == [numbers(score) for score in online]


def test_past_labels_in_the_graph_change_the_answer(
    world_of: Callable[[str], Any], world_labels: Callable[[Any], None], tmp_path: Path
) -> None:
    """A computed label is seen from the microsecond its window ends and it is known, and never before."""
    world = world_of("spend")
    hour_us = 3_600_000_000
    times = [world.start_us + hour_us - 1, world.start_us + hour_us]
    pq.write_table(
        pa.table({"customer_id": [3, 3], "anchor_time": pa.array(times, pa.timestamp("us"))}),
        tmp_path / "asked.parquet",
    )

    def counts() -> list[int]:
        view = world.graph.view()
        answers = tmp_path / "answers.parquet"
        predict_file(view, world.predictor(view), tmp_path / "asked.parquet", answers, privacy=world.privacy)
        found: list[int] = pq.read_table(answers)["history_count"].to_pylist()
        return found

    before = counts()
    assert before[0] == before[1]
    world_labels(world)  # of half past, known at the full hour
    assert counts() == [before[0], before[1] + 1]


def test_what_cannot_be_answered_leaves_nothing_behind(world: Any, tmp_path: Path) -> None:
    """A wrong row far down, a clash of names, no file, or no Parquet file: named, and no half of an answer."""
    view = world.graph.view()
    predictor, output = world.predictor(view), tmp_path / "answers.parquet"

    def refused(path: Path) -> str:
        with pytest.raises(UsageError) as error:
            predict_file(view, predictor, path, output, privacy=world.privacy)
        assert not list(tmp_path.glob("*answers*"))
        return str(error.value)

    table, _ = payments(world)
    amounts = [1.0] * (ROWS - 1) + [float("inf")]
    pq.write_table(table.set_column(2, "tx_amount", pa.array(amounts)), tmp_path / "wrong.parquet")
    assert f"wrong.parquet: row {ROWS - 1}: tx_amount: " in refused(tmp_path / "wrong.parquet")
    pq.write_table(table.append_column("logit", pa.array([0.0] * ROWS)), tmp_path / "clash.parquet")
    assert "logit" in refused(tmp_path / "clash.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet at all")
    assert "no Parquet file" in refused(tmp_path / "text.parquet")
    assert "no such file" in refused(tmp_path / "nothing.parquet")


def test_an_order_of_items_is_not_a_score(world: Any, tmp_path: Path) -> None:
    """A ranking task is refused before any row is read."""
    view = world.graph.view()
    predictor = world.predictor(view)
    target = dataclasses.replace(predictor.task.target, kind=Kind.RANKING)
    predictor.task = dataclasses.replace(predictor.task, target=target)
    with pytest.raises(UsageError, match="ranking"):
        predict_file(view, predictor, tmp_path / "a.parquet", tmp_path / "b.parquet", privacy=world.privacy)
