"""Events by the million: one message serialized by protobuf, its numbers overwritten in columns.

Making a payment's message in Python takes about 10 µs; a writer that must apply 50,000 a second has no time for that.
Every number is chosen so that its varint has the same length in every event, so one template holds for all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from protos.nowgraph.v1 import row_event_pb2

KEY_FIRST = 1 << 28
"""The first varint of five bytes; 34 thousand million follow it."""
STEP_US = 1_000
"""Between two events in event time."""
_MARK = {"key": 0x2_3456_7890, "time": 0x5_5555_5555_5555}
"""Numbers of the template, of the lengths that all others have, whose bytes are found in it once."""
_ID_MARK = 3_001


class Events:
    """An endless run of events, each with a key and a time of its own. One thread at a time."""

    def __init__(
        self,
        make: Callable[[dict[str, int]], row_event_pb2.RowEvent],
        ids: dict[str, tuple[int, int]],
        *,
        start_us: int,
    ) -> None:
        """`make` builds an event of given numbers: `key`, `time` and the `ids`, whose ranges are given."""
        marks = _MARK | {name: low + _ID_MARK * (n + 1) for n, (name, (low, _)) in enumerate(ids.items())}
        self._bytes = np.frombuffer(make(marks).SerializeToString(), np.uint8)
        self._places = {name: _place(self._bytes.tobytes(), value) for name, value in marks.items()}
        self._ids = ids
        self._start_us = start_us
        self._next = 0
        self._random = np.random.default_rng(0)

    def take(self, count: int) -> list[bytes]:
        """The next so many events, serialized."""
        number = np.arange(self._next, self._next + count, dtype=np.int64)
        self._next += count
        columns = {"key": KEY_FIRST + number, "time": self._start_us + number * STEP_US}
        columns |= {name: self._random.integers(low, high, count) for name, (low, high) in self._ids.items()}
        rows = np.tile(self._bytes, (count, 1))
        for name, values in columns.items():
            begin, length = self._places[name]
            rows[:, begin : begin + length] = _varints(values, length)
        body, size = rows.tobytes(), rows.shape[1]
        return [body[begin : begin + size] for begin in range(0, count * size, size)]


def _varints(values: np.ndarray, length: int) -> np.ndarray:
    """Each value as a varint of that length, uint8, shape (values, length)."""
    digits = (values[:, None] >> (7 * np.arange(length))) & 0x7F
    digits[:, :-1] |= 0x80
    return digits.astype(np.uint8)


def _place(message: bytes, value: int) -> tuple[int, int]:
    """Where a value's varint is in the message, and how long it is."""
    length = max(1, -(-value.bit_length() // 7))
    varint = _varints(np.array([value], np.int64), length).tobytes()
    assert message.count(varint) == 1, "a mark must be found in one place only"
    return message.index(varint), length


def payment_events() -> Events:
    """Payments of known customers at known terminals, later than the requests' own time never."""
    from loadtests.serving.payments import CUSTOMERS, START_US, TERMINALS

    ids = {"customer_id": (128, CUSTOMERS), "terminal_id": (128, TERMINALS)}
    return _events("transactions", ("tx_amount", 57.3), ids, start_us=START_US)


def click_events() -> Events:
    """Clicks of known users on known items, after the shop's history."""
    from loadtests.serving.shop import DAY_US, DAYS, START_US

    ids = {"user_id": (128, 16_384), "item_id": (128, 12_000)}
    return _events("clicks", ("amount", 1.0), ids, start_us=START_US + DAYS * DAY_US)


def _events(table: str, amount: tuple[str, float], ids: dict[str, tuple[int, int]], *, start_us: int) -> Events:
    """Inserts into a table with one number and links by name."""

    def make(of: dict[str, int]) -> row_event_pb2.RowEvent:
        row = row_event_pb2.RowEvent(table=table, operation=row_event_pb2.OPERATION_INSERT, event_time_us=of["time"])
        row.key.parts.add(integer=of["key"])
        row.cells.add(column=amount[0], number=amount[1])
        for name in ids:
            row.cells.add(column=name, integer=of[name])
        return row

    return Events(make, ids, start_us=start_us)
