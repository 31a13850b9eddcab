"""``nowgraph dead-letters``: what could not enter the graph, why, and sending it again once that is mended."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nowgraph.commands.options import AsJson, Bootstrap
from nowgraph.report import emit, iso_text
from stream.dead_letters import StoredDeadLetter, list_dead_letters, redrive
from stream.producer import Delivery, EventProducer
from stream.settings import StreamSettings

app = typer.Typer(no_args_is_help=True, help="List records that could not enter the graph, and send them again.")

_Topic = Annotated[str | None, typer.Option("--topic", help="Only records of this topic.")]
_Reason = Annotated[str | None, typer.Option("--reason", help="Only this reason, such as invalid_json.")]
_Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many, the oldest first.")]
_VALUE_BYTES_SHOWN = 60


@app.command("list")
def list_(
    *,
    bootstrap_servers: Bootstrap,
    topic: _Topic = None,
    reason: _Reason = None,
    limit: _Limit = None,
    everything: Annotated[bool, typer.Option("--all", help="Those that were sent again, too.")] = False,
    values: Annotated[bool, typer.Option("--values", help="Show the records' bytes, private values included.")] = False,
    as_json: AsJson = False,
) -> None:
    """List dead letters with their reason and where they stood."""
    stored = list_dead_letters(
        StreamSettings(kafka_bootstrap=bootstrap_servers),
        topic=topic,
        reason=reason,
        include_redriven=everything,
        limit=limit,
    )
    emit([_row(one, values=values) for one in stored], title=f"{len(stored)} dead letters", as_json=as_json)


@app.command("redrive")
def redrive_(
    *,
    bootstrap_servers: Bootstrap,
    topic: _Topic = None,
    reason: _Reason = None,
    limit: _Limit = None,
    as_json: AsJson = False,
) -> None:
    """Send the exact bytes of dead letters to their topics again; each is sent once, however often this is run."""
    settings = StreamSettings(kafka_bootstrap=bootstrap_servers)
    rows: list[dict[str, Any]] = []

    def sent(one: StoredDeadLetter, delivery: Delivery) -> None:
        rows.append(
            {
                "topic": delivery.topic,
                "partition": delivery.partition,
                "old offset": one.letter.offset,
                "new offset": delivery.offset,
                "reason": one.letter.reason,
            }
        )

    with EventProducer(settings) as producer:
        count = redrive(settings, producer, topic=topic, reason=reason, limit=limit, on_sent=sent)
    emit(rows, title=f"{count} records sent again", as_json=as_json)


def _row(one: StoredDeadLetter, *, values: bool) -> dict[str, Any]:
    letter = one.letter
    known = letter.timestamp_us >= 0
    row = {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": letter.reason,
        "detail": letter.detail,
        "time": iso_text(letter.timestamp_us) if known else None,
        "bytes": len(letter.value or b""),
        "sent again": one.redriven,
    }
    if values:
        row["value"] = repr((letter.value or b"")[:_VALUE_BYTES_SHOWN])
    return row
