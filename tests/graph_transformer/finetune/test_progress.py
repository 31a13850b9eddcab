from __future__ import annotations

import io

from rich.console import Console

from graph_transformer.finetune.loop import Progress
from graph_transformer.finetune.metrics import BinaryMetrics
from graph_transformer.finetune.progress import metrics_table, progress_bars


def test_bars_show_phase_steps_loss_and_validation() -> None:
    """A bar per phase; the last figures stay on the screen, the share of waiting where there is one."""
    out = io.StringIO()
    with progress_bars(Console(file=out, force_terminal=True, width=100)) as report:
        report(Progress("train", 1, 2, 0.5, None))
        report(Progress("train", 2, 2, 0.25, 0.625, "MAE", wait_share=0.07))
        report(Progress("refit", 1, 2, 0.125, None))
    text = out.getvalue()
    for part in ("train", "2/2", "loss 0.250", "MAE 0.625", "waits 7%", "refit", "1/2"):
        assert part in text


def test_the_table_has_a_line_per_split() -> None:
    """Counts, ranking, calibration and card precision, with a dash where there is none."""
    out = io.StringIO()
    metrics = {
        "test": BinaryMetrics(58264, 385, 0.684, 0.871, 0.0031, 0.0007, 0.01, 0.3),
        "alone": BinaryMetrics(58264, 385, 0.13, 0.584, 0.006, 0.001, 0.02),
    }
    Console(file=out, width=120).print(metrics_table(metrics))
    text = out.getvalue()
    for part in ("58,264", "385", "0.684", "0.871", "0.300", "0.00310", "CP@100"):
        assert part in text
    assert " - " in text
