from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from graph_transformer.checkpoint import Checkpoint
from graph_transformer.target import Kind, Target
from model_server.generation import Serving
from model_server.models import golden
from model_server.models.channel import Canary
from model_server.models.errors import ModelRefused, Reason
from model_server.models.loader import FolderModels, Loader, RegistryModels, Wanted
from model_server.models.registry import GOLDEN_NAME, MANIFEST_NAME, Registry, entries_of
from model_server.settings import ServerSettings
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import parse_schema

SETTINGS = ServerSettings(port=0, metrics_port=0)
WEIGHTS = "weights.safetensors"
Pushed = Callable[..., str]


def loader_of(registry: Registry, target: Target | None = None) -> Loader:
    """Loads the fraud task's models."""
    return Loader(RegistryModels(registry, "fraud", "live"), SETTINGS, target=target)


def never(role: str, version: str, error: ModelRefused) -> None:
    """No model is to be refused."""
    raise error


def reseal(folder: Path) -> None:
    """Makes the manifest say what the files are now, as whoever pushes something else would."""
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    entries = entries_of({name: folder / name for name in manifest["files"]})
    manifest["files"] = {name: {"sha256": one.sha256, "bytes": one.size_bytes} for name, one in entries.items()}
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))


def test_what_a_channel_says_is_served(registry: Registry, pushed: Pushed, world: Any) -> None:
    """The live version with its shadows over one view; the canary over another."""
    live, other, third = pushed(), pushed(1.1), pushed(1.2)
    registry.change(
        "fraud", "live", lambda found: found.with_canary(Canary(other, 0.2)).with_shadows([third])  # type: ignore[union-attr]
    )  # fmt: skip
    loader = loader_of(registry)
    wanted = loader.models.wanted()
    assert (wanted.live, wanted.canary, wanted.shadows) == (live, Canary(other, 0.2), (third,))
    serving = loader.live(wanted, world.graph.view(), never)
    assert isinstance(serving, Serving)
    assert (serving.version, [one.version for one in serving.shadows]) == (live, [third])
    assert loader.canary(other, world.graph.view()).version == other


def test_a_configuration_stands_in_place_of_the_channel(registry: Registry, pushed: Pushed) -> None:
    """A canary that serving.yaml names is the canary until the channel makes it live."""
    live, other = pushed(), pushed(1.1)
    models = RegistryModels(registry, "fraud", "live", canary=Canary(other, 0.5), shadows=(other,))
    assert models.wanted() == Wanted(live, Canary(other, 0.5), (other,), 1)
    registry.change("fraud", "live", lambda found: found.promote(other))  # type: ignore[union-attr]
    assert models.wanted() == Wanted(other, None, (), 2)


def spoil_truncated(folder: Path) -> None:
    """Half of a file."""
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def spoil_truncated_and_sealed(folder: Path) -> None:
    """Half of a file, under a manifest that agrees."""
    spoil_truncated(folder)
    reseal(folder)


def spoil_not_finite(folder: Path) -> None:
    """A weight that is no number, under a manifest that agrees."""
    weights = load_file(folder / WEIGHTS)
    name = next(iter(weights))
    weights[name] = torch.full_like(weights[name], float("nan"))
    save_file(weights, folder / WEIGHTS)
    reseal(folder)


def spoil_golden(folder: Path) -> None:
    """Golden requests of another model, under a manifest that agrees."""
    found = golden.load(folder / GOLDEN_NAME)
    golden.save(replace(found, output=found.output + 0.5), folder / GOLDEN_NAME)
    reseal(folder)


def spoil_checkpoint(folder: Path) -> None:
    """A description that was edited by hand, under a manifest that agrees."""
    path = folder / "checkpoint.json"
    path.write_text(path.read_text().replace('"layers": 1', '"layers": 2'))
    reseal(folder)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_truncated, Reason.CORRUPT),
        (spoil_truncated_and_sealed, Reason.CORRUPT),
        (spoil_not_finite, Reason.CORRUPT),
        (spoil_checkpoint, Reason.CORRUPT),
        (spoil_golden, Reason.GOLDEN),
    ],
)
def test_a_spoiled_version_is_refused_with_its_reason(
    registry: Registry, pushed: Pushed, world: Any, spoil: Callable[[Path], None], reason: Reason
) -> None:
    """Each way a version can be wrong is found before it serves; as a shadow it is left out."""
    live, other = pushed(), pushed(1.1)
    loader = loader_of(registry)
    spoil(Path(registry.url) / "fraud" / other)
    with pytest.raises(ModelRefused) as caught:
        loader.live(Wanted(other), world.graph.view(), never)
    assert caught.value.reason is reason
    told: list[tuple[str, str, Reason]] = []
    serving = loader.live(
        Wanted(live, shadows=(other,)),
        world.graph.view(),
        lambda role, version, e: told.append((role, version, e.reason)),
    )
    assert (serving.version, told) == (live, [("shadow", other, reason)])


def test_a_graph_of_another_schema_is_refused(registry: Registry, pushed: Pushed, world: Any) -> None:
    """A model reads the tables that it was trained on, or nothing."""
    version = pushed()
    other = parse_schema(world.schema_text.replace("tx_amount: numerical", "tx_amount: categorical"))
    with TemporalGraph.create(other, arena_bytes=64 << 20) as graph, pytest.raises(ModelRefused) as caught:
        loader_of(registry).live(Wanted(version), graph.view(), never)
    assert caught.value.reason is Reason.MISMATCH


def test_a_model_of_something_else_is_refused(registry: Registry, pushed: Pushed, world: Any) -> None:
    """What a task predicts stays what it is, whatever is promoted."""
    version = pushed()
    other = Target(Kind.REGRESSION, "transactions", event_level=True, column="tx_amount")
    with pytest.raises(ModelRefused, match="something else") as caught:
        loader_of(registry, other).live(Wanted(version), world.graph.view(), never)
    assert caught.value.reason is Reason.MISMATCH


def test_a_shadow_reads_the_same_neighborhoods_or_none(registry: Registry, pushed: Pushed, world: Any) -> None:
    """A version with another sampling plan is no shadow, and says so."""
    live = pushed()
    task = Checkpoint.load(world.checkpoint).task
    plan = replace(task.sampling_plan, node_limit=task.sampling_plan.node_limit + 1)
    other = pushed(1.1, task=replace(task, sampling_plan=plan))
    told: list[str] = []
    serving = loader_of(registry).live(
        Wanted(live, shadows=(other,)), world.graph.view(), lambda _, __, error: told.append(str(error))
    )
    assert isinstance(serving, Serving)
    assert serving.shadows == ()
    assert "another sampling plan" in told[0]


def test_a_folder_is_the_one_model_that_lies_in_it(world: Any) -> None:
    """`serve --checkpoint`: no registry, no golden requests, the same checks of the files."""
    models = FolderModels(world.checkpoint)
    serving = Loader(models, SETTINGS).live(models.wanted(), world.graph.view(), never)
    assert serving.version == Checkpoint.load(world.checkpoint).version
    with pytest.raises(ModelRefused) as caught:
        FolderModels(world.checkpoint / "nothing").checkpoint("", world.schema)
    assert caught.value.reason is Reason.CORRUPT
