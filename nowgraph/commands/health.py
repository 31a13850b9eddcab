"""``nowgraph health``: asks a server, or an updater, how it is; the exit code is the answer, as probes want it."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated

import typer

from nowgraph.commands.options import AsJson, Quiet
from nowgraph.errors import UsageError
from nowgraph.report import emit_json

SERVING = "SERVING"
UNREACHABLE = "UNREACHABLE"
_BEHIND = re.compile(r"^nowgraph_behind (\S+)$", re.MULTILINE)
# There are none before it has looked how long its log is; until then it does not know whether it is behind.
_LAG = re.compile(r"^nowgraph_lag_records\{", re.MULTILINE)


def health(
    target: Annotated[str, typer.Argument(help="Of a server host:port; with --updater that of its metrics.")] = "",
    *,
    service: Annotated[str, typer.Option(help="A name the server reports on; empty: the process as a whole.")] = "",
    updater: Annotated[
        bool, typer.Option("--updater", help="An updater: well while its graph is not behind its log.")
    ] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.05, help="Seconds to wait for the answer.")] = 3.0,
    tls_ca: Annotated[Path | None, typer.Option(help="The CA of the server's certificate (PEM): asks by TLS.")] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="Our own, where the server asks for one.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    server_name: Annotated[str, typer.Option(help="Whose certificate it must be, if not the target's host.")] = "",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Exit with 0 when it serves, else with 1: for health checks of containers, and exec probes of servers with TLS."""
    if updater:
        if service or tls_ca or tls_certificate or tls_key or server_name:
            raise UsageError("--updater asks an updater's metrics: names and TLS are a server's")
        target = target or "127.0.0.1:9465"
        status = updater_status(target, timeout_s=timeout_s)
    else:
        target = target or "127.0.0.1:50051"
        files = (tls_ca, tls_certificate, tls_key)
        status = server_status(target, service, files=files, server_name=server_name, timeout_s=timeout_s)
    if as_json:
        emit_json({"target": target, "status": status})
    elif not quiet:
        typer.echo(status)
    if status != SERVING:
        raise typer.Exit(1)


def server_status(
    target: str,
    service: str = "",
    *,
    files: tuple[Path | None, Path | None, Path | None] = (None, None, None),
    server_name: str = "",
    timeout_s: float,
) -> str:
    """What a server's health service says of a name: SERVING, NOT_SERVING, SERVICE_UNKNOWN; or UNREACHABLE.

    `files` are CA, certificate and key; with any of them the server is asked by TLS.
    """
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from nowgraph.client_channel import Tls

    ca, certificate, key = files
    if any(files) or server_name:
        try:
            credentials = Tls(ca, certificate, key).credentials()
        except ValueError as error:
            raise UsageError(f"--tls-certificate and --tls-key: {error}") from None
        options = [("grpc.ssl_target_name_override", server_name)] if server_name else []
        channel = grpc.secure_channel(target, credentials, options=options)
    else:
        channel = grpc.insecure_channel(target)
    with channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=timeout_s, wait_for_ready=False
            )
        except grpc.RpcError as error:
            # Both are an answer of the health service: it does not know the name.
            return "SERVICE_UNKNOWN" if error.code() is grpc.StatusCode.NOT_FOUND else UNREACHABLE
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def updater_status(target: str, *, timeout_s: float) -> str:
    """SERVING, or NOT_SERVING while the graph is behind its log; or UNREACHABLE."""
    try:
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=timeout_s) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return UNREACHABLE
    behind = _BEHIND.search(text)
    caught_up = behind is not None and float(behind[1]) == 0.0 and _LAG.search(text) is not None
    return SERVING if caught_up else "NOT_SERVING"
