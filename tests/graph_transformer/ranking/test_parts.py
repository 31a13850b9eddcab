"""A ranking's checkpoint: towers, identities and fusion come back as they were, and damage is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graph_transformer.calibration import Calibration
from graph_transformer.checkpoint import MANIFEST_NAME, Checkpoint
from graph_transformer.errors import CheckpointCorrupt, CheckpointMismatch
from graph_transformer.heads import Unit
from graph_transformer.ranking.fusion import Fusion, FusionConfig
from graph_transformer.ranking.parts import RankingParts
from graph_transformer.ranking.towers import BoundTowers
from graph_transformer.target import Kind, Target

from .conftest import ITEMS, USERS, Shop


def checkpoint_of(shop: Shop, *, fusion: Mapping[str, Any] | None = None) -> Checkpoint:
    """The shop's towers as a checkpoint."""
    return Checkpoint(
        task=shop.task,
        fingerprint=shop.view.schema.fingerprint(shop.statistics.tables()),
        statistics=shop.statistics,
        model=shop.task.model,
        unit=Unit(),
        calibration=Calibration.of(shop.task.target),
        weights=shop.model.state_dict(),
        ranking=RankingParts(shop.identities, fusion),
    )


def test_towers_come_back_as_they_were(shop: Shop, tmp_path: Path) -> None:
    """Saved, loaded and bound to the graph, they give the same vectors, under the version that was returned."""
    version = checkpoint_of(shop).save(tmp_path / "model")
    loaded = Checkpoint.load(tmp_path / "model", shop.view.schema)
    assert loaded.version == version
    assert loaded.ranking == RankingParts(shop.identities)
    towers, cutoff = BoundTowers.load(loaded, shop.view), np.full(ITEMS, 150)
    np.testing.assert_array_equal(
        towers.users(np.arange(USERS), cutoff[:USERS]), shop.towers().users(np.arange(USERS), cutoff[:USERS])
    )
    np.testing.assert_array_equal(towers.items(np.arange(ITEMS), cutoff), shop.towers().items(np.arange(ITEMS), cutoff))


def test_the_fusion_travels_with_its_weights(shop: Shop, tmp_path: Path) -> None:
    """Its values build it anew, and its weights are the model's under its name."""
    fusion = Fusion(FusionConfig(("co_visit", "tower"), (1.0, 2.0), (0.5, 4.0), width=3, members=2))
    shop.model.fusion = fusion.eval()
    checkpoint_of(shop, fusion=fusion.to_dict()).save(tmp_path / "model")
    model, _ = Checkpoint.load(tmp_path / "model").build(shop.view.schema, shop.view.strings)
    features = torch.tensor([[0.3, -1.0], [2.0, 5.0]])
    assert isinstance(model.fusion, Fusion)
    assert model.fusion.config == fusion.config
    torch.testing.assert_close(model.fusion(features), fusion(features))


def test_a_fusion_that_can_not_be_built_is_damage(shop: Shop) -> None:
    """More means than features are no fusion's values."""
    values = Fusion(FusionConfig(("co_visit",), (1.0,), (0.5,), width=3, members=2)).to_dict() | {"mean": [1.0, 2.0]}
    with pytest.raises(CheckpointCorrupt, match="fusion"):
        checkpoint_of(shop, fusion=values).build(shop.view.schema, shop.view.strings)


def test_what_decides_is_in_the_version(shop: Shop) -> None:
    """Other identities, a fusion, another ranking target or other options are another model; metrics are not."""
    own = checkpoint_of(shop)
    ranked = shop.task.target.ranked
    assert ranked is not None
    others = [
        replace(own, ranking=RankingParts(replace(shop.identities, keys=shop.identities.keys[::-1]))),
        replace(own, ranking=RankingParts(shop.identities, {"mean": 1.0})),
        replace(own, task=replace(shop.task, target=replace(shop.task.target, ranked=replace(ranked, top=4)))),
        replace(own, task=replace(shop.task, ranking=replace(shop.task.ranking, decay=0.5))),
    ]
    assert len({own.version, *(other.version for other in others)}) == 5
    assert replace(own, metrics={"test": 1}).version == own.version


@pytest.mark.parametrize("damage", ["a key", "no identities", "no section"])
def test_damage_is_refused(shop: Shop, tmp_path: Path, damage: str) -> None:
    """A manifest whose identities were altered or are gone is no checkpoint."""
    checkpoint_of(shop).save(tmp_path)
    values = json.loads((tmp_path / MANIFEST_NAME).read_text(encoding="utf-8"))
    if damage == "a key":
        values["ranking"]["identities"]["keys"][0] = "another"
    elif damage == "no identities":
        del values["ranking"]["identities"]
    else:
        del values["ranking"]
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(CheckpointCorrupt):
        Checkpoint.load(tmp_path)


def test_weights_of_other_identities_do_not_fit(shop: Shop) -> None:
    """One item fewer than the weights have is refused when the model is built."""
    fewer = replace(shop.identities, keys=shop.identities.keys[1:])
    with pytest.raises(CheckpointMismatch, match="weights"):
        replace(checkpoint_of(shop), ranking=RankingParts(fewer)).build(shop.view.schema, shop.view.strings)


def test_another_kind_of_checkpoint_has_no_towers(shop: Shop, checkpoint: Checkpoint, payments: Any) -> None:
    """A model of frauds is told from a ranking's before anything is asked of it."""
    payments.row_index = None
    with pytest.raises(CheckpointMismatch, match="ranking"):
        BoundTowers.load(checkpoint, payments)
    assert Target(Kind.BINARY, "transactions", event_level=True, column="fraud") == checkpoint.task.target
