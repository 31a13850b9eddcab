"""Real servers on loopback, real handshakes, certificates made on the spot."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from model_server.caller import Role, current_caller
from model_server.security import guard
from model_server.security.access import hash_of, new_token
from model_server.security.guard import guard_of
from model_server.settings import ServerSettings
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

SERVICE = "nowgraph.v1.PredictionService"
METHODS = [method.name for method in service_pb2.DESCRIPTOR.services_by_name["PredictionService"].methods]


async def name(request: bytes, context: Any) -> bytes:
    """Answers with the name of the caller."""
    return current_caller().name.encode()


async def names(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    """Answers each request with the name of the caller."""
    async for _ in requests:
        yield current_caller().name.encode()


class Running:
    """A server behind a guard, and ways to call it."""

    def __init__(self, settings: ServerSettings, registry: CollectorRegistry, port: int) -> None:
        self.settings = settings
        self.registry = registry
        self.port = port

    def channel(self, ca: bytes | None, *, pem: Any = None, host: str = "127.0.0.1") -> grpc.aio.Channel:
        """A channel of its own: no connection is shared with another one."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        if ca is None:
            return grpc.aio.insecure_channel(f"{host}:{self.port}", options=options)
        own = (None, None) if pem is None else (pem.key, pem.certificate)
        return grpc.aio.secure_channel(f"{host}:{self.port}", grpc.ssl_channel_credentials(ca, *own), options=options)

    async def ask(self, channel: grpc.aio.Channel, method: str = "Score", *, token: str | None = None) -> str:
        """The caller's name as the handler sees it, or the code of the refusal."""
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        try:
            call = channel.unary_unary(f"/{SERVICE}/{method}")
            return bytes(await call(b"", metadata=metadata, timeout=10)).decode()
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)

    async def ask_once(self, ca: bytes | None, *, token: str | None = None, **options: Any) -> str:
        """As `ask`, over a connection of its own."""
        async with self.channel(ca, **options) as channel:
            return await self.ask(channel, token=token)


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Running]:
    """A server with the prediction service's methods, health and reflection, behind what the settings ask for."""
    registry = CollectorRegistry()
    found = ServerSettings(port=0, **settings)
    made = guard_of(found, registry)
    server = grpc.aio.server(interceptors=made.interceptors)
    unary = grpc.unary_unary_rpc_method_handler(name)
    handlers = dict.fromkeys((*METHODS, "Unheard"), unary)
    handlers["ScoreStream"] = grpc.stream_stream_rpc_method_handler(names)  # type: ignore[assignment]
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    healthy = health.aio.HealthServicer()  # type: ignore[attr-defined]
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    await healthy.set("", health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server)
    address = f"{found.host}:0"
    if made.credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, made.credentials)
    await server.start()
    try:
        yield Running(found, registry, port)
    finally:
        await server.stop(None)


def access_file(folder: Path, *entries: str) -> Path:
    """Moves an access file into place."""
    path = folder / "access.yaml"
    new = path.with_suffix(".new")
    new.write_text("\n".join(["version: 1", *entries]), encoding="utf-8")
    new.replace(path)
    return path


def token_entry(name: str, token: str, *roles: str) -> str:
    """An entry of an access file."""
    return f"  - {{name: {name}, sha256: {hash_of(token).hex()}, roles: [{', '.join(roles)}]}}"


async def test_a_client_trusts_the_right_server_alone(tmp_path: Path, authority: Any, stranger: Any) -> None:
    """The right CA and name get through; another CA, or a certificate for another host, ends the handshake."""
    certificate, key = authority.issue("server", names=["127.0.0.1"]).write(tmp_path, "server")
    async with serving(tls_certificate_path=certificate, tls_key_path=key) as running:
        assert await running.ask_once(authority.pem) == "anonymous"
        assert await running.ask_once(stranger.pem) == "UNAVAILABLE"
        assert await running.ask_once(authority.pem, host="localhost") == "UNAVAILABLE"
        assert await running.ask_once(None) == "UNAVAILABLE"  # plain text to a port of TLS


async def test_certificates_of_clients_name_them(tmp_path: Path, authority: Any, stranger: Any) -> None:
    """With a client CA: a SAN, or without one the common name; no certificate, another CA's or an old one: refused."""
    certificate, key = authority.issue("server", names=["127.0.0.1"]).write(tmp_path, "server")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    paths = {"tls_certificate_path": certificate, "tls_key_path": key, "tls_client_ca_path": tmp_path / "ca.pem"}
    async with serving(**paths) as running:
        ca = authority.pem
        assert await running.ask_once(ca, pem=authority.issue("x", uris=["spiffe://shop/api"])) == "spiffe://shop/api"
        assert await running.ask_once(ca, pem=authority.issue("common")) == "common"
        assert await running.ask_once(ca) == "UNAVAILABLE"
        assert await running.ask_once(ca, pem=stranger.issue("common")) == "UNAVAILABLE"
        assert await running.ask_once(ca, pem=authority.issue("old", lasts=timedelta(seconds=-1))) == "UNAVAILABLE"


