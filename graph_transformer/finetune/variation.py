"""Plans around a plan: what a search may change, and the plan that follows from a choice of values.

ModelPlan ─► Variation: ranges by name ─► values ─► ModelPlan
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from graph_transformer.finetune.sizing import LOOKS, STALE_SHARE
from graph_transformer.plan import ModelPlan
from online_sampler.plan import NODE_LIMIT_MAX, PerLink, SamplingPlan

if TYPE_CHECKING:
    import optuna

    from temporal_graph.schema import Schema

Values = dict[str, Any]

WIDTHS = (8, 16, 32, 48, 64, 96, 128, 192, 256)
LAYERS_MOST = 4
FAN_OUT_FACTORS = (0.5, 1.0, 2.0)
STEP_FACTORS = (0.5, 0.75, 1.0, 1.5, 2.0)
DROPOUT_MOST, TOKEN_DROPOUT_MOST = 0.5, 0.7
RATE_RANGE, DECAY_RANGE = (0.25, 2.5), (0.1, 4.0)
"""Around the plan's own learning rate and weight decay, as factors."""


@dataclass(frozen=True)
class Variation:
    """The plans around `base`; `descents` are its (hop, link) that go down again from a parent reached on the way."""

    base: ModelPlan
    descents: frozenset[tuple[int, str]]

    @classmethod
    def around(cls, base: ModelPlan, schema: Schema) -> Variation:
        """Return the variation of a plan under a schema."""
        return cls(base, descents_of(base.sampling_plan, schema))

    def start(self) -> Values:
        """Return the values that give the plan itself."""
        model, training = self.base.model, self.base.training
        values: Values = {
            "width": model.width,
            "layers": model.layers,
            "heads": model.heads,
            "dropout": model.dropout,
            "token_dropout": model.token_dropout,
            "learning_rate": 1.0,
            "weight_decay": 1.0,
            "steps": 1.0,
            "fan_outs": 1.0,
        }
        if self.descents:
            values["descents"] = True
        if training.staleness_days:
            values["staleness_share"] = training.staleness_share
        return values

    def suggest(self, trial: optuna.Trial) -> Values:
        """Return the values a trial proposes."""
        model, start = self.base.model, self.start()
        near = [width for width in WIDTHS if model.width / 2 <= width <= model.width * 2]
        heads = {heads for heads in (4, 8) if all(width % heads == 0 for width in near)} | {model.heads}
        values: Values = {
            "width": trial.suggest_categorical("width", sorted({*near, model.width})),
            "layers": trial.suggest_int("layers", max(1, model.layers - 1), max(LAYERS_MOST, model.layers)),
            "heads": trial.suggest_categorical("heads", sorted(heads)),
            "dropout": trial.suggest_float("dropout", 0.0, max(DROPOUT_MOST, model.dropout)),
            "token_dropout": trial.suggest_float("token_dropout", 0.0, max(TOKEN_DROPOUT_MOST, model.token_dropout)),
            "learning_rate": trial.suggest_float("learning_rate", *RATE_RANGE, log=True),
            "weight_decay": trial.suggest_float("weight_decay", *DECAY_RANGE, log=True),
            "steps": trial.suggest_categorical("steps", STEP_FACTORS),
            "fan_outs": trial.suggest_categorical("fan_outs", FAN_OUT_FACTORS),
        }
        if "descents" in start:
            values["descents"] = trial.suggest_categorical("descents", [True, False])
        if "staleness_share" in start:
            shares = sorted({0.0, STALE_SHARE, start["staleness_share"], 0.8})
            values["staleness_share"] = trial.suggest_categorical("staleness_share", shares)
        return values

    def plan(self, values: Values) -> ModelPlan:
        """Return the plan of these values; those of `start` give the plan itself."""
        if values == self.start():
            return self.base
        base = self.base.training
        steps = max(1, round(base.steps * values["steps"]))
        heads = values["heads"] if values["width"] % values["heads"] == 0 else self.base.model.heads
        return ModelPlan(
            self._sampling(values["fan_outs"], descents=values.get("descents", True)),
            replace(
                self.base.model,
                width=values["width"],
                layers=values["layers"],
                heads=heads if values["width"] % heads == 0 else 1,
                dropout=round(values["dropout"], 3),
                token_dropout=round(values["token_dropout"], 3),
            ),
            replace(
                base,
                steps=steps,
                learning_rate=_digits(base.learning_rate * values["learning_rate"]),
                weight_decay=_digits(base.weight_decay * values["weight_decay"]),
                evaluate_every=max(1, min(base.evaluate_every, steps // LOOKS)),
                staleness_share=values.get("staleness_share", base.staleness_share),
            ),
        )

    def changes(self, values: Values) -> Values:
        """Return what of these values differs from the plan, as the plan would have it."""
        plan, base = self.plan(values), self.base
        found: Values = {}
        for name in ("width", "layers", "heads", "dropout", "token_dropout"):
            if getattr(plan.model, name) != getattr(base.model, name):
                found[name] = getattr(plan.model, name)
        for name in ("learning_rate", "weight_decay", "steps", "staleness_share"):
            if getattr(plan.training, name) != getattr(base.training, name):
                found[name] = getattr(plan.training, name)
        if values["fan_outs"] != 1.0:
            found["fan_outs"] = f"x{values['fan_outs']:g}"
        if not values.get("descents", True):
            found["descents"] = False
        return found

    def cost(self, values: Values) -> float:
        """Return about how long a plan trains, relative to the plan itself."""
        model = self.base.model
        size = values["width"] * values["layers"] / (model.width * model.layers)
        # Half of a step's time is for rows, whatever the width.
        return float(values["steps"] * values["fan_outs"] * (0.5 + 0.5 * size))

    def _sampling(self, factor: float, *, descents: bool) -> SamplingPlan:
        base = self.base.sampling_plan

        def scaled(number: int) -> int:
            return max(2, round(number * factor)) if number > 1 else number

        hops = tuple(
            PerLink(
                scaled(hop.default),
                tuple(
                    (link, 0 if not descents and (index + 1, link) in self.descents else scaled(number))
                    for link, number in hop.links
                ),
            )
            for index, hop in enumerate(base.num_neighbors)
        )
        limit = min(NODE_LIMIT_MAX, max(1, round(base.node_limit * max(1.0, factor))))
        return replace(base, num_neighbors=hops, node_limit=limit)


def descents_of(plan: SamplingPlan, schema: Schema) -> frozenset[tuple[int, str]]:
    """Return the hops and links by which a plan goes down again from a parent of rows that it had gone down to."""
    found = set()
    for index in range(2, plan.hops):
        up = {link.parent for link in schema.links if plan.num_neighbors[index - 1].of(link.forward)}
        down = {link.parent for link in schema.links if plan.num_neighbors[index - 2].of(link.backward)}
        for link in schema.links:
            if link.parent in up and down and plan.num_neighbors[index].of(link.backward):
                found.add((index + 1, link.backward))
    return frozenset(found)


def _digits(value: float) -> float:
    """Return the value with two digits that matter."""
    return float(f"{value:.2g}")
