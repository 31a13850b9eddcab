"""Records that could not enter the graph: kept with their exact bytes and the reason, listed, and driven again.

    undecodable or refused record ─► nowgraph.dead-letters ─► list ─► (fix the schema or the sender) ─► redrive
                                                                       └─► the exact bytes, to their topic again

A dead letter keeps the record's key, value and, under `record.`, its headers; its own headers say reason, detail,
topic, partition, offset and timestamp_us. Its own timestamp is the time it was put there: with that of a record of
long ago, the topic's retention would delete it at the next look. A redriven one is marked in the same topic, so that
driving again sends nothing twice; if the process dies between sending and marking, the record is sent once more, and
the graph knows it as a duplicate, unless its table has no key: then it is a row more. Every updater that reads a record
it cannot use writes a letter, replicas, those who stand by and those who read it again after a restart: the copies are
one letter here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from itertools import islice

from stream.batch import FILE_TOPIC_PREFIX, Batch, DeadLetter, Header
from stream.errors import ConfigurationError, DeliveryError
from stream.kafka_source import KafkaSource
from stream.present import present
from stream.producer import Delivery, EventProducer
from stream.settings import StreamSettings

_MARK = "redriven"
_RECORD = "record."  # before the name of each header that the record had itself
_GROUP_RECORDS = 1_000  # driven again before they are marked


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """A dead letter as it stands in its topic: `partition` and `offset` name it there."""

    letter: DeadLetter
    partition: int
    offset: int
    redriven: bool


class DeadLetters:
    """The writing side. `append` queues, `flush` returns only when every letter is acknowledged by the broker."""

    def __init__(self, producer: EventProducer, *, settings: StreamSettings | None = None) -> None:
        self._producer = producer
        self._settings = settings or StreamSettings()
        self._pending: list[Future[Delivery]] = []

    def append(self, letters: Sequence[DeadLetter]) -> None:
        """Queue letters for the dead-letter topic; waits while the producer's queue is full."""
        for letter in letters:
            future = self._producer.send(
                self._settings.dead_letter_topic,
                value=letter.value,
                key=letter.key,
                headers=_headers(letter),
            )
            self._pending.append(future)

    def flush(self, timeout_s: float) -> None:
        """Return once every letter is acknowledged, so that positions may pass them.

        Raises:
            DeliveryError: one was refused, or not acknowledged within `timeout_s`.
        """
        done, missing = wait(self._pending, timeout_s)
        self._pending = list(missing)
        errors = [str(error) for error in (future.exception() for future in done) if error is not None]
        if errors:
            raise DeliveryError(f"{len(errors)} dead letters were refused: {errors[0]}")
        if missing:
            raise DeliveryError(f"{len(missing)} dead letters were not acknowledged within {timeout_s} s")


def list_dead_letters(
    settings: StreamSettings,
    *,
    topic: str | None = None,
    reason: str | None = None,
    include_redriven: bool = False,
    limit: int | None = None,
) -> list[StoredDeadLetter]:
    """Return the dead letters of the broker, oldest first in each partition, up to its present end.

    `topic` (the original one) and `reason` filter; those that were redriven are left out unless asked for.

    Raises:
        SourceError: the broker cannot be read.
    """
    letters, marks = _read_all(settings)
    sent_again = {_record(letter) for partition, offset, letter in letters if (partition, offset) in marks}

    def chosen() -> Iterator[StoredDeadLetter]:
        seen = set()
        for partition, offset, letter in letters:
            record = _record(letter)
            redriven = record in sent_again
            if record in seen or (redriven and not include_redriven):
                continue
            seen.add(record)
            if (topic is None or letter.topic == topic) and (reason is None or letter.reason == reason):
                yield StoredDeadLetter(letter, partition, offset, redriven)

    return list(islice(chosen(), limit))


