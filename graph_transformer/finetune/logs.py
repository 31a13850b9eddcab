"""What TensorBoard shows of a training: a run per phase, a curve per figure.

Progress ─► FOLDER/<phase>: loss, learning_rate, gradient, wait_share; validation/<metric>
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graph_transformer.finetune.loop import Progress

Log = Callable[["Progress", bool], None]


@contextmanager
def logs_in(folder: Path | None, phase: str, first: int) -> Iterator[Log]:
    """Give what writes a progress, and whether it has a new validation; nothing is written without a folder.

    A training that goes on from step `first` takes the curves up there.
    """
    if folder is None:
        yield lambda progress, validated: None  # noqa: ARG005
        return
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / phase), purge_step=first + 1 if first else None)

    def log(progress: Progress, validated: bool) -> None:
        step = progress.step
        writer.add_scalar("loss", progress.loss, step)
        writer.add_scalar("learning_rate", progress.rate, step)
        writer.add_scalar("gradient", progress.gradient, step)
        writer.add_scalar("wait_share", progress.wait_share, step)
        if validated and progress.validation is not None:
            writer.add_scalar(f"validation/{progress.metric}", progress.validation, step)

    try:
        yield log
    finally:
        writer.close()
