"""Whether the graph is behind its log: a switch with two thresholds, so that it does not flap at every batch."""

from __future__ import annotations


class Behind:
    """On from ``enter_records`` of lag, off again only below ``leave_records``; between the two it stays as it was."""

    def __init__(self, enter_records: int, leave_records: int) -> None:
        if not 0 <= leave_records < enter_records:
            raise ValueError(f"expected 0 <= leave < enter, found leave {leave_records}, enter {enter_records}")
        self._enter_records = enter_records
        self._leave_records = leave_records
        self._on = False

    def update(self, lag_records: int) -> bool:
        """Takes the lag of all partitions together and returns whether the graph is behind."""
        if lag_records >= self._enter_records:
            self._on = True
        elif lag_records <= self._leave_records:
            self._on = False
        return self._on

    def __bool__(self) -> bool:
        return self._on
