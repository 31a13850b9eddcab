"""How good the answers are, by kind of target: ranking, calibration, error, and how often intervals hold.

calibrated outputs, labels ─► measure ─► Metrics: plain numbers, in the checkpoint and on the screen
"""

from graph_transformer.finetune.metrics.base import Metrics
from graph_transformer.finetune.metrics.binary import DAY_US, BinaryMetrics, card_precision
from graph_transformer.finetune.metrics.classes import MulticlassMetrics, MultilabelMetrics
from graph_transformer.finetune.metrics.measure import measure
from graph_transformer.finetune.metrics.number import NumberMetrics
from graph_transformer.finetune.metrics.primary import PRIMARIES, Primary, primary

__all__ = [
    "DAY_US",
    "PRIMARIES",
    "BinaryMetrics",
    "Metrics",
    "MulticlassMetrics",
    "MultilabelMetrics",
    "NumberMetrics",
    "Primary",
    "card_precision",
    "measure",
    "primary",
]
