from __future__ import annotations

from pathlib import Path

import pytest

from nowgraph.client_channel import Calls, Tls


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
