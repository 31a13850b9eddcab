"""Several server processes for `nowgraph serve --workers`: the command of a worker, and the supervisor's life."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from model_server.settings import ServerSettings
    from model_server.worker_link import Ready

LOOPBACK = "127.0.0.1"
# A connection costs a client about a millisecond, so every ten seconds is nothing; a rolling restart waits as long for
# each worker.
CONNECTION_AGE_S = 10.0


def worker_command(context: typer.Context, **instead: object) -> list[str]:
    """The command line that the context came from, for one worker; ``instead`` replaces values of options.

    Options that nobody gave stay away: the environment, or serving.yaml, decides as it would without workers.
    """
    root = context.find_root()
    words = [sys.executable, "-P", "-m", "nowgraph.cli", *_options(root.command.params, _given(root))]
    words += [context.info_name or "serve"]
    return words + _options(context.command.params, _given(context) | {"workers": None} | instead)


def _given(context: Any) -> dict[str, object]:
    """The options that stand on the command line."""
    return {
        name: value
        for name, value in context.params.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }


def _options(parameters: Sequence[Any], values: Mapping[str, object]) -> list[str]:
    words: list[str] = []
    for parameter in parameters:
        value = values.get(parameter.name or "")
        if value is None or value is False:
            continue
        name = parameter.opts[-1]
        if value is True:
            words.append(name)
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            words += [name, str(one)]
    return words


def run_workers(
    settings: ServerSettings,
    count: int,
    command: Callable[[int], list[str]],
    *,
    all_serve: Callable[[dict[str, object]], None],
) -> None:
    """Supervises workers until SIGTERM or SIGINT. ``command`` is of a worker on a port; ``all_serve`` hears once where
    all is served.

    Raises WorkerFailedError when one cannot start, PortTakenError when somebody else has the port.
    """
    asyncio.run(_run(settings, count, command, all_serve))


async def _run(
    settings: ServerSettings,
    count: int,
    command: Callable[[int], list[str]],
    all_serve: Callable[[dict[str, object]], None],
) -> None:
    from model_server.leaving import AGE_SPREAD
    from model_server.worker_endpoints import SupervisorEndpoint, SupervisorMetrics, pass_on
    from model_server.workers import Workers, reserve_port

    age_s = settings.connection_age_s or CONNECTION_AGE_S
    host, base = settings.metrics_host, settings.metrics_port
    async with AsyncExitStack() as stack:
        kept, port = reserve_port(settings.host, settings.port)
        stack.callback(kept.close)
        metrics = SupervisorMetrics(count)
        endpoint = SupervisorEndpoint(metrics, host=host, port=base)
        stack.callback(endpoint.close)
        ports: list[int] = []

        def serving(ready: Sequence[Ready]) -> None:
            told = [asdict(one) | {"metrics_port": at} for one, at in zip(ready, ports, strict=True)]
            all_serve({"grpc": f"{settings.host}:{port}", "metrics_port": endpoint.port, "workers": told})

        workers = Workers(
            command(port),
            count,
            # What the workers' settings are, beside their command line.
            environment={
                "NOWGRAPH_SERVER_REUSE_PORT": "true",
                "NOWGRAPH_SERVER_METRICS_HOST": LOOPBACK,
                "NOWGRAPH_SERVER_CONNECTION_AGE_S": str(age_s),
            },
            leave_s=AGE_SPREAD * age_s,
            drain_s=settings.drain_notice_s + 2 * settings.drain_grace_s,  # requests, then the audit trail
            metrics=metrics,
            all_serve=serving,
        )
        for slot in range(count):
            passing = await pass_on(partial(workers.current, slot), host=host, port=base and base + 1 + slot)
            stack.callback(passing.close)
            ports.append(passing.sockets[0].getsockname()[1])
        await workers.run()
