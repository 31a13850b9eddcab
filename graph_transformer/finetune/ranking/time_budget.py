"""The time that the fitting of a ranking may take, parted among its phases: what one leaves, those after it have.

seconds ─► share of the first phase ─► what is left ─► share of the next ─► …    and what of each was cut
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

TOWERS, EARLIER, LISTS, JUDGED, FUSIONS = "towers", "towers before the fusion", "lists", "judging", "fusion"
FINAL, MORE_LISTS, AGAIN = "final towers", "lists of validation", "fusion again"
WEIGHTS: Mapping[str, float] = {
    TOWERS: 3.0, EARLIER: 3.0, LISTS: 1.5, JUDGED: 0.5, FUSIONS: 2.0, FINAL: 3.0, MORE_LISTS: 0.5, AGAIN: 2.0,
}  # fmt: skip
"""Of the phases, in their order, about what each takes where nothing is cut (100,000 ratings of 9,066 films)."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How much of a phase there was time for: `done` of `wanted`, each so many steps or questions (`unit`)."""

    phase: str
    done: int
    wanted: int
    unit: str

    def __str__(self) -> str:
        """The cut in words."""
        return f"{self.phase}: {self.done:,} of {self.wanted:,} {self.unit}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"phase": self.phase, "done": self.done, "wanted": self.wanted, "unit": self.unit}


class TimeBudget:
    """Seconds for the phases named; None where there is no limit, and then nothing is cut."""

    def __init__(
        self, seconds: float | None, phases: tuple[str, ...], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` tells seconds, which only grow."""
        self._left_s, self._clock = seconds, clock
        self._ahead = {phase: WEIGHTS[phase] for phase in phases}
        self.cuts: list[Cut] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[float | None]:
        """Give the seconds that a phase may take: its share of what is left, by weight, of it and those to come."""
        if self._left_s is None:
            yield None
            return
        began_s, weight = self._clock(), self._ahead.pop(name)
        yield max(0.0, self._left_s) * weight / (weight + sum(self._ahead.values()))
        self._left_s -= self._clock() - began_s

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self._left_s is not None

    def told(self, phase: str, done: int, wanted: int, unit: str) -> None:
        """Keep what a phase came to, where that is less than was wanted; of a phase told of twice the first."""
        if done < wanted and phase not in [cut.phase for cut in self.cuts]:
            self.cuts.append(Cut(phase, done, wanted, unit))