async def test_a_certificate_has_the_roles_of_its_entry(tmp_path: Path, authority: Any) -> None:
    """Beside tokens: a name that the access file lists has its roles, another one is known and has none."""
    certificate, key = authority.issue("server", names=["127.0.0.1"]).write(tmp_path, "server")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    token = new_token()
    path = access_file(
        tmp_path,
        "certificates: [{name: ranker, roles: [rank]}]",
        "tokens:",
        token_entry("scorer", token, "score"),
    )
    paths = {"tls_certificate_path": certificate, "tls_key_path": key, "tls_client_ca_path": tmp_path / "ca.pem"}
    async with serving(**paths, access_path=path) as running:
        async with running.channel(authority.pem, pem=authority.issue("x", names=["ranker"])) as channel:
            assert await running.ask(channel, "Rank") == "ranker"
            assert await running.ask(channel, "Score") == "PERMISSION_DENIED"
            assert await running.ask(channel, "Score", token=token) == "scorer"  # the token says more
        assert await running.ask_once(authority.pem, pem=authority.issue("other")) == "PERMISSION_DENIED"


async def test_each_method_asks_for_its_role(tmp_path: Path) -> None:
    """No token, a wrong one, a wrong scheme: UNAUTHENTICATED; a good one: the methods of its roles alone."""
    scorer, admin = new_token(), new_token()
    path = access_file(
        tmp_path, "tokens:", token_entry("scorer", scorer, "score"), token_entry("root", admin, "admin", "inspect")
    )
    async with serving(access_path=path) as running, running.channel(None) as channel:
        assert await running.ask(channel) == "UNAUTHENTICATED"
        assert await running.ask(channel, token="") == "UNAUTHENTICATED"
        assert await running.ask(channel, token=new_token()) == "UNAUTHENTICATED"
        call = channel.unary_unary(f"/{SERVICE}/Score")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(b"", metadata=(("authorization", f"Basic {scorer}"),))
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert await running.ask(channel, token=scorer) == "scorer"
        methods = ("Rank", "Neighborhood", "Ingest", "Unheard")
        assert {await running.ask(channel, method, token=scorer) for method in methods} == {"PERMISSION_DENIED"}
        assert await running.ask(channel, "Neighborhood", token=admin) == "root"
        assert await running.ask(channel, "Unheard", token=admin) == "root"  # what nobody listed is the admin's
        assert await running.ask(channel, "Score", token=admin) == "PERMISSION_DENIED"
        refused = running.registry.get_sample_value
        assert refused("nowgraph_callers_refused_total", {"reason": "role"}) == 5
        assert refused("nowgraph_callers_refused_total", {"reason": "no_credentials"}) == 1
        assert refused("nowgraph_callers_refused_total", {"reason": "unknown_token"}) == 3


async def test_each_role_opens_what_the_document_says(tmp_path: Path, repository: Path) -> None:
    """Each role alone, each method of the service: what docs/SECURITY.md lists is answered, all else is refused."""
    listed = re.findall(r"^\| `(\w+)` \| (.+) \|$", (repository / "docs" / "SECURITY.md").read_text(), re.MULTILINE)
    opens = {role: set(re.findall(r"`(\w+)`", methods)) for role, methods in listed if role in set(Role)}
    tokens = {role: new_token() for role in Role}
    path = access_file(tmp_path, "tokens:", *(token_entry(role, token, role) for role, token in tokens.items()))
    async with serving(access_path=path) as running, running.channel(None) as channel:
        heard = {
            role: {method: await running.ask(channel, method, token=token) for method in METHODS}
            for role, token in tokens.items()
        }
    expected = {
        role: {method: role if method in opens[role] else "PERMISSION_DENIED" for method in METHODS} for role in Role
    }
    assert heard == expected
    assert set().union(*opens.values()) == set(METHODS)


async def test_a_strangers_message_is_not_parsed(tmp_path: Path) -> None:
    """Refused before it is read: what would fail to parse is UNAUTHENTICATED, and for whom is known INTERNAL."""
    token = new_token()
    path = access_file(tmp_path, "tokens:", token_entry("shop", token, "score"))

    def fail(_: bytes) -> None:
        raise ValueError("not parsed")

    handler = grpc.unary_unary_rpc_method_handler(name, request_deserializer=fail)
    server = grpc.aio.server(interceptors=guard_of(ServerSettings(access_path=path), CollectorRegistry()).interceptors)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Score": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    running = Running(ServerSettings(), CollectorRegistry(), port)
    async with running.channel(None) as channel:
        assert await running.ask(channel, token=new_token()) == "UNAUTHENTICATED"
        assert await running.ask(channel) == "UNAUTHENTICATED"
        assert await running.ask(channel, token=token) in ("INTERNAL", "UNKNOWN")
    await server.stop(None)


