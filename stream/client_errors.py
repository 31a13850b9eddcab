"""Why a Kafka client can't do its work: its calls only time out, while its connections know the reason.

error_cb ─► ClientErrors (the last complaint) ─► explain(what failed) ─► the reason, and the settings to look at
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from stream.errors import ConfigurationError

# librdkafka's own codes (negative) have names with an underscore, which are public all the same.
_ALL_DOWN: Final = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001
_SSL: Final = KafkaError._SSL  # noqa: SLF001
# What a call or a delivery that waited in vain has to say.
_WAITED: Final = {KafkaError._TIMED_OUT, KafkaError._MSG_TIMED_OUT, KafkaError._TRANSPORT, _ALL_DOWN}  # noqa: SLF001
# What a broker that starts, restarts or is not there yet makes of a call.
_AWAY: Final = _WAITED | {
    KafkaError._RESOLVE,  # noqa: SLF001
    KafkaError._WAIT_COORD,  # noqa: SLF001
    KafkaError._DESTROY_BROKER,  # noqa: SLF001 - the client let go of one, such as that of an address it was told first
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.REQUEST_TIMED_OUT,
}
_CONFIG: Final = "NOWGRAPH_KAFKA_CONFIG"
_CONNECTION: Final = f"the broker's address, security.protocol in {_CONFIG}"
_REFUSALS: Final = {KafkaError._AUTHENTICATION, _SSL}  # noqa: SLF001
_LOOK_AT: Final = {
    KafkaError._AUTHENTICATION:  # noqa: SLF001
    f"sasl.mechanism and sasl.username in {_CONFIG}, the password in NOWGRAPH_KAFKA_PASSWORD_PATH",
    _SSL: f"ssl.ca.location, ssl.certificate.location and ssl.key.location in {_CONFIG}",
    KafkaError._TRANSPORT: _CONNECTION,  # noqa: SLF001
    KafkaError._MSG_TIMED_OUT: _CONNECTION,  # noqa: SLF001
    KafkaError.MSG_SIZE_TOO_LARGE: "max.message.bytes of the topic",
}  # fmt: skip


class ClientErrors:
    """The errors of one client's connections: give it to librdkafka as `error_cb`."""

    def __init__(self) -> None:
        self._last: Any = None
        self._refused = False

    def __call__(self, error: Any) -> None:
        """Remembers what a connection complains of; that all brokers are down only follows from it."""
        if error.code() != _ALL_DOWN:
            self._last = error
            self._refused |= _cause(error.code(), str(error.str())) in _REFUSALS

    def may_pass(self, error: Any) -> bool:
        """Return whether a call that failed with this KafkaError may succeed later, with the same settings."""
        return error.code() in _AWAY and not self._refused

    def explain(self, error: Any) -> str:
        """Return why a call or a delivery failed with this KafkaError, and which settings to look at."""
        reason, text = error, str(error.str())
        if error.code() in _WAITED and self._last is not None:
            reason, text = self._last, f"{text}: {self._last.str()}"
        look_at = _LOOK_AT.get(_cause(reason.code(), text))
        return text if look_at is None else f"{text} (look at {look_at})"


def _cause(code: int, text: str) -> int:
    """What an error is about: a handshake of TLS may also end as a broken transport."""
    return _SSL if "SSL_HANDSHAKE" in text else code


def make_client(kind: Callable[[dict[str, Any]], Any], config: Mapping[str, Any], errors: ClientErrors) -> Any:
    """Return a client of librdkafka whose connections complain to `errors`.

    Raises:
        ConfigurationError: it refuses its configuration; the message names the setting.
    """
    try:
        return kind({**config, "error_cb": errors})
    except KafkaException as error:
        raise ConfigurationError(f"{_CONFIG}: {error.args[0].str()}") from error
