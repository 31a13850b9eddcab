from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from graph_transformer.calibration import Calibration
from graph_transformer.checkpoint import MANIFEST_NAME, WEIGHTS_NAME, Checkpoint
from graph_transformer.errors import CheckpointCorrupt, CheckpointMismatch
from temporal_graph.schema import Column, ColumnKind, Schema, parse_schema


@pytest.fixture
def saved(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """A folder with a good checkpoint."""
    checkpoint.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_checkpoint_comes_back_as_it_was(checkpoint: Checkpoint, saved: Path, payments_schema: Schema) -> None:
    """Everything that decides an answer is read back equal, the version too."""
    loaded = Checkpoint.load(saved, payments_schema)
    assert (loaded.task, loaded.statistics, loaded.model) == (checkpoint.task, checkpoint.statistics, checkpoint.model)
    assert loaded.calibration == checkpoint.calibration
    assert loaded.sampling_plan == checkpoint.task.sampling_plan
    assert loaded.version == checkpoint.version
    assert all(torch.equal(loaded.weights[name], weight) for name, weight in checkpoint.weights.items())
    assert loaded.metrics == {"test": {"average_precision": 0.5}}


def test_the_version_is_of_what_decides_an_answer(checkpoint: Checkpoint) -> None:
    """Another weight, calibration or plan is another version; other metrics or splits are the same one."""
    weights = {name: weight + 1e-3 for name, weight in checkpoint.weights.items()}
    assert replace(checkpoint, weights=weights).version != checkpoint.version
    assert replace(checkpoint, calibration=Calibration(prior=0.9)).version != checkpoint.version
    assert replace(checkpoint, metrics={}).version == checkpoint.version
    named = replace(checkpoint.task, precision_at=7)
    assert replace(checkpoint, task=named).version == checkpoint.version


@pytest.mark.parametrize(("name", "none"), [("tallies", ()), ("comparisons", False)])
def test_what_was_saved_before_there_was_a_choice_loads_as_it_was(
    saved: Path, payments_schema: Schema, name: str, none: object
) -> None:
    """A manifest that says nothing of an option has its old version, and the same weights, statistics and answers."""
    before = json.loads((saved / MANIFEST_NAME).read_text(encoding="utf-8"))
    assert all(name not in part for part in (before["statistics"], before["model"], before["task"]["model"]))
    before["model"][name] = before["task"]["model"][name] = False  # as one says that was written in between
    (saved / MANIFEST_NAME).write_text(json.dumps(before), encoding="utf-8")
    loaded = Checkpoint.load(saved, payments_schema)
    assert (loaded.version, getattr(loaded.model, name)) == (before["version"], False)
    assert getattr(loaded.statistics, name) == none
    assert replace(loaded, model=replace(loaded.model, **{name: True})).version != loaded.version


def test_saving_again_replaces_whole(checkpoint: Checkpoint, saved: Path, payments_schema: Schema) -> None:
    """A second checkpoint in the same folder is the one that is read, and nothing else is left there."""
    other = replace(checkpoint, calibration=Calibration(prior=0.5))
    version = other.save(saved)
    assert Checkpoint.load(saved, payments_schema).version == version != checkpoint.version
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model"]
    assert sorted(path.name for path in saved.iterdir()) == [MANIFEST_NAME, WEIGHTS_NAME]


@pytest.mark.parametrize("name", [MANIFEST_NAME, WEIGHTS_NAME])
def test_half_a_checkpoint_is_refused(saved: Path, name: str) -> None:
    """Each file is needed, whole: missing or truncated, the checkpoint is corrupt."""
    content = (saved / name).read_bytes()
    for kept in (len(content) // 2, 3):
        (saved / name).write_bytes(content[:kept])
        with pytest.raises(CheckpointCorrupt):
            Checkpoint.load(saved)
    (saved / name).unlink()
    with pytest.raises(CheckpointCorrupt, match="missing"):
        Checkpoint.load(saved)


def test_a_flipped_bit_in_the_weights_is_refused(saved: Path) -> None:
    """Weights that are not those of the manifest are refused though the file reads well."""
    content = bytearray((saved / WEIGHTS_NAME).read_bytes())
    content[-5] ^= 1
    (saved / WEIGHTS_NAME).write_bytes(bytes(content))
    with pytest.raises(CheckpointCorrupt, match="other weights"):
        Checkpoint.load(saved)


def test_an_altered_manifest_is_refused(saved: Path) -> None:
    """A number changed by hand (here the calibration) is noticed."""
    manifest = json.loads((saved / MANIFEST_NAME).read_text())
    manifest["calibration"]["prior"] += 1.0
    (saved / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointCorrupt, match="altered"):
        Checkpoint.load(saved)


def test_another_format_is_a_mismatch(saved: Path) -> None:
    """A checkpoint of a later program says so instead of being half understood."""
    manifest = json.loads((saved / MANIFEST_NAME).read_text())
    (saved / MANIFEST_NAME).write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(CheckpointMismatch, match="format 99"):
        Checkpoint.load(saved)


def test_weights_that_are_not_finite_are_never_saved(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A diverged training leaves no checkpoint behind, nor harms the one that was there."""
    name = next(iter(checkpoint.weights))
    broken = dict(checkpoint.weights) | {name: checkpoint.weights[name] * float("nan")}
    with pytest.raises(CheckpointCorrupt, match="not finite"):
        replace(checkpoint, weights=broken).save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_another_schema_is_refused_and_a_wider_one_is_not(checkpoint: Checkpoint, payments_schema: Schema) -> None:
    """A column of another kind, or a missing table, is a mismatch; one column or table more is none."""
    *others, transactions = payments_schema.tables
    amount, fraud = transactions.columns

    def changed(*columns: Column) -> Schema:
        return replace(payments_schema, tables=(*others, replace(transactions, columns=columns)))

    checkpoint.check(payments_schema)
    checkpoint.check(changed(amount, Column("note", ColumnKind.TEXT), fraud))
    checkpoint.check(replace(payments_schema, tables=(replace(others[0], name="shops"), *payments_schema.tables)))
    with pytest.raises(CheckpointMismatch, match="other definitions"):
        checkpoint.check(changed(replace(amount, kind=ColumnKind.BOOLEAN), fraud))
    with pytest.raises(CheckpointMismatch, match="lacks"):
        checkpoint.check(changed(fraud))
    with pytest.raises(CheckpointMismatch, match="lacks"):
        checkpoint.check(parse_schema("version: 1\nname: other\ntables:\n  things:\n    primary_key: {id: integer}\n"))


def test_weights_of_another_shape_are_a_mismatch(
    checkpoint: Checkpoint, payments: Any, draw_history: Callable[..., Any]
) -> None:
    """Weights that do not belong to the model the manifest describes are refused when it is built."""
    wide = replace(checkpoint, model=replace(checkpoint.model, width=64))
    with pytest.raises(CheckpointMismatch, match="do not fit"):
        wide.build(payments.schema, payments.strings)
