"""A process of its own that fits the small world's model: `fit_process.py OUT.pt STATE STEPS KILL_AT`.

KILL_AT > 0 ends it without warning (SIGKILL) after that step. Under torchrun's variables it is one rank of several.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from graph_transformer.finetune.choice import Validator
from graph_transformer.finetune.examples import examples_of
from graph_transformer.finetune.loop import Limits, Progress, fit
from graph_transformer.finetune.ranks import joined
from graph_transformer.finetune.runtime import Runtime
from graph_transformer.heads import Unit
from online_sampler.plan import SamplingPlan

HERE = Path(__file__).parent
LEARNS = 40
"""From so many steps on the task is the small world's own; below, one that throws dice wherever it can."""


def loaded(name: str, path: Path) -> object:
    """A module by its path: tests/ is never on sys.path."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main(out: str, state: str, steps: int, kill_at: int) -> None:
    """Fit, and save the kept weights with the losses."""
    torch.set_num_threads(1)
    world_module = loaded("small_world", HERE / "conftest.py")
    schema_module = loaded("drawings", HERE.parent / "conftest.py")
    world = world_module.grown(schema_module.parse_schema(schema_module.PAYMENTS))
    task = world_module.small_task()
    training = replace(task.training, steps=steps, evaluate_every=4)
    if steps < LEARNS:
        plan = {"num_neighbors": [{"hop1": {"default": 1}}, {"hop2": {"default": 8}}], "strategy": "uniform"}
        task = replace(task, sampling_plan=SamplingPlan.from_dict(plan))
        training = replace(training, staleness_share=0.5, staleness_days=2.0)
    task = replace(task, training=training)
    examples = examples_of(world.labels(task), task.target, task.splits.train, known_by_us=None)
    encoding = world_module.encoding_of(world, task, examples)

    def report(progress: Progress) -> None:
        if progress.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def measured(model: torch.nn.Module) -> float:
        return -float(sum(value.float().norm() for value in model.state_dict().values()))

    with joined(os.environ, "cpu") as (ranks, device):
        runtime = Runtime(device=device, samplers=2, state=Path(state), resume=True, save_every_s=0.0, ranks=ranks)
        fitted = fit(
            world.view,
            task,
            examples,
            encoding,
            phase="train",
            limits=Limits(steps),
            unit=Unit(),
            validator=Validator("size", True, measured) if steps < LEARNS else None,
            seed=3,
            runtime=runtime,
            report=report,
        )
        torch.save(
            {"weights": fitted.model.state_dict(), "losses": fitted.losses, "validations": fitted.validations,
             "step": fitted.step},
            out.replace("RANK", str(ranks.rank)),
        )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
