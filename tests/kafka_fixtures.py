"""Brokers for the tests: librdkafka's mock cluster in this process, and Apache Kafka (KRaft) from Maven Central.

Loaded as a plugin by conftest.py. With KAFKA_BOOTSTRAP set, that Kafka is used where a test needs no more than topics;
tests that kill brokers, or need three, or listeners with TLS, start their own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import confluent_kafka
import confluent_kafka.admin
import pytest

from stream.embedded_broker import EmbeddedBroker
from stream.settings import StreamSettings

KAFKA_VERSION = "3.9.1"
CLUSTER_ID = "bm93Z3JhcGgtdGVzdHMtMQ"  # sixteen bytes in base64
START_TIMEOUT_S = 90
USER, PASSWORD = "nowgraph", "known-to-the-tests"

# Starts soonest and takes least: what most tests wait for is the start.
_SMALL_JVM = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

FreePorts = Callable[[int], list[int]]

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

# Clients of PROXIED are sent to another port, where a test has put its network.
_PROPERTIES = """process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{plain},PROXIED://127.0.0.1:{inner},CONTROLLER://127.0.0.1:{controller}{more_listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},PROXIED://127.0.0.1:{outer}{more_listeners}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_SSL,MUTUAL:SSL
log.dirs={data}
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=1
transaction.state.log.replication.factor={replicas}
transaction.state.log.num.partitions=1
transaction.state.log.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=6000
log.initial.task.delay.ms=1000
log.retention.check.interval.ms=1000
message.max.bytes=33554432
"""

_SECURITY = """sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
listener.name.login.scram-sha-512.sasl.jaas.config=\\
  org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.login.plain.sasl.jaas.config=\\
  org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.mutual.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.certificate.chain={certificate}
ssl.keystore.key={key}
ssl.truststore.type=PEM
ssl.truststore.certificates={authority}
"""


class Broker:
    """A process of Kafka. It keeps its ports and its log when it is killed, frozen and started again."""

    def __init__(self, node: int, folder: Path, java: Sequence[str], ports: Sequence[int]) -> None:
        self.node = node
        self.plain, self.controller, self.inner, self.outer, self.login, self.mutual = ports
        self.properties = folder / f"{node}.properties"
        self.log = folder / f"{node}.log"
        self._java = [*java]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; `Kafka.wait` waits until it answers."""
        with self.log.open("ab") as output:
            command = [*self._java, "kafka.Kafka", str(self.properties)]
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """SIGSTOP freezes it, SIGCONT thaws it, SIGKILL kills it; one that is killed is gone when this returns."""
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait(20)

    def close(self) -> None:
        if self._process is None or not self.alive:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Kafka:
    """Brokers that are one cluster: with three, a record is acknowledged once two have it."""

    def __init__(
        self,
        folder: Path,
        free_ports: FreePorts,
        *,
        brokers: int = 1,
        security: str = "",
        jvm: Sequence[str] = _SMALL_JVM,
    ) -> None:
        """`security` are properties that open LOGIN (SASL over TLS) and MUTUAL (TLS both ways)."""
        logging = folder / "log4j.properties"
        logging.write_text(_LOGGING)
        java = ["java", *jvm, f"-Dlog4j.configuration=file:{logging}", "-cp", f"{_libraries()}/*"]
        ports = free_ports(6 * brokers)
        self.brokers = [Broker(1 + n, folder, java, ports[6 * n : 6 * n + 6]) for n in range(brokers)]
        voters = ",".join(f"{one.node}@127.0.0.1:{one.controller}" for one in self.brokers)
        for one in self.brokers:
            listeners = f",LOGIN://127.0.0.1:{one.login},MUTUAL://127.0.0.1:{one.mutual}" if security else ""
            written = _PROPERTIES.format(
                **vars(one), voters=voters, more_listeners=listeners, data=folder / f"data-{one.node}",
                replicas=brokers, in_sync=min(2, brokers),
            )  # fmt: skip
            one.properties.write_text(written + security)
            formatting = [*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(one.properties)]
            if security:
                formatting += ["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"]
            subprocess.run(formatting, check=True, capture_output=True, timeout=START_TIMEOUT_S)
        try:
            for one in self.brokers:
                one.start()
            self.wait()
        except BaseException:
            self.close()
            raise

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{one.plain}" for one in self.brokers)

    def admin(self) -> Any:
        return confluent_kafka.admin.AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def create_topic(self, name: str, partitions: int, **config: str) -> None:
        """Creates it, on all brokers; it keeps its records, of whatever time they are."""
        options = {"retention.ms": "-1", **{key.replace("_", "."): value for key, value in config.items()}}
        topic = confluent_kafka.admin.NewTopic(name, partitions, len(self.brokers), config=options)
        admin = self.admin()  # its calls end with it
        admin.create_topics([topic])[name].result(30)
        _wait_for_leaders(self.bootstrap, name, partitions)

    def leader(self, topic: str, partition: int) -> Broker | None:
        """The broker that leads a partition now; None while none does."""
        node = self.admin().list_topics(topic, timeout=10).topics[topic].partitions[partition].leader
        return next((one for one in self.brokers if one.node == node), None)

    def wait(self) -> None:
        """Returns once every broker that was started answers and all know of each other."""
        started = [one for one in self.brokers if one.alive]
        deadline_s = time.monotonic() + START_TIMEOUT_S
        for one in started:
            admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": f"127.0.0.1:{one.plain}", "log_level": 0})
            while not _knows(admin, len(started)):
                if not one.alive or time.monotonic() > deadline_s:
                    raise RuntimeError(f"Kafka did not start:\n{one.log.read_text()[-3000:]}")
                time.sleep(0.2)

    def close(self) -> None:
        for one in self.brokers:
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _knows(admin: Any, brokers: int) -> bool:
    try:
        return len(admin.list_topics(timeout=2).brokers) >= brokers
    except confluent_kafka.KafkaException:
        return False


