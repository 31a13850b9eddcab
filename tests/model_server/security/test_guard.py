from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from model_server.background import BackgroundServer
from model_server.caller import NamedCallers
from model_server.errors import NotConfiguredError
from model_server.security.access import hash_of, new_token
from model_server.security.guard import guard_of, is_loopback
from model_server.settings import ServerSettings
from nowgraph.client import (
    AsyncClient,
    Client,
    PermissionDeniedError,
    Row,
    Tls,
    UnauthenticatedError,
)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]", "unix:/tmp/socket"])
def test_plain_text_is_for_this_machine(host: str) -> None:
    """Loopback needs no certificates, and every caller is taken at its word."""
    guard = guard_of(ServerSettings(host=host), CollectorRegistry())
    assert guard.credentials is None
    assert [type(interceptor) for interceptor in guard.interceptors] == [NamedCallers]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "10.1.2.3", "server.internal", ""])
def test_plain_text_is_refused_where_others_hear_it(host: str) -> None:
    """The message says what to set; `insecure` says that it is meant."""
    assert not is_loopback(host)
    with pytest.raises(NotConfiguredError, match=r"tls_certificate_path and tls_key_path, or insecure=true"):
        guard_of(ServerSettings(host=host), CollectorRegistry())
    assert guard_of(ServerSettings(host=host, insecure=True), CollectorRegistry()).credentials is None


def test_half_of_tls_is_refused(tmp_path: Path) -> None:
    """A certificate without its key, and a client CA without either, name what is missing."""
    with pytest.raises(NotConfiguredError, match="tls_key_path"):
        guard_of(ServerSettings(tls_certificate_path=tmp_path / "a"), CollectorRegistry())
    with pytest.raises(NotConfiguredError, match="tls_certificate_path"):
        guard_of(ServerSettings(tls_client_ca_path=tmp_path / "a"), CollectorRegistry())


@pytest.mark.integration
async def test_the_clients_pass_the_guard_of_a_real_server(
    world: Any, settings: ServerSettings, tmp_path: Path, authority: Any
) -> None:
    """Both clients, unary, batch and stream, over mTLS with a token from a file that is replaced between two calls."""
    certificate, key = authority.issue("server", names=["127.0.0.1"]).write(tmp_path, "server")
    own_certificate, own_key = authority.issue("client", names=["client"]).write(tmp_path, "client")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)
    first, second = new_token(), new_token()
    access = tmp_path / "access.yaml"
    entries = [f"{{name: shop, sha256: {hash_of(token).hex()}, roles: [score]}}" for token in (first, second)]
    access.write_text(f"version: 1\ntokens: [{', '.join(entries)}]")
    guarded = settings.model_copy(
        update={
            "tls_certificate_path": certificate,
            "tls_key_path": key,
            "tls_client_ca_path": ca,
            "access_path": access,
        }
    )
    tls = Tls(ca=ca, certificate=own_certificate, key=own_key)
    token_file = tmp_path / "token"
    token_file.write_text(f"{first}\n")
    row = Row("transactions", 1, {"tx_amount": 1.0})
    with BackgroundServer(lambda: world.server(guarded)) as server:
        with Client(server.target, tls=tls, token=token_file, timeout_s=20) as client:
            assert 0 < client.score("transactions", 1).probability < 1
            token_file.write_text(f"{second}\n")
            assert len(client.score_batch([row, row])) == 2
            assert len(list(client.score_stream([row] * 3))) == 3
            with pytest.raises(PermissionDeniedError, match="'inspect'"):
                client.neighborhood("transactions", 1)
        with Client(server.target, tls=tls, timeout_s=20) as client, pytest.raises(PermissionDeniedError):
            client.score("transactions", 1)  # its certificate is good and has no entry
        with Client(server.target, tls=tls, token="wrong", timeout_s=20) as client:
            with pytest.raises(UnauthenticatedError):
                client.score("transactions", 1)
            with pytest.raises(UnauthenticatedError):
                list(client.score_stream([row]))

        async def rows() -> AsyncIterator[Row]:
            yield row

        async with AsyncClient(server.target, tls=tls, token=lambda: second, timeout_s=20) as client:
            assert 0 < (await client.score("transactions", 1)).probability < 1
            assert len([answer async for answer in client.score_stream(rows())]) == 1
