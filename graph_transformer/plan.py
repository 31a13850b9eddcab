"""A model plan: what to sample, the model's shape and how it is fitted; proposed by statistics, edited by a person.

finetune.propose ─► ModelPlan ─► YAML with reasons ─► an editor ─► ModelPlan.apply(task) ─► Task
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from graph_transformer.config import ModelConfig
from graph_transformer.errors import TaskError
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.target import Kind
from graph_transformer.training import Training
from online_sampler.errors import PlanError
from online_sampler.plan import NODE_LIMIT_DEFAULT, PerLink, SamplingPlan, Strategy
from online_sampler.resolved_plan import resolve

if TYPE_CHECKING:
    from graph_transformer.task import Task
    from temporal_graph.schema import Schema

KEYS = ("version", "sampling_plan", "model", "training", "ranking")
COMMENT_COLUMN = 40
"""Where comments of short lines begin, so that they stand below each other."""

MEANINGS = {
    "sampling_plan.num_neighbors": "most rows taken per row over a link, hop by hop; a link that is not named: default",
    "sampling_plan.strategy": "which ones, where there are more: most_recent, uniform, recency_weighted",
    "sampling_plan.half_life": "recency_weighted: ranks after which the chance of a row has halved",
    "sampling_plan.node_limit": "most rows of one question, whatever the fan-outs",
    "model.width": "numbers per row vector, a multiple of heads",
    "model.layers": "rounds of attention",
    "model.heads": "attention heads",
    "model.per_path": "each link path of events has so many heads of its own, beside those that see all rows",
    "model.sums": "gated sums beside the heads; 0: none",
    "model.counts": "the model reads how many rows of each path there are, by age",
    "model.tallies": "and rows, visits, sums, known outcomes of each path in growing windows, ages of the last visits",
    "model.comparisons": "and how the row's own numbers compare with those of its paths' rows of the same table",
    "model.cells": "how a row's cells become one vector: sum or attention",
    "model.centroids": "learned points of the whole graph that a question attends to",
    "model.mutual": "rounds in which rows attend to each other first",
    "model.dropout": "share of numbers left out at random in training",
    "model.token_dropout": "in training a question loses a share of its rows, drawn from 0 to this",
    "model.compile": "through torch.compile: faster steps, after a slow first one",
    "model.text_encoder": "import path of a function that reads text columns; null: hashed n-grams",
    "model.module": "import path of a module of your own in the model's place",
    "model.members": "models whose outputs are averaged",
    "training.steps": "updates of the weights, each on a batch",
    "training.batch": "examples a step",
    "training.rare_share": "least share of a binary label's rarer kind in a batch; answers are corrected for it",
    "training.learning_rate": "at its highest, after the warm-up",
    "training.weight_decay": "pulls the weights to zero",
    "training.warm_up": "share of the steps in which the rate rises",
    "training.clip_norm": "gradients longer than this are cut",
    "training.ema": "the model that answers is an average of the weights, with this decay a step",
    "training.evaluate_every": "steps between looks at the validation split",
    "training.patience": "looks without a better one before fitting ends; 0: all steps",
    "training.validation_examples": "most examples of a look",
    "training.staleness_share": "share of training questions asked with an older graph than they could have had",
    "training.staleness_days": "how much older, at most",
    "training.transform": "of a numerical label: auto, identity, signed_log",
    "training.bfloat16": "mixed precision",
    "ranking.dimension": "numbers of a vector of each member of the towers",
    "ranking.tower_history": "interactions of a user that the towers read, the newest",
    "ranking.history": "interactions of a user that candidates are walked to from, the newest",
    "ranking.negatives": "items drawn alike in each training step, beside the others' positives",
    "ranking.identity_dropout": "share of items read as unknown in training, so that new ones live from their cells",
    "ranking.start": "where items' identities begin: svd (of which follow each other) or random",
    "ranking.co_visit": "most candidates that others had near an item of the history",
    "ranking.far": "most candidates four links away",
    "ranking.far_from": "of how many of the best two links away those are",
    "ranking.popular": "most candidates that are popular now",
    "ranking.new": "most candidates that are new",
    "ranking.nearest": "most candidates whose vector is near the user's",
    "ranking.visits": "interactions followed per item of the history, the newest",
    "ranking.window": "places apart at which two interactions are still near",
    "ranking.exponent": "how their weight falls with the places",
    "ranking.decay": "how the weight of a history falls with each older interaction",
    "ranking.half_life": "of popularity",
    "ranking.new_within": "how long an item is new",
    "ranking.exclude_seen": "leave out what the user had, where a request does not say",
    "ranking.fusion_span": "time before validation whose questions the fusion is fitted on",
    "ranking.fusion_steps": "updates of the fusion",
    "ranking.fusion_width": "units of each of its two layers",
    "ranking.fusion_dropout": "share of them left out at random",
}
"""What each entry means, as `to_yaml` explains it."""


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """Everything about a model that is chosen and not given by the question; `ranking` of rankings only."""

    sampling_plan: SamplingPlan
    model: ModelConfig
    training: Training
    ranking: RankingConfig | None = None

    def apply(self, task: Task) -> Task:
        """Return the task with this plan in the place of its own."""
        task = replace(task, sampling_plan=self.sampling_plan, model=self.model, training=self.training)
        return task if self.ranking is None else replace(task, ranking=self.ranking)

    @classmethod
    def of(cls, task: Task) -> ModelPlan:
        """Return the plan that a task has."""
        ranking = task.ranking if task.target.kind is Kind.RANKING else None
        return cls(task.sampling_plan, task.model, task.training, ranking)

    def check(self, schema: Schema) -> None:
        """Raise PlanError, with the key, where a fan-out is of a link that the schema does not have."""
        _named("sampling_plan", lambda: resolve(self.sampling_plan, schema.edge_types))

    def to_dict(self) -> dict[str, Any]:
        """Return the form `from_dict` reads."""
        return {
            "version": 1,
            "sampling_plan": self.sampling_plan.to_dict(),
            "model": self.model.to_dict(),
            "training": self.training.to_dict(),
            **({} if self.ranking is None else {"ranking": self.ranking.to_dict()}),
        }

    @classmethod
    def from_dict(cls, values: object) -> ModelPlan:
        """Build from plain values; what `model` and `training` leave out has its default.

        Raises:
            TaskError, PlanError: at the first entry that can not be followed, with its key.
        """
        if not isinstance(values, Mapping):
            raise TaskError("plan", f"a mapping of {', '.join(KEYS)}", values)
        for name in values:
            if name not in KEYS:
                raise TaskError(str(name), f"one of {', '.join(KEYS)}", name)
        if values.get("version", 1) != 1:
            raise TaskError("version", "1", values["version"])
        sampling = values.get("sampling_plan")
        if not isinstance(sampling, Mapping):
            raise TaskError("sampling_plan", "a mapping with num_neighbors", sampling)
        return cls(
            _named("sampling_plan", lambda: SamplingPlan.from_dict(sampling)),
            _options("model", values.get("model", {}), ModelConfig.from_dict),
            _options("training", values.get("training", {}), Training.from_dict),
            _options("ranking", values["ranking"], RankingConfig.from_dict) if "ranking" in values else None,
        )

    @classmethod
    def from_yaml(cls, text: str) -> ModelPlan:
        """Parse the YAML form; raises as `from_dict`."""
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise TaskError("plan", "a YAML mapping", str(error)) from error
        return cls.from_dict(values)

    def to_yaml(self, reasons: Mapping[str, str] | None = None, *, header: Iterable[str] = ()) -> str:
        """Return the YAML form with a comment on what each entry means, or the reason given for it.

        `reasons` by key, as `model.width` or `sampling_plan.num_neighbors.hop1.LINK`; `header` lines stand first.
        """
        lines = [f"# {line}" for line in header]
        lines.append("version: 1")
        lines += _Writer(reasons or {}).plan(self)
        return "\n".join(lines) + "\n"


def load_plan(path: Path) -> ModelPlan:
    """Read a plan file; raises as `ModelPlan.from_dict`, OSError when it can not be read."""
    return ModelPlan.from_yaml(path.read_text(encoding="utf-8"))


def _named(section: str, act: Callable[[], Any]) -> Any:
    """Return what `act` returns; a PlanError's path begins with the section."""
    try:
        return act()
    except PlanError as error:
        path = error.path.removeprefix("plan.")
        raise PlanError(section if path == "plan" else f"{section}.{path}", error.expected, error.found) from error


