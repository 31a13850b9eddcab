"""Golden requests: neighborhoods as they were sampled once, with the answers that the model gave to them.

    push:  graph ─► sample ─► Neighborhood ─► golden.npz: arrays, texts of their codes, the schema; the outputs
    load:  golden.npz ─► Neighborhood ─► collate ─► forward ─► calibrate ─► the same outputs, or the model is refused

They hold neighborhoods and not requests, because a graph moves on: what a request finds tomorrow is another answer, and
rightly so (docs/adr/0012). What is verified is everything between the sampler and the answer.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from graph_transformer.checkpoint import Checkpoint
from graph_transformer.device import CPU
from graph_transformer.errors import CheckpointError
from graph_transformer.predictor import Predictor
from graph_transformer.task import Task
from model_server.models.errors import ModelRefused, Reason
from online_sampler.neighborhood import Neighborhood
from online_sampler.sampler import Sampler
from temporal_graph.errors import SchemaError
from temporal_graph.schema import Schema, dump_schema, parse_schema
from temporal_graph.time_rule import ALWAYS_US
from temporal_graph.view import GraphView

FORMAT = 1
# How far an output may lie from the recorded one, absolutely and as a share of it: other processors and releases of
# PyTorch round otherwise (1e-5 of a logit was seen); a model that is wrong is off by far more.
TOLERANCE = 1e-3
# Requests of a version unless it is said otherwise: a forward pass of a fraction of a second.
COUNT = 32

_NODES = ("table", "row", "hop", "parent", "link", "event_time_us", "known_time_us", "version", "edge_source",
          "edge_target", "edge_link", "seed_offset", "edge_offset", "cutoff_time_us")  # fmt: skip
_CELLS = ("node", "numerical", "coded", "boolean", "timestamp", "embedding")


@dataclass(frozen=True, slots=True)
class Golden:
    """B recorded requests: their neighborhoods, texts of codes by (table, column), and outputs float64[B, outputs]."""

    schema: Schema
    neighborhood: Neighborhood
    texts: dict[tuple[str, str], dict[int, str]]
    output: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.output)

    def strings(self, table: str, column: str, codes: NDArray[np.int32]) -> Sequence[str | None]:
        """As `GraphView.strings`, of the codes that were recorded."""
        known = self.texts.get((table, column), {})
        return [known.get(code) for code in codes.tolist()]


def record(view: GraphView, checkpoint: Checkpoint, count: int = COUNT) -> Golden:
    """Records requests of a task about what the graph holds: the newest rows as of their times, or entities as of now.

    Fewer where the graph has fewer; raises ModelRefused where it has none.
    """
    predictor = Predictor(checkpoint, view)
    neighborhood = _sampled(view, predictor.task, Sampler(view, predictor.sampling_plan), count)
    texts: dict[tuple[str, str], dict[int, str]] = {}
    for table, columns in neighborhood.columns.items():
        for at, column in enumerate(columns.coded_names):
            codes = np.unique(columns.coded[:, at])
            codes = codes[codes > 0].astype(np.int32)
            found = zip(codes.tolist(), view.strings(table, column, codes), strict=True)
            texts[table, column] = {code: text for code, text in found if text is not None}
    return Golden(view.schema, neighborhood, texts, predictor.predict(neighborhood).output)


def _sampled(view: GraphView, task: Task, sampler: Sampler, count: int) -> Neighborhood:
    table = task.target.table
    if task.target.event_level:
        event_time_us = view.times(table)[0]
        index = np.flatnonzero(event_time_us != ALWAYS_US)[-count:]
        if len(index):
            return sampler.sample_rows(table, index, event_time_us[index] - 1, request=0)
    else:
        rows = view.row_count(table)
        keys = [key for key in view.keys(table, np.arange(max(0, rows - count), rows)) if key is not None]
        if keys:
            return sampler.sample_keys(table, keys, np.full(len(keys), view.watermark_us), request=0)
    raise ModelRefused(Reason.GOLDEN, f"the graph has no rows of {table!r} to record requests of {task.name!r} from")


def save(golden: Golden, path: Path) -> None:
    """Writes golden.npz."""
    found = golden.neighborhood
    arrays: dict[str, NDArray[Any]] = {name: np.asarray(getattr(found, name)) for name in _NODES}
    for index, table in enumerate(golden.schema.tables):
        columns = found.columns[table.name]
        arrays |= {f"{index}.{name}": np.asarray(getattr(columns, name)) for name in _CELLS}
    document = {
        "format": FORMAT,
        "schema": dump_schema(golden.schema),
        "unseen": list(found.unseen),
        "texts": [
            [table, column, {str(code): text for code, text in texts.items()}]
            for (table, column), texts in golden.texts.items()
        ],
    }
    text = np.frombuffer(json.dumps(document).encode(), dtype=np.uint8)
    np.savez_compressed(path, document=text, output=golden.output, **arrays)  # type: ignore[arg-type]


def load(path: Path) -> Golden:
    """Reads golden.npz. Raises ModelRefused for what is none."""
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = dict(found)
        document = json.loads(arrays["document"].tobytes())
        if document["format"] != FORMAT:
            raise ModelRefused(Reason.MISMATCH, f"{path} has format {document['format']}, expected {FORMAT}")
        schema = parse_schema(document["schema"])
        texts = {
            (table, column): {int(code): str(text) for code, text in texts.items()}
            for table, column, texts in document["texts"]
        }
        sample = SimpleNamespace(
            **{name: arrays[name] for name in _NODES},
            **{f"gathered_{name}": _of_table(arrays, name) for name in _CELLS},
            unseen=document["unseen"],
        )
        return Golden(schema, Neighborhood(cast("Any", sample), schema), texts, arrays["output"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, SchemaError) as error:
        raise ModelRefused(Reason.CORRUPT, f"{path} holds no golden requests: {error!r}") from None


def _of_table(arrays: dict[str, NDArray[Any]], name: str) -> Any:
    return lambda index: arrays[f"{index}.{name}"]


def verify(golden: Golden, checkpoint: Checkpoint, *, device: str = CPU) -> float:
    """Answers the golden requests on a device, within the same tolerance wherever they were recorded.

    Returns the largest difference. Raises ModelRefused where one is too large.
    """
    try:
        output = Predictor(checkpoint, golden, device=device).predict(golden.neighborhood).output
    except CheckpointError as error:
        raise ModelRefused(Reason.MISMATCH, f"the golden requests are of another schema: {error}") from None
    except Exception as error:  # whatever failed here would fail on a caller's request
        raise ModelRefused(Reason.GOLDEN, f"a golden request failed: {type(error).__name__}") from error
    if output.shape != golden.output.shape:
        raise ModelRefused(Reason.GOLDEN, f"outputs of shape {output.shape}, expected {golden.output.shape}")
    off = np.abs(output - golden.output)
    allowed = TOLERANCE + TOLERANCE * np.abs(golden.output)
    wrong = ~(off <= allowed).all(axis=1)  # and so a NaN is wrong
    if wrong.any():
        raise ModelRefused(
            Reason.GOLDEN,
            f"{int(wrong.sum())} of {len(golden)} golden requests are answered otherwise than when it was pushed: "
            f"off by up to {off.max():.3g}, allowed {TOLERANCE:g}",
        )
    return float(off.max(initial=0.0))
