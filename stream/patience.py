"""A start that waits for its broker: tried again for a while, and heard of meanwhile.

    make ─► UnreachableError ─► a pause, longer each time ─► make ─► ... ─► what it makes, or the last error

What a broker refuses (a wrong password, a topic that does not exist) is raised at once: waiting would not mend it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

import structlog

from stream.errors import StoppedError, UnreachableError

log = structlog.get_logger(__name__)

Made = TypeVar("Made")

FIRST_PAUSE_S: Final = 0.5
PAUSE_MAX_S: Final = 5.0
"""The longest pause: so much later than the broker, at most, does a start go on."""


def patiently(make: Callable[[], Made], patience_s: float, stopped: Callable[[float], bool]) -> Made | None:
    """Return what `make` makes, or None once `stopped` (which waits so many seconds) says that it is time to stop.

    What `make` begins may take longer than a stop may wait: it then raises StoppedError.

    Raises:
        UnreachableError: no broker answered for `patience_s`; the last try may take longer than that.
    """
    until_s = time.monotonic() + patience_s
    wait_s, pause_s = 0.0, FIRST_PAUSE_S
    while not stopped(wait_s):
        try:
            return make()
        except StoppedError:
            return None
        except UnreachableError as error:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                raise
            log.warning("waiting_for_kafka", reason=str(error), patience_left_s=round(left_s, 1))
        wait_s, pause_s = min(pause_s, left_s), min(2 * pause_s, PAUSE_MAX_S)
    return None
