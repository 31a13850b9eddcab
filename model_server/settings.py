"""The server's settings: one frozen object, read from NOWGRAPH_SERVER_* at the edge and handed down."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from graph_transformer.device import CPU, PATTERN
from graph_transformer.ranking.lists import LIMIT_MAX
from stream.settings import EVENTS_TOPIC


class ServerSettings(BaseSettings):
    """Every limit of the server with its name, its unit and the reason for its default."""

    model_config = SettingsConfigDict(env_prefix="NOWGRAPH_SERVER_", frozen=True, extra="forbid")

    # Loopback unless the operator says otherwise: nothing is exposed by accident.
    host: str = "127.0.0.1"
    # 0 takes a free port.
    port: int = Field(default=50051, ge=0, le=65535)
    # Several processes share the port (`nowgraph serve --workers`); by accident they would share each other's requests.
    reuse_port: bool = False
    # A connection is asked to make room for another after this long; 0 for never. Several processes on a port need it:
    # new connections spread over all of them, and one that leaves waits until its last has gone.
    connection_age_s: float = Field(default=0.0, ge=0)
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=9464, ge=0, le=65535)

    # TLS: PEM files of the server's certificate chain and its key, read anew for new connections after they changed.
    tls_certificate_path: Path | None = None
    tls_key_path: Path | None = None
    # With it every client shows a certificate of this CA (mTLS), health probes included.
    tls_client_ca_path: Path | None = None
    # Bearer tokens by their hashes, names of client certificates, and the roles of both.
    access_path: Path | None = None
    # Plain text where other machines can reach it: only behind what encrypts and keeps strangers out by itself.
    insecure: bool = False
    # Lists the methods to who asks (grpcurl); with callers that are known, to those with the role admin.
    reflection: bool = True

    # What is served (attached mode; embedded mode gets the objects themselves).
    schema_path: Path | None = None
    arena_path: Path | None = None
    checkpoint_path: Path | None = None
    # In place of an arena a graph in Redis: redis://host:port or rediss://, of one Redis or any node of a cluster; may
    # hold a password.
    store_url: SecretStr | None = None
    # How long one reply of the store may take, and how long it is asked again: while it is awaited nobody else is
    # answered, and half of the default deadline is left to say so.
    store_timeout_ms: int = Field(default=500, gt=0, le=5_000)
    # How often the store is asked for its positions while a request waits for one: a look is a small script in Redis.
    store_poll_ms: float = Field(default=5.0, gt=0)
    # How often it is asked when nobody waits, so that readiness and staleness are told.
    store_look_ms: float = Field(default=200.0, gt=0)
    # serving.yaml: several tenants and tasks, and models of registries, in place of the paths above.
    config: Path | None = None
    # Versions of registries that lie elsewhere; by default ~/.cache/nowgraph/models.
    model_cache_path: Path | None = None
    tenant: str = ""
    # Where Ingest publishes an event whose table has no protobuf source of its own.
    ingest_topic: str = EVENTS_TOPIC

    # gRPC clients set no deadline by default; without one, a stuck request would hold its place in the queue for ever.
    deadline_default_ms: int = Field(default=1_000, gt=0)
    # Kept back from a freshness wait, so that "not fresh" reaches the caller before the deadline does.
    deadline_reserve_ms: int = Field(default=20, ge=0)
    # A server may start before its updater has caught up; then it waits, unhealthy, at most this long.
    attach_timeout_s: float = Field(default=600.0, ge=0)
    freshness_poll_ms: float = Field(default=1.0, gt=0)
    generation_poll_ms: float = Field(default=100.0, gt=0)
    # How often a registry's channel is read: a small file; nobody promotes faster than a few seconds.
    models_poll_s: float = Field(default=2.0, gt=0)
    # Of the batches, this share is scored by shadows too: less where they cost the live model's answers too much time.
    shadow_share: float = Field(default=1.0, gt=0, le=1)

    # Requests waiting for the worker: at about 1 ms each, a longer queue only holds requests past their deadline.
    queue_limit: int = Field(default=1_024, gt=0)
    # Calls that gRPC holds until the event loop takes them; more are refused before Python sees them. Under overload
    # everybody waits behind so many, some 40 ms, and no more callers may come in the same moment: a compromise.
    accept_pending_limit: int = Field(default=64, gt=1)
    # Rows that may wait before those of the batch class are refused: the other half is for whom somebody waits.
    queue_batch_limit: int = Field(default=512, gt=0)
    # Of the rows taken while both classes wait, this share is of the batch class: slow, and never at a standstill.
    queue_batch_share: float = Field(default=0.1, gt=0, lt=1)
    # Rows of one ScoreBatch that wait for the worker at a time: two full batches keep it busy and leave others room.
    score_batch_inflight_limit: int = Field(default=128, gt=0)
    # Rows a second that one caller may ask, by name; 0 for no quota. A burst may be as large as so many seconds of it.
    quota_rows_per_s: float = Field(default=0.0, ge=0)
    quota_burst_s: float = Field(default=1.0, gt=0)
    # Callers with a rate of their own: {"checkout": 5000}, 0 for no quota.
    quota_rows_per_s_by_caller: dict[str, float] = Field(default_factory=dict)
    # Names whose buckets are kept: when more are busy at once, newcomers share one.
    quota_names_limit: int = Field(default=1_024, gt=0)
    # Rows scored in one forward pass: past this a batch's latency grows faster than its throughput on a CPU.
    batch_limit: int = Field(default=64, gt=0)
    # How long a thread of the server keeps a core that others wait for, while calls are refused; else, and by 0, it is
    # the kernel's own slice, 1.4 ms on two cores. By 500 refusals are heard sooner, and some answers fewer are given.
    time_slice_us: int = Field(default=0, ge=0, le=100_000)
    # Torch's threads: one leaves the other cores to the event loop, to the updater and to other servers.
    compute_threads: int = Field(default=1, gt=0)
    # Where models compute: cpu, cuda or cuda:N; all of them, shadows, canaries and golden requests too. Nothing falls
    # back to the processor by itself: a server would answer less, and nobody would know why.
    device: str = Field(default=CPU, pattern=PATTERN)
    # Each row of a batch is computed alone, on one thread: equal inputs give the same bits, which replays and audits
    # compare. Without it more rows a second are scored, and a logit may differ by 1e-5 with what it was batched with.
    fixed_shape: bool = False
    batch_request_limit: int = Field(default=1_024, gt=0)
    # Lists made in one pass: each has hundreds of candidates, so a few fill the same time as a batch of scores.
    rank_batch_limit: int = Field(default=8, gt=0)
    # Lists of one RankBatch that wait for the worker at a time: callers of Rank come in between, and none is shed.
    rank_batch_inflight_limit: int = Field(default=16, gt=0)
    # A thousand lists take longer than any single answer may.
    rank_batch_deadline_ms: int = Field(default=60_000, gt=0)
    # Places of one list, and the ranked items that rules choose from: the ranker's own limit.
    rank_items_limit: int = Field(default=LIMIT_MAX, gt=0, le=LIMIT_MAX)
    # Keys of one request that are to be ranked, left out, allowed or denied: longer lists belong in the graph.
    rank_keys_limit: int = Field(default=4_096, gt=0)
    # Rows of one session; the model reads the newest of them.
    rank_session_limit: int = Field(default=256, gt=0)
    # Filters, values of one filter, and caps of one request.
    rank_filters_limit: int = Field(default=32, gt=0)
    stream_inflight_limit: int = Field(default=64, gt=0)
    inspection_limit: int = Field(default=8, gt=0)

    message_bytes_limit: int = Field(default=4 * 1024 * 1024, gt=0)
    row_bytes_limit: int = Field(default=256 * 1024, gt=0)
    cells_limit: int = Field(default=512, gt=0)
    id_bytes_limit: int = Field(default=256, gt=0)

    # Answers waiting for Kafka's confirmation: the audit trail's buffer. When it is full new requests are refused,
    # because an answer that cannot be recorded must not be given.
    predictions_buffer_limit: int = Field(default=16_384, gt=0)

    # How often the updater looks whether the graph holds all of its log, as it was told itself: no graph's staleness is
    # known better, so no policy's bound may be below twice that.
    lag_interval_s: float = Field(default=5.0, gt=0)
    # What a server with one task answers when its graph is stale or its model cannot (serving.yaml has it per task).
    degraded_path: Path | None = None
    # A request id that comes again within this time has the answer it had, from any process. Needs a Redis; None only
    # echoes ids. As long as callers may try again: answers are held in Redis's memory for as long.
    idempotency_window_s: float | None = Field(default=None, gt=0, le=86_400)
    # redis://, rediss:// or unix://; may hold a password.
    redis_url: SecretStr | None = None
    # A Redis of the same network answers within a millisecond; one that does not is away, and a request has a deadline.
    redis_timeout_ms: int = Field(default=100, gt=0)
    # Without Redis an answer could be another one than before: refuse (UNAVAILABLE), or answer all the same.
    idempotency_on_failure: Literal["refuse", "answer"] = "refuse"

    keepalive_time_ms: int = Field(default=30_000, gt=0)
    keepalive_timeout_ms: int = Field(default=10_000, gt=0)
    # Requests in flight when SIGTERM comes have this long to finish.
    drain_grace_s: float = Field(default=10.0, ge=0)
    # Between NOT_SERVING and refusing connections: how long load balancers need to notice.
    drain_notice_s: float = Field(default=0.0, ge=0)
