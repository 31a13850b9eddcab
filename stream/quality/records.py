"""What the join takes in: answers as they were given, outcomes as they become known. Plain values, from any stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

KeyPart = int | str
Key = tuple[KeyPart, ...]
"""A primary key's parts, private ones hashed."""

LIVE = "live"
SHADOW = "shadow"


def identity(parts: Sequence[KeyPart], *, size: int = 16) -> bytes:
    """Return the digest that stands for a key: equal for equal parts, 17 and "17" apart; spread evenly for sampling."""
    texts = [("i" if isinstance(part, int) else "t", str(part)) for part in parts]
    text = "".join(f"{kind}{len(part)}:{part}" for kind, part in texts)
    return blake2b(text.encode(), digest_size=size).digest()


def item_identity(parts: Sequence[KeyPart]) -> int:
    """Return an item's key as one number of 64 bits: two of a million items share one with probability 3e-8."""
    return int.from_bytes(identity(parts, size=8), "big")


@dataclass(frozen=True, slots=True, order=True)
class Stream:
    """Whose answers: of one model, for one task of one tenant; `role` is live, or shadow for those nobody was given."""

    tenant: str
    task: str
    model_version: str
    role: str = LIVE


@dataclass(frozen=True, slots=True)
class Answer:
    """What one model said of one row, or of one entity as of `event_time_us`.

    `scores`: the probability of a yes; one of each class in the task's order; of numbers the quantiles, step by step.
    `numbers`: the row's numerical cells in the task's order of inputs, NaN for null; empty where it has none.
    """

    stream: Stream
    key: Key
    event_time_us: int
    answered_time_us: int
    scores: tuple[float, ...]
    numbers: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became known of a row, or of an entity as of `anchor_time_us` (None for a row).

    `label`: 0 or 1; a class's index; 0 or 1 for each class; a number for each step; None where it was withdrawn.
    Of several outcomes the one known last counts, of those the one of the highest `offset`.
    """

    task: str
    key: Key
    known_time_us: int
    label: tuple[float, ...] | None
    anchor_time_us: int | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class ShownList:
    """A list as it was shown: the items' identities, the best first."""

    stream: Stream
    user: Key
    event_time_us: int
    answered_time_us: int
    request_id: str
    items: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Interaction:
    """A row that ties a user to an item; `item` is None where it was withdrawn. Of a row's versions the last counts."""

    task: str
    user: Key
    row: bytes
    event_time_us: int
    known_time_us: int
    item: int | None
    offset: int = 0


Record = Answer | Outcome | ShownList | Interaction
