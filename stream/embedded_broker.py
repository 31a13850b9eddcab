"""A Kafka broker on loopback without Kafka: librdkafka's mock cluster, as a context manager or its own process.

    python -m stream.embedded_broker --topic transactions=4 --topic fraud_reports=1   ─► prints host:port

Its limits, all of librdkafka's mock cluster: every partition is a ring of about 5 MiB (older records vanish without a
sign, so producers are paced on what was applied and a reader treats a gap as an error); nothing survives the process;
no admin requests, no seek by time, no transactions that hide aborted records. For development, demos and tests.
"""

from __future__ import annotations

import argparse
import ctypes
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from stream.errors import ConfigurationError, StreamError

PARTITIONS_MAX = 256
_PRODUCER = 0  # rd_kafka_type_t; the handle is only the mock cluster's owner
_ERROR_BYTES = 512


def _load_library() -> ctypes.CDLL:
    """Open the librdkafka that the confluent-kafka wheel carries.

    Raises:
        ConfigurationError: the installed confluent-kafka does not bring one (a build against a system library).
    """
    import confluent_kafka

    folder = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    candidates = sorted(folder.glob("librdkafka*.so*"))
    if not candidates:
        raise ConfigurationError(f"the embedded broker needs confluent-kafka from its wheel: no librdkafka in {folder}")
    library = ctypes.CDLL(str(candidates[0]))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures: dict[str, tuple[list[object], object]] = {
        "rd_kafka_conf_new": ([], pointer),
        "rd_kafka_conf_set": ([pointer, text, text, text, ctypes.c_size_t], number),
        "rd_kafka_new": ([number, pointer, ctypes.c_char_p, ctypes.c_size_t], pointer),
        "rd_kafka_destroy": ([pointer], None),
        "rd_kafka_mock_cluster_new": ([pointer, number], pointer),
        "rd_kafka_mock_cluster_destroy": ([pointer], None),
        "rd_kafka_mock_cluster_bootstraps": ([pointer], text),
        "rd_kafka_mock_topic_create": ([pointer, text, number, number], number),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": ([pointer, ctypes.c_int32], None),
        "rd_kafka_mock_broker_set_down": ([pointer, ctypes.c_int32], number),
        "rd_kafka_mock_broker_set_up": ([pointer, ctypes.c_int32], number),
    }
    for name, (arguments, result) in signatures.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = result
    return library


class EmbeddedBroker:
    """One mock broker in this process; other processes on this machine connect to `bootstrap`.

    Use as a context manager, or `start` and `close`. `topics` maps names to partition counts; a topic that was not
    created beforehand is created with 4 partitions when a client first asks for it.
    """

    def __init__(self, topics: Mapping[str, int] | None = None) -> None:
        self._topics = dict(topics or {})
        self._library: ctypes.CDLL | None = None
        self._handle: int | None = None
        self._cluster: int | None = None
        self._bootstrap = ""

    @property
    def bootstrap(self) -> str:
        """The broker's `host:port` on loopback."""
        if self._cluster is None:
            raise StreamError("the embedded broker is not running")
        return self._bootstrap

    def start(self) -> Self:
        """Start the broker and create its topics.

        Raises:
            ConfigurationError: no librdkafka in the installed wheel, or a topic that cannot be created.
            StreamError: librdkafka could not start it.
        """
        library = self._library = _load_library()
        message = ctypes.create_string_buffer(_ERROR_BYTES)
        configuration = library.rd_kafka_conf_new()
        # The handle never connects anywhere, so its warning that it has no bootstrap.servers would only mislead.
        library.rd_kafka_conf_set(configuration, b"log_level", b"3", message, _ERROR_BYTES)
        handle = library.rd_kafka_new(_PRODUCER, configuration, message, _ERROR_BYTES)
        if not handle:
            raise StreamError(f"the embedded broker could not start: {message.value.decode(errors='replace')}")
        self._handle = handle
        cluster = library.rd_kafka_mock_cluster_new(handle, 1)
        if not cluster:
            self.close()
            raise StreamError("the embedded broker could not start: no mock cluster")
        self._cluster = cluster
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
        self._bootstrap = library.rd_kafka_mock_cluster_bootstraps(cluster).decode()
        for topic, partitions in self._topics.items():
            self.create_topic(topic, partitions)
        return self

    def create_topic(self, topic: str, partitions: int) -> None:
        """Create a topic; its partition count never changes afterwards.

        Raises:
            ConfigurationError: it exists already, or the count is outside 1 to `PARTITIONS_MAX`.
        """
        if not 1 <= partitions <= PARTITIONS_MAX:
            raise ConfigurationError(f"topic {topic}: expected 1 to {PARTITIONS_MAX} partitions, found {partitions}")
        assert self._library is not None
        code = self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1)
        if code != 0:
            raise ConfigurationError(f"topic {topic}: the embedded broker did not create it (librdkafka code {code})")

    def set_down(self, *, down: bool) -> None:
        """Cut all connections and refuse new ones, or accept them again: an outage, for tests."""
        assert self._library is not None
        function = self._library.rd_kafka_mock_broker_set_down if down else self._library.rd_kafka_mock_broker_set_up
        function(self._cluster, 1)

    def close(self) -> None:
        """Stop the broker; every record is gone."""
        if self._library is None:
            return
        if self._cluster is not None:
            self._library.rd_kafka_mock_cluster_destroy(self._cluster)
            self._cluster = None
        if self._handle is not None:
            self._library.rd_kafka_destroy(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _parse_topic(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    if not name or (count and not count.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected NAME or NAME=PARTITIONS, found {text!r}")
    return name, int(count or 1)


def main(arguments: list[str] | None = None) -> None:
    """Run the broker until SIGTERM or SIGINT; prints `host:port` as first line."""
    parser = argparse.ArgumentParser(prog="python -m stream.embedded_broker", description=__doc__.splitlines()[0])
    parser.add_argument("--topic", action="append", default=[], type=_parse_topic, metavar="NAME=PARTITIONS")
    parsed = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with EmbeddedBroker(dict(parsed.topic)) as broker:
        sys.stdout.write(broker.bootstrap + "\n")
        sys.stdout.flush()
        stop.wait()


if __name__ == "__main__":
    main()
