"""Whether a question that comes now would be answered in time, and when it is worth asking again.

running batch ends ─► full batches of what waits ahead ─► its own batch ─► a margin ─► before its deadline?
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from model_server.service_time import ServiceTime

# How fast the margin follows answers that are later, and those that are earlier, than it allows for.
RISE, FALL = 0.2, 0.02
# Hints are within these, so that a wrong estimate neither calls everybody back at once nor sends them away for long.
RETRY_S_MIN, RETRY_S_MAX = 0.01, 5.0
# Hints are up to so much longer at random: those that were refused together do not come back together.
JITTER = 0.5


@dataclass(slots=True)
class Admission:
    """The forecast of one engine; belongs to the event loop, but for the two moments that its worker sets."""

    service: ServiceTime
    batch_limit: int
    # When the running batch is expected to end; 0 while none runs.
    busy_until_s: float = 0.0
    # How much later than forecast nearly all answers are, as lately seen on the event loop.
    margin_s: float = 0.0

    def answer_s(self, now_s: float, ahead: float) -> float:
        """The moment at which a question that has so many rows ahead of it is expected to be answered.

        Nothing runs and nothing waits: now, whatever was measured before. So an estimate that went wrong never keeps a
        server idle, and is corrected by the next batch.
        """
        if not ahead and not self.busy_until_s:
            return now_s
        full, rest = divmod(ahead, self.batch_limit)
        begins_s = max(now_s, self.busy_until_s) + full * self.service.cost_s(self.batch_limit)
        return begins_s + self.service.cost_s(rest + 1) + self.margin_s

    def learn(self, late_s: float) -> None:
        """Takes in by how much a batch's last answer came later than was forecast for it without the margin.

        The margin rises ten times as fast as it falls: it stays above nine of ten. What it covers is the way back to
        the event loop, and an event loop with no time.
        """
        off_s = late_s - self.margin_s
        self.margin_s = max(0.0, self.margin_s + off_s * (RISE if off_s > 0 else FALL))


def retry_after_s(seconds: float) -> float:
    """The hint for a question that would have come in time so much later: within bounds, never the same for all."""
    jitter = 1.0 + JITTER * random.random()
    return min(max(seconds, RETRY_S_MIN) * jitter, RETRY_S_MAX)
