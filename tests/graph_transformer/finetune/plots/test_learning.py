from __future__ import annotations

from pathlib import Path

from graph_transformer.finetune.plots.learning import FewLabels, plot_few_labels, plot_learning_curve

PNG = b"\x89PNG\r\n\x1a\n"


def test_learning_is_drawn_with_and_without_validation(tmp_path: Path) -> None:
    """Losses alone, losses with validations and the step that was kept, and nothing at all."""
    losses = [(step, 1.0 / step) for step in range(1, 60)]
    plot_learning_curve(tmp_path / "a.png", losses, [], metric="mae")
    plot_learning_curve(tmp_path / "b.png", losses, [(20, 0.5), (40, 0.6)], metric="mae", chosen_step=40)
    plot_learning_curve(tmp_path / "c.png", [], [], metric="mae")
    for name in "abc":
        assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG)


def test_few_labels_are_drawn_for_each_curve(tmp_path: Path) -> None:
    """Shares in any order, with and without spread, curves of unequal length."""
    curves = {
        "from scratch": [FewLabels(1.0, 0.7, 0.01), FewLabels(0.01, 0.3)],
        "pre-trained": [FewLabels(0.1, 0.6, 0.02)],
    }
    assert plot_few_labels(tmp_path / "few.png", curves, metric="AP").read_bytes().startswith(PNG)
