"""``nowgraph models``: a registry of models, and the channels that servers follow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nowgraph.commands.options import AsJson, History, Quiet
from nowgraph.errors import UsageError
from nowgraph.report import emit

if TYPE_CHECKING:
    from model_server.models.channel import Channel
    from model_server.models.registry import Registry

app = typer.Typer(name="models", no_args_is_help=True, help="Versions of models, and which of them answer.")

# As model_server.config.LIVE and model_server.models.golden.COUNT, which are not loaded to show the help.
LIVE = "live"
GOLDEN_COUNT = 32

RegistryUrl = Annotated[
    str, typer.Option("--registry", envvar="NOWGRAPH_REGISTRY", help="The registry: a folder, or a URL as fsspec's.")
]
ChannelName = Annotated[str, typer.Option("--channel", help="The channel that servers follow.")]
TaskName = Annotated[str, typer.Argument(help="The task's name.")]
VersionName = Annotated[str, typer.Argument(help="A version, or how it begins.")]


@app.command()
def push(
    checkpoint: Annotated[Path, typer.Argument(help="Folder that `nowgraph train` made.")],
    *,
    registry: RegistryUrl,
    history: History = None,
    arena: Annotated[Path | None, typer.Option("--arena", help="A running updater's graph instead of files.")] = None,
    schema: Annotated[Path | None, typer.Option("--schema", help="Default: schema.yaml of the checkpoint.")] = None,
    golden: Annotated[int, typer.Option(min=1, max=1024, help="Golden requests to record.")] = GOLDEN_COUNT,
    without_golden: Annotated[
        bool, typer.Option("--without-golden", help="Record none: servers verify the files and nothing else.")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Add a checkpoint to the registry, with golden requests recorded on the graph of --history or --arena.

    No server answers with it before it is promoted.
    """
    from contextlib import nullcontext

    from graph_transformer.checkpoint import Checkpoint
    from graph_transformer.target import Kind
    from model_server.models.pushing import push as push_version
    from model_server.models.registry import Registry
    from nowgraph.assembly import schema_of
    from nowgraph.loading import opened_graph
    from temporal_graph.schema import load_schema

    without = without_golden or Checkpoint.load(checkpoint).task.target.kind is Kind.RANKING
    if not without and arena is None and not history:
        raise UsageError(
            "--history or --arena says on which graph golden requests are recorded; --without-golden records none"
        )
    opened = (
        nullcontext(None)
        if without
        else opened_graph(load_schema(schema_of(checkpoint, schema)), history or [], arena, quiet=quiet)
    )
    with opened as view:
        manifest, added = push_version(Registry(registry), checkpoint, view, count=golden)
    row = {
        "task": manifest.task,
        "version": manifest.version,
        "kind": manifest.kind,
        "golden": manifest.golden,
        "bytes": sum(entry.size_bytes for entry in manifest.files.values()),
        "was there": not added,
    }
    emit([row], title="Pushed", as_json=as_json, document={**row, "registry": registry})


@app.command("list")
def list_models(
    task: Annotated[str | None, typer.Argument(help="The task's name; default: all tasks.")] = None,
    *,
    registry: RegistryUrl,
    channel: ChannelName = LIVE,
    as_json: AsJson = False,
) -> None:
    """Show the versions of a registry, the newest first, and what each is to the channel."""
    from model_server.models.registry import Registry

    found = Registry(registry)
    tasks = found.tasks() if task is None else [task]
    rows: list[dict[str, Any]] = []
    channels = {}
    for name in tasks:
        at = found.channel(name, channel) if found.has_channel(name, channel) else None
        channels[name] = None if at is None else _document(at)
        rows += [
            {
                "task": name,
                "version": one.version,
                channel: _role(at, one.version),
                "kind": one.kind,
                "golden": one.golden,
                "pushed at": one.pushed_at,
            }
            for one in found.versions(name)
        ]
    emit(rows, title="Models", as_json=as_json, document={"channel": channel, "channels": channels, "models": rows})


@app.command()
def verify(task: TaskName, version: VersionName, *, registry: RegistryUrl, as_json: AsJson = False) -> None:
    """Check a version as a server does: checksums, weights, and its golden requests."""
    from model_server.models.loader import verified
    from model_server.models.registry import Registry

    found = Registry(registry)
    named = found.named(task, version)
    result = verified(found, task, named)
    row = {"task": task, "version": named, "golden": result.golden, "off by at most": result.off}
    emit([row], title="Verified", as_json=as_json, document=row)


