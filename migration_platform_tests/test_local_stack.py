import hashlib
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import psutil
import psycopg
import pytest
import trustme
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import (
    EXEC_PROFILE_DEFAULT,
    Cluster,
    ExecutionProfile,
    NoHostAvailable,
    Session,
)
from cassandra.policies import WhiteListRoundRobinPolicy
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives import serialization
from neo4j import GraphDatabase

from migration_platform.cli import main
from migration_platform.local import LocalStackError, jars, stack
from migration_platform.local.cassandra import Cassandra, TlsFiles
from migration_platform.local.dynamodb import DynamoDb
from migration_platform.local.jars import Jar, fetch, format_lock, parse_lock
from migration_platform.local.kafka import Kafka
from migration_platform.local.neo4j import Neo4j
from migration_platform.local.ports import LOCALHOST, free_port, port_is_free, port_is_open
from migration_platform.local.postgres import Postgres
from migration_platform.local.server import Launch, Server
from migration_platform.local.servers import SERVERS
from migration_platform.local.stack import Running, running, start, start_all, status, stop
from migration_platform_tests.servers import PATIENCE_SECONDS, jars_folder
from migration_platform_tests.tables import be_patient

CONTENT = b"the bytes of a jar"
JAR = Jar("org.example", "thing", "1.0", "", "jar", hashlib.sha256(CONTENT).hexdigest())


# --- the lock of the jars ---


def test_a_lock_line_says_where_the_jar_lies_in_a_repository() -> None:
    lock = parse_lock(
        "# a comment\n[thing] org.example:thing:1.0\n\n"
        f"org.example:thing:1.0 {'0' * 64}\n"
        f"org.example:thing:1.0:linux-x86_64 {'1' * 64}\n"
        f"org.example:native:2.0@so {'2' * 64}\n"
    )

    assert lock["thing"].roots == ("org.example:thing:1.0",)
    assert [jar.path for jar in lock["thing"].jars] == [
        "org/example/thing/1.0/thing-1.0.jar",
        "org/example/thing/1.0/thing-1.0-linux-x86_64.jar",
        "org/example/native/2.0/native-2.0.so",
    ]


def test_the_committed_lock_is_what_a_renewal_would_write() -> None:
    text = jars.LOCK_PATH.read_text(encoding="utf-8")

    assert format_lock(parse_lock(text)) == text
    assert "://" not in text


@pytest.mark.parametrize(
    "line",
    [
        "org.example:thing:1.0",
        f"org.example:thing {'0' * 64}",
        f"org.example:thing:1.0 {'g' * 64}",
        "[thing]",
    ],
)
def test_a_lock_line_that_is_not_understood_is_named(line: str) -> None:
    with pytest.raises(LocalStackError, match=r"^Line 2 of the jar lock is not understood: "):
        parse_lock(f"[thing] org.example:thing:1.0\n{line}\n")


def test_a_jar_above_every_header_is_refused() -> None:
    with pytest.raises(LocalStackError, match="Line 1"):
        parse_lock(f"org.example:thing:1.0 {'0' * 64}\n")


# --- downloads ---


