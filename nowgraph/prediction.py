"""Batch prediction: a Parquet file of questions -> the same file with answers, by the server's own path.

rows ─► ParquetQuestions ─► Sampler ─► Predictor ─► answer columns ─► rows with answers
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from model_server.answer import KINDS, History, history_of
from model_server.seeds import sample
from nowgraph.errors import UsageError
from nowgraph.parquet_answers import answer_columns, answer_fields
from nowgraph.parquet_questions import ParquetQuestions
from online_sampler.sampler import Sampler
from stream.privacy import Privacy, is_hashed

if TYPE_CHECKING:
    from graph_transformer.predictor import Predictor
    from temporal_graph.view import GraphView

BATCH_ROWS = 256
"""Neighborhoods per forward pass: larger ones no longer gain speed on a CPU."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """What a file's prediction came to; `empty_history` of the rows had no history to rest on."""

    rows: int
    empty_history: int


def predict_file(
    view: GraphView,
    predictor: Predictor,
    questions: Path,
    output: Path,
    *,
    privacy: Privacy | None,
    time_column: str | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> Predicted:
    """Answers every row of `questions` and writes it to `output` with its answer; `advance` hears of rows done.

    An entity's question without a time is asked as of the graph's newest. `output` appears whole or not at all.

    Raises:
        UsageError: a file is no Parquet file, or has columns that an answer has too; or a row cannot be asked about.
        OSError: a file cannot be read or written.
    """
    target = predictor.task.target
    if target.kind not in KINDS:
        raise UsageError(f"task {predictor.task.name!r} is a {target.kind.value}: predict cannot answer it")
    with _parquet(questions) as file:
        names = file.schema_arrow.names
        fields = answer_fields(target)
        taken = [field.name for field in fields if field.name in names]
        if taken:
            raise UsageError(f"{questions}: answers have columns of the names {', '.join(taken)} too: rename them")
        try:
            reader = ParquetQuestions(
                view.schema,
                predictor.task,
                names,
                now_us=view.watermark_us,
                privacy=privacy,
                hashed=is_hashed(file.schema_arrow.metadata),
                time_column=time_column,
            )
            schema = pa.schema([*file.schema_arrow, *fields])
            rows = empty = 0
            with _writer(output, schema) as writer:
                for columns, history in _answered(view, predictor, file, reader):
                    writer.write_batch(pa.record_batch(columns, schema=schema))
                    rows += len(history)
                    empty += sum(one.history_count == 0 for one in history)
                    advance(len(history))
            return Predicted(rows, empty)
        except UsageError as error:
            raise UsageError(f"{questions}: {error}") from error


def count_questions(questions: Path) -> int:
    """Returns the rows of a Parquet file; raises as `predict_file`."""
    with _parquet(questions) as file:
        return int(file.metadata.num_rows)


def _answered(
    view: GraphView, predictor: Predictor, file: pq.ParquetFile, reader: ParquetQuestions
) -> Iterator[tuple[list[pa.Array], list[History]]]:
    """The file's columns and the answers', and how much history each answer rests on, a batch at a time."""
    target, sampler = predictor.task.target, Sampler(view, predictor.sampling_plan)
    row = 0
    for batch in file.iter_batches(BATCH_ROWS):
        asked = reader.read(batch, row)
        neighborhood = sample(sampler, target, asked)
        history = history_of(neighborhood)
        answers = answer_columns(target, predictor.predict(neighborhood), asked, history, predictor.version)
        yield [*batch.columns, *answers], history
        row += batch.num_rows


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise UsageError(f"{path}: no Parquet file: {error}") from error
    with file:
        yield file


@contextmanager
def _writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Writes beside the path and moves into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        new = Path(folder) / path.name
        with pq.ParquetWriter(new, schema) as writer:
            yield writer
        new.replace(path)