@app.command()
def promote(
    task: TaskName,
    version: Annotated[str | None, typer.Argument(help="A version, or how it begins; default: the canary.")] = None,
    *,
    registry: RegistryUrl,
    channel: ChannelName = LIVE,
    as_json: AsJson = False,
) -> None:
    """Make a version live: verified first, then served by every server of the channel within seconds."""
    from model_server.models.channel import Channel

    def step(found: Registry) -> Callable[[Channel | None], Channel]:
        named = None if version is None else _verified(found, task, version)

        def change(before: Channel | None) -> Channel:
            if before is not None:
                if named is None and before.canary is not None:
                    _verified(found, task, before.canary.version)
                return before.promote(named)
            if named is None:
                raise UsageError(f"task {task} has no channel {channel} yet: name the version")
            return Channel.first(named)

        return change

    _change(registry, task, channel, step, title="Promoted", as_json=as_json)


@app.command()
def rollback(task: TaskName, *, registry: RegistryUrl, channel: ChannelName = LIVE, as_json: AsJson = False) -> None:
    """Make the version live that was so before, and end the canary."""
    _change(registry, task, channel, lambda _: lambda at: _there(at).rollback(), title="Rolled back", as_json=as_json)


@app.command()
def canary(
    task: TaskName,
    version: Annotated[str | None, typer.Argument(help="A version, or how it begins; default: today's canary.")] = None,
    *,
    registry: RegistryUrl,
    share: Annotated[float | None, typer.Option(help="Share of the keys that it answers, such as 0.05.")] = None,
    promote_after: Annotated[
        int,
        typer.Option(min=0, help="A server promotes it after so many answers, or ends it when it fails."),
    ] = 0,
    failures_max: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="With --promote-after: the share of them that may fail.")
    ] = 0.0,
    off: Annotated[bool, typer.Option("--off", help="End the canary: all keys are the live model's.")] = False,
    channel: ChannelName = LIVE,
    as_json: AsJson = False,
) -> None:
    """Let a version answer a share of the keys (A/B: a half), the same ones each time."""
    from model_server.models.channel import Canary

    if off == (share is not None):
        raise UsageError("either --share says how much the canary answers, or --off ends it")

    def step(found: Registry) -> Callable[[Channel | None], Channel]:
        named = None if version is None else _verified(found, task, version)

        def change(before: Channel | None) -> Channel:
            at = _there(before)
            if share is None:
                return at.with_canary(None)
            now = named or (None if at.canary is None else at.canary.version)
            if now is None:
                raise UsageError(f"task {task} has no canary yet: name the version")
            return at.with_canary(Canary(now, share, promote_after, failures_max))

        return change

    _change(registry, task, channel, step, title="Canary", as_json=as_json)


@app.command()
def shadow(
    task: TaskName,
    versions: Annotated[list[str] | None, typer.Argument(help="Versions: these and no others.")] = None,
    *,
    registry: RegistryUrl,
    off: Annotated[bool, typer.Option("--off", help="No shadows.")] = False,
    channel: ChannelName = LIVE,
    as_json: AsJson = False,
) -> None:
    """Let versions score what the live model scores: compared and measured, seen by no caller."""
    if off == bool(versions):
        raise UsageError("either versions, or --off for none")

    def step(found: Registry) -> Callable[[Channel | None], Channel]:
        named = [_verified(found, task, version) for version in versions or []]
        return lambda at: _there(at).with_shadows(named)

    _change(registry, task, channel, step, title="Shadows", as_json=as_json)


def _change(
    registry: str,
    task: str,
    channel: str,
    step: Callable[[Registry], Callable[[Channel | None], Channel]],
    *,
    title: str,
    as_json: bool,
) -> None:
    from model_server.models.registry import Registry

    found = Registry(registry)
    after = found.change(task, channel, step(found))
    document = {"task": task, "channel": channel, **_document(after)}
    emit([document], title=title, as_json=as_json, document=document)


def _verified(registry: Registry, task: str, version: str) -> str:
    """The whole name of a version that is sound: what cannot be served is not pointed at."""
    from model_server.models.loader import verified

    named = registry.named(task, version)
    verified(registry, task, named)
    return named


def _there(channel: Channel | None) -> Channel:
    if channel is None:
        raise UsageError("the channel is not there yet: `nowgraph models promote` makes it")
    return channel


def _document(channel: Channel) -> dict[str, Any]:
    return {
        "live": channel.version,
        "canary": None if channel.canary is None else channel.canary.version,
        "share": None if channel.canary is None else channel.canary.share,
        "shadows": list(channel.shadows),
        "before": [one.version for one in reversed(channel.history)],
        "revision": channel.revision,
    }


def _role(channel: Channel | None, version: str) -> str | None:
    """What a version is to a channel, in a word."""
    if channel is None:
        return None
    if channel.version == version:
        return "live"
    if channel.canary is not None and channel.canary.version == version:
        return f"canary {channel.canary.share:g}"
    if version in channel.shadows:
        return "shadow"
    return "before" if version in [one.version for one in channel.history] else None