@contextmanager
def repository(
    monkeypatch: pytest.MonkeyPatch, answers: Sequence[int], content: bytes = CONTENT
) -> Iterator[list[str]]:
    """A Maven repository that answers with these status codes in turn, the last one for ever."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code = answers[min(len(requests), len(answers) - 1)]
            requests.append(self.path)
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, as in the base class
            pass

    monkeypatch.setattr(jars, "FIRST_PAUSE_SECONDS", 0.01)
    with ThreadingHTTPServer((LOCALHOST, 0), Handler) as server:
        monkeypatch.setenv(jars.MAVEN_URL_VARIABLE, f"http://{LOCALHOST}:{server.server_port}/m/")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield requests
        finally:
            server.shutdown()
            thread.join()


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_downloaded_jar_is_cached_so_that_the_next_start_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    with repository(monkeypatch, [200]) as requests:
        fetch([JAR, JAR], folder=tmp_path, report=lines.append)
    fetch([JAR], folder=tmp_path, report=lines.append)

    assert requests == [f"/m/{JAR.path}"]
    assert (tmp_path / JAR.path).read_bytes() == CONTENT
    assert lines[0] == "Downloading 1 jars"
    assert len(lines) == 2


def test_a_jar_with_other_bytes_than_the_lock_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        repository(monkeypatch, [200], content=b"something else") as requests,
        pytest.raises(LocalStackError, match=r"org\.example:thing:1\.0 is refused: its sha256 is"),
    ):
        fetch([JAR], folder=tmp_path)

    assert len(requests) == 1
    assert files_below(tmp_path) == [".lock"]


def test_a_flaky_repository_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with repository(monkeypatch, [503, 429, 200]) as requests:
        fetch([JAR], folder=tmp_path)

    assert len(requests) == 3
    assert (tmp_path / JAR.path).read_bytes() == CONTENT


def test_a_repository_that_stays_broken_is_given_up_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        repository(monkeypatch, [500]) as requests,
        pytest.raises(LocalStackError, match=r"in 4 attempts \(status 500\); check the network"),
    ):
        fetch([JAR], folder=tmp_path)

    assert len(requests) == jars.DOWNLOAD_ATTEMPTS


def test_a_jar_that_the_repository_lacks_is_asked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        repository(monkeypatch, [404]) as requests,
        pytest.raises(LocalStackError, match="could not be downloaded: status 404"),
    ):
        fetch([JAR], folder=tmp_path)

    assert len(requests) == 1


def test_no_network_is_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jars, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setenv(jars.MAVEN_URL_VARIABLE, f"http://{LOCALHOST}:{free_port()}")

    with pytest.raises(LocalStackError, match=r"Connection refused.*MIGRATION_PLATFORM_MAVEN_URL"):
        fetch([JAR], folder=tmp_path)


# --- the stack, with a server that is a line of Python ---

LISTENS = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        server.accept()[0].close()
"""
IGNORES_SIGTERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{LISTENS}"
NEVER_LISTENS = "import time; time.sleep(60)"
DIES = "print('no luck'); raise SystemExit(3)"


@dataclass(frozen=True, kw_only=True)
class Line(Server):
    name = "line"
    default_port = 15999
    disk_mb = 1
    ready_within_seconds = 30

    program: str = LISTENS
    memory: int = 1

    @property
    def memory_mb(self) -> int:
        return self.memory

    def prepare(self, *, folder: Path, port: int, jars: Sequence[Path], log: Path) -> Launch:
        return Launch(command=(sys.executable, "-c", self.program, str(port)))

    def answers(self, port: int) -> bool:
        return True


@pytest.fixture(autouse=True)
def line_is_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "SERVERS", {**SERVERS, "line": Line})


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for name in stack.SERVERS:
        stop(name, home=tmp_path)


def state_of(name: str, home: Path) -> str:
    return next(row.state for row in status(home=home) if row.name == name)


def write_state(server: Running, home: Path) -> None:
    fields = {
        "name": server.name,
        "pid": server.pid,
        "create_time": server.create_time,
        "port": server.port,
        "options": server.options,
        "ready": server.ready,
    }
    (home / server.name).mkdir(exist_ok=True)
    (home / server.name / "state.json").write_text(json.dumps(fields))


def test_a_free_port_can_be_listened_on_and_a_taken_one_cannot(home: Path) -> None:
    port = free_port()
    assert port_is_free(port)

    with running(Line(), home=home, port=port):
        assert not port_is_free(port)
        assert port_is_open(port)


def test_a_started_server_is_listed_with_its_address_and_gone_after_stop(home: Path) -> None:
    port = free_port()
    server = start(Line(), home=home, port=port)

    assert server.address == f"127.0.0.1:{port}"
    assert server.ready
    assert state_of("line", home) == "running"

    assert stop("line", home=home)
    assert state_of("line", home) == "stopped"
    assert not psutil.pid_exists(server.pid)
    assert not stop("line", home=home)


