"""Batch prediction: a Parquet file of questions -> the same file with answers, by the server's own path.

rows ─► ParquetQuestions ─► Sampler ─► Predictor ─► answer columns ─► rows with answers
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from model_server.answer import KINDS, history_of
from model_server.request import AskedRow
from model_server.seeds import sample
from nowgraph.errors import UsageError
from nowgraph.parquet_answers import answer_columns, answer_fields
from nowgraph.parquet_questions import ParquetQuestions
from online_sampler.sampler import Sampler
from stream.privacy import Privacy, is_hashed

if TYPE_CHECKING:
    from graph_transformer.predictor import Predictor
    from graph_transformer.task import Task
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
    target, version = predictor.task.target, predictor.version
    if target.kind not in KINDS:
        raise UsageError(f"task {predictor.task.name!r} is a {target.kind.value}: predict cannot answer it")
    sampler = Sampler(view, predictor.sampling_plan)
    empty = 0

    def answers(asked: Sequence[AskedRow]) -> list[pa.Array]:
        nonlocal empty
        neighborhood = sample(sampler, target, asked)
        history = history_of(neighborhood)
        empty += sum(one.history_count == 0 for one in history)
        return answer_columns(target, predictor.predict(neighborhood), asked, history, version)

    rows = answer_file(
        view,
        predictor.task,
        questions,
        output,
        fields=answer_fields(target),
        answers=answers,
        batch_rows=BATCH_ROWS,
        privacy=privacy,
        time_column=time_column,
        advance=advance,
    )
    return Predicted(rows, empty)


def answer_file(
    view: GraphView,
    task: Task,
    questions: Path,
    output: Path,
    *,
    fields: Sequence[pa.Field],
    answers: Callable[[Sequence[AskedRow]], list[pa.Array]],
    batch_rows: int,
    privacy: Privacy | None,
    time_column: str | None,
    advance: Callable[[int], object],
) -> int:
    """Writes the rows of a file of questions with the columns that `answers` gives of them; returns how many there are.

    `fields` are those columns' own. Raises as `predict_file`.
    """
    with _parquet(questions) as file:
        names = file.schema_arrow.names
        taken = [field.name for field in fields if field.name in names]
        if taken:
            raise UsageError(f"{questions}: answers have columns of the names {', '.join(taken)} too: rename them")
        try:
            reader = ParquetQuestions(
                view.schema,
                task,
                names,
                now_us=view.watermark_us,
                privacy=privacy,
                hashed=is_hashed(file.schema_arrow.metadata),
                time_column=time_column,
            )
            schema = pa.schema([*file.schema_arrow, *fields])
            row = 0
            with _writer(output, schema) as writer:
                for batch in file.iter_batches(batch_rows):
                    columns = [*batch.columns, *answers(reader.read(batch, row))]
                    writer.write_batch(pa.record_batch(columns, schema=schema))
                    row += batch.num_rows
                    advance(batch.num_rows)
        except UsageError as error:
            raise UsageError(f"{questions}: {error}") from error
    return row


def count_questions(questions: Path) -> int:
    """Returns the rows of a Parquet file; raises as `predict_file`."""
    with _parquet(questions) as file:
        return int(file.metadata.num_rows)


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise UsageError(f"{path}: no Parquet file, as questions are: {error}") from error
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
