"""What a user meets before the first row: stores that cannot be reached, and why, in a sentence."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from migration_platform.errors import PreflightError, TransientError, is_transient
from migration_platform.local.ports import LOCALHOST, free_port
from migration_platform.pacing.retries import connect_patiently
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.dynamodb.connection import DynamoDbSettings
from migration_platform_tests.dagster_project import DAGSTERS_OWN_WARNINGS, Move
from migration_platform_tests.servers import PATIENCE_SECONDS
from migration_platform_tests.tables import (
    copy_ranges,
    create_table,
    fill,
    in_process,
    plan_copy,
    rows_of,
)

NATIVE_PORT = "set the store's port to that of Cassandra's native protocol, by default 9042"
NO_ADDRESS = (
    "no address is known for nobody.invalid; correct the store's contact_points, or make the "
    "name known to this machine"
)


@contextmanager
def answering(answer: Callable[[socket.socket], object], port: int = 0) -> Iterator[int]:
    """Listen on a port, and do with each client what `answer` does before it is sent away."""
    listener = socket.create_server((LOCALHOST, port))
    threads: list[threading.Thread] = []

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError):
            answer(client)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threads.append(threading.Thread(target=serve, args=(client,), daemon=True))
                threads[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in (accepting, *threads):
            thread.join(PATIENCE_SECONDS)


def pass_on(client: socket.socket, server_port: int) -> None:
    """Stand between a client and a server, until one of them hangs up."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(65_536):
                sink.sendall(chunk)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    with socket.create_connection((LOCALHOST, server_port)) as server:
        back = threading.Thread(target=pump, args=(server, client), daemon=True)
        back.start()
        pump(client, server)
        back.join(PATIENCE_SECONDS)


@contextmanager
def http_server() -> Iterator[int]:
    """The server of Python's own library, which answers when a line has ended."""

    class Quiet(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((LOCALHOST, 0), Quiet)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refusal(settings: CassandraSettings) -> PreflightError:
    with pytest.raises(PreflightError) as refused:
        Connection(settings)
    return refused.value


def assert_refused(settings: CassandraSettings, told: str, *, for_good: bool) -> None:
    """Assert the whole sentence, and whether trying again may help."""
    error = refusal(settings)
    assert str(error) == f"cannot connect to {settings}: {told}"
    assert (error.__cause__ is None or not is_transient(error.__cause__)) == for_good


# -- each mistake has its sentence --------------------------------------------------------------


def test_a_host_name_that_nobody_knows_is_named():
    settings = CassandraSettings(contact_points=("nobody.invalid",))
    # Names of a cluster that is just being started come up a little later.
    assert_refused(settings, NO_ADDRESS, for_good=False)


def test_a_name_that_can_be_none_of_a_host_is_refused_for_good():
    assert_refused(
        CassandraSettings(contact_points=("10.0.0..1",)),
        "a name in the store's contact_points cannot be the name of a host",
        for_good=True,
    )


def test_of_several_names_the_unknown_one_is_named_beside_the_host_that_does_not_answer():
    with socket.create_server((LOCALHOST, 0)) as listener:
        port = listener.getsockname()[1]
    settings = CassandraSettings(contact_points=("nobody.invalid", LOCALHOST), port=port)
    message = str(refusal(settings))
    assert message.startswith(f"cannot connect to {settings}: no host answered (127.0.0.1:{port}: ")
    assert message.endswith(f"Connection refused); {NO_ADDRESS}")


def test_an_unknown_name_beside_a_host_that_answers_is_no_mistake(cassandra):
    names = ("nobody.invalid", LOCALHOST)
    with Connection(CassandraSettings(contact_points=names, port=cassandra.port)) as connection:
        assert connection.host_count == 1


def test_a_wrong_datacenter_is_told_with_those_that_there_are(cassandra):
    settings = CassandraSettings(port=cassandra.port, local_datacenter="dc_of_elsewhere")
    assert_refused(
        settings,
        "the cluster has no datacenter dc_of_elsewhere; set the store's local_datacenter to one "
        "of its own: datacenter1",
        for_good=True,
    )


def test_the_right_datacenter_is_taken(cassandra):
    with Connection(CassandraSettings(port=cassandra.port, local_datacenter="datacenter1")) as it:
        assert it.host_count == 1


def test_no_user_where_one_is_asked_for_is_told_with_the_attributes(guarded_cassandra):
    assert_refused(
        CassandraSettings(port=guarded_cassandra.port),
        "the server asks who is there; give the store a username and a password",
        for_good=True,
    )


def test_no_password_is_told_beside_the_refusal(guarded_cassandra):
    assert_refused(
        CassandraSettings(port=guarded_cassandra.port, username="cassandra"),
        "the server refused the user name or the password; the store gives no password",
        for_good=True,
    )


def test_an_http_server_is_told_from_cassandra():
    with http_server() as port:
        assert_refused(
            CassandraSettings(port=port),
            f"an HTTP server answers there, and no Cassandra; {NATIVE_PORT}",
            for_good=True,
        )


def test_a_kafka_broker_waits_for_more_and_the_port_is_doubted(kafka):
    assert_refused(
        CassandraSettings(port=kafka.port),
        f"no host answered (127.0.0.1:{kafka.port}: the server did not answer in time); if what "
        f"is there is no Cassandra, {NATIVE_PORT}",
        for_good=False,
    )


def test_a_server_that_hangs_up_may_demand_tls_or_be_none_of_cassandra():
    with answering(lambda client: client.recv(100)) as port:
        assert_refused(
            CassandraSettings(port=port),
            "the server hangs up without an answer; if it demands TLS, give the store a tls "
            f"block, and if it is no Cassandra, {NATIVE_PORT}",
            for_good=False,
        )


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            b"-ERR unknown command\r\n",
            f"another kind of server answers there, and no Cassandra; {NATIVE_PORT}",
        ),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            f"an HTTP server answers there, and no Cassandra; {NATIVE_PORT}",
        ),
        (b"\x15\x03\x03\x00\x02\x02\x0a", "the server demands TLS, give the store a tls block"),
    ],
    ids=["lines", "http", "tls alert"],
)
def test_what_a_strange_server_answers_says_what_it_is(answer: bytes, told: str):
    def reply(client: socket.socket) -> None:
        client.recv(100)
        client.sendall(answer)

    with answering(reply) as port:
        assert_refused(CassandraSettings(port=port), told, for_good=True)