def test_a_second_start_finds_the_first_server(home: Path) -> None:
    first = start(Line(), home=home, port=free_port())
    lines: list[str] = []

    assert start(Line(), home=home, report=lines.append) == first
    assert lines == [f"line: already running on {first.address} (process {first.pid})"]


def test_starts_at_the_same_time_agree_on_one_server(home: Path) -> None:
    port = free_port()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: start(Line(), home=home, port=port), range(4)))

    assert len({server.pid for server in found}) == 1


def test_a_running_server_is_not_taken_for_one_on_another_port_or_with_other_options(
    home: Path,
) -> None:
    server = start(Line(), home=home, port=free_port())

    with pytest.raises(LocalStackError, match=f"line already runs on port {server.port}; end it"):
        start(Line(), home=home, port=free_port())
    with pytest.raises(LocalStackError, match="line already runs with other options; end it"):
        start(Line(memory=2), home=home)


def test_a_taken_port_is_named_with_its_owner_and_the_way_out(home: Path, tmp_path: Path) -> None:
    with running(Line(), home=tmp_path / "other") as other:
        message = (
            rf"Port {other.port} of 127\.0\.0\.1 is taken by process {other.pid} \(.+\); end"
            r" that, or start line on another one first, for example: migration-platform local up"
            r" line --port line=\d+$"
        )
        with pytest.raises(LocalStackError, match=message):
            start(Line(), home=home, port=other.port)

    assert state_of("line", home) == "stopped"


def test_two_servers_cannot_be_asked_for_on_one_port(home: Path) -> None:
    port = free_port()
    with pytest.raises(LocalStackError, match="Two servers cannot share a port"):
        start_all([Kafka(), Postgres()], home=home, ports={"kafka": port, "postgres": port})


def test_too_little_memory_is_said_with_both_numbers_before_anything_starts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "available_memory_mb", lambda: 700)

    with pytest.raises(LocalStackError, match="line need 701 MB of free memory and 700 MB are"):
        start(Line(memory=701), home=home, port=free_port())
    assert state_of("line", home) == "stopped"


def test_too_little_disk_is_said_with_both_numbers_before_anything_starts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "available_disk_mb", lambda folder: 0)

    with pytest.raises(LocalStackError, match="line need 1 MB of free disk and 0 MB are there in"):
        start(Line(), home=home, port=free_port())
    assert state_of("line", home) == "stopped"


def test_a_server_that_dies_while_it_starts_is_said_with_its_log(home: Path) -> None:
    with pytest.raises(LocalStackError) as raised:
        start(Line(program=DIES), home=home, port=free_port())

    log = home / "line" / "server.log"
    assert str(raised.value) == f"line ended with code 3 while it started; its log says why: {log}"
    assert log.read_text() == "no luck\n"
    assert state_of("line", home) == "dead"


def test_a_server_that_is_not_ready_in_time_is_left_running_and_its_log_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Line, "ready_within_seconds", 0)

    with pytest.raises(LocalStackError, match=r"line does not answer on .* after 0 s.*server\.log"):
        start(Line(program=NEVER_LISTENS), home=home, port=free_port())
    assert state_of("line", home) == "starting"


def test_a_start_waits_for_a_server_whose_starter_crashed(home: Path) -> None:
    ready = start(Line(), home=home, port=free_port())
    write_state(replace(ready, ready=False), home)
    assert state_of("line", home) == "starting"

    assert start(Line(), home=home) == ready
    assert state_of("line", home) == "running"


def test_a_failure_of_one_server_does_not_keep_the_others_from_starting(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(Line):
        name = "other"

    monkeypatch.setattr(stack, "SERVERS", {"line": Line, "other": Other})
    with pytest.raises(LocalStackError, match="line ended with code 3"):
        start_all(
            [Line(program=DIES), Other()],
            home=home,
            ports={"line": free_port(), "other": free_port()},
        )

    assert state_of("other", home) == "running"


def test_a_server_that_ignores_the_request_to_end_is_killed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "STOP_SECONDS", 0.3)
    server = start(Line(program=IGNORES_SIGTERM), home=home, port=free_port())
    lines: list[str] = []

    assert stop("line", home=home, report=lines.append)
    assert lines == [f"line: killed, it did not end by itself (process {server.pid})"]
    assert not psutil.pid_exists(server.pid)


