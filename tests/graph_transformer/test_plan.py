"""A model plan: YAML that says why, read back as it was; what a person mistypes is named by its key."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from graph_transformer.config import ModelConfig
from graph_transformer.errors import TaskError
from graph_transformer.plan import MEANINGS, ModelPlan, load_plan
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.splits import Interval, Splits
from graph_transformer.target import Kind, Target
from graph_transformer.task import Task
from graph_transformer.training import Training
from online_sampler.errors import PlanError
from online_sampler.plan import SamplingPlan
from temporal_graph.schema import Schema

CUSTOMER = "transactions.customer_id->customers.customer_id"
OF_CUSTOMER = "customers.customer_id->transactions.customer_id"


@pytest.fixture
def plan() -> ModelPlan:
    """Two hops, everything else not at its default."""
    sampling = {
        "num_neighbors": [{"hop1": {"default": 0, CUSTOMER: 1}}, {"hop2": {"default": 0, OF_CUSTOMER: 64}}],
        "node_limit": 320,
    }
    return ModelPlan(
        SamplingPlan.from_dict(sampling),
        ModelConfig(width=48, layers=2, dropout=0.2),
        Training(steps=900, learning_rate=5e-4, weight_decay=0.05, patience=4),
    )


def test_yaml_is_read_back_as_it_was(plan: ModelPlan) -> None:
    """Plan to YAML to plan gives the same plan, also with strategies and half-lives by link and hop."""
    assert ModelPlan.from_yaml(plan.to_yaml()) == plan
    assert ModelPlan.from_dict(plan.to_dict()) == plan
    values = plan.to_dict()
    values["sampling_plan"]["strategy"] = [
        {"hop1": "uniform"},
        {"hop2": {"default": "most_recent", CUSTOMER: "uniform"}},
    ]
    values["sampling_plan"]["half_life"] = {"default": 16, OF_CUSTOMER: 8}
    mixed = ModelPlan.from_dict(values)
    assert ModelPlan.from_yaml(mixed.to_yaml()) == mixed


def test_every_entry_says_what_it_means_or_why(plan: ModelPlan) -> None:
    """A comment on each option; a reason that is given stands in its place; the header comes first."""
    reasons = {
        f"sampling_plan.num_neighbors.hop2.{OF_CUSTOMER}": "median 12, p95 40 children",
        "model.width": "598 of\nthe rarer kind",
    }
    text = plan.to_yaml(reasons, header=["Proposed."])
    assert text.startswith("# Proposed.\nversion: 1\n")
    assert re.search(rf"{OF_CUSTOMER}: 64 +# median 12, p95 40 children\n", text)
    assert re.search(r"width: 48 +# 598 of the rarer kind\n", text)
    options = [f"model.{name}" for name in plan.model.to_dict()] + [
        f"training.{name}" for name in plan.training.to_dict()
    ]
    assert set(options) <= set(MEANINGS)
    assert all("#" in line for line in text.splitlines() if re.match(r"  \w", line))


def test_names_that_yaml_would_misread_are_quoted(plan: ModelPlan) -> None:
    """A link of a table with a name that is no plain YAML word survives."""
    link = "'on': yes #1.a->b: c.d"
    values = plan.to_dict()
    values["sampling_plan"]["num_neighbors"][0]["hop1"][link] = 3
    odd = ModelPlan.from_dict(values)
    assert ModelPlan.from_yaml(odd.to_yaml()) == odd


def test_a_person_edits_the_file(plan: ModelPlan, tmp_path: Path) -> None:
    """A changed number is the number that is read, and what is deleted goes back to its default."""
    text = plan.to_yaml()
    text = text.replace(f"{OF_CUSTOMER}: 64", f"{OF_CUSTOMER}: 16").replace("layers: 2", "layers: 3")
    text = re.sub(r"  patience.*\n", "", text)
    (tmp_path / "plan.yaml").write_text(text)
    edited = load_plan(tmp_path / "plan.yaml")
    assert edited.sampling_plan.num_neighbors[1].of(OF_CUSTOMER) == 16
    assert edited.model == replace(plan.model, layers=3)
    assert edited.training == replace(plan.training, patience=Training().patience)
    short = ModelPlan.from_yaml("sampling_plan: {num_neighbors: [hop1: 4]}")
    assert (short.model, short.training) == (ModelConfig(), Training())


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda v: v.update(modell={}), "modell"),
        (lambda v: v.update(version=2), "version"),
        (lambda v: v.pop("sampling_plan"), "sampling_plan"),
        (lambda v: v["sampling_plan"].update(fan_out=3), "sampling_plan.fan_out"),
        (lambda v: v["sampling_plan"]["num_neighbors"][1]["hop2"].update({OF_CUSTOMER: -1}), f"hop2.{OF_CUSTOMER}"),
        (lambda v: v["sampling_plan"].update(strategy="newest"), "sampling_plan.strategy"),
        (lambda v: v["model"].update(widht=32), "model.widht"),
        (lambda v: v["model"].update(width="wide"), "model.width"),
        (lambda v: v["model"].update(layers=1.5), "model.layers"),
        (lambda v: v.update(model=[]), "model"),
        (lambda v: v["training"].update(steps=0), "training.steps"),
        (lambda v: v["training"].update(learning_rate="fast"), "training.learning_rate"),
        (lambda v: v["training"].update(bfloat16=1), "training.bfloat16"),
        (lambda v: v["training"].update(transform="log"), "training.transform"),
    ],
)
def test_a_mistake_is_named_by_its_key(plan: ModelPlan, change: Callable, key: str) -> None:
    """Unknown names and values of the wrong form are refused, and the message holds the key."""
    values = yaml.safe_load(plan.to_yaml())
    change(values)
    with pytest.raises((TaskError, PlanError), match=re.escape(key)):
        ModelPlan.from_yaml(yaml.safe_dump(values))
    with pytest.raises(TaskError, match="plan"):
        ModelPlan.from_yaml("{")


def test_links_are_checked_against_the_schema(plan: ModelPlan, payments_schema: Schema) -> None:
    """A plan of the schema passes; a link that it does not have is named, with the nearest that it has."""
    plan.check(payments_schema)
    values = plan.to_dict()
    values["sampling_plan"]["num_neighbors"][0]["hop1"]["transactions.customer->customers.customer_id"] = 1
    with pytest.raises(PlanError, match=r"sampling_plan\.num_neighbors\.hop1\.transactions\.customer->.*nearest"):
        ModelPlan.from_dict(values).check(payments_schema)


def test_a_plan_replaces_the_task_s_own(plan: ModelPlan) -> None:
    """`apply` changes plan, model and training, and nothing else; `of` gives them back."""
    target = Target(Kind.BINARY, "transactions", event_level=True, column="fraud")
    task = Task("fraud", target, Splits(Interval(0, 10)), SamplingPlan.from_dict({"num_neighbors": [{"hop1": 1}]}))
    applied = plan.apply(task)
    assert ModelPlan.of(applied) == plan
    assert replace(applied, sampling_plan=task.sampling_plan, model=task.model, training=task.training) == task


def test_every_option_is_explained() -> None:
    """Whoever edits a plan reads beside each entry what it does."""
    for section, options in (("model", ModelConfig), ("training", Training), ("ranking", RankingConfig)):
        assert {f"{section}.{option.name}" for option in fields(options)} <= set(MEANINGS), section