def _options(section: str, values: object, parse: Callable[[Mapping[str, Any]], Any]) -> Any:
    if not isinstance(values, Mapping):
        raise TaskError(section, "a mapping", values)
    kinds = {True: "yes or no", False: "a number"}
    defaults = parse({}).to_dict()
    for name, value in values.items():
        default = defaults.get(name)
        if name not in defaults or not isinstance(default, int | float):
            continue  # an unknown name, or no number, is refused by its owner
        if isinstance(value, bool) != isinstance(default, bool) or not isinstance(value, int | float):
            raise TaskError(f"{section}.{name}", kinds[isinstance(default, bool)], value)
        if isinstance(default, int) and not isinstance(value, int):
            raise TaskError(f"{section}.{name}", "a whole number", value)
    return parse(values)


_MAPPING = object()
"""Stands for a value that follows on its own lines."""


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes a plan line by line, each with its reason or meaning behind it."""

    reasons: Mapping[str, str]

    def plan(self, plan: ModelPlan) -> Iterator[str]:
        sampling = plan.sampling_plan
        yield "sampling_plan:"
        yield from self._hops(sampling.num_neighbors)
        yield from self._spread("strategy", sampling.strategy)
        if any(strategy != PerLink(Strategy.MOST_RECENT) for strategy in sampling.strategy):
            yield from self._spread("half_life", sampling.half_life)
        if sampling.node_limit != NODE_LIMIT_DEFAULT or "sampling_plan.node_limit" in self.reasons:
            yield self._line("  ", "node_limit", sampling.node_limit, "sampling_plan.node_limit")
        sections = {"model": plan.model.to_dict(), "training": plan.training.to_dict()}
        if plan.ranking is not None:
            sections["ranking"] = plan.ranking.to_dict()
        for section, values in sections.items():
            yield f"{section}:"
            for name, value in values.items():
                yield self._line("  ", name, value, f"{section}.{name}")

    def _hops(self, hops: tuple[PerLink[int], ...]) -> Iterator[str]:
        path = "sampling_plan.num_neighbors"
        yield self._line("  ", "num_neighbors", _MAPPING, path)
        for index, hop in enumerate(hops):
            name = f"hop{index + 1}"
            yield self._line("    - ", name, _MAPPING, f"{path}.{name}")
            yield self._line("        ", "default", hop.default, f"{path}.{name}.default")
            for link, value in hop.links:
                yield self._line("        ", link, value, f"{path}.{name}.{link}")

    def _spread(self, name: str, hops: tuple[PerLink[Any], ...]) -> Iterator[str]:
        path = f"sampling_plan.{name}"
        if all(hop == hops[0] for hop in hops) and not hops[0].links:
            yield self._line("  ", name, _plain(hops[0].default), path)
            return
        listed = [
            {f"hop{index + 1}": {"default": _plain(hop.default), **{link: _plain(value) for link, value in hop.links}}}
            for index, hop in enumerate(hops)
        ]
        yield self._line("  ", name, _MAPPING, path)
        for line in yaml.safe_dump(listed, sort_keys=False).splitlines():
            yield f"    {line}"

    def _line(self, indent: str, name: str, value: object, path: str) -> str:
        entry = f"{indent}{_scalar(name)}:" + ("" if value is _MAPPING else f" {_scalar(value)}")
        why = " ".join((self.reasons.get(path) or MEANINGS.get(path, "")).split())
        return f"{entry:<{COMMENT_COLUMN}}  # {why}" if why else entry


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Strategy) else value


def _scalar(value: object) -> str:
    """Return a key or value as YAML writes it, quoted where it must be."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n...\n").strip()
