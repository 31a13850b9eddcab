"""Every limit of the stream, with a name and a reason; read from ``NOWGRAPH_*`` where not given."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from stream.errors import ConfigurationError

EVENTS_TOPIC = "nowgraph.events"
"""Where RowEvents go that have no topic of their own: what Ingest and replay publish to, and the updater reads."""


class StreamSettings(BaseSettings):
    """How events come in and go out. Immutable; wrong values raise pydantic's ValidationError."""

    model_config = SettingsConfigDict(env_prefix="NOWGRAPH_", frozen=True, extra="ignore")

    kafka_bootstrap: str = "127.0.0.1:9092"
    # Whatever else librdkafka should know (security.protocol, sasl.*, ssl.*), as JSON in the environment. Not shown:
    # there may be a password in it.
    kafka_config: dict[str, str] = Field(default_factory=dict, repr=False)
    # The file that holds sasl.password, for those who mount secrets rather than put them into the environment.
    kafka_password_path: Path | None = None
    # Keys the hashes of private columns and keys. At least 128 bits, or it could be guessed from known values.
    privacy_secret: SecretStr | None = None

    dead_letter_topic: str = "nowgraph.dead-letters"
    predictions_topic: str = "nowgraph.predictions"

    # What the client may fetch ahead of poll(): bounds memory while the graph is busy.
    fetch_queue_bytes: int = Field(default=64 << 20, ge=1 << 20)
    # Ask the broker for more once fewer than this wait in the queue: below it a fast reader would idle between fetches.
    fetch_queue_records_min: int = Field(default=100_000, ge=1)
    # How long an idle fetch may wait. Kafka answers as soon as there is a record; the embedded broker waits it out, so
    # this is what an event waits there before it can be seen.
    fetch_wait_ms: int = Field(default=5, ge=1)
    # Pause fetching above the first, resume below the second: one threshold would flap at every batch.
    pause_queue_bytes: int = Field(default=128 << 20, ge=1)
    resume_queue_bytes: int = Field(default=32 << 20, ge=0)
    # Beyond this a record is poison: the native decoder and the dead-letter topic must both hold it in memory.
    record_bytes_max: int = Field(default=1 << 20, ge=1024)
    # How often to look whether a topic has got more partitions: each look is a request that reading waits for.
    partition_check_s: float = Field(default=30.0, gt=0)
    # What a request may wait for metadata or offsets before the broker counts as gone.
    broker_timeout_s: float = Field(default=10.0, gt=0)
    # How long a start waits for a broker that does not answer: both may start together, or the broker restart. 0 for
    # not at all. What the broker refuses ends a start at once.
    start_patience_s: float = Field(default=60.0, ge=0)

    # Waiting this long fills the producer's batches under load and is invisible beside a network round trip.
    producer_linger_ms: float = Field(default=2.0, ge=0)
    # What may wait to be sent; beyond it publish() waits for the broker.
    producer_queue_bytes: int = Field(default=64 << 20, ge=1 << 20)
    # How long a record may take to be acknowledged before its delivery has failed.
    delivery_timeout_s: float = Field(default=30.0, gt=0)
    # A dead letter and its reason must fit one request of the topic.
    message_bytes_max: int = Field(default=32 << 20, ge=1 << 20)
    # The embedded broker keeps about 5 MiB a partition; unapplied records must stay well inside it.
    embedded_window_bytes: int = Field(default=2 << 20, ge=64 << 10)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.resume_queue_bytes >= self.pause_queue_bytes:
            raise ValueError("resume_queue_bytes: expected less than pause_queue_bytes")
        return self

    def secret_bytes(self) -> bytes | None:
        """Return the secret that private values are hashed with, or None where there is none."""
        return self.privacy_secret.get_secret_value().encode() if self.privacy_secret is not None else None

    def client_config(self) -> dict[str, str | int | float | bool]:
        """Return what every librdkafka client of this process starts from.

        Raises:
            ConfigurationError: the file of the password cannot be read.
        """
        config: dict[str, str | int | float | bool] = {"bootstrap.servers": self.kafka_bootstrap, **self.kafka_config}
        if self.kafka_password_path is not None:
            try:
                config["sasl.password"] = self.kafka_password_path.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ConfigurationError(f"{self.kafka_password_path}: {error.strerror}") from None
        return config
