"""Tasks, and a story of payments and reports whose figures can be recomputed by a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from stream.quality.config import AnswerKind, Interactions, QualitySettings, QualityTask
from stream.quality.records import Answer, Outcome, Stream

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
START_US = 1_672_531_200_000_000

FRAUD = QualityTask(
    name="fraud",
    kind=AnswerKind.BINARY,
    table="transactions",
    event_level=True,
    label_delay_us=2 * DAY_US,
    outcome="tx_fraud",
    absence_is_negative=True,
    inputs=("tx_amount",),
)
NEXT_CLICK = QualityTask(
    name="next_click",
    kind=AnswerKind.RANKING,
    table="users",
    event_level=False,
    label_delay_us=DAY_US,
    interactions=Interactions("clicks", "user_id", "item_id"),
)
LIVE = Stream("", "fraud", "v1")
SHADOWED = Stream("", "fraud", "v2", "shadow")


@pytest.fixture
def fraud() -> QualityTask:
    """Payments: reports take two days, and what nobody reports by then is none."""
    return FRAUD


@pytest.fixture
def next_click() -> QualityTask:
    """What is clicked within a day."""
    return NEXT_CLICK


@pytest.fixture
def small_settings() -> QualitySettings:
    """A window of a day and one of three, and references of few answers."""
    return QualitySettings(
        windows_us=(DAY_US, 3 * DAY_US), reference_us=DAY_US, drift_answers_min=20, rows_max=100_000, streams_max=4
    )


@dataclass
class Story:
    """Ten days of payments: `rows` holds the last answer of each stream to each payment, and its reports."""

    records: list[Answer | Outcome] = field(default_factory=list)

    def tell(self, seed: int, payments: int = 400) -> None:
        """Adds payments, each answered by two models, some of them twice, with reports late, revised, or never."""
        rng = np.random.default_rng(seed)
        for number in range(payments):
            time_us = START_US + int(rng.integers(0, 10 * DAY_US))
            truth = bool(rng.random() < 0.2)
            for stream in (LIVE, SHADOWED):
                score = float(np.round(np.clip(rng.beta(2, 5) + 0.3 * truth, 0, 1), 2))
                for again in range(1 + int(rng.random() < 0.1)):
                    answered_us = time_us + 1000 + again
                    amount = float(rng.normal(50, 10)) if rng.random() < 0.9 else float("nan")
                    self.records.append(
                        Answer(stream, (number,), time_us, answered_us, (round(score * (1 - again / 2), 3),), (amount,))
                    )
            if rng.random() < 0.7:
                self._report(rng, number, time_us, truth)

    def _report(self, rng: np.random.Generator, number: int, time_us: int, truth: bool) -> None:
        known_us = time_us + min(int(rng.exponential(1.5 * DAY_US)), 4 * DAY_US)
        self.records.append(Outcome("fraud", (number,), known_us, (float(truth),), offset=number))
        if rng.random() < 0.2:  # revised, or withdrawn
            label = (float(not truth),) if rng.random() < 0.5 else None
            self.records.append(Outcome("fraud", (number,), known_us + HOUR_US, label, offset=number + 1))


@pytest.fixture
def story() -> Story:
    """Told with a seed of its own."""
    found = Story()
    found.tell(7)
    return found


@pytest.fixture
def story_type() -> type[Story]:
    """For tests that tell several."""
    return Story


EVENTS = """
version: 1
name: payments
tables:
  transactions:
    primary_key: {transaction_id: integer}
    time_column: tx_datetime
    columns:
      tx_amount: numerical
      tx_fraud: {kind: boolean, outcome: true}
sources:
  - {topic: TRANSACTIONS, table: transactions, format: json, operation: insert}
  - {topic: REPORTS, table: transactions, format: json, operation: upsert, event_time: known_at, known_time: known_at}
"""


def prediction_of(answers: list[Answer]) -> bytes:
    """What a server publishes of a payment: the live model's answer, and what the shadows said."""
    from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

    first = answers[0]
    record = service_pb2.Prediction(answered_time_us=first.answered_time_us)
    record.row.table, record.row.event_time_us = "transactions", first.event_time_us
    record.row.key.parts.add(integer=int(first.key[0]))
    if first.numbers[0] == first.numbers[0]:
        record.row.cells.add(column="tx_amount", number=first.numbers[0])
    for answer in answers:
        response = record.response if answer is first else record.shadows.add()
        response.task, response.model_version = answer.stream.task, answer.stream.model_version
        response.kind, response.probability = service_pb2.TARGET_KIND_BINARY, answer.scores[0]
    return record.SerializeToString()


@dataclass(frozen=True)
class Published:
    """The story on the topics of a broker: its schema, the topics' names, and what a plain monitor is told."""

    schema_text: str
    predictions: str
    topics: dict[str, int]
    records: list[Answer | Outcome]


@pytest.fixture
def publish_story(story: Story) -> Callable[[str, Callable[[int], str]], Published]:
    """Publishes payments, predictions and reports, in the order of time, with everything published twice at the end."""
    import orjson

    from stream.producer import EventProducer
    from stream.settings import StreamSettings

    def publish(bootstrap: str, topic_of: Callable[[int], str]) -> Published:
        predictions, transactions, reports = topic_of(2), topic_of(3), topic_of(1)
        live = [r for r in story.records if isinstance(r, Answer) and r.stream.role == "live"]
        shadows = {(r.key, r.answered_time_us): r for r in story.records if isinstance(r, Answer) if r not in live}
        told: list[Answer | Outcome] = [r for r in story.records if isinstance(r, Outcome)]
        with EventProducer(StreamSettings(kafka_bootstrap=bootstrap)) as producer:
            for answer in live:
                both = [answer]
                shadow = shadows.get((answer.key, answer.answered_time_us))
                if shadow is not None:
                    both.append(replace(shadow, numbers=answer.numbers))
                told += both
                key = str(answer.key[0]).encode()
                row = {"transaction_id": answer.key[0], "tx_datetime": answer.event_time_us, "tx_amount": 1.0}
                producer.send(predictions, key=key, value=prediction_of(both))
                producer.send(transactions, key=key, value=orjson.dumps(row))
            for again in range(2):
                for report in [r for r in story.records if isinstance(r, Outcome)][again * 50 :]:
                    label = None if report.label is None else bool(report.label[0])
                    row = {"transaction_id": report.key[0], "tx_fraud": label, "known_at": report.known_time_us}
                    producer.send(reports, key=str(report.key[0]).encode(), value=orjson.dumps(row))
            assert producer.flush(20) == 0
        text = EVENTS.replace("TRANSACTIONS", transactions).replace("REPORTS", reports)
        return Published(text, predictions, {predictions: 2, transactions: 3, reports: 1}, told)

    return publish
