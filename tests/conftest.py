"""What all tests share: the repository's root, and the rule that CI skips nothing that this machine could run."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

# Fixtures for the tests of several packages, in files beside this one; loaded by path, as tests/ is never on sys.path.
PLUGINS = ("kafka_fixtures", "live_world", "ranked_world", "redis_fixtures", "served_world", "tls_fixtures")
NEVER_SKIPPED_IN_CI = ("integration", "kafka")


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


@pytest.fixture(scope="session")
def free_ports() -> Callable[[int], list[int]]:
    """Gives so many ports on loopback that nobody listens on."""

    def find(count: int) -> list[int]:
        with ExitStack() as stack:
            probes = [stack.enter_context(socket.socket()) for _ in range(count)]
            for probe in probes:
                probe.bind(("127.0.0.1", 0))
            return [probe.getsockname()[1] for probe in probes]

    return find


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