# -- a store that comes a little later ----------------------------------------------------------


@contextmanager
def late(server_port: int, until: Callable[[], object]) -> Iterator[int]:
    """Give a port on which nobody listens at first, and a server as soon as something is so."""
    port = free_port()
    over = threading.Event()

    def listen() -> None:
        while not until():
            if over.wait(0.2):
                return
        with answering(lambda client: pass_on(client, server_port), port):
            over.wait()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        over.set()
        thread.join(PATIENCE_SECONDS)


def test_a_store_that_comes_late_is_waited_for_and_each_refusal_is_told(cassandra):
    told: list[str] = []
    with late(cassandra.port, told.copy) as port:
        settings = CassandraSettings(port=port)
        with connect_patiently(settings.connect, PATIENCE_SECONDS, told.append) as connection:
            assert connection.host_count == 1
    assert told
    assert all(refusal.startswith(f"cannot connect to {settings}: no host") for refusal in told)


def test_a_store_that_does_not_come_is_given_up_with_the_number_of_tries():
    told: list[str] = []
    settings = CassandraSettings(contact_points=("nobody.invalid",))
    with pytest.raises(TransientError) as given_up:
        connect_patiently(settings.connect, 1.0, told.append)
    assert str(given_up.value) == (
        f"cannot connect to {settings}: {NO_ADDRESS}, after {len(told) + 1} tries in 1 s"
    )
    assert len(told) >= 2


def test_dynamodb_that_comes_late_is_waited_for(dynamodb, aws_environment):
    told: list[str] = []
    with late(dynamodb.port, told.copy) as port:
        settings = DynamoDbSettings(f"http://{LOCALHOST}:{port}", "us-east-1")
        with connect_patiently(settings.connect, PATIENCE_SECONDS, told.append) as connection:
            assert connection.region == "us-east-1"
    assert told
    assert all("cannot be reached; check the store's region" in refusal for refusal in told)


AGAIN = "Connecting: trying again"


class TestRuns:
    pytestmark = DAGSTERS_OWN_WARNINGS

    @pytest.mark.parametrize("store", ["sunbird", "reports"])
    def test_a_run_waits_for_a_store_that_comes_late_and_logs_why(self, move: Move, store: str):
        here = {"contact_points": [LOCALHOST], "port": move.connection.settings.port}
        move.declare(retry_seconds=PATIENCE_SECONDS)

        def is_told() -> bool:
            runs = move.project.runs()
            return any(AGAIN in move.project.messages_of(run.run_id) for run in runs)

        with late(move.connection.settings.port, is_told) as port:
            stores = {"sunbird": here, "reports": here, store: {**here, "port": port}}
            move.project.declare("stores", "Stores", cassandra=stores)
            run = move.project.run().assert_success()
        move.assert_same_rows()
        log = move.project.messages_of(run.run_id)
        refusal = f"cannot connect to 127.0.0.1 port {port}: no host answered (127.0.0.1:{port}: "
        assert f"{AGAIN}: {refusal}" in log


# -- an older Cassandra -------------------------------------------------------------------------

REFUSALS_OF_VERSION_5 = {
    "3.11": "Beta version of the protocol used (5/v5-beta), but USE_BETA flag is unset",
    "3.0": (
        "Invalid or unsupported protocol version (5); the lowest supported version is 3 and the "
        "greatest is 4"
    ),
}


@contextmanager
def as_older(server_port: int, told: str, answers_in: int) -> Iterator[int]:
    """Stand before a server, and refuse version 5 of the protocol as an older Cassandra does."""

    def refuse_or_pass(client: socket.socket) -> None:
        first = client.recv(1, socket.MSG_PEEK)
        if first and first[0] == 5:
            client.recv(9)
            body = (10).to_bytes(4, "big") + len(told).to_bytes(2, "big") + told.encode()
            head = bytes((0x80 | answers_in, 0, 0, 0, 0))
            client.sendall(head + len(body).to_bytes(4, "big") + body)
            client.recv(1)
            return
        pass_on(client, server_port)

    with answering(refuse_or_pass) as port:
        yield port


@pytest.mark.parametrize("answers_in", [4, 5])
@pytest.mark.parametrize("release", REFUSALS_OF_VERSION_5)
def test_an_older_cassandra_is_spoken_to_in_version_4_and_copied_from(
    cassandra, connection, reader, keyspace, release, answers_in
):
    body = "k int PRIMARY KEY, v text"
    origin = create_table(connection, keyspace, "a", body)
    target = create_table(connection, keyspace, "b", body)
    fill(connection, origin, "k, v", [(n, f"v{n}") for n in range(100)])
    with (
        as_older(cassandra.port, REFUSALS_OF_VERSION_5[release], answers_in) as port,
        Connection(CassandraSettings(port=port)) as older,
    ):
        assert older.protocol_version == 4
        plan = plan_copy(connection, origin, target, token_ranges=2)
        counts = copy_ranges(in_process(plan, older, connection))
    assert (counts.read, counts.written, counts.complete) == (100, 100, True)
    assert rows_of(reader, target) == rows_of(reader, origin)
