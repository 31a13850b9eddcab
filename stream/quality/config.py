"""What quality is measured of: a task in the few words that the join needs, made by who knows the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US


class AnswerKind(StrEnum):
    """What an answer is: the kinds of target, in the same words."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"
    FORECAST = "forecast"
    RANKING = "ranking"


@dataclass(frozen=True, slots=True)
class Interactions:
    """Where what users did stands: rows of `table` whose links name the user and the item."""

    table: str
    user_link: str
    item_link: str


@dataclass(frozen=True, slots=True)
class QualityTask:
    """One task. `table` is what is asked about; at event level its `outcome` column is the label.

    An entity-level task has its labels in rows of `label_table`, whose key ends with the anchor in microseconds and
    whose `label_columns` hold them. `label_delay_us`: from then on a label counts as known; what has none by then is a
    negative if `absence_is_negative`, else it does not count. Of a ranking it is how long a list is given for what its
    user does next. `levels` are those of the quantiles, `inputs` the numerical columns whose drift is measured.
    """

    name: str
    kind: AnswerKind
    table: str
    event_level: bool
    label_delay_us: int
    tenant: str = ""
    outcome: str | None = None
    classes: tuple[str, ...] = ()
    steps: int = 1
    levels: tuple[float, ...] = ()
    label_table: str | None = None
    label_columns: tuple[str, ...] = ()
    interactions: Interactions | None = None
    absence_is_negative: bool = False
    inputs: tuple[str, ...] = ()


class QualitySettings(BaseSettings):
    """Every limit of the measurement; read from ``NOWGRAPH_QUALITY_*`` where not given."""

    model_config = SettingsConfigDict(env_prefix="NOWGRAPH_QUALITY_", frozen=True, extra="ignore")

    # Rolling windows by event time. A day answers to what changed today; add a week for what is rare.
    windows_us: tuple[int, ...] = (DAY_US,)
    # What a model's scores and inputs are compared with: its first answers, over so long.
    reference_us: int = Field(default=DAY_US, gt=0)
    # Fewer answers than this are no reference, and have no drift: by chance alone the index of n answers against m is
    # about 9 * (1/n + 1/m), with 500 a quarter of what counts as little.
    drift_answers_min: int = Field(default=500, ge=20)
    # Rows with an answer or an outcome that are held, about 1 KiB each. Beyond it half of the keys are left out, by
    # their hash: figures are then those of a fair sample, and `nowgraph_quality_sample_ratio` says of how many.
    rows_max: int = Field(default=200_000, ge=100)
    # Models x roles x tasks that have figures of their own; each is a few dozen series. The oldest one makes way.
    streams_max: int = Field(default=32, ge=1)
    # Of one user: lists that wait for what is done next, and what was done; the oldest make way.
    lists_per_user_max: int = Field(default=64, ge=1)
    interactions_per_user_max: int = Field(default=256, ge=1)
    # How long the partitions of a Faust worker that died wait for the next one; Kafka allows 6 s and more by default.
    takeover_s: float = Field(default=60.0, ge=1.0)
    # Between two reports: each goes over all that is held, about a second for 200,000 rows.
    report_every_s: float = Field(default=15.0, gt=0)

    @field_validator("windows_us")
    @classmethod
    def _positive(cls, windows: tuple[int, ...]) -> tuple[int, ...]:
        if not windows or min(windows) <= 0 or len(set(windows)) != len(windows):
            raise ValueError("expected at least one window, each longer than nothing and named once")
        return tuple(sorted(windows))
