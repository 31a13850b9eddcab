"""The errors of the package: one small tree under `StreamError`.

A record that cannot be used is no error here: it becomes a dead letter, and the stream moves on.
"""

from __future__ import annotations


class StreamError(Exception):
    """The root of everything this package raises about its operation."""


class ConfigurationError(StreamError):
    """A setting is missing or wrong: a private schema without a secret, an unknown topic, a file of no table."""


class SourceError(StreamError):
    """A source cannot be read any more: the broker refused, a file changed its form."""


class UnreachableError(SourceError):
    """No broker answers, and none refused: it may pass by itself, so whoever has patience may try again."""


class StoppedError(SourceError):
    """What was begun was given up, because it is time to stop."""


class SilentLogError(SourceError):
    """The broker does not give records that it says are there."""


class GapError(SourceError):
    """Records that the graph never saw are gone from the log, so that going on would silently miss them.

    Attributes:
        topic: of the gap.
        partition: of the gap.
        expected_offset: the first offset that was not applied.
        found_offset: the first one that is still there; -1 where the broker did not say.
    """

    def __init__(self, topic: str, partition: int, expected_offset: int, found_offset: int) -> None:
        self.topic = topic
        self.partition = partition
        self.expected_offset = expected_offset
        self.found_offset = found_offset
        found = f"the next one is {found_offset}" if found_offset >= 0 else "the broker no longer has it"
        super().__init__(f"{topic}[{partition}]: expected offset {expected_offset}, but {found}: records are lost")


class ReplacedTopicError(SourceError):
    """A topic was deleted and made anew, so that positions in the old one mean nothing in it.

    Read from its beginning into the same graph it would not do: rows without a key are named by their offsets, and what
    the old topic had is in no log that this graph could be built from again.

    Attributes:
        topic: its name.
        kept_id: of the topic that was read.
        found_id: of the one that is there.
    """

    def __init__(self, topic: str, kept_id: str, found_id: str) -> None:
        self.topic = topic
        self.kept_id = kept_id
        self.found_id = found_id
        super().__init__(
            f"topic {topic!r} was deleted and made anew (its id was {kept_id} and is {found_id}): the positions are "
            "those of the old one. Build the graph anew, with another place for snapshots and, for what is no longer "
            "in the topic, history"
        )


class DeliveryError(StreamError):
    """A record did not reach its topic within its deadline, or the broker refused it."""
