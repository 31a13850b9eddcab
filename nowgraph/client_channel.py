"""How a client reaches its server: plain text on loopback, TLS elsewhere, and who it says it is with every call.

    Tls ─► channel
    token, name ─► metadata of each call

A token is looked up for every call, so that one that is replaced (a file, or what a function returns) is used at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from opentelemetry import trace

from stream.trace_context import fields_of

MESSAGE_BYTES_LIMIT = 16 * 1024 * 1024
SERVICE = "nowgraph.v1.PredictionService"
# gRFC A6: nothing but UNAVAILABLE is retried. Answers change nothing, and the graph applies a repeated event once.
SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [
                {"service": SERVICE, "method": name}
                for name in ("Score", "ScoreBatch", "Rank", "RankBatch", "Neighborhood", "Ingest")
            ],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.02s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}

# All servers behind a name are asked in turn, and one that goes is left out. Only where there may be several: a single
# one that is away is tried again sooner without.
SPREAD: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}

Token: TypeAlias = str | Path | Callable[[], str]
"""A bearer token, the file that holds it, or what returns it."""

Metadata: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Tls:
    """An encrypted connection: PEM files, read when the client is made.

    `ca` signs the server's certificate (None: the authorities that gRPC comes with); `certificate` and `key` are the
    client's own, for a server that asks for them; `server_name` is what the server's certificate must be for, where
    that is not the host of the target.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client certificate and its key go together")

    def credentials(self) -> grpc.ChannelCredentials:
        """What a channel is opened with; raises OSError for a file that cannot be read."""
        read = [None if path is None else path.read_bytes() for path in (self.ca, self.key, self.certificate)]
        return grpc.ssl_channel_credentials(*read)


class Calls:
    """The metadata of each call. Raises ValueError for a token that would travel in plain text."""

    def __init__(self, target: str, *, tls: Tls | None, token: Token | None, name: str) -> None:
        if token is not None and tls is None and not _on_loopback(target):
            raise ValueError(f"{target}: a token needs tls=Tls(...), or everybody on the way can read it")
        self._token = token
        self._name: Metadata = (("nowgraph-client", name),) if name else ()
        self._file: tuple[tuple[int, int, int], str] | None = None

    def metadata(self) -> Metadata:
        """Of a call that is made now, with the current span's trace. Raises OSError for a token file it cannot read."""
        context = trace.get_current_span().get_span_context()
        traced = tuple(fields_of(context).items()) if context.is_valid else ()
        if self._token is None:
            return (*self._name, *traced)
        return (("authorization", f"Bearer {self._current(self._token)}"), *self._name, *traced)

    def _current(self, token: Token) -> str:
        if isinstance(token, str):
            return token
        if not isinstance(token, Path):
            return token()
        found = token.stat()
        stamp = found.st_mtime_ns, found.st_size, found.st_ino
        if self._file is None or self._file[0] != stamp:
            self._file = stamp, token.read_text(encoding="utf-8").strip()
        return self._file[1]


def open_channel(target: str, tls: Tls | None) -> grpc.Channel:
    """A channel for any number of threads."""
    if tls is None:
        return grpc.insecure_channel(target, options=_options(target, tls))
    return grpc.secure_channel(target, tls.credentials(), options=_options(target, tls))


def open_async_channel(target: str, tls: Tls | None) -> grpc.aio.Channel:
    """A channel for one event loop."""
    if tls is None:
        return grpc.aio.insecure_channel(target, options=_options(target, tls))
    return grpc.aio.secure_channel(target, tls.credentials(), options=_options(target, tls))


def _options(target: str, tls: Tls | None) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", json.dumps(SERVICE_CONFIG | (SPREAD if _names_several(target) else {}))),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_LIMIT),
        # A connection that was reset, as by a listener that closes, is made again before the attempts are used up
        # (some 300 ms): gRPC's own second is longer than they last.
        ("grpc.initial_reconnect_backoff_ms", 100),
    ]
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def _names_several(target: str) -> bool:
    """Whether a target is a name to be resolved (a headless service), or a list of addresses."""
    return target.startswith("dns:") or "," in target


def _on_loopback(target: str) -> bool:
    host = target.removeprefix("dns:").lstrip("/").rpartition(":")[0].strip("[]") or target
    if host == "localhost" or target.startswith("unix:"):
        return True
    try:
        return ip_address(host.removeprefix("ipv4:").removeprefix("ipv6:").strip("[]")).is_loopback
    except ValueError:
        return False
