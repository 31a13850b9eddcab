"""What a server of scores does with the questions of one batch, on the engine's worker thread.

questions -> sample -> Neighborhood -> predict (collate, forward, calibrate) -> one Scored each
                                    └> shadows, after the answers have left
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model_server.answer import Answer, History, answers_of, history_of
from model_server.generation import Serving
from model_server.metrics import Metrics
from model_server.models.shadow import Place, Shadows
from temporal_graph.view import GraphPosition, Key


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: an event or a key, its cut-off, and the moment (time.monotonic) after which nobody listens."""

    event: bytes
    cutoff_time_us: int
    deadline_s: float
    key: Key | None = None


@dataclass(frozen=True, slots=True)
class Stages:
    """Where a question's time went; sample, collate and forward are those of the batch it was scored in."""

    queue_us: int
    sample_us: int
    collate_us: int
    forward_us: int


@dataclass(frozen=True, slots=True)
class Scored:
    """A question's answer and what it was computed from; `shadow` is where other models answer it too."""

    answer: Answer
    history: History
    position: GraphPosition
    model_version: str
    stages: Stages
    shadow: Place | None = None


class Scorer:
    """Answers batches with what is served when they begin: an `engine.Answerer`."""

    def __init__(self, serving: Callable[[], Serving], metrics: Metrics, shadows: Shadows | None = None) -> None:
        self._serving = serving
        self._shadows = shadows
        self._stages = metrics.stages

    def __call__(self, questions: Sequence[Question], queue_us: Sequence[int]) -> list[Scored]:
        """Scores the questions together. Raises SeedError for an event that is none."""
        serving = self._serving()
        start_s = time.perf_counter()
        neighborhood = serving.sample(questions)
        sample_us = round((time.perf_counter() - start_s) * 1e6)
        prediction = serving.predictor.predict(neighborhood)
        self._stages["sample"].observe(sample_us / 1e6)
        self._stages["collate"].observe(prediction.collate_us / 1e6)
        self._stages["forward"].observe(prediction.forward_us / 1e6)
        ticket = None
        if serving.shadows and self._shadows is not None:
            ticket = self._shadows.offer(serving.shadows, neighborhood, prediction)
        return [
            Scored(
                answer=answer,
                history=history,
                position=neighborhood.position,
                model_version=serving.predictor.version,
                stages=Stages(waited_us, sample_us, prediction.collate_us, prediction.forward_us),
                shadow=None if ticket is None else Place(ticket, place),
            )
            for place, (waited_us, answer, history) in enumerate(
                zip(queue_us, answers_of(prediction), history_of(neighborhood), strict=True)
            )
        ]
