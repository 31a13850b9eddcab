"""Pictures of a training and its measurements, as PNG files. The state of matplotlib's windows is never touched.

calibrated outputs and labels, of the model and of the floors ─► draw_answers ─► what its kind of target shows
losses and validations of the fitting ─► plot_learning_curve
"""

from graph_transformer.finetune.plots.answers import Answers, draw_answers
from graph_transformer.finetune.plots.classes import (
    plot_precision_recall,
    plot_reliability,
    plot_roc,
    plot_top_class_reliability,
)
from graph_transformer.finetune.plots.learning import FewLabels, plot_few_labels, plot_learning_curve
from graph_transformer.finetune.plots.number import plot_coverage, plot_predicted_true, plot_residuals

__all__ = [
    "Answers",
    "FewLabels",
    "draw_answers",
    "plot_coverage",
    "plot_few_labels",
    "plot_learning_curve",
    "plot_precision_recall",
    "plot_predicted_true",
    "plot_reliability",
    "plot_residuals",
    "plot_roc",
    "plot_top_class_reliability",
]
