"""Every limit of the updater, with a name and a reason; read from ``NOWGRAPH_UPDATER_*`` where not given."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class UpdaterSettings(BaseSettings):
    """How the updater polls, applies and forgets. Immutable; wrong values raise pydantic's ValidationError."""

    model_config = SettingsConfigDict(env_prefix="NOWGRAPH_UPDATER_", frozen=True)

    # A batch is visible as a whole, so its size bounds how long its first event waits for its last.
    poll_records_max: int = Field(default=10_000, ge=1)
    # An idle source returns at the first record, so this bounds only how soon stop() is noticed.
    poll_timeout_s: float = Field(default=0.05, gt=0)
    # With several sources an idle one must not hold up the others for long.
    poll_timeout_shared_s: float = Field(default=0.005, gt=0)
    # Retention is judged from record times in days; looking more often only costs.
    evict_interval_s: float = Field(default=60.0, gt=0)
    # Accounting memory walks every table; scrapes come every few seconds.
    account_interval_s: float = Field(default=1.0, gt=0)
    # The end of every partition is one request to the broker, some milliseconds in which no event is applied.
    lag_interval_s: float = Field(default=5.0, gt=0)
    # Behind from the first, no longer behind below the second: one threshold would flap at every batch.
    behind_enter_records: int = Field(default=50_000, ge=1)
    behind_leave_records: int = Field(default=5_000, ge=0)
    # How long dead letters may take to reach their topic before the updater gives up and stops, positions unmoved.
    dead_letter_timeout_s: float = Field(default=30.0, gt=0)

    # What a restart may have to read again of the log: five minutes of it are applied in seconds.
    snapshot_interval_s: float = Field(default=300.0, gt=0)
    # Older ones are for the day on which the newest are damaged.
    snapshot_keep: int = Field(default=3, ge=1)
    # Copying the graph beside the writer takes memory bandwidth and a core that ingest may want: this is what it may
    # have. What changed meanwhile is copied as fast as it goes: the sooner it is done, the less has changed again.
    snapshot_bytes_per_s: int = Field(default=64 << 20, ge=1 << 20)
    # Where every core is busy, what makes snapshots gets a tenth of what others do: the kernel's niceness, a thread's.
    snapshot_niceness: int = Field(default=10, ge=0, le=19)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.behind_leave_records >= self.behind_enter_records:
            raise ValueError("behind_leave_records: expected less than behind_enter_records")
        return self
