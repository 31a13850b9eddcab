from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from graph_transformer.config import ModelConfig
from graph_transformer.errors import CheckpointMismatch
from graph_transformer.predictor import Predictor
from online_sampler.sampler import Sampler
from temporal_graph.view import GraphView

CONFIG = ModelConfig(width=16, dropout=0.0, module="custom_module:MeanOfRows")
MINUTE_US = 60_000_000


def test_a_module_of_ones_own_is_trained_and_served(
    view: GraphView, served: Callable[[ModelConfig], Predictor], over_grpc: Callable[[np.ndarray], list[float]]
) -> None:
    """It learns, travels through a checkpoint, and answers alike alone, in company and over gRPC."""
    predictor = served(CONFIG)
    rows = np.array([300, 305, 312, 399], dtype=np.int64)
    sampler = Sampler(view, predictor.sampling_plan)
    together = predictor.predict(sampler.sample_rows("transactions", rows, rows * MINUTE_US - 1)).logit
    alone = [
        predictor.predict(sampler.sample_rows("transactions", rows[n : n + 1], rows[n : n + 1] * MINUTE_US - 1)).logit[
            0
        ]
        for n in range(4)
    ]
    assert np.allclose(together, alone, atol=1e-5)
    assert ((together > 0) == (rows % 17 > 8)).all()
    assert over_grpc(rows) == pytest.approx(together.tolist(), abs=1e-5)


def test_a_server_without_the_module_says_so(
    view: GraphView, served: Callable[[ModelConfig], Predictor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint whose class can not be imported is refused, with the path and what to do."""
    served(CONFIG)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not entry.endswith("examples/payments")])
    monkeypatch.delitem(sys.modules, "custom_module")
    with pytest.raises(CheckpointMismatch, match=r"PYTHONPATH.*custom_module:MeanOfRows"):
        Predictor.load(tmp_path / "checkpoint", view)
