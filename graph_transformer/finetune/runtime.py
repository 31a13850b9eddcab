"""How a training runs, and not what comes out of it: where, in how many threads, what is kept for a resume."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from graph_transformer.finetune.ranks import Ranks

SAVE_EVERY_S = 60.0
"""Seconds of work that a kill may cost at most."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Options that change how long a training takes.

    device: cpu, cuda or cuda:N. samplers: threads that sample ahead of the model. compile: fit through `torch.compile`.
    state: folder of the files a killed training goes on from, written every `save_every_s` and at each validation;
    `resume` reads them. logs: folder for TensorBoard. On one CPU thread none of it changes the weights, save `compile`
    and the number of `ranks`, which change the order of sums.
    """

    device: str = "cpu"
    samplers: int = 1
    compile: bool = False
    state: Path | None = None
    resume: bool = False
    save_every_s: float = SAVE_EVERY_S
    logs: Path | None = None
    ranks: Ranks = field(default_factory=Ranks)

    def named(self, name: str) -> Runtime:
        """Return the options for a training beside another: states and logs in folders of their own."""
        return replace(
            self,
            state=None if self.state is None else self.state / name,
            logs=None if self.logs is None else self.logs / name,
        )
