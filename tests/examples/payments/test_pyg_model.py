from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graph_transformer.config import ModelConfig
from graph_transformer.predictor import Predictor
from online_sampler.sampler import Sampler
from temporal_graph.view import GraphView

pytest.importorskip("torch_geometric")
CONFIG = ModelConfig(width=16, layers=2, dropout=0.0, module="pyg_model:Sage")
MINUTE_US = 60_000_000


def test_a_model_of_pyg_is_trained_and_served(
    view: GraphView, served: Callable[[ModelConfig], Predictor], over_grpc: Callable[[np.ndarray], list[float]]
) -> None:
    """GraphSAGE over `to_hetero` learns, travels through a checkpoint, answers alike alone, in company and by gRPC."""
    predictor = served(CONFIG)
    rows = np.array([300, 305, 312, 399], dtype=np.int64)
    sampler = Sampler(view, predictor.sampling_plan)
    together = predictor.predict(sampler.sample_rows("transactions", rows, rows * MINUTE_US - 1)).logit
    for row, logit in zip(rows.tolist(), together.tolist(), strict=True):
        one = np.array([row], dtype=np.int64)
        alone = predictor.predict(sampler.sample_rows("transactions", one, one * MINUTE_US - 1)).logit[0]
        assert alone == pytest.approx(logit, abs=1e-5)
        assert (logit > 0) == (row % 17 > 8)
    assert over_grpc(rows) == pytest.approx(together.tolist(), abs=1e-5)
