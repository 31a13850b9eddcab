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
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from graph_transformer.checkpoint import Checkpoint
from graph_transformer.predictor import Predictor
from model_server.background import BackgroundServer
from model_server.generation import Generations, Serving
from model_server.server import Server
from model_server.settings import ServerSettings
from nowgraph.client import Client, Row
from nowgraph.quality import quality_task
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from stream.embedded_broker import EmbeddedBroker
from stream.kafka_source import KafkaSource
from stream.producer import EventProducer
from stream.quality.feed import Feed
from stream.quality.figures import ListFigures
from stream.quality.reader import QualityReader
from stream.settings import StreamSettings

pytestmark = pytest.mark.integration
HOUR_US = 3_600_000_000
PAYMENTS = 150
Floats = np.ndarray[Any, Any]


@dataclass
class Lived:
    """What happened: where the topics are, and of each payment its score and whether it turned out a fraud."""

    bootstrap: str
    arguments: list[str]
    versions: dict[str, str]
    scores: dict[str, Floats]
    fraud: Floats


def report_of(number: int, known_us: int, *, fraud: bool) -> row_event_pb2.RowEvent:
    event = row_event_pb2.RowEvent(table="transactions", operation=row_event_pb2.OPERATION_UPSERT)
    event.key.parts.add(integer=number)
    event.event_time_us = event.known_time_us = known_us
    event.cells.add(column="tx_fraud", boolean=fraud)
    return event


def shadow_of(world: Any, folder: Path) -> Path:
    """A second model: the first one's, a little off."""
    first = Checkpoint.load(world.checkpoint)
    weights = {name: value * 1.3 if value.is_floating_point() else value for name, value in first.weights.items()}
    replace(first, weights=weights).save(folder)
    return folder


def server_of(world: Any, shadow: Path, settings: ServerSettings, producer: EventProducer) -> Server:
    """The world's server, with a second model in the shadow."""
    view = world.graph.view()
    beside = Predictor.load(shadow, world.graph.view(), threads=1)
    serving = replace(Serving.over(view, world.predictor(view)), shadows=(beside,))
    generations, topic = Generations(serving), "nowgraph.predictions"
    return Server(generations, settings, privacy=world.privacy, predictions_topic=topic, event_log=producer)


def shadows_said(stream: StreamSettings) -> dict[str, dict[int, float]]:
    """What the predictions topic holds of shadows: probabilities by version and payment."""
    source = KafkaSource(["nowgraph.predictions"], settings=stream)
    found: dict[str, dict[int, float]] = {}
    until_s, count = time.monotonic() + 20, 0
    while count < PAYMENTS and time.monotonic() < until_s:
        for value in source.poll(1000, 0.2).values:
            record = service_pb2.Prediction.FromString(value or b"")
            count += 1
            for one in record.shadows:
                found.setdefault(one.model_version, {})[record.row.key.parts[0].integer] = one.probability
    source.close()
    return found


@pytest.fixture
def lived(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lived]:
    """Payments scored by a live server, and reports: early, late, revised, doubled, in disorder, or never."""
    monkeypatch.setenv("NOWGRAPH_PRIVACY_SECRET", world.secret)
    rng, shadow = np.random.default_rng(4), shadow_of(world, tmp_path / "shadow")
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
                BackgroundServer(lambda: server_of(world, shadow, settings, producer)) as server,
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
        ((version, beside),) = shadows_said(stream).items()
        yield Lived(
            bootstrap=broker.bootstrap,
            arguments=arguments,
            versions={"live": scores[0].model_version, "shadow": version},  # type: ignore[union-attr]
            scores={
                "live": np.array([one.probability for one in scores]),  # type: ignore[union-attr]
                "shadow": np.array([beside[10_000 + n] for n in range(PAYMENTS)]),
            },
            fraud=fraud,
        )


def expected(lived: Lived, role: str) -> dict[str, float]:
    label, score = lived.fraud.astype(float), lived.scores[role]
    return {
        "roc_auc": float(roc_auc_score(label, score)),
        "average_precision": float(average_precision_score(label, score)),
        "log_loss": float(log_loss(label, score)),
        "brier": float(((label - score) ** 2).mean()),
        "base_rate": float(label.mean()),
        "mean_prediction": float(score.mean()),
    }


def test_figures_of_a_live_server_are_those_of_the_table(lived: Lived, run_json: Callable[..., Any]) -> None:
    """Scored over gRPC, in the shadow too, reported late on Kafka: the command prints what scikit-learn says."""
    document = run_json("quality", *lived.arguments, "--once")
    by_role = {one["role"]: one for one in document["measured"]}
    assert sorted(by_role) == ["live", "shadow"]
    for role, found in by_role.items():
        assert (found["examples"], found["answers"], found["task"]) == (PAYMENTS, PAYMENTS, "fraud")
        assert found["model_version"] == lived.versions[role]
        for name, value in expected(lived, role).items():
            assert found["figures"][name] == pytest.approx(value, abs=1e-9), (role, name)
    assert by_role["live"]["figures"]["log_loss"] != by_role["shadow"]["figures"]["log_loss"]
    assert document["tasks"][0]["unmatched_outcomes"] == 1


