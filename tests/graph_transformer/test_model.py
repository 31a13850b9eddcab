from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from graph_transformer.attention import NOT_MEMBER, head_starts
from graph_transformer.config import ModelConfig
from graph_transformer.encoding.collate import STATES, Encoding, collate
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.model import GraphTransformer
from graph_transformer.target import Kind, Target

TOLERANCE = 1e-5


def encoded(drawing: Any, neighborhood: Any, table: str = "transactions", outcome: str = "fraud") -> Encoding:
    """Statistics of the neighborhood, bound to its dictionaries."""
    target = Target(Kind.BINARY, table, event_level=True, column=outcome)
    statistics = fit_statistics([neighborhood], drawing.schema, drawing.strings, target=target)
    return Encoding(statistics, drawing.schema, drawing.strings)


def built(encoding: Encoding, **options: Any) -> GraphTransformer:
    """A model with the same random weights each time."""
    torch.manual_seed(0)
    return GraphTransformer(encoding.layout(), ModelConfig(**options), 1).eval()


@torch.inference_mode()
def test_a_logit_does_not_depend_on_its_company(payments: Any, draw_history: Callable[..., Any]) -> None:
    """The same neighborhood gives the same logit within 1e-5 alone, in a batch, and padded further."""
    neighborhood = draw_history(payments, 12, 60)
    encoding = encoded(payments, neighborhood)
    for options in ({}, {"width": 64, "layers": 2}):
        model = built(encoding, **options)
        batch = collate(neighborhood, encoding)
        together = model(batch)
        padded = model(collate(neighborhood, encoding, width=batch.width + 50))
        alone = torch.cat([model(batch.alone(neighborhood.seed_offset, seed)) for seed in range(12)])
        assert float((together - alone).abs().max()) < TOLERANCE
        assert float((together - padded).abs().max()) < TOLERANCE
        assert float(together.std()) > 10 * TOLERANCE


@torch.inference_mode()
def test_known_labels_reach_the_logit_and_only_they(payments: Any, draw_history: Callable[..., Any]) -> None:
    """Taking the neighbors' labels away changes the answers of those that had some."""
    labeled = draw_history(payments, 8, 30, seed=3)
    blank = draw_history(payments, 8, 30, seed=3, labels=False)
    encoding = encoded(payments, labeled)
    model = built(encoding)
    assert float((model(collate(labeled, encoding)) - model(collate(blank, encoding))).abs().max()) > 1e-3


@torch.inference_mode()
def test_the_order_of_neighbors_does_not_matter(payments: Any, draw_history: Callable[..., Any]) -> None:
    """Attention sees a set: rows of a seed in another order give the same logit."""
    neighborhood = draw_history(payments, 1, 30)
    encoding = encoded(payments, neighborhood)
    model = built(encoding)
    batch = collate(neighborhood, encoding)
    order = torch.cat([torch.tensor([0]), 1 + torch.randperm(batch.nodes - 1)])
    turned = collate(neighborhood, encoding)
    object.__setattr__(turned, "token", order.unsqueeze(0))
    assert float((model(batch) - model(turned)).abs().max()) < TOLERANCE


def test_every_weight_learns(orders: Any) -> None:
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
    model = built(encoding).train()
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
