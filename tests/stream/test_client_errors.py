from __future__ import annotations

import confluent_kafka
import pytest
from confluent_kafka import KafkaError

from stream.client_errors import ClientErrors, make_client
from stream.errors import ConfigurationError

TIMED_OUT = KafkaError(KafkaError._TIMED_OUT, "Local: Timed out")


def test_what_a_connection_complained_of_is_the_reason() -> None:
    """A call that only timed out is explained by the last complaint, with the settings to look at."""
    errors = ClientErrors()
    assert errors.explain(TIMED_OUT) == "Local: Timed out"
    errors(KafkaError(KafkaError._AUTHENTICATION, "invalid credentials"))
    errors(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))  # which follows from it
    assert "Local: Timed out: invalid credentials (look at sasl.mechanism" in errors.explain(TIMED_OUT)
    errors(KafkaError(KafkaError._SSL, "certificate verify failed"))
    assert "ssl.ca.location" in errors.explain(TIMED_OUT)
    errors(KafkaError(KafkaError._TRANSPORT, "Disconnected (after 3ms in state SSL_HANDSHAKE)"))
    assert "ssl.ca.location" in errors.explain(TIMED_OUT)
    errors(KafkaError(KafkaError._TRANSPORT, "Connection refused"))
    assert "security.protocol" in errors.explain(TIMED_OUT)


def test_whether_waiting_helps() -> None:
    """Where no broker is, one may come; one that refused this client, even a while ago, will do so again."""
    away = [TIMED_OUT, KafkaError(KafkaError._RESOLVE, "no such host"), KafkaError(KafkaError.LEADER_NOT_AVAILABLE, "")]
    away += [KafkaError(KafkaError._DESTROY_BROKER, "gone"), KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION, "moved")]
    refused = ClientErrors()
    refused(KafkaError(KafkaError._TRANSPORT, "Connection refused"))
    assert all(map(refused.may_pass, away))
    assert not refused.may_pass(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "no"))
    refused(KafkaError(KafkaError._TRANSPORT, "Disconnected (after 3ms in state SSL_HANDSHAKE)"))
    refused(KafkaError(KafkaError._TRANSPORT, "Connection refused"))
    assert not any(map(refused.may_pass, away))
    for code in (KafkaError._AUTHENTICATION, KafkaError._SSL):
        strict = ClientErrors()
        strict(KafkaError(code, "no"))
        assert not strict.may_pass(TIMED_OUT)


def test_what_a_broker_answers_needs_no_other_reason() -> None:
    """It was reached, so its connection is not to blame."""
    errors = ClientErrors()
    errors(KafkaError(KafkaError._AUTHENTICATION, "invalid credentials"))
    assert errors.explain(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "no")) == "no"
    assert (
        errors.explain(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "big"))
        == "big (look at max.message.bytes of the topic)"
    )


def test_a_refused_configuration_names_its_setting() -> None:
    """Misspelt names and values are an error at the start; what a misspelt one holds is not shown."""
    for config in ({"sasl.pasword": "hush"}, {"security.protocol": "TLS"}):
        with pytest.raises(ConfigurationError) as refused:
            make_client(confluent_kafka.Producer, config, ClientErrors())
        assert "NOWGRAPH_KAFKA_CONFIG" in str(refused.value)
        assert next(iter(config)) in str(refused.value)
        assert "hush" not in str(refused.value)
