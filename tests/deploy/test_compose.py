"""The compose file: valid by the specification, with files, commands, settings and ports that are really there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_server.settings import ServerSettings
from stream.settings import StreamSettings
from temporal_graph.schema import load_schema

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "deploy" / "compose"
FILES = ("compose.yaml", "history.yaml")
ENVIRONMENT = {"NOWGRAPH_MODEL": "/somewhere/model", "GRAFANA_PASSWORD": "x", "NOWGRAPH_HISTORY": "/somewhere/history"}


def substituted(text: str) -> str:
    """Variables as compose puts them in: ${NAME}, ${NAME:-default}, ${NAME:?what is missing}; $$ is a dollar."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        name, kind, rest = match[1], match[2], match[3]
        assert name in ENVIRONMENT or kind == ":-", f"{name} needs a default, or to be asked for"
        return ENVIRONMENT.get(name, rest or "")

    return re.sub(r"\$\$|\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", value, text)


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    """A compose file as compose reads it."""
    loaded: dict[str, Any] = yaml.safe_load(substituted((FOLDER / name).read_text(encoding="utf-8")))
    return loaded


def services() -> dict[str, dict[str, Any]]:
    """The services by name."""
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def test_the_compose_specification_holds() -> None:
    """Valid by the schema of the Compose Specification; a key that it does not know would not be."""
    from check_jsonschema.builtin_schemas import get_builtin_schema
    from jsonschema.validators import validator_for

    schema = get_builtin_schema("vendor.compose-spec")
    validator = validator_for(schema)(schema)
    for name in FILES:
        assert [error.message for error in validator.iter_errors(compose(name))] == []
    broken = compose()
    broken["services"]["server"]["helthcheck"] = {}
    assert list(validator.iter_errors(broken))


@pytest.mark.parametrize("name", FILES)
def test_what_is_mounted_is_there(name: str) -> None:
    """Each file and folder of the repository that a service mounts exists, and named volumes are declared."""
    document = compose(name)
    volumes = [one for service in document["services"].values() for one in service.get("volumes", [])]
    assert volumes
    for volume in volumes:
        source, target = volume.split(":")[:2]
        assert target.startswith("/")
        if source.startswith("."):
            assert (FOLDER / source).exists(), source
            assert volume.endswith(":ro"), f"{volume}: nothing writes into the repository"
        elif not source.startswith("/"):
            assert source in compose()["volumes"], source


def test_commands_and_settings_exist(accepts: Callable[[Sequence[str]], None], known_variables: set[str]) -> None:
    """Every command line is one that nowgraph takes, and every variable is a setting or an option of it."""
    found = services()
    ours = {name: one for name, one in found.items() if one["image"] == "nowgraph"}
    assert {"updater", "server"} <= set(ours)
    for service in ours.values():
        accepts(service["command"])
        assert set(service["environment"]) <= known_variables
        check = service["healthcheck"]["test"]
        assert check[:2] in (["CMD", "nowgraph"], ["CMD", "python"])
        if check[1] == "nowgraph":
            accepts(check[2:])
    accepts(compose("history.yaml")["services"]["updater"]["command"])
    variables = {name: str(value) for name, value in found["server"]["environment"].items() if value is not None}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        read = ServerSettings(host="0.0.0.0")
    assert read.insecure
    assert read.metrics_host == "0.0.0.0"


def test_only_loopback_is_bound_and_everything_has_limits() -> None:
    """No port is reachable from another machine; every service has limits, a restart rule, and health to wait for."""
    for name, service in services().items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port}"
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory"} <= set(limits), name
        assert service["restart"]
        if service["restart"] == "unless-stopped":
            assert service["healthcheck"]["test"], name
        assert re.search(r":v?\d+\.\d+\.\d+", service["image"]) or service["image"] == "nowgraph", service["image"]
        if name not in ("kafka", "topics"):  # the broker writes its configuration into its own folders
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"]


def seconds(text: str) -> float:
    """20s, 30m."""
    return float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


