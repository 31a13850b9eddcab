"""A live server scores payments, their reports come late on Kafka: the command's figures are those of the table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from nowgraph.client import Client, Row
from nowgraph.quality import quality_task
from protos.nowgraph.v1 import row_event_pb2
from stream.embedded_broker import EmbeddedBroker
from stream.producer import EventProducer
from stream.quality.feed import Feed
from stream.quality.figures import ListFigures
from stream.quality.reader import QualityReader
from stream.settings import StreamSettings

pytestmark = pytest.mark.integration
HOUR_US = 3_600_000_000
PAYMENTS = 150


@dataclass
class Lived:
    """What happened: where the topics are, and of each payment its score and whether it turned out a fraud."""

    bootstrap: str
    arguments: list[str]
    version: str
    score: np.ndarray[Any, Any]
    fraud: np.ndarray[Any, Any]


def report_of(number: int, known_us: int, *, fraud: bool) -> row_event_pb2.RowEvent:
    event = row_event_pb2.RowEvent(table="transactions", operation=row_event_pb2.OPERATION_UPSERT)
    event.key.parts.add(integer=number)
    event.event_time_us = event.known_time_us = known_us
    event.cells.add(column="tx_fraud", boolean=fraud)
    return event


@pytest.fixture
def lived(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lived]:
    """Payments scored by a live server, and reports: early, late, revised, doubled, in disorder, or never."""
    monkeypatch.setenv("NOWGRAPH_PRIVACY_SECRET", world.secret)
    rng = np.random.default_rng(4)
    schema = tmp_path / "schema.yaml"
    schema.write_text(world.schema_text)
    start_us = world.start_us + 3 * HOUR_US
    times = start_us + np.sort(rng.integers(0, 10 * HOUR_US, PAYMENTS))
    topics = {"nowgraph.predictions": 2, "transactions": 1, "transaction_events": 3}
    with EmbeddedBroker(topics) as broker:
        stream = StreamSettings(kafka_bootstrap=broker.bootstrap)
        settings = ServerSettings(port=0, metrics_port=0, deadline_default_ms=20_000)
        with EventProducer(stream) as producer:
            with (
                BackgroundServer(lambda: world.server(settings, event_log=producer)) as server,
                Client(server.target, timeout_s=20) as client,
            ):
                rows = [
                    Row(
                        "transactions",
                        10_000 + n,
                        {"tx_amount": float(rng.gamma(2, 20)), "customer_id": n % 20},
                        int(t),
                    )
                    for n, t in enumerate(times)
                ]
                scores = client.score_batch(rows)
            fraud = rng.random(PAYMENTS) < 0.25
            reports = []
            for n, is_fraud in enumerate(fraud):
                known_us = int(times[n] + rng.integers(1, 30 * 60_000_000))
                if is_fraud or n % 3 == 0:  # what is never reported is none
                    reports += [report_of(10_000 + n, known_us, fraud=bool(is_fraud))] * (1 + n % 2)
                if n % 5 == 0:  # said otherwise at first
                    reports.append(report_of(10_000 + n, known_us - 1, fraud=not is_fraud))
                    reports.append(report_of(10_000 + n, known_us, fraud=bool(is_fraud)))
            reports.append(report_of(1, int(times[-1]) + 2 * HOUR_US, fraud=False))  # time goes on
            for place in rng.permutation(len(reports)):
                producer.publish_event("transaction_events", reports[place])
            assert producer.flush(20) == 0
        arguments = ["--checkpoint", str(world.checkpoint), "--schema", str(schema), "--window", "30d"]
        arguments += ["--bootstrap-servers", broker.bootstrap, "--label-delay", "1h"]
        probability = np.array([one.probability for one in scores])  # type: ignore[union-attr]
        yield Lived(broker.bootstrap, arguments, scores[0].model_version, probability, fraud)  # type: ignore[union-attr]


def expected(lived: Lived) -> dict[str, float]:
    label = lived.fraud.astype(float)
    return {
        "roc_auc": float(roc_auc_score(label, lived.score)),
        "average_precision": float(average_precision_score(label, lived.score)),
        "log_loss": float(log_loss(label, lived.score)),
        "brier": float(((label - lived.score) ** 2).mean()),
        "base_rate": float(label.mean()),
        "mean_prediction": float(lived.score.mean()),
    }


def test_figures_of_a_live_server_are_those_of_the_table(lived: Lived, run_json: Callable[..., Any]) -> None:
    """Scored over gRPC, reported late on Kafka: read to the end, the command prints what scikit-learn says."""
    document = run_json("quality", *lived.arguments, "--once")
    (found,) = document["measured"]
    assert (found["examples"], found["answers"]) == (PAYMENTS, PAYMENTS)
    assert (found["task"], found["model_version"], found["role"]) == ("fraud", lived.version, "live")
    for name, value in expected(lived).items():
        assert found["figures"][name] == pytest.approx(value, abs=1e-9), name
    assert document["tasks"][0]["unmatched_outcomes"] == 1


def test_prometheus_reads_the_same_while_it_runs(lived: Lived, free_port: Callable[[], int], tmp_path: Path) -> None:
    """A process of its own: its metrics have the figures, SIGTERM ends it with the table, the references are kept."""
    port = free_port()
    command = [sys.executable, "-P", "-m", "nowgraph.cli", "quality", *lived.arguments, "--metrics-port", str(port)]
    command += ["--references", str(tmp_path / "usual.json"), "--quiet", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})
    try:
        text, deadline_s = "", time.monotonic() + 60
        while "nowgraph_quality_roc_auc{" not in text:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
            try:
                text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
            except OSError:
                continue
        labels = f'{{model_version="{lived.version}",role="live",task="fraud",tenant="",window="720h"}}'
        values = {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"
        }
        for name, value in expected(lived).items():
            found = {key: v for key, v in values.items() if key.startswith(f"nowgraph_quality_{name}{{")}
            assert list(found.values()) == [pytest.approx(value, abs=1e-9)], (labels, found)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert json.loads(out)["measured"][0]["examples"] == PAYMENTS
        assert json.loads((tmp_path / "usual.json").read_text()) == []  # too few answers to be a reference
    finally:
        process.kill()
        process.communicate()


def test_lists_of_a_live_server_are_followed_by_clicks(shop: Any) -> None:
    """Lists over gRPC, clicks on Kafka, private users hashed on both ways: hits and ranks as worked out from both."""
    at_us, rng = shop.start_us + 40 * shop.day_us, np.random.default_rng(2)
    with EmbeddedBroker({"nowgraph.predictions": 2, "clicks": 2, "items": 1}) as broker:
        stream = StreamSettings(kafka_bootstrap=broker.bootstrap)
        settings = ServerSettings(port=0, metrics_port=0, deadline_default_ms=20_000)
        ranks = []
        with (
            EventProducer(stream) as producer,
            BackgroundServer(lambda: shop.server(settings, event_log=producer)) as server,
            Client(server.target, timeout_s=20) as client,
        ):
            for user in range(20):
                keys = client.rank(user, k=5, event_time=at_us + user).keys
                if user % 4 == 0:
                    continue  # does nothing
                item = int(rng.choice([*keys, 999]))
                ranks.append(1 / (1 + keys.index(item)) if item in keys else 0.0)
                click = row_event_pb2.RowEvent(table="clicks", operation=row_event_pb2.OPERATION_INSERT)
                click.key.parts.add(integer=90_000 + user)
                click.event_time_us = at_us + user + 60_000_000
                click.cells.add(column="user_id", integer=user)
                click.cells.add(column="item_id", integer=item)
                producer.publish_event("clicks", click)
            assert producer.flush(20) == 0
        task = quality_task(shop.task, shop.schema)
        feed = Feed([task], shop.schema, privacy=shop.privacy, stream=stream)
        with QualityReader(feed, stream) as reader:
            reader.catch_up()
        feed.monitor.advance(at_us + 20 + task.label_delay_us)
        (found,) = feed.report().measured
    assert (found.answers, found.examples, found.unlabeled) == (0, 15, 5)
    assert isinstance(found.figures, ListFigures)
    assert found.figures.mean_reciprocal_rank == pytest.approx(np.mean(ranks))
    assert found.figures.hit_ratio == pytest.approx(np.mean([rank > 0 for rank in ranks]))
    assert 0 < found.figures.hit_ratio < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window", "soon"], "duration"),
        (["--label-delay", "x"], "duration"),
        (["--window", "1d", "--window", "1d"], "once"),
    ],
    ids=["window", "delay", "twice"],
)
def test_options_that_mean_nothing_are_named(
    world: Any, run_command: Callable[..., Any], tmp_path: Path, options: list[str], message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One line, exit code 2."""
    monkeypatch.setenv("NOWGRAPH_PRIVACY_SECRET", world.secret)
    schema = tmp_path / "schema.yaml"
    schema.write_text(world.schema_text)
    result = run_command(
        "quality", "--checkpoint", world.checkpoint, "--schema", schema, "--bootstrap-servers", "127.0.0.1:1", *options,
        exit_code=2,
    )  # fmt: skip
    assert message in result.stderr
