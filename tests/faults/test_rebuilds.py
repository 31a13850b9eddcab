"""The graph of a log, however the log lies on Kafka and however it is read."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.kafka]

SEED = 7


def test_rebuilds_of_other_partitions_and_batches_agree(
    apache_kafka: str, world_of: Callable[..., Any], simulated: ModuleType
) -> None:
    """One, three and eight partitions, batches of seven, 500 and 10,000: one hash, and as many dead letters."""
    log = simulated.make_log(random.Random(SEED), count=2_000)
    # Visits have no key but their place in the log, so another log has others.
    records = [record for (topic, _), part in log.items() if topic == "events" for record in part]
    found = set()
    for partitions, batch in ((1, 10_000), (3, 7), (8, 500)):
        chance = random.Random(partitions)
        parts: dict[tuple[str, int], list[Any]] = {("events", number): [] for number in range(partitions)}
        parts["visits", 0] = []
        for record in records:
            parts["events", chance.randrange(partitions)].append(record)
        world = world_of(apache_kafka, schema=simulated.SCHEMA_YAML, log=parts)
        world.tell(0, 1)
        graph, dead = world.replay(poll_records_max=batch)
        found.add((graph, len(dead)))
    assert len(found) == 1, found
