"""``nowgraph labels`` makes the training table of a query; ``nowgraph query`` says how a query was understood."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from nowgraph.commands.options import AsJson, History, LabelFolder, QueryText, Quiet, SchemaPath, TaskPath
from nowgraph.report import emit, progress_console, time_text
from temporal_graph.duration import format_duration
from temporal_graph.schema import load_schema

if TYPE_CHECKING:
    from graph_transformer.finetune.query import BoundQuery
    from graph_transformer.finetune.query.label_table import LabelTable
    from graph_transformer.finetune.query.syntax import Window
    from graph_transformer.finetune.question import Question
    from graph_transformer.splits import Splits
    from temporal_graph.view import GraphView

SPLITS = ("train", "validation", "test")
CLASSES_SHOWN = 8


def labels(
    *,
    schema: SchemaPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="The Parquet file to write.")],
    task: TaskPath = None,
    query: QueryText = None,
    label_folder: LabelFolder = None,
    history: History = None,
    arena: Annotated[Path | None, typer.Option("--arena", help="Label a running updater's graph instead.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make the training table of a query or a task: who is asked when, the answer, and from when on it was known.

    The file has the entity's key, anchor_time, known_time and label; named as the task, it is history that the graph
    loads into the task's table.
    """
    from graph_transformer.finetune.query.task_table import write_labels
    from graph_transformer.finetune.question import question_of
    from nowgraph.asking import text_of
    from nowgraph.loading import opened_graph

    question = question_of(load_schema(schema), task=task, query=text_of(query), labels=label_folder)
    with opened_graph(question.schema, history or [], arena, quiet=quiet) as view:
        found, splits = _made(question, view)
        write_labels(found, output, view)
    rows = _split_rows(found, splits)
    note = None if question.bound is None else question.bound.top_note
    if note is not None and not quiet:
        progress_console().print(note, highlight=False)
    document = {
        "output": str(output),
        "task": question.name,
        "kind": found.target.kind.value,
        "labels": len(found),
        "classes": list(found.target.classes),
        "splits": splits.to_dict(),
        "rows": rows,
    }
    emit(
        rows, title=f"{len(found):,} labels in {output} ({found.target.kind.value})", as_json=as_json, document=document
    )


def query(
    text: Annotated[str, typer.Argument(help="A predictive query, or a file that holds one.")],
    *,
    schema: SchemaPath,
    as_json: AsJson = False,
) -> None:
    """Check a query against a schema and say how it is understood: what is asked, of whom, over which windows."""
    from graph_transformer.finetune.query import bind_query, parse_query
    from nowgraph.asking import text_of

    bound = bind_query(parse_query(text_of(text) or text), load_schema(schema))
    rows, hops = _understood(bound), _hops(bound)
    document = {row["what"]: row["understood as"] for row in rows} | {"aggregations": hops}
    if as_json:
        emit([], title="", as_json=True, document=document)
        return
    emit(rows, title="The query", as_json=False)
    if hops:
        emit(hops, title="What it aggregates, one link from the entity", as_json=False)


def _made(question: Question, view: GraphView) -> tuple[LabelTable, Splits]:
    """The labels of an entity-level question, a ranking's, or of each row of an event-level one, and the splits."""
    from graph_transformer.finetune.query import bind_query, parse_query
    from graph_transformer.finetune.query.labels import make_labels
    from graph_transformer.finetune.query.splits import default_splits
    from graph_transformer.finetune.query.syntax import quoted_name
    from graph_transformer.target import Kind

    if question.target.kind is Kind.RANKING:
        questions, splits = question.ranking(view)
        return questions.to_labels(question.target), splits
    table = question.label_table(view)
    if table is not None:
        return table
    bound, target = question.bound, question.target
    if bound is None:
        assert target.column is not None
        name = quoted_name(target.table)
        text = f"PREDICT {name}.{quoted_name(target.column)} FOR EACH {name}.*"
        bound = bind_query(parse_query(text), question.schema)
    found = make_labels(view, bound, np.empty(0, dtype=np.int64), task_name=question.name)
    return found, question.file.splits or default_splits(bound, found)


def _split_rows(found: LabelTable, splits: Splits) -> list[dict[str, Any]]:
    """One row for each split, and one for what lies between them."""
    rows = []
    outside = np.ones(len(found), dtype=bool)
    for name in SPLITS:
        interval = getattr(splits, name)
        if interval is None:
            continue
        inside = (found.anchor_time_us >= interval.start_us) & (found.anchor_time_us < interval.end_us)
        outside &= ~inside
        rows.append(_row(name, found.select(inside), found))
    if outside.any():
        rows.append(_row("none (gap)", found.select(outside), found))
    return rows


def _row(name: str, part: LabelTable, whole: LabelTable) -> dict[str, Any]:
    times = np.unique(part.anchor_time_us)
    shares = dict.fromkeys(list(whole.shares())[:CLASSES_SHOWN]) | dict(list(part.shares().items())[:CLASSES_SHOWN])
    return {
        "split": name,
        "first": time_text(int(times[0])) if len(times) else None,
        "last": time_text(int(times[-1])) if len(times) else None,
        "times": len(times),
        "labels": len(part),
        **shares,
    }


def _understood(bound: BoundQuery) -> list[dict[str, Any]]:
    asked = "just before it happens" if bound.event_level else "as of a time"
    facts: dict[str, Any] = {
        "query": str(bound.query),
        "kind": bound.kind.value,
        "asked": f"each row of {bound.entity}, {asked}",
        "outcome": bound.outcome,
        "label complete after": format_duration(bound.horizon_us) if bound.horizon_us else None,
        "steps": bound.steps if bound.steps > 1 else None,
        "items": bound.query.top,
        "past labels": _past_labels(bound),
        "note": bound.top_note,
    }
    return [{"what": name, "understood as": value} for name, value in facts.items() if value is not None]


def _past_labels(bound: BoundQuery) -> str:
    from graph_transformer.target import Kind

    if bound.kind is Kind.RANKING:
        return "as what users did"
    return "as the outcome's versions" if bound.event_level else "as rows of the task's table"


def _hops(bound: BoundQuery) -> list[dict[str, Any]]:
    return [
        {
            "aggregation": each.function.value,
            "of": str(each.written.column),
            "where": None if each.written.where is None else str(each.written.where),
            "window": _window(each.window),
            "by link": each.link.forward,
        }
        for each in bound.aggregations.values()
    ]


def _window(window: Window | None) -> str:
    """The window as the interval it is."""
    if window is None:
        return "all that is visible"
    start = "-inf" if window.start is None else f"t{window.start:+d}"
    return f"({start}, t{window.end:+d}] {window.unit.value}"
