"""What a batch costs, learned while serving: seconds as a line over rows, a base and a price per row.

    (rows, seconds) of every batch ─► exponentially forgotten least squares, outliers clipped ─► cost of n rows

A batch that a page fault or another process held up says little of the next one, so what lies far off the line counts
only as far as `OUTLIER` usual distances. A model that has become slower moves the line within some twenty batches.
"""

from __future__ import annotations

# What a batch still counts after the next one: the line rests on about the last thirty.
KEPT = 0.97
# Distances beyond so many usual ones are cut to that many.
OUTLIER = 4.0
# The usual distance is at least this share of what was predicted: a quiet minute must not make every batch an outlier.
SPREAD_MIN = 0.05
# How many batches' worth the assumption weighs that half of an average batch's cost is its base. It matters only while
# all batches are of one size, when measurements cannot tell a base from a price.
ASSUMED = 1.0


class ServiceTime:
    """The estimate of one engine. `observe` belongs to its worker; the line may be asked for from any thread."""

    def __init__(self) -> None:
        self._seen = 0
        self._weight = 0.0
        self._rows = self._seconds = self._rows_rows = self._rows_seconds = 0.0
        self._spread_s = 0.0
        # Replaced as one, so that a reader in another thread never sees half of a line.
        self._line = (0.0, 0.0)

    @property
    def known(self) -> bool:
        """Whether anything was measured yet; before that every cost is 0, so that nothing is refused by a guess."""
        return self._weight > 0

    def cost_s(self, rows: float) -> float:
        """Seconds that a batch of so many rows is expected to take."""
        base_s, row_s = self._line
        return base_s + row_s * rows

    def rows_within(self, seconds: float) -> float:
        """How many rows are expected to take at most so long; below 1 where not even one does."""
        base_s, row_s = self._line
        if seconds < base_s:
            return 0.0
        return (seconds - base_s) / row_s if row_s > 0 else float("inf")

    def observe(self, rows: int, seconds: float) -> None:
        """Takes in what a batch took. The first one is left out: it paid for loading and for page faults."""
        self._seen += 1
        if self._seen == 1:
            return
        if self.known:
            seconds = self._clipped(rows, seconds)
        self._weight = self._weight * KEPT + 1.0
        share = 1.0 / self._weight
        self._rows += (rows - self._rows) * share
        self._seconds += (seconds - self._seconds) * share
        self._rows_rows += (rows * rows - self._rows_rows) * share
        self._rows_seconds += (rows * seconds - self._rows_seconds) * share
        self._fit()

    def _clipped(self, rows: int, seconds: float) -> float:
        expected_s = self.cost_s(rows)
        spread_s = max(self._spread_s, SPREAD_MIN * expected_s)
        bound_s = OUTLIER * spread_s
        off_s = min(max(seconds - expected_s, -bound_s), bound_s)
        self._spread_s = spread_s + (abs(off_s) - spread_s) * (1.0 - KEPT) * 4
        return expected_s + off_s

    def _fit(self) -> None:
        variance = max(0.0, self._rows_rows - self._rows * self._rows)
        covariance = self._rows_seconds - self._rows * self._seconds
        assumed_row_s = self._seconds / self._rows / 2
        weight = ASSUMED / self._weight
        row_s = (covariance + weight * assumed_row_s) / (variance + weight)
        row_s = min(max(row_s, 0.0), self._seconds / self._rows)  # neither price nor base is below nothing
        self._line = (self._seconds - row_s * self._rows, row_s)
