"""A load test as a file: what is asked, when, what happens behind it, and what must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from loadtests.load.schedule import Arrivals

SCENARIOS = Path(__file__).resolve().parents[1] / "scenarios"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Clients(_Part):
    """The generator's own size. More processes where one cannot keep up: the report says when that is."""

    processes: int = Field(default=1, gt=0, le=64)
    # Each sender stays on a core of its own, away from the server's: a sender that moves takes the server's time.
    pinned: bool = True
    # HTTP/2 connections of each process: servers that share a port by SO_REUSEPORT are chosen by connection.
    connections: int = Field(default=4, gt=0, le=256)
    # Unanswered requests of all processes together; beyond it a request that is due is dropped, and counted.
    in_flight_max: int = Field(default=2_000, gt=0)
    # A caller who gives up is a failure of the server, so this belongs to the scenario.
    timeout_s: float = Field(default=1.0, gt=0)


class Objectives(_Part):
    """What must hold for the run to pass; what is absent is reported and not judged."""

    p50_ms: float | None = Field(default=None, gt=0)
    p99_ms: float | None = Field(default=None, gt=0)
    p99_9_ms: float | None = Field(default=None, gt=0)
    p99_over_p50: float | None = Field(default=None, ge=1)
    error_ratio: float | None = Field(default=0.001, ge=0, le=1)
    dropped_ratio: float | None = Field(default=0.0, ge=0, le=1)
    achieved_ratio: float | None = Field(default=0.98, ge=0, le=1)
    # The generator's own: beyond it nothing that was measured can be believed, whatever it says.
    send_delay_p99_ms: float = Field(default=10.0, gt=0)


class Scenario(_Part):
    """One load test."""

    version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    about: str
    seconds: float = Field(gt=0, le=86_400)
    arrivals: Arrivals
    # Share of each method: Score asks the payments server, Rank the shop's.
    calls: dict[Literal["Score", "Rank"], Annotated[float, Field(gt=0)]] = Field(min_length=1)
    # Events applied to each graph that is asked, behind the load; 0 leaves the writers idle.
    ingest_per_s: int = Field(default=50_000, ge=0)
    # Server processes on one port; the payments server alone.
    workers: int = Field(default=1, gt=0, le=64)
    # When the workers are told to be replaced, one by one, by processes that are started anew.
    replace_at_s: float | None = Field(default=None, ge=0)
    clients: Clients = Clients()
    objectives: Objectives = Objectives()
    # Of the schedule and of which request is sent when: a run can be repeated.
    seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.arrivals.kind == "spike" and self.arrivals.start_s + self.arrivals.lasts_s > self.seconds:
            raise ValueError("arrivals: the spike must end within `seconds`")
        if self.replace_at_s is not None and (self.workers == 1 or self.replace_at_s >= self.seconds):
            raise ValueError("replace_at_s: there must be several workers, and time left")
        return self


def load_scenario(path: Path) -> Scenario:
    """Reads a scenario; a bare name is one of loadtests/scenarios. Raises ValueError that names the key."""
    if path.suffix == "":
        path = SCENARIOS / f"{path.name}.yaml"
    try:
        return Scenario.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in SCENARIOS.glob("*.yaml")))
        raise ValueError(f"{path}: no such scenario; there are {known}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {error}") from None
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise ValueError(f"{path}: {'; '.join(wrong)}") from None