def test_a_stranger_with_the_number_of_an_ended_server_is_left_alone(home: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", NEVER_LISTENS]) as stranger:
        started = psutil.Process(stranger.pid).create_time()
        write_state(
            Running(
                name="line",
                pid=stranger.pid,
                create_time=started - 60,
                port=free_port(),
                home=home,
                options=repr(Line()),
                ready=True,
            ),
            home,
        )

        assert state_of("line", home) == "dead"
        assert not stop("line", home=home)
        assert stranger.poll() is None
        assert state_of("line", home) == "stopped"
        stranger.kill()


# --- the command line ---


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["local", *arguments])
    return result.exit_code, result.output


def test_an_error_is_one_line_without_a_traceback(tmp_path: Path) -> None:
    with running(Line(), home=tmp_path / "other") as other:
        code, output = invoke(
            "up", "kafka", "--port", f"kafka={other.port}", "--home", str(tmp_path)
        )

    assert code == 1
    assert output.startswith(f"Error: Port {other.port} of 127.0.0.1 is taken by")
    assert output.count("\n") == 1


@pytest.mark.parametrize("value", ["kafka", "kafka=", "kafka=x", "kafka=0", "kafka=65536", "x=1"])
def test_a_port_option_that_makes_no_sense_is_refused(value: str) -> None:
    code, output = invoke("up", "--port", value)

    assert code == 2
    assert f"{value!r} is not NAME=PORT" in output


def test_status_in_json_names_every_server(tmp_path: Path) -> None:
    code, output = invoke("status", "--json", "--home", str(tmp_path))

    assert code == 0
    assert {name: row["state"] for name, row in json.loads(output).items()} == dict.fromkeys(
        stack.SERVERS, "stopped"
    )


# --- the real servers ---


def listening_addresses(server: Running) -> set[str]:
    connections = psutil.Process(server.pid).net_connections("tcp")
    return {
        connection.laddr[0].removeprefix("::ffff:")
        for connection in connections
        if connection.status == psutil.CONN_LISTEN
    }


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def tls_files(folder: Path) -> tuple[TlsFiles, trustme.CA]:
    authority = trustme.CA()
    certificate = authority.issue_cert(LOCALHOST)
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    pkcs8 = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    keystore = folder / "server.pem"
    keystore.write_bytes(pkcs8 + b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    truststore = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(truststore))
    return TlsFiles(keystore=keystore, truststore=truststore), authority


@contextmanager
def secure_session(port: int, authority: trustme.CA, password: str) -> Iterator[Session]:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    cluster = Cluster(
        [LOCALHOST],
        port=port,
        protocol_version=5,
        connect_timeout=PATIENCE_SECONDS,
        control_connection_timeout=PATIENCE_SECONDS,
        auth_provider=PlainTextAuthProvider("cassandra", password),
        ssl_context=context,
        ssl_options={"server_hostname": LOCALHOST},
        execution_profiles={
            EXEC_PROFILE_DEFAULT: ExecutionProfile(
                load_balancing_policy=WhiteListRoundRobinPolicy([LOCALHOST])
            )
        },
    )
    try:
        yield be_patient(cluster.connect())
    finally:
        cluster.shutdown()


