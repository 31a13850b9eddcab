from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from graph_transformer.attention import NOT_MEMBER, head_starts
from graph_transformer.config import ModelConfig
from graph_transformer.encoding.batch import Batch
from graph_transformer.encoding.collate import STATES, Encoding, Layout, collate
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.errors import TaskError
from graph_transformer.model import GraphTransformer, build_model, parts_of
from graph_transformer.target import Kind, Target

TOLERANCE = 1e-5


def encoded(
    drawing: Any, neighborhood: Any, table: str = "transactions", outcome: str = "fraud", **reads: bool
) -> Encoding:
    """Statistics of the neighborhood, bound to its dictionaries."""
    target = Target(Kind.BINARY, table, event_level=True, column=outcome)
    statistics = fit_statistics([neighborhood], drawing.schema, drawing.strings, target=target, **reads)
    return Encoding(statistics, drawing.schema, drawing.strings)


def built(encoding: Encoding, outputs: int = 1, **options: Any) -> nn.Module:
    """A model with the same random weights each time."""
    torch.manual_seed(0)
    return build_model(encoding.layout(), ModelConfig(**options), outputs).eval()


@torch.inference_mode()
def test_a_logit_does_not_depend_on_its_company(payments: Any, draw_history: Callable[..., Any]) -> None:
    """The same neighborhood gives the same logit within 1e-5 alone, in a batch, and padded further."""
    neighborhood = draw_history(payments, 12, 60)
    encoding = encoded(payments, neighborhood)
    for options in (
        {},
        {"width": 64, "layers": 2},
        {"sums": 0, "counts": False, "cells": "attention", "heads": 2},
        {"mutual": 2, "centroids": 16},
        {"per_path": True, "heads": 4, "layers": 2},
        {"members": 2},
    ):
        model = built(encoding, **options)
        batch = collate(neighborhood, encoding)
        together = model(batch)
        padded = model(collate(neighborhood, encoding, width=batch.width + 50))
        alone = torch.cat([model(batch.alone(neighborhood.seed_offset, seed)) for seed in range(12)])
        assert float((together - alone).abs().max()) < TOLERANCE
        assert float((together - padded).abs().max()) < TOLERANCE
        assert float(together.std()) > 10 * TOLERANCE


@pytest.mark.parametrize("name", ["tallies", "comparisons"])
def test_numbers_of_a_seed_are_added_to_it_and_say_nothing_at_first(
    payments: Any, draw_history: Callable[..., Any], name: str
) -> None:
    """A new model with them answers as one without; what it then learns is the same in any company and any part."""
    neighborhood = draw_history(payments, 12, 60)
    encoding = encoded(payments, neighborhood, **{name: True})
    batch, plain = collate(neighborhood, encoding), encoded(payments, neighborhood)
    model = built(encoding, layers=2)
    assert isinstance(model, GraphTransformer)
    added = getattr(model, name)
    assert added is not None
    with torch.inference_mode():
        start = model(batch)
        assert torch.equal(start, built(plain, layers=2)(collate(neighborhood, plain)))
        torch.nn.init.normal_(added[-1].weight)
        learned = model(batch)
        assert float((learned - start).abs().max()) > 1e-2
        alone = torch.cat([model(batch.alone(neighborhood.seed_offset, seed)) for seed in range(12)])
        assert float((learned - alone).abs().max()) < TOLERANCE
    model.train()(batch).sum().backward()
    assert all(weight.grad is not None for weight in added.parameters())