def redrive(
    settings: StreamSettings,
    producer: EventProducer,
    *,
    topic: str | None = None,
    reason: str | None = None,
    limit: int | None = None,
    on_sent: Callable[[StoredDeadLetter, Delivery], None] | None = None,
) -> int:
    """Publish the exact bytes of dead letters to their original topic and partition; returns how many.

    The filters are those of `list_dead_letters`; rows of files have no topic to go to and are left. Each is marked
    once its record is acknowledged, so that a second call sends nothing again.

    Raises:
        DeliveryError: a record was not taken; those that were stand and are marked.
    """
    letters = list_dead_letters(settings, topic=topic, reason=reason)
    stored = [one for one in letters if not one.letter.topic.startswith(FILE_TOPIC_PREFIX)][:limit]
    # In order and acknowledged one batch at a time: a row's records keep their order.
    for start in range(0, len(stored), _GROUP_RECORDS):
        group = stored[start : start + _GROUP_RECORDS]
        sent = [(one, _send_again(producer, one.letter)) for one in group]
        marks = []
        refused: list[DeliveryError] = []
        for one, future in sent:
            try:
                delivery = future.result(settings.delivery_timeout_s * 2)
            except DeliveryError as error:  # those behind it are sent, too, and must be marked
                refused.append(error)
                continue
            mark = (_MARK, f"{one.partition}:{one.offset}".encode())
            marks.append(producer.send(settings.dead_letter_topic, value=None, partition=one.partition, headers=[mark]))
            if on_sent is not None:
                on_sent(one, delivery)
        for mark_future in marks:
            mark_future.result(settings.delivery_timeout_s * 2)
        if refused:
            raise refused[0]
    return len(stored)


def _record(letter: DeadLetter) -> tuple[object, ...]:
    """What its copies have in common: offsets alone would mix up the records of a topic that was made anew."""
    return letter.topic, letter.partition, letter.offset, letter.timestamp_us, letter.value


def _send_again(producer: EventProducer, letter: DeadLetter) -> Future[Delivery]:
    timestamp_us = letter.timestamp_us if letter.timestamp_us >= 0 else None
    return producer.send(
        letter.topic,
        value=letter.value,
        key=letter.key,
        partition=letter.partition,
        timestamp_us=timestamp_us,
        headers=letter.headers,
    )


def _headers(letter: DeadLetter) -> list[Header]:
    return [
        ("reason", letter.reason.encode()),
        ("detail", letter.detail.encode()),
        ("topic", letter.topic.encode()),
        ("partition", b"%d" % letter.partition),
        ("offset", b"%d" % letter.offset),
        ("timestamp_us", b"%d" % letter.timestamp_us),
        *((_RECORD + name, value) for name, value in letter.headers),
    ]


def _read_all(settings: StreamSettings) -> tuple[list[tuple[int, int, DeadLetter]], set[tuple[int, int]]]:
    try:
        # A dead letter may be as large as any message.
        reader = settings.model_copy(update={"record_bytes_max": settings.message_bytes_max})
        source = KafkaSource([settings.dead_letter_topic], settings=reader)
    except ConfigurationError:
        return [], set()  # the topic is created with its first letter
    letters: list[tuple[int, int, DeadLetter]] = []
    marks: set[tuple[int, int]] = set()
    try:
        for batch in present(source):
            for index in range(len(batch)):
                _sort_in(batch, index, letters, marks)
    finally:
        source.close()
    letters.sort(key=lambda one: one[:2])
    return letters, marks


def _sort_in(batch: Batch, index: int, letters: list[tuple[int, int, DeadLetter]], marks: set[tuple[int, int]]) -> None:
    pairs = batch.headers(index)
    headers = {name: value for name, value in pairs if not name.startswith(_RECORD)}
    mark = headers.get(_MARK)
    if mark is not None:
        partition, _, offset = mark.decode().partition(":")
        marks.add((int(partition), int(offset)))
        return
    if "reason" not in headers:
        return  # not one of ours
    text = {name: (value or b"").decode() for name, value in headers.items()}
    letter = DeadLetter(
        topic=text["topic"],
        partition=int(text["partition"]),
        offset=int(text["offset"]),
        timestamp_us=int(text["timestamp_us"]),
        key=batch.keys[index],
        value=batch.values[index],
        reason=text["reason"],
        detail=text["detail"],
        headers=tuple((name.removeprefix(_RECORD), value) for name, value in pairs if name.startswith(_RECORD)),
    )
    letters.append((int(batch.partition[index]), int(batch.offset[index]), letter))