def test_a_stop_is_longer_than_a_drain() -> None:
    """A server has the time to notice and to drain before it is killed, and Envoy's check comes within the notice."""
    server = services()["server"]
    notice, grace = (float(server["environment"][f"NOWGRAPH_SERVER_DRAIN_{name}_S"]) for name in ("NOTICE", "GRACE"))
    assert seconds(server["stop_grace_period"]) > notice + grace
    envoy = yaml.safe_load((REPOSITORY / "deploy" / "envoy" / "envoy.yaml").read_text())
    for cluster in envoy["static_resources"]["clusters"]:
        check = cluster["health_checks"][0]
        assert notice > seconds(check["interval"]) * check["unhealthy_threshold"]
    assert "nowgraph" in server["networks"]["nowgraph"]["aliases"]


def test_topics_are_those_of_the_example_and_of_the_product() -> None:
    """The topics that are made are the schema's sources, Ingest's, the audit trail's and the dead letters'."""
    topics = services()["topics"]
    script = topics["command"][0]
    example = load_schema(REPOSITORY / "examples" / "payments" / "schema.yaml")
    assert topics["environment"]["INPUT_TOPICS"].split() == [source.topic for source in example.sources]
    stream = StreamSettings()
    for topic in (stream.predictions_topic, stream.dead_letter_topic, ServerSettings().ingest_topic):
        assert topic in script


def test_prometheus_scrapes_what_the_rules_read() -> None:
    """promtool accepts its configuration, its jobs are those of deploy/prometheus, and its targets are services."""
    config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    beside = yaml.safe_load((REPOSITORY / "deploy" / "prometheus" / "prometheus.yaml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert set(jobs) == {job["job_name"] for job in beside["scrape_configs"]}
    for job in jobs.values():
        found = job["dns_sd_configs"][0]
        assert set(found["names"]) <= set(services())
    assert jobs["nowgraph-server"]["dns_sd_configs"][0]["port"] == ServerSettings().metrics_port
    promtool = shutil.which("promtool")
    if promtool is None:
        if os.environ.get("NOWGRAPH_CI"):
            pytest.fail("promtool is missing: .ci/run installs Debian's prometheus")
        pytest.skip("promtool (Debian's prometheus) is not installed")
    command = [promtool, "check", "config", "--syntax-only", str(FOLDER / "prometheus.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_substitution_of_this_test_is_compose_s_own() -> None:
    """A variable without a default that nobody gives is an error here, as there."""
    assert substituted("$$A ${NOWGRAPH_IMAGE:-x} ${NOWGRAPH_MODEL:?m}") == "$A x /somewhere/model"
    with pytest.raises(AssertionError):
        substituted("${NOBODY_GIVES:?this}")


def test_a_wrong_option_is_found(accepts: Callable[[Sequence[str]], None]) -> None:
    """The check of command lines can fail."""
    with pytest.raises(AssertionError, match="has no --arenas"):
        accepts(["serve", "--arenas", "/arena"])


def test_grafana_finds_prometheus_and_its_dashboards() -> None:
    """The data source's address is a service of this file, and dashboards are mounted where their provider looks."""
    found = services()
    grafana = found["grafana"]
    folder = REPOSITORY / "deploy" / "grafana" / "provisioning"
    source = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())["datasources"][0]
    address = grafana["environment"][source["url"].removeprefix("$")]
    host, _, port = address.removeprefix("http://").partition(":")
    assert found[host]["healthcheck"]["test"][-1].startswith(f"http://127.0.0.1:{port}/")
    provider = yaml.safe_load((folder / "dashboards" / "nowgraph.yaml").read_text())["providers"][0]
    mounts = {volume.split(":")[1]: volume.split(":")[0] for volume in grafana["volumes"]}
    assert list((FOLDER / mounts[provider["options"]["path"]]).glob("*.json"))
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (FOLDER / mounts[str(home.parent)] / home.name).is_file()
