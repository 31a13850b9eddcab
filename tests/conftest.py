"""What all tests share: the repository's root, and the rule that CI skips nothing that this machine could run."""

from __future__ import annotations

import importlib.util
import itertools
import os
import socket
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

# Fixtures for the tests of several packages, in files beside this one; loaded by path, as tests/ is never on sys.path.
PLUGINS = ("kafka_fixtures", "live_world", "ranked_world", "redis_fixtures", "served_world", "tls_fixtures")
NEVER_SKIPPED_IN_CI = ("integration", "kafka")

# Below those the kernel gives to clients, with as many above them left for the bus of Redis Cluster's nodes.
PORTS, PORTS_EACH = range(10_000, 20_000), 1_000


def pytest_configure(config: pytest.Config) -> None:
    """Load the plugins, before any test is collected."""
    for name in PLUGINS:
        spec = importlib.util.spec_from_file_location(f"nowgraph_tests_{name}", Path(__file__).parent / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look for their module
        spec.loader.exec_module(module)
        config.pluginmanager.register(module, name)


@pytest.fixture(scope="session")
def repository(pytestconfig: pytest.Config) -> Path:
    """The root of the repository the tests belong to; never on sys.path."""
    return pytestconfig.rootpath


class FreePorts:
    """Ports on loopback that nobody listens on: `free_ports(count)`.

    A port must stay free until its server listens, seconds later. So none is of those that the kernel gives to clients,
    no two workers of pytest-xdist share a range, and two runs on one machine begin at different places.
    """

    def __init__(self) -> None:
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        first, turn = PORTS.start + worker * PORTS_EACH % len(PORTS), os.getpid()
        self._candidates = itertools.cycle(first + (turn + n) % PORTS_EACH for n in range(PORTS_EACH))

    def __call__(self, count: int, *, bus: int = 0) -> list[int]:
        """With `bus`, the port so far above each is free too."""
        free = (port for port in self._candidates if _is_free(port) and _is_free(port + bus))
        return list(itertools.islice(free, count))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.fixture(scope="session")
def free_ports() -> FreePorts:
    """Gives so many ports on loopback that nobody listens on."""
    return FreePorts()


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """Waits until something holds: `until(condition, why)`. A minute is much on any machine; a failure says why."""

    def wait(holds: Callable[[], object], why: str = "it does not come about", *, timeout_s: float = 60.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline_s, why
            time.sleep(0.02)

    return wait


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that lacks Kafka says so and is skipped on one's own machine; in CI (NOWGRAPH_CI) that is a failure."""
    report = yield
    marked = any(item.get_closest_marker(marker) for marker in NEVER_SKIPPED_IN_CI)
    if report.skipped and marked and os.environ.get("NOWGRAPH_CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI forbids: {report.longrepr}"
    return report