def test_cassandra_with_passwords_and_tls_starts_once_and_a_kill_is_seen(home: Path) -> None:
    tls, authority = tls_files(home)
    description = Cassandra(
        password=True,
        tls=tls,
        num_tokens=4,
        partitioner="RandomPartitioner",
        settings={"batch_size_warn_threshold": "1KiB"},
        heap_mb=384,
    )
    server = start(description, home=home, port=free_port(), jars_folder=jars_folder())

    with secure_session(server.port, authority, "cassandra") as session:
        local = session.execute("SELECT partitioner, tokens FROM system.local").one()
        assert local.partitioner == "org.apache.cassandra.dht.RandomPartitioner"
        assert len(local.tokens) == 4
        setting = "SELECT value FROM system_views.settings WHERE name = %s"
        assert session.execute(setting, ["batch_size_warn_threshold"]).one().value == "1KiB"
    with pytest.raises(NoHostAvailable), secure_session(server.port, authority, "wrong"):
        pass
    assert listening_addresses(server) == {LOCALHOST}

    assert start(description, home=home, jars_folder=jars_folder()) == server

    os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: state_of("cassandra", home) == "dead")
    code, output = invoke("status", "--home", str(home))
    assert code == 0
    assert f"dead      {server.address}" in output
    assert f"log {server.log}" in output
    assert "Startup complete" in server.log.read_text()


def test_a_server_outlives_the_crash_of_its_starter_and_can_be_ended(home: Path) -> None:
    port = free_port()
    command = ["-c", "from migration_platform.cli import main; main()", "local", "up", "kafka"]
    with subprocess.Popen(
        [sys.executable, *command, "--home", str(home), "--port", f"kafka={port}"],
        env=os.environ | {stack.JARS_VARIABLE: str(jars_folder())},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as starter:
        wait_for((home / "kafka" / "state.json").exists)
        starter.kill()
    orphan = next(row.server for row in status(home=home) if row.name == "kafka")
    assert orphan is not None
    assert state_of("kafka", home) == "starting"

    found = start(Kafka(), home=home, port=port, jars_folder=jars_folder())
    assert found == replace(orphan, ready=True)
    topics = AdminClient({"bootstrap.servers": found.address}).list_topics(timeout=PATIENCE_SECONDS)
    assert len(topics.brokers) == 1
    assert listening_addresses(found) == {LOCALHOST}

    assert stop("kafka", home=home)
    assert state_of("kafka", home) == "stopped"
    assert port_is_free(port)


def test_dynamodb_and_postgres_start_side_by_side_and_answer(home: Path) -> None:
    ports = {"dynamodb": free_port(), "postgres": free_port()}
    dynamodb, postgres = start_all(
        [DynamoDb(heap_mb=256), Postgres()], home=home, ports=ports, jars_folder=jars_folder()
    )

    client = boto3.client(
        "dynamodb",
        endpoint_url=f"http://{dynamodb.address}",
        region_name="local",
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    client.create_table(
        TableName="numbers",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
    )
    client.put_item(TableName="numbers", Item={"id": {"N": "1"}})
    assert client.scan(TableName="numbers")["Items"] == [{"id": {"N": "1"}}]
    client.close()
    address = f"host={LOCALHOST} port={postgres.port} user=postgres"
    with psycopg.connect(address) as connection:
        connection.execute("CREATE TABLE numbers (id int)")
    assert listening_addresses(dynamodb) == listening_addresses(postgres) == {LOCALHOST}

    children = psutil.Process(postgres.pid).children()
    assert stop("postgres", home=home)
    assert not any(child.is_running() for child in children)

    start(Postgres(), home=home, port=ports["postgres"])
    with psycopg.connect(address) as connection:
        assert connection.execute("SELECT count(*) FROM numbers").fetchone() == (0,)


def test_neo4j_keeps_its_nodes_over_an_end_in_order(home: Path) -> None:
    server = start(Neo4j(heap_mb=256), home=home, port=free_port(), jars_folder=jars_folder())
    with GraphDatabase.driver(f"bolt://{server.address}") as driver:
        driver.execute_query("CREATE (:domain {channel: 'one'})")
    assert listening_addresses(server) == {LOCALHOST}

    lines: list[str] = []
    assert stop("neo4j", home=home, report=lines.append)
    assert lines == [f"neo4j: ended (process {server.pid})"]

    server = start(Neo4j(), home=home, port=server.port, jars_folder=jars_folder())
    with GraphDatabase.driver(f"neo4j://{server.address}") as driver:
        records, _, _ = driver.execute_query("MATCH (n:domain) RETURN n.channel AS channel")
        assert [record["channel"] for record in records] == ["one"]
