"""All that a log holds now: what is read once, from where a source stands to where the log ends when it is asked.

KafkaSource ─► end_positions ─► poll ─► Batch ─► ... until every partition has come to its end
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from stream.batch import Batch
from stream.errors import SilentLogError
from stream.kafka_source import KafkaSource

POLL_RECORDS: Final = 2_000
POLL_S: Final = 0.2
# Ten seconds without the records that the end offsets promised: the broker is gone.
SILENT_POLLS_MAX: Final = 50


def present(source: KafkaSource, stopped: Callable[[], bool] = lambda: False) -> Iterator[Batch]:
    """Yield the batches up to the present end of every partition; `stopped` ends it before.

    A batch may hold records beyond the end, which came meanwhile.

    Raises:
        SilentLogError: the broker does not give the records before the end.
        SourceError: as `KafkaSource.poll`.
    """
    ends, silent = source.end_positions(), 0
    while not stopped() and (missing := [at for at, end in ends.items() if source.positions[at] < end]):
        batch = source.poll(POLL_RECORDS, POLL_S)
        silent = 0 if len(batch) or batch.passed else silent + 1
        if silent == SILENT_POLLS_MAX:  # what is short without a word would pass for all there is
            places = ", ".join(f"{topic}/{partition}" for topic, partition in sorted(missing))
            raise SilentLogError(f"{places}: the broker does not give the records before its end")
        yield batch
