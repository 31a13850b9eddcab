"""A checkpoint's folder -> what answers with it: a predictor that scores, or a ranker that makes lists."""

from __future__ import annotations

from pathlib import Path

import torch

from graph_transformer.checkpoint import Checkpoint
from graph_transformer.device import CPU, find_device
from graph_transformer.errors import DeviceUnavailable
from graph_transformer.predictor import Predictor
from graph_transformer.ranking.lists import ListRanker
from graph_transformer.target import Kind
from model_server.errors import NotConfiguredError
from model_server.settings import ServerSettings
from model_server.store import ServedView, StoreView


def load_model(folder: Path, view: ServedView, settings: ServerSettings) -> Predictor | ListRanker:
    """Loads a checkpoint for a graph, by the kind of its task; raises as `Checkpoint.load` and `bind_model`."""
    return bind_model(Checkpoint.load(folder, view.schema), view, settings)


def check_device(settings: ServerSettings) -> None:
    """Raises NotConfiguredError where models cannot compute on the settings' device, with what there is instead."""
    if settings.device == CPU:
        return
    if settings.fixed_shape:
        raise NotConfiguredError(
            f"NOWGRAPH_SERVER_DEVICE {settings.device!r} with NOWGRAPH_SERVER_FIXED_SHAPE: equal bits are promised on "
            "cpu alone"
        )
    try:
        find_device(settings.device)
    except DeviceUnavailable as error:
        raise NotConfiguredError(f"NOWGRAPH_SERVER_DEVICE (--device): {error}") from None


def bind_model(checkpoint: Checkpoint, view: ServedView, settings: ServerSettings) -> Predictor | ListRanker:
    """Binds a checkpoint to a graph, by the kind of its task; sets PyTorch's threads for the whole process.

    Raises CheckpointCorrupt or CheckpointMismatch for a model that cannot be used with this graph, NotConfiguredError
    for a ranking that is asked for a fixed shape, or over a graph in Redis, and for a device that is not there.
    """
    check_device(settings)
    torch.set_num_threads(settings.compute_threads)
    if checkpoint.task.target.kind is Kind.RANKING:
        if isinstance(view, StoreView):
            raise NotConfiguredError(
                f"task {checkpoint.task.name!r} is a ranking: it reads all items of its graph, which one in Redis "
                "does not give: serve it from an arena"
            )
        if settings.fixed_shape:
            raise NotConfiguredError(f"task {checkpoint.task.name!r} is a ranking: lists are not made in a fixed shape")
        from graph_transformer.ranking.ranker import Ranker

        return Ranker(checkpoint, view, device=settings.device)
    return Predictor(checkpoint, view, fixed_shape=settings.fixed_shape, device=settings.device)