def _wait_for_leaders(bootstrap: str, topic: str, partitions: int) -> None:
    """Returns once every partition answers: a topic is made before its leaders know that they lead it."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": "leaders", "log_level": 0})
    deadline_s = time.monotonic() + START_TIMEOUT_S
    try:
        for number in range(partitions):
            while not _answers(consumer, confluent_kafka.TopicPartition(topic, number)):
                assert time.monotonic() < deadline_s, f"{topic}[{number}] has no leader"
                time.sleep(0.05)
    finally:
        consumer.close()


def _answers(consumer: Any, place: confluent_kafka.TopicPartition) -> bool:
    try:
        return consumer.get_watermark_offsets(place, timeout=5) is not None
    except confluent_kafka.KafkaException:
        return False


def _needs_java() -> None:
    if shutil.which("java") is None or shutil.which("mvn") is None:
        pytest.skip("Apache Kafka needs java and mvn on the PATH, or KAFKA_BOOTSTRAP")


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
def apache_kafka(tmp_path_factory: pytest.TempPathFactory, free_ports: FreePorts) -> Iterator[str]:
    """The bootstrap address of an Apache Kafka: KAFKA_BOOTSTRAP, or one started from Maven Central's artifacts."""
    given = os.environ.get("KAFKA_BOOTSTRAP")
    if given:
        yield given
        return
    _needs_java()
    with Kafka(tmp_path_factory.mktemp("kafka"), free_ports) as kafka:
        yield kafka.bootstrap


@pytest.fixture(scope="module")
def one_kafka(tmp_path_factory: pytest.TempPathFactory, free_ports: FreePorts) -> Iterator[Kafka]:
    """A Kafka of the module's own, whose broker may be killed."""
    _needs_java()
    with Kafka(tmp_path_factory.mktemp("kafka"), free_ports) as kafka:
        yield kafka


@pytest.fixture(scope="module")
def three_kafkas(tmp_path_factory: pytest.TempPathFactory, free_ports: FreePorts) -> Iterator[Kafka]:
    """Three brokers, three replicas of everything, two of which must have a record before it counts."""
    _needs_java()
    with Kafka(tmp_path_factory.mktemp("kafka"), free_ports, brokers=3) as kafka:
        yield kafka


@pytest.fixture(scope="module")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory, free_ports: FreePorts, authority: Any) -> Iterator[Kafka]:
    """A broker whose LOGIN wants USER's PASSWORD (SCRAM-SHA-512 or PLAIN, over TLS) and MUTUAL a certificate."""
    _needs_java()
    pem = authority.issue("kafka", names=["127.0.0.1", "localhost"])

    def written(content: bytes) -> str:
        return content.decode().strip().replace("\n", "\\n")

    security = _SECURITY.format(
        user=USER, password=PASSWORD, certificate=written(pem.certificate), key=written(pem.key),
        authority=written(authority.pem),
    )  # fmt: skip
    with Kafka(tmp_path_factory.mktemp("kafka"), free_ports, security=security) as kafka:
        yield kafka


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
        _wait_for_leaders(apache_kafka, name, partitions)
        return name

    return create


@pytest.fixture
def replace_topic(apache_kafka: str) -> Callable[[str], None]:
    """Deletes a topic and makes another of its name, which keeps its records and has one partition."""
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": apache_kafka})

    def replace(name: str) -> None:
        admin.delete_topics([name])[name].result(30)
        topic = confluent_kafka.admin.NewTopic(name, 1, 1, config={"retention.ms": "-1"})
        deadline_s = time.monotonic() + 60
        while True:
            try:
                admin.create_topics([topic])[name].result(30)
            except confluent_kafka.KafkaException:  # the old one is not quite gone
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            else:
                return

    return replace


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
