"""A trained model on disk: everything that decides an answer, in one folder, refused if any of it does not fit.

    FOLDER/weights.safetensors   the weights (float32)
    FOLDER/checkpoint.json       format, task, sampling plan, schema fingerprint, statistics, model, calibration,
                                 metrics, the weights' SHA-256, and `version`: hash of all that decides an answer;
                                 of a ranking the items' identities and the fusion's values as well

Both files are written beside the folder and moved into place, so that a reader sees a whole checkpoint or none.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from graph_transformer.calibration import Calibration
from graph_transformer.config import ABSENT, ModelConfig
from graph_transformer.encoding.collate import Encoding
from graph_transformer.encoding.statistics import Statistics, Strings
from graph_transformer.errors import CheckpointCorrupt, CheckpointMismatch, TaskError
from graph_transformer.heads import Unit
from graph_transformer.model import build_model
from graph_transformer.ranking.model import build_ranking
from graph_transformer.ranking.parts import RankingParts
from graph_transformer.target import Kind
from graph_transformer.task import Task, task_from_dict
from online_sampler.plan import SamplingPlan
from temporal_graph.errors import SchemaError
from temporal_graph.schema import Schema

FORMAT = 2
WEIGHTS_NAME = "weights.safetensors"
MANIFEST_NAME = "checkpoint.json"
VERSION_LENGTH = 16
"""Hex digits of the version: 64 bits, enough to tell every model ever trained apart and short enough to read."""


@dataclass(frozen=True)
class Checkpoint:
    """A model as values. `fingerprint` is the schema's, of the tables and columns the model reads.

    `ranking` is there of a ranking and of nothing else.
    """

    task: Task
    fingerprint: str
    statistics: Statistics
    model: ModelConfig
    unit: Unit
    calibration: Calibration
    weights: Mapping[str, torch.Tensor]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    ranking: RankingParts | None = None

    @property
    def sampling_plan(self) -> SamplingPlan:
        """The plan by which every neighborhood for this model is sampled."""
        return self.task.sampling_plan

    @property
    def version(self) -> str:
        """Hash of all that decides an answer; metrics and training options do not."""
        return _version(self._manifest(_weights_hash(self.weights)))

    def _manifest(self, weights_sha256: str) -> dict[str, Any]:
        ranking = {} if self.ranking is None else {"ranking": self.ranking.to_dict()}
        return {
            "format": FORMAT,
            "task": self.task.to_dict(),
            "fingerprint": self.fingerprint,
            "statistics": self.statistics.to_dict(),
            "model": self.model.to_saved(),
            "unit": self.unit.to_dict(),
            "calibration": self.calibration.to_dict(),
            "metrics": dict(self.metrics),
            "weights_sha256": weights_sha256,
            **ranking,
        }

    def save(self, folder: Path) -> str:
        """Write the checkpoint, replacing what the folder held of an earlier one; return its version.

        Raises:
            CheckpointCorrupt: the weights are not finite; nothing is written.
            OSError: the folder can not be written.
        """
        _refuse_not_finite(self.weights, "the weights to be saved")
        folder.parent.mkdir(parents=True, exist_ok=True)
        manifest = self._manifest(_weights_hash(self.weights))
        manifest["version"] = _version(manifest)
        new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.weights.items()}
            safetensors.torch.save_file(tensors, new / WEIGHTS_NAME)
            (new / MANIFEST_NAME).write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")
            folder.mkdir(exist_ok=True)
            # The manifest names the weights' hash and moves last: between the two moves a reader is told of a mismatch.
            (new / WEIGHTS_NAME).replace(folder / WEIGHTS_NAME)
            (new / MANIFEST_NAME).replace(folder / MANIFEST_NAME)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return str(manifest["version"])

    @classmethod
    def load(cls, folder: Path, schema: Schema | None = None) -> Checkpoint:
        """Read a checkpoint and check it, against a schema too if one is given.

        Raises:
            CheckpointCorrupt: a file is missing, truncated or altered, or a weight is not finite.
            CheckpointMismatch: another format, or the schema's tables and columns are not those it was trained on.
        """
        manifest = _read_manifest(folder / MANIFEST_NAME)
        weights = _read_weights(folder / WEIGHTS_NAME, str(manifest["weights_sha256"]))
        try:
            task = task_from_dict(manifest["task"])
            is_ranking = task.target.kind is Kind.RANKING
            checkpoint = cls(
                task=task,
                fingerprint=manifest["fingerprint"],
                statistics=Statistics.from_dict(manifest["statistics"]),
                model=ModelConfig.from_dict(manifest["model"]),
                unit=Unit.from_dict(manifest["unit"]),
                calibration=Calibration.from_dict(manifest["calibration"]),
                weights=weights,
                metrics=manifest["metrics"],
                ranking=RankingParts.from_dict(manifest["ranking"]) if is_ranking else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointCorrupt(f"{folder / MANIFEST_NAME}: {error!r}") from error
        if schema is not None:
            checkpoint.check(schema)
        return checkpoint

    def check(self, schema: Schema) -> None:
        """Raise CheckpointMismatch unless the schema has the tables and columns the model was trained on, unchanged."""
        tables, past = self.statistics.tables(), self.task.target.task_table
        if past is not None and past not in {table.name for table in schema.tables}:
            raise CheckpointMismatch(
                f"the schema has no table {past!r}, where the task's past labels stand: "
                "the schema.yaml beside the checkpoint has it"
            )
        try:
            found = schema.fingerprint(tables)
        except SchemaError as error:
            raise CheckpointMismatch(f"the schema lacks what the model reads: {error}") from error
        if found != self.fingerprint:
            raise CheckpointMismatch(
                f"the model was trained on other definitions of the tables {', '.join(tables)}: "
                f"its fingerprint is {self.fingerprint[:12]}, this schema's {found[:12]}"
            )

    def build(self, schema: Schema, strings: Strings) -> tuple[nn.Module, Encoding]:
        """Return the model in evaluation mode and the encoding bound to a graph's dictionaries.

        Of a ranking it is a `RankingModel`.

        Raises:
            CheckpointMismatch: the schema or the weights do not fit, or code that the model names is not here.
            CheckpointCorrupt: a ranking's fusion can not be built of the values that are kept of it.
        """
        self.check(schema)
        try:
            ranked = self.task.target.ranked
            identified = None if ranked is None else ranked.items
            encoding = Encoding(self.statistics, schema, strings, identified=identified)
            model = self._new(encoding)
        except TaskError as error:
            raise CheckpointMismatch(f"the model is not ours alone, and its part is missing: {error}") from error
        try:
            model.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            raise CheckpointMismatch(f"the weights do not fit the model they are said to be of: {error}") from error
        return model.eval(), encoding

    def _new(self, encoding: Encoding) -> nn.Module:
        """Return the model as it was before it had weights."""
        if self.ranking is None:
            return build_model(encoding.layout(), self.model, self.task.target.outputs)
        try:
            fusion = self.ranking.build_fusion()
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointCorrupt(f"the fusion can not be built of its values: {error!r}") from error
        return build_ranking(encoding, self.task, self.ranking.identities.count, fusion)


_DECIDING = (
    "name", "table", "outcome", "kind", "level", "classes", "horizon", "steps", "task_table", "sampling_plan", "ranked",
    "ranking",
)  # fmt: skip
"""What of a task decides an answer."""


def _version(manifest: Mapping[str, Any]) -> str:
    decides = {key: value for key, value in manifest.items() if key not in ("metrics", "version", "task")}
    decides["model"] = {key: value for key, value in manifest["model"].items() if (key, value) not in ABSENT.items()}
    task = manifest["task"]
    decides["task"] = {key: task[key] for key in _DECIDING if key in task}
    text = json.dumps(decides, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:VERSION_LENGTH]


def _weights_hash(weights: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 over names, shapes and bytes: of the values, whatever the file around them."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = weights[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointCorrupt(f"{path} is missing: this is no checkpoint, or half of one") from error
    except (ValueError, OSError) as error:
        raise CheckpointCorrupt(f"{path} can not be read: {error}") from error
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise CheckpointCorrupt(f"{path} does not hold a checkpoint")
    if manifest["format"] != FORMAT:
        raise CheckpointMismatch(f"{path} has format {manifest['format']}, this program reads format {FORMAT}")
    try:
        expected = _version(manifest)
    except (KeyError, TypeError) as error:
        raise CheckpointCorrupt(f"{path} lacks {error}") from error
    if manifest.get("version") != expected:
        raise CheckpointCorrupt(f"{path} was altered: it hashes to {expected}, and says {manifest.get('version')}")
    return manifest


def _read_weights(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    try:
        weights = safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise CheckpointCorrupt(f"{path} is missing") from error
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointCorrupt(f"{path} is truncated or no weights file: {error}") from error
    if _weights_hash(weights) != sha256:
        raise CheckpointCorrupt(f"{path} holds other weights than its checkpoint was saved with")
    _refuse_not_finite(weights, str(path))
    return weights


def _refuse_not_finite(weights: Mapping[str, torch.Tensor], where: str) -> None:
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointCorrupt(f"{where}: {name} holds values that are not finite")
