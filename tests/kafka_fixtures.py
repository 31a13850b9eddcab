"""Brokers for the tests: librdkafka's mock cluster in this process, and Apache Kafka (KRaft) from Maven Central.

Loaded as a plugin by conftest.py. With KAFKA_BOOTSTRAP set, that Kafka is used instead of one of our own.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import confluent_kafka
import confluent_kafka.admin
import pytest

from stream.embedded_broker import EmbeddedBroker
from stream.settings import StreamSettings

KAFKA_VERSION = "3.9.1"
CLUSTER_ID = "bm93Z3JhcGgtdGVzdHMtMQ"  # sixteen bytes in base64
START_TIMEOUT_S = 90

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>nowgraph.tests</groupId><artifactId>kafka-broker</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <!-- kafka leaves the choice of a log backend to who runs it -->
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-reload4j</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""

_LOGGING = """log4j.rootLogger=WARN, stdout
log4j.appender.stdout=org.apache.log4j.ConsoleAppender
log4j.appender.stdout.layout=org.apache.log4j.PatternLayout
log4j.appender.stdout.layout.ConversionPattern=%d %p %c: %m%n
"""

_PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
log.initial.task.delay.ms=1000
log.retention.check.interval.ms=1000
message.max.bytes=33554432
"""


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """A mock broker in this process, shared by all tests: each uses topics of its own."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def embedded_settings(embedded_broker: EmbeddedBroker) -> StreamSettings:
    """Settings of the shared mock broker, with a dead-letter topic of this test's own."""
    dead_letters = f"dead-letters-{uuid.uuid4().hex[:8]}"
    embedded_broker.create_topic(dead_letters, 2)
    return StreamSettings(
        kafka_bootstrap=embedded_broker.bootstrap, dead_letter_topic=dead_letters, fetch_wait_ms=2, broker_timeout_s=5
    )


@pytest.fixture
def embedded_topic(embedded_broker: EmbeddedBroker) -> Callable[[int], str]:
    """Creates a new topic of the shared mock broker: `embedded_topic(partitions)` returns its name."""

    def create(partitions: int) -> str:
        name = f"topic-{uuid.uuid4().hex[:8]}"
        embedded_broker.create_topic(name, partitions)
        return name

    return create


@pytest.fixture(scope="session")
def apache_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap address of an Apache Kafka: KAFKA_BOOTSTRAP, or one started from Maven Central's artifacts."""
    given = os.environ.get("KAFKA_BOOTSTRAP")
    if given:
        yield given
        return
    if shutil.which("java") is None or shutil.which("mvn") is None:
        pytest.skip("Apache Kafka needs java and mvn on the PATH, or KAFKA_BOOTSTRAP")
    libraries = _libraries()
    folder = tmp_path_factory.mktemp("kafka")
    broker, controller = _free_ports(2)
    properties = folder / "server.properties"
    properties.write_text(_PROPERTIES.format(broker=broker, controller=controller, data=folder / "data"))
    logging = folder / "log4j.properties"
    logging.write_text(_LOGGING)
    java = ["java", "-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", f"-Dlog4j.configuration=file:{logging}"]
    java += ["-XX:TieredStopAtLevel=1", "-cp", f"{libraries}/*"]
    formatting = [*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties)]
    subprocess.run(formatting, check=True, capture_output=True, timeout=START_TIMEOUT_S)
    with (folder / "kafka.log").open("wb") as output:
        process = subprocess.Popen([*java, "kafka.Kafka", str(properties)], stdout=output, stderr=subprocess.STDOUT)
        try:
            bootstrap = f"127.0.0.1:{broker}"
            _wait_until_up(bootstrap, process, folder / "kafka.log")
            yield bootstrap
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def kafka_settings(apache_kafka: str) -> StreamSettings:
    """Settings of Apache Kafka, with a dead-letter topic of this test's own."""
    return StreamSettings(kafka_bootstrap=apache_kafka, dead_letter_topic=f"dead-letters-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def kafka_topic(apache_kafka: str) -> Callable[..., str]:
    """Creates a new topic: `kafka_topic(partitions, **topic_config)` returns its name once it can be used.

    It keeps its records, of whatever time they are, unless `retention_ms` is given.
    """
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": apache_kafka})

    def create(partitions: int, **config: str) -> str:
        name = f"topic-{uuid.uuid4().hex[:8]}"
        options = {key.replace("_", "."): value for key, value in {"retention_ms": "-1", **config}.items()}
        topic = confluent_kafka.admin.NewTopic(name, partitions, 1, config=options)
        admin.create_topics([topic])[name].result(30)
        return name

    return create


def _libraries() -> Path:
    """Kafka's jars, fetched once into the user's cache; a half-done fetch is never mistaken for a whole one."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "nowgraph" / f"kafka-{KAFKA_VERSION}"
    libraries = cache / "libraries"
    if libraries.is_dir():
        return libraries
    work = cache / f"fetch-{os.getpid()}"
    work.mkdir(parents=True, exist_ok=True)
    (work / "pom.xml").write_text(_POM)
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=jars"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        shutil.rmtree(work, ignore_errors=True)
        pytest.skip(f"Maven Central gave no Kafka: {done.stdout[-2000:]}{done.stderr[-500:]}")
    try:
        (work / "jars").rename(libraries)
    except OSError:
        assert libraries.is_dir()  # another test process was faster
    shutil.rmtree(work, ignore_errors=True)
    return libraries


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _wait_until_up(bootstrap: str, process: subprocess.Popen[bytes], log: Path) -> None:
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            break
        try:
            if admin.list_topics(timeout=2).brokers:
                return
        except confluent_kafka.KafkaException:
            time.sleep(0.2)
    raise RuntimeError(f"Kafka did not start:\n{log.read_text()[-3000:]}")
