from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from model_server.errors import NotConfiguredError
from model_server.redis_commands import PIPELINE_MAX, SENDERS, RedisCommands, RedisUnavailable

pytestmark = pytest.mark.integration


@pytest.fixture
async def commands(shared_redis: Callable[[], str]) -> AsyncIterator[RedisCommands]:
    """A Redis that answers."""
    made = RedisCommands(shared_redis(), timeout_s=5)
    yield made
    await made.close()


def echo(text: str) -> Callable[[Any], object]:
    """A command whose reply is known."""
    return lambda pipe: pipe.echo(text)


async def test_each_command_has_its_own_reply(commands: RedisCommands) -> None:
    """Thousands at once, in pipelines of bounded length, on a few connections."""
    count = PIPELINE_MAX * 10
    replies = await asyncio.gather(*(commands.send(echo(str(number))) for number in range(count)))
    assert replies == [str(number).encode() for number in range(count)]
    clients = await commands.send(lambda pipe: pipe.execute_command("CLIENT", "INFO"))
    assert clients
    assert len(commands._redis.connection_pool._available_connections) <= SENDERS
    assert int((await commands.version()).split(".")[0]) >= 7


async def test_a_command_that_redis_refuses_fails_alone(commands: RedisCommands) -> None:
    """Its neighbors in the pipeline are answered."""
    wrong = commands.send(lambda pipe: pipe.execute_command("NONSENSE"))
    found = await asyncio.gather(commands.send(echo("a")), wrong, commands.send(echo("b")), return_exceptions=True)
    assert [found[0], found[2]] == [b"a", b"b"]
    assert isinstance(found[1], RedisUnavailable)


async def test_who_goes_away_harms_nobody(commands: RedisCommands) -> None:
    """A cancelled caller's command may or may not be sent; the others have their replies."""
    gone = asyncio.ensure_future(commands.send(echo("gone")))
    stays = asyncio.ensure_future(commands.send(echo("stays")))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == b"stays"


async def test_everybody_hears_that_redis_is_away_and_that_it_is_back(redis_server: Any) -> None:
    """Frozen: within a few timeouts, however many wait; thawed: the next command is answered."""
    commands = RedisCommands(redis_server.url, timeout_s=0.5)
    assert await commands.send(echo("a")) == b"a"
    redis_server.freeze()
    begin_s = time.monotonic()
    found = await asyncio.gather(*(commands.send(echo("b")) for _ in range(200)), return_exceptions=True)
    assert all(isinstance(one, RedisUnavailable) for one in found)
    assert time.monotonic() - begin_s < 5
    redis_server.thaw()
    assert await commands.send(echo("c")) == b"c"
    redis_server.kill()
    with pytest.raises(RedisUnavailable):
        await commands.version()
    await commands.close()


def test_a_url_that_is_none_is_refused_and_not_quoted() -> None:
    """It may hold a password."""
    with pytest.raises(NotConfiguredError, match="expected redis://") as error:
        RedisCommands("http://user:hush@host", timeout_s=1)
    assert "hush" not in str(error.value)
