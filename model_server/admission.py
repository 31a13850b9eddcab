"""Whether a question that comes now would be answered in time, and when it is worth asking again.

running batch ends ─► full batches of what waits ahead ─► its own batch ─► the way back ─► before its deadline?
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from model_server.service_time import ServiceTime

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
    # How long answers lately took from the worker to the event loop.
    return_s: float = 0.0

    def answer_s(self, now_s: float, ahead: float) -> float:
        """The moment at which a question that has so many rows ahead of it is expected to be answered.

        Nothing runs and nothing waits: now, whatever was measured before. So an estimate that went wrong never keeps a
        server idle, and is corrected by the next batch.
        """
        if not ahead and not self.busy_until_s:
            return now_s
        full, rest = divmod(ahead, self.batch_limit)
        begins_s = max(now_s, self.busy_until_s) + full * self.service.cost_s(self.batch_limit)
        return begins_s + self.service.cost_s(rest + 1) + self.return_s

    def returned(self, seconds: float) -> None:
        """Takes in how long a batch's answers took back to the event loop."""
        self.return_s += (seconds - self.return_s) * 0.1


def retry_after_s(seconds: float) -> float:
    """The hint for a question that would have come in time so much later: within bounds, never the same for all."""
    jitter = 1.0 + JITTER * random.random()
    return min(max(seconds, RETRY_S_MIN) * jitter, RETRY_S_MAX)