async def test_health_is_open_and_reflection_is_the_admins(tmp_path: Path) -> None:
    """Probes have no token; who lists methods needs one with the role admin."""
    scorer, admin = new_token(), new_token()
    path = access_file(tmp_path, "tokens:", token_entry("a", scorer, "score"), token_entry("b", admin, "admin"))
    async with serving(access_path=path) as running, running.channel(None) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

        async def listed(token: str) -> str:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            call = stub.ServerReflectionInfo(asked, metadata=(("authorization", f"Bearer {token}"),))
            try:
                names = [one.name async for response in call for one in response.list_services_response.service]
                return ", ".join(names)
            except grpc.aio.AioRpcError as error:
                return str(error.code().name)

        assert await listed(scorer) == "PERMISSION_DENIED"
        assert SERVICE in await listed(admin)


async def test_a_new_certificate_is_shown_to_new_connections(tmp_path: Path, authority: Any, stranger: Any) -> None:
    """Without a restart: open connections go on, new ones see the new one; a bad one is refused, the old one stays."""
    certificate, key = authority.issue("server", names=["127.0.0.1"]).write(tmp_path, "server")
    async with serving(tls_certificate_path=certificate, tls_key_path=key) as running:
        async with running.channel(authority.pem) as old:
            assert await running.ask(old) == "anonymous"
            stranger.issue("server", names=["127.0.0.1"]).write(tmp_path, "server")
            assert await running.ask_once(stranger.pem) == "anonymous"
            assert await running.ask_once(authority.pem) == "UNAVAILABLE"
            assert await running.ask(old) == "anonymous"
        authority.issue("server", names=["127.0.0.1"], lasts=timedelta(seconds=-5)).write(tmp_path, "server")
        assert await running.ask_once(stranger.pem) == "anonymous"
        value = running.registry.get_sample_value
        assert value("nowgraph_security_reloads_total", {"file": "tls", "outcome": "refused"}) == 1
        assert value("nowgraph_security_reloads_total", {"file": "tls", "outcome": "loaded"}) == 1
        authority.issue("server", names=["127.0.0.1"]).write(tmp_path, "server")
        assert await running.ask_once(authority.pem) == "anonymous"


async def test_tokens_are_replaced_while_the_server_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new one is good once it is in the file, the old one until it is taken out; a broken file changes nothing."""
    monkeypatch.setattr(guard, "ACCESS_CHECK_S", 0.0)
    old, new = new_token(), new_token()
    path = access_file(tmp_path, "tokens:", token_entry("shop", old, "score"))
    async with serving(access_path=path) as running, running.channel(None) as channel:

        async def both() -> tuple[str, str]:
            return await running.ask(channel, token=old), await running.ask(channel, token=new)

        assert await both() == ("shop", "UNAUTHENTICATED")
        access_file(tmp_path, "tokens:", token_entry("shop", old, "score"), token_entry("shop", new, "score"))
        assert await both() == ("shop", "shop")
        access_file(tmp_path, "tokens: [")
        assert await both() == ("shop", "shop")
        access_file(tmp_path, "tokens:", token_entry("shop", new, "score"))
        assert await both() == ("UNAUTHENTICATED", "shop")


async def test_a_stream_ends_when_its_token_is_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was answered was answered; the next request is not. Another token's change leaves the stream alone."""
    monkeypatch.setattr(guard, "ACCESS_CHECK_S", 0.0)
    token, other = new_token(), new_token()
    path = access_file(tmp_path, "tokens:", token_entry("shop", token, "score"))
    async with serving(access_path=path) as running, running.channel(None) as channel:
        call = channel.stream_stream(f"/{SERVICE}/ScoreStream")(metadata=(("authorization", f"Bearer {token}"),))
        for _ in range(2):
            await call.write(b"")
            assert await call.read() == b"shop"
            access_file(tmp_path, "tokens:", token_entry("shop", token, "score"), token_entry("new", other, "score"))
        access_file(tmp_path, "tokens:", token_entry("new", other, "score"))
        await call.write(b"")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await asyncio.wait_for(call.read(), 10)
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture
def plain_logs() -> Iterator[None]:
    """Log lines of every level, whatever another test has configured."""
    before = structlog.get_config()
    structlog.reset_defaults()
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("plain_logs")
async def test_no_secret_is_in_a_log(tmp_path: Path, authority: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Refusals and reloads, good and bad, write neither a token nor a key, whatever the level."""
    token, unknown = new_token(), new_token()
    pem = authority.issue("server", names=["127.0.0.1"])
    certificate, key = pem.write(tmp_path, "server")
    path = access_file(tmp_path, "tokens:", token_entry("shop", token, "score"))
    async with serving(tls_certificate_path=certificate, tls_key_path=key, access_path=path) as running:
        for asked in (token, unknown):
            await running.ask_once(authority.pem, token=asked)
        async with running.channel(authority.pem) as channel:
            await running.ask(channel, "Rank", token=token)
        key.write_bytes(pem.key.replace(b"M", b"N"))
        assert await running.ask_once(authority.pem, token=token) == "shop"
    written = "".join(capsys.readouterr())
    assert "caller_refused" in written
    assert "security_file_refused" in written
    for secret in (token, unknown, hash_of(token).hex(), pem.key.decode().splitlines()[1]):
        assert secret not in written