def sample(text: str, name: str, role: str) -> float:
    """The one sample of a name and a role."""
    found = [
        one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name == name and one.labels["role"] == role
    ]
    assert len(found) == 1, (name, role, found)
    return found[0]


@contextmanager
def running(port: int, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], Callable[..., str]]]:
    """The command as a process, and what scrapes it until a text is there."""
    command = [sys.executable, "-P", "-m", "nowgraph.cli", "quality", *arguments, "--metrics-port", str(port)]
    command += ["--quiet", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})

    def scraped(*wanted: str) -> str:
        text, deadline_s = "", time.monotonic() + 60
        while not all(one in text for one in wanted):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline_s, text
            time.sleep(0.2)
            try:
                text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
            except OSError:
                continue
        return text

    try:
        yield process, scraped
    finally:
        process.kill()
        process.communicate()


def test_prometheus_reads_the_same_while_it_runs(lived: Lived, free_port: Callable[[], int], tmp_path: Path) -> None:
    """A process of its own: its metrics have the figures, SIGTERM ends it with the table, the references are kept."""
    usual = tmp_path / "usual.json"
    with running(free_port(), *lived.arguments, "--references", str(usual)) as (process, scraped):
        text = scraped("nowgraph_quality_roc_auc{")
        for role in ("live", "shadow"):
            for name, value in expected(lived, role).items():
                assert sample(text, f"nowgraph_quality_{name}", role) == pytest.approx(value, abs=1e-9), (role, name)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert json.loads(out)["measured"][0]["examples"] == PAYMENTS
    assert json.loads(usual.read_text()) == []  # too few answers to be a reference


@pytest.mark.kafka
def test_a_killed_faust_worker_loses_nothing_and_counts_nothing_twice(
    world: Any,
    apache_kafka: str,
    kafka_topic: Callable[..., str],
    free_port: Callable[[], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed while it reads: what it had read and what comes then are in the next one's figures, once."""
    predictions, raw, events = kafka_topic(2), kafka_topic(1), kafka_topic(3)
    for name, value in {
        "NOWGRAPH_PRIVACY_SECRET": world.secret,
        "NOWGRAPH_PREDICTIONS_TOPIC": predictions,
        "NOWGRAPH_QUALITY_REPORT_EVERY_S": "0.3",
        "NOWGRAPH_QUALITY_TAKEOVER_S": "6",
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "schema.yaml").write_text(
        world.schema_text.replace("topic: transactions,", f"topic: {raw},").replace("transaction_events", events)
    )
    arguments = ["--checkpoint", str(world.checkpoint), "--schema", str(tmp_path / "schema.yaml"), "--faust"]
    arguments += ["--bootstrap-servers", apache_kafka, "--label-delay", "1h", "--window", "30d"]
    with EventProducer(StreamSettings(kafka_bootstrap=apache_kafka)) as producer:

        def publish(numbers: range) -> None:
            for n in numbers:
                record = service_pb2.Prediction(answered_time_us=world.start_us + n)
                record.row.table, record.row.event_time_us = "transactions", world.start_us + n
                record.row.key.parts.add(integer=n)
                record.response.task, record.response.kind = "fraud", service_pb2.TARGET_KIND_BINARY
                record.response.probability = 0.5
                producer.send(predictions, key=str(n).encode(), value=record.SerializeToString())
                producer.publish_event(events, report_of(n, world.start_us + 1_000_000, fraud=n % 4 == 0))
            assert producer.flush(20) == 0

        publish(range(2_000))
        with running(free_port(), *arguments) as (process, scraped):
            scraped('nowgraph_quality_records_total{kind="answers"}')
            process.kill()
        publish(range(1_500, 3_000))  # some again
        producer.publish_event(events, report_of(99_999, world.start_us + 2 * HOUR_US, fraud=False)).result(20)
        with running(free_port(), *arguments) as (process, scraped):
            # All outcomes are in: each row has one. Were one lost, this would never come.
            text = scraped("nowgraph_quality_rows 3001.0", 'window="720h"} 0.0\n# HELP nowgraph_quality_score_drift')
            assert sample(text, "nowgraph_quality_unlabeled", "live") == 0
            assert sample(text, "nowgraph_quality_examples", "live") == 3_000
            assert sample(text, "nowgraph_quality_base_rate", "live") == 0.25
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert json.loads(out)["rows"] == 3_001


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