@pytest.mark.parametrize("options", [{"layers": 2}, {"mutual": 1}])
def test_a_large_batch_is_computed_in_parts(
    payments: Any, draw_history: Callable[..., Any], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padded less, and the same: answers and gradients are those of the whole batch at once, in its order."""
    neighborhood = draw_history(payments, 20, 40)
    encoding = encoded(payments, neighborhood)
    batch, model = collate(neighborhood, encoding), built(encoding, **options)
    answers, slopes = [], []
    for part in (4, 100):
        monkeypatch.setattr("graph_transformer.model.PART", part)
        assert (parts_of(batch) is None) == (part == 100)
        model.zero_grad()
        answers.append(model(batch))
        answers[-1].pow(2).sum().backward()
        slopes.append([weight.grad.clone() for weight in model.parameters() if weight.grad is not None])
    assert float((answers[0] - answers[1]).detach().abs().max()) < TOLERANCE
    for one, other in zip(*slopes, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-3)
    monkeypatch.setattr("graph_transformer.model.PART", 4)
    widths = [width for _, width in parts_of(batch) or []]
    assert widths == sorted(widths)
    assert widths[0] < batch.width


@torch.inference_mode()
def test_known_labels_reach_the_logit_and_only_they(payments: Any, draw_history: Callable[..., Any]) -> None:
    """Taking the neighbors' labels away changes the answers of those that had some."""
    labeled = draw_history(payments, 8, 30, seed=3)
    blank = draw_history(payments, 8, 30, seed=3, labels=False)
    encoding = encoded(payments, labeled)
    model = built(encoding)
    assert float((model(collate(labeled, encoding)) - model(collate(blank, encoding))).abs().max()) > 1e-3


@torch.inference_mode()
def test_the_order_of_neighbors_does_not_matter(payments: Any) -> None:
    """A neighborhood is a set: the same rows sampled in another order give the same answer, ranks included."""
    answers = []
    for order in ([0, 1, 2, 3, 4, 5], [3, 0, 5, 4, 1, 2]):
        seed = payments.seed("transactions", 10**12, {"amount": 2.0})
        customer = payments.row(seed, "transactions.customer_id->customers.customer_id")
        for number in order:
            cells = {"amount": 3.0 + number, "fraud": number % 2}
            payments.row(customer, "customers.customer_id->transactions.customer_id", cells, event=10**11 + number // 2)
        neighborhood = payments.build()
        if not answers:
            encoding = encoded(payments, neighborhood)
            model = built(encoding, layers=2)
            assert isinstance(model, GraphTransformer)
            torch.nn.init.ones_(model.rows.rank)
        answers.append(model(collate(neighborhood, encoding)))
    assert float((answers[0] - answers[1]).abs().max()) < TOLERANCE


@pytest.mark.parametrize("options", [{}, {"per_path": True}])
def test_every_weight_learns(orders: Any, options: dict[str, Any]) -> None:
    """With every kind of column present, no parameter is left without a gradient."""
    for position in range(4):
        seed = orders.seed("orders", 10**15 + position, {"total": 1.0, "note": "x", "express": 1})
        customer = orders.row(
            seed, "orders.customer_id->customers.customer_id", {"country": "de", "tags": "a", "born": 1}
        )
        for fraud in (0, 1, None):
            orders.row(
                customer,
                "customers.customer_id->orders.customer_id",
                {"returned": fraud, "picture": [1.0, 2.0, 3.0], "weight": 2.0},
                event=5,
            )
    neighborhood = orders.build()
    encoding = encoded(orders, neighborhood, "orders", "returned")
    model = built(encoding, **options).train()
    model(collate(neighborhood, encoding)).sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    assert all(bool(torch.isfinite(weight.grad).all()) for weight in model.parameters() if weight.grad is not None)


def test_token_dropout_is_for_training_and_spares_the_seed(payments: Any, draw_history: Callable[..., Any]) -> None:
    """Two passes differ in training and are equal in use; a seed alone is never dropped."""
    neighborhood = draw_history(payments, 4, 30)
    encoding = encoded(payments, neighborhood)
    model = built(encoding, dropout=0.0, token_dropout=0.9)
    batch = collate(neighborhood, encoding)
    assert torch.equal(model(batch), model(batch))
    model.train()
    assert not torch.equal(model(batch), model(batch))
    payments.seed("transactions", 1000, {"amount": 3.0})
    alone = collate(payments.build(), encoding)
    assert torch.equal(model(alone), model(alone))


@torch.inference_mode()
def test_an_outcome_on_the_seed_changes_nothing(payments: Any) -> None:
    """A seed that carries its own outcome by mistake answers as one without; any other cell of it counts."""
    answers = []
    for cells in ({"amount": 3.0}, {"amount": 3.0, "fraud": 1}, {"amount": 4.0}):
        seed = payments.seed("transactions", 10**12, cells)
        customer = payments.row(seed, "transactions.customer_id->customers.customer_id")
        payments.row(customer, "customers.customer_id->transactions.customer_id", {"fraud": 1}, event=5)
        neighborhood = payments.build()
        if not answers:
            encoding = encoded(payments, neighborhood)
            model = built(encoding)
        answers.append(model(collate(neighborhood, encoding)))
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


@torch.inference_mode()
def test_an_entity_is_asked_at_a_season(payments: Any) -> None:
    """A customer has no time of its own: the cut-off's calendar, and how old the graph was, are what tells it."""
    payments.seed("customers", 10**12)
    neighborhood = payments.build()
    target = Target(Kind.REGRESSION, "customers", event_level=False)
    statistics = fit_statistics([neighborhood], payments.schema, payments.strings, target=target)
    encoding = Encoding(statistics, payments.schema, payments.strings)
    model = built(encoding, outputs=7)
    asked = neighborhood.cutoff_time_us
    now = model(collate(neighborhood, encoding))
    assert now.shape == (1, 7)
    assert torch.equal(now, model(collate(neighborhood, encoding, asked_time_us=asked)))
    later = model(collate(neighborhood, encoding, asked_time_us=asked + 90 * 86_400_000_000))
    assert float((now - later).abs().max()) > 1e-3


def test_a_model_starts_at_the_prior(payments: Any, draw_history: Callable[..., Any]) -> None:
    """The last bias is what it is set to, for every output and member."""
    layout = encoded(payments, draw_history(payments, 3, 5)).layout()
    for members in (1, 2):
        model = build_model(layout, ModelConfig(members=members), 3)
        model.start_at(torch.tensor([1.0, -2.0, 0.5]))  # type: ignore[operator]
        for part in model.modules():
            if isinstance(part, GraphTransformer):
                assert part.head[-1].bias.tolist() == [1.0, -2.0, 0.5]


def test_a_module_of_ones_own_stands_in(payments: Any, draw_history: Callable[..., Any]) -> None:
    """The class that the config names is built as ours would be; a name that is none is refused, with the reason."""
    neighborhood = draw_history(payments, 3, 5)
    encoding = encoded(payments, neighborhood)
    path = f"{__name__}:Width"
    model = build_model(encoding.layout(), ModelConfig(module=path), 2)
    assert model(collate(neighborhood, encoding)).shape == (3, 2)
    for wrong, reason in (("no_such_package:Width", "PYTHONPATH"), (f"{__name__}:Height", "a name that the module")):
        with pytest.raises(TaskError, match=reason):
            build_model(encoding.layout(), ModelConfig(module=wrong), 2)


class Width(nn.Module):
    """Answers with how many tokens there are."""

    def __init__(self, layout: Layout, config: ModelConfig, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, batch: Batch) -> torch.Tensor:
        """The same for every seed."""
        return torch.full((batch.size, self.outputs), float(batch.width))


@torch.inference_mode()
def test_a_second_path_is_seen(payments: Any) -> None:
    """A customer's payment that also was at this terminal reads differently from one that was not."""
    logits = []
    for shared in (False, True):
        seed = payments.seed("transactions", 10**12, {"amount": 2.0})
        customer = payments.row(seed, "transactions.customer_id->customers.customer_id")
        terminal = payments.row(seed, "transactions.terminal_id->terminals.terminal_id")
        first = payments.row(customer, "customers.customer_id->transactions.customer_id", {"amount": 3.0}, event=5)
        payments.row(terminal, "terminals.terminal_id->transactions.terminal_id", {"amount": 4.0}, event=6)
        if shared:
            payments.edge(terminal, first, "terminals.terminal_id->transactions.terminal_id")
        neighborhood = payments.build()
        if not logits:
            encoding = encoded(payments, neighborhood)
            model = built(encoding)
        logits.append(float(model(collate(neighborhood, encoding))))
    assert abs(logits[0] - logits[1]) > 1e-4


def test_heads_start_with_a_subject_each(payments: Any, draw_history: Callable[..., Any]) -> None:
    """The first head looks at everything; each other one at one path, all of it or the rows known true."""
    neighborhood = draw_history(payments, 4, 30)
    layout = encoded(payments, neighborhood).layout()
    assert len(layout.outcome_paths) == 2
    bias, slope = head_starts(layout, 8)
    starts = bias.view(len(layout.paths), STATES, 8)
    assert not starts[:, :, 0].any()
    for head, path in ((1, layout.outcome_paths[0]), (2, layout.outcome_paths[1])):
        assert not starts[path, :, head].any()
        assert bool((starts[[p for p in range(len(layout.paths)) if p != path], :, head] == NOT_MEMBER).all())
    assert starts[layout.outcome_paths[0], :, 3].tolist() == [NOT_MEMBER, NOT_MEMBER, 0.0]
    assert slope.tolist() == [0, 0, 0, 0, 0, 1, 1, 0]
    assert head_starts(layout, 1)[0].shape == (len(layout.paths) * STATES, 1)
