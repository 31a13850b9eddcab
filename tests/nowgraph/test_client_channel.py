from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from nowgraph.client import Client, PermissionDeniedError
from nowgraph.client_channel import Calls, Connection, Tls


@pytest.mark.parametrize("target", ["10.0.0.1:50051", "server.internal:50051", "dns:///server:443", "[2001:db8::1]:1"])
def test_a_token_never_travels_in_plain_text(target: str) -> None:
    """To another machine it needs TLS; without a token plain text is the caller's affair."""
    with pytest.raises(ValueError, match="a token needs tls"):
        Calls(target, tls=None, token="t", name="")
    assert Calls(target, tls=Tls(), token="t", name="").metadata() == (("authorization", "Bearer t"),)
    assert Calls(target, tls=None, token=None, name="").metadata() == ()


@pytest.mark.parametrize("target", ["127.0.0.1:50051", "localhost:1", "[::1]:50051", "unix:/tmp/s", "ipv4:127.0.0.1:1"])
def test_on_this_machine_it_may(target: str) -> None:
    """A server on loopback is tried out without certificates."""
    named = Calls(target, tls=None, token="t", name="shop").metadata()
    assert named == (("authorization", "Bearer t"), ("nowgraph-client", "shop"))


def test_the_newest_token_is_sent(tmp_path: Path) -> None:
    """Of a file that is replaced, and of a function."""
    path = tmp_path / "token"
    path.write_text("first\n")
    calls = Calls("localhost:1", tls=None, token=path, name="")
    assert calls.metadata() == (("authorization", "Bearer first"),)
    path.write_text("another\n")
    assert calls.metadata() == (("authorization", "Bearer another"),)
    tokens = iter("ab")
    calls = Calls("localhost:1", tls=None, token=lambda: next(tokens), name="")
    assert [calls.metadata()[0][1] for _ in "ab"] == ["Bearer a", "Bearer b"]


def test_half_of_a_client_certificate_is_refused(tmp_path: Path) -> None:
    """A certificate goes with its key."""
    with pytest.raises(ValueError, match="go together"):
        Tls(certificate=tmp_path / "a")


def test_a_channel_is_opened_anew_once_its_files_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not between a certificate and its key; the channel before the last is closed, and a lost file changes nothing."""
    monkeypatch.setattr("nowgraph.client_channel.TLS_CHECK_S", 0.0)
    path = tmp_path / "ca.pem"
    path.write_text("first")
    opened: list[grpc.Channel] = []
    retired: list[grpc.Channel] = []

    def open_() -> grpc.Channel:
        opened.append(grpc.insecure_channel("localhost:1"))
        return opened[-1]

    connection = Connection(Tls(ca=path), open_, retired.append)
    stubs = [connection.stub]
    for text in ("another", "a third one"):
        path.write_text(text)
        stubs += [connection.stub, connection.stub]
    path.unlink()
    stubs.append(connection.stub)
    first, second, third = stubs[0], stubs[2], stubs[4]
    assert len({first, second, third}) == 3
    assert stubs == [first, first, second, second, third, third]
    assert (connection.channels, retired) == (opened[1:], opened[:1])
    for channel in opened:
        channel.close()


@pytest.mark.integration
def test_a_certificate_that_is_replaced_is_shown(
    world: Any, tmp_path: Path, authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client lives longer than its certificate: the server sees the new one without a restart of either."""
    monkeypatch.setattr("nowgraph.client_channel.TLS_CHECK_S", 0.05)
    certificate, key = authority.issue("server", names=["127.0.0.1"]).write(tmp_path, "server")
    own_certificate, own_key = authority.issue("client", names=["old"]).write(tmp_path, "client")
    ca, access = tmp_path / "ca.pem", tmp_path / "access.yaml"
    ca.write_bytes(authority.pem)
    access.write_text("version: 1\ncertificates: [{name: new, roles: [score]}]")
    settings = ServerSettings(
        port=0,
        metrics_port=0,
        tls_certificate_path=certificate,
        tls_key_path=key,
        tls_client_ca_path=ca,
        access_path=access,
    )
    tls = Tls(ca=ca, certificate=own_certificate, key=own_key)
    with (
        BackgroundServer(lambda: world.server(settings)) as server,
        Client(server.target, tls=tls, timeout_s=20) as client,
    ):
        with pytest.raises(PermissionDeniedError):
            client.score("transactions", 1)
        authority.issue("client", names=["new"]).write(tmp_path, "client")
        until_s = time.monotonic() + 20
        while time.monotonic() < until_s:
            with suppress(PermissionDeniedError):
                assert client.score("transactions", 1).history_count == 0
                break
            time.sleep(0.05)
        assert client.score("transactions", 1).history_count == 0


@pytest.mark.integration
def test_every_server_behind_a_name_is_asked_and_one_that_goes_is_left(world: Any) -> None:
    """Requests are spread over all addresses of a target; when one server drains, none fails and the other answers."""
    settings = ServerSettings(port=0, metrics_port=0, drain_grace_s=2.0)

    def start() -> BackgroundServer:
        return BackgroundServer(lambda: world.server(settings))

    with start() as staying:
        leaving = start().start()
        target = f"ipv4:{staying.target},{leaving.target}"
        with Client(target, timeout_s=20) as client:
            seen = Counter(client.score("transactions", number).graph_position is not None for number in range(40))
            assert seen == {True: 40}
            shares = [server.server.metrics.families.registry.total("nowgraph_requests_total", method="Score")
                      for server in (staying, leaving)]  # fmt: skip
            assert min(shares) >= 10
            leaving.close()
            for number in range(20):
                client.score("transactions", number)


def relay(listener: socket.socket, target: str, resets: int) -> None:
    """Resets the first connections, as a closing listener does with those it has not accepted; relays the others."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal resets
        if resets:
            resets -= 1
            end: socket.socket = writer.get_extra_info("socket")
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return
        host, _, port = target.rpartition(":")
        there = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pipe(reader, there[1]), pipe(there[0], writer))

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while some := await reader.read(65_536):
            writer.write(some)
        writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(connected, sock=listener)
        await server.serve_forever()

    with suppress(RuntimeError):  # the loop is stopped from outside when the test ends
        asyncio.run(serve())


@pytest.mark.integration
def test_a_connection_that_is_reset_is_made_again(world: Any) -> None:
    """A call whose connection is reset is answered all the same, by its retries."""
    settings = ServerSettings(port=0, metrics_port=0, deadline_default_ms=20_000)
    with BackgroundServer(lambda: world.server(settings)) as server, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threading.Thread(target=relay, args=(listener, server.target, 1), daemon=True).start()
        with Client(f"127.0.0.1:{listener.getsockname()[1]}", timeout_s=5) as client:
            assert client.score("transactions", 1, {"customer_id": 3}).history_count > 0
