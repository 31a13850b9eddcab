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


class DeliveryError(StreamError):
    """A record did not reach its topic within its deadline, or the broker refused it."""
