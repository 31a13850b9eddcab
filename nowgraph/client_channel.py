"""How a client reaches its server: plain text on loopback, TLS elsewhere, and who it says it is with every call.

    Tls ─► channel
    token, name ─► metadata of each call

A token is looked up for every call, so that one that is replaced (a file, or what a function returns) is used at once.
Files of TLS are looked at every second: once they have changed there is a new channel.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import grpc
from opentelemetry import trace

from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc
from stream.trace_context import fields_of

TIMEOUT_DEFAULT_S = 1.0
# How often the files of TLS are looked at: a certificate is replaced long before it expires.
TLS_CHECK_S = 1.0

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
Stamp: TypeAlias = tuple[int, int, int]
ChannelT = TypeVar("ChannelT", grpc.Channel, grpc.aio.Channel)


@dataclass(frozen=True)
class Tls:
    """An encrypted connection: PEM files, read when the client is made and whenever they have changed.

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

    def stamps(self) -> tuple[Stamp, ...]:
        """What changes with the files; raises OSError for one that is not there."""
        return tuple(_stamp_of(path) for path in (self.ca, self.key, self.certificate) if path is not None)


class Calls:
    """The metadata of each call. Raises ValueError for a token that would travel in plain text."""

    def __init__(self, target: str, *, tls: Tls | None, token: Token | None, name: str) -> None:
        if token is not None and tls is None and not _on_loopback(target):
            raise ValueError(f"{target}: a token needs tls=Tls(...), or everybody on the way can read it")
        self._token = token
        self._name: Metadata = (("nowgraph-client", name),) if name else ()
        self._file: tuple[Stamp, str] | None = None

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
        stamp = _stamp_of(token)
        if self._file is None or self._file[0] != stamp:
            self._file = stamp, token.read_text(encoding="utf-8").strip()
        return self._file[1]


class Connection(Generic[ChannelT]):
    """A channel, and another one once the files of its TLS have changed. May be used from any thread."""

    def __init__(self, tls: Tls | None, open_: Callable[[], ChannelT], retire: Callable[[ChannelT], object]) -> None:
        """`retire` closes a channel that was replaced: at the next change, so that its calls have ended long before."""
        self._tls = tls
        self._open: Callable[[], ChannelT] = open_
        self._retire: Callable[[ChannelT], object] = retire
        self._lock = threading.Lock()
        self._stamps = self._seen = () if tls is None else tls.stamps()
        self._check_s = time.monotonic() + TLS_CHECK_S
        self._stub = self._opened()
        self._before: ChannelT | None = None

    @property
    def channels(self) -> list[ChannelT]:
        """All that are to be closed."""
        return [self._channel] if self._before is None else [self._before, self._channel]

    @property
    def stub(self) -> Any:
        """The service, for a call that is made now: a blocking or an async stub, as the channel is."""
        if self._tls is not None and time.monotonic() >= self._check_s:
            with self._lock, suppress(OSError):  # a file that is being replaced: the next look finds it
                self._check_s = time.monotonic() + TLS_CHECK_S
                self._follow(self._tls.stamps())
        return self._stub

    def _follow(self, stamps: tuple[Stamp, ...]) -> None:
        rest, self._seen = stamps == self._seen, stamps
        if not rest or stamps == self._stamps:  # a certificate and its key are replaced one after the other
            return
        before, self._stub = self._channel, self._opened()
        if self._before is not None:
            self._retire(self._before)
        self._stamps, self._before = stamps, before

    def _opened(self) -> Any:
        self._channel: ChannelT = self._open()
        return service_grpc.PredictionServiceStub(self._channel)


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


def _stamp_of(path: Path) -> Stamp:
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino
