"""How many requests are under way: as many as a server can use, whether it is near, far or busy."""

import heapq
import random
import socket
import time
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration_platform.cql.rows import UNSET, join_cells
from migration_platform.pacing.rate import RateBudget
from migration_platform.stores.cassandra import reads as stores
from migration_platform.stores.cassandra import window as windows
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.cassandra.reads import prepare_range_read, read_pages
from migration_platform.stores.cassandra.tables import describe_table
from migration_platform.stores.cassandra.window import LARGEST_SIZE, LEAST_SIZE, Window
from migration_platform.stores.cassandra.writes import Writer, prepare_insert
from migration_platform.token_ranges import split_ring
from migration_platform_tests.servers import proxy_before
from migration_platform_tests.tables import create_table, fill


@dataclass(frozen=True)
class Server:
    """Answers requests one after another, `rate` a second, and each so many seconds later."""

    rate: float
    distance_seconds: float


def simulate(server: Server, clients: list[Window], *, until: float) -> float:
    """Let clients send all that their windows let pass; give what part of the rate was used.

    Only the second half of the time counts, when the windows have settled.
    """
    rng = random.Random(1)
    under_way = dict.fromkeys(range(len(clients)), 0)
    answers: list[tuple[float, int, float]] = []
    now = free_at = looked_at = 0.0
    answered = 0
    while now < until:
        for client, window in enumerate(clients):
            while under_way[client] < window.room(now):
                under_way[client] += 1
                free_at = max(free_at, now) + rng.expovariate(server.rate)
                delay = server.distance_seconds * rng.uniform(0.7, 1.3)
                heapq.heappush(answers, (free_at + delay, client, now))
        # A slot may begin while nothing is answered.
        if answers[0][0] > looked_at + 0.05:
            now = looked_at = looked_at + 0.05
            continue
        now, client, sent = heapq.heappop(answers)
        under_way[client] -= 1
        answered += now > until / 2
        clients[client].note(sent, now)
    return answered / (until / 2) / server.rate


@pytest.mark.parametrize("clients", [1, 2, 4])
@pytest.mark.parametrize(
    "server",
    [Server(1000, 0.003), Server(1000, 0.1), Server(300, 0.1)],
    ids=["near", "far", "slow and far"],
)
def test_a_server_is_used_to_the_full_without_a_long_queue(server, clients):
    sizes = [Window() for _ in range(clients)]

    assert simulate(server, sizes, until=40.0) > 0.9

    needed = server.rate * server.distance_seconds
    together = sum(window.size for window in sizes)
    assert together < max(4 * needed, 1.01 * LEAST_SIZE * clients, 16)


def test_a_far_server_gets_more_requests_than_a_near_one():
    near, far = Window(), Window()

    simulate(Server(1000, 0.003), [near], until=40.0)
    simulate(Server(1000, 0.1), [far], until=40.0)

    assert near.size < 16 < 100 < far.size


def test_a_client_that_never_waits_for_room_learns_nothing():
    window = Window(40)

    assert {window.room(moment / 10) for moment in range(1, 100)} == {20, 40}
    assert window.size == 40


def test_an_overload_halves_the_number_once_for_all_that_was_sent_before():
    window = Window(64)

    window.overload(10.0)
    window.overload(10.1)

    assert window.size == 32
    window.overload(11.0)
    assert window.size == 16


@settings(max_examples=200)
@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e3), st.booleans()), max_size=300))
def test_whatever_the_latencies_are_the_number_keeps_its_bounds(requests):
    window = Window()
    for sent, latency, failed in sorted(requests):
        window.note(sent, sent + latency)
        if failed:
            window.overload(sent + latency)

    assert LEAST_SIZE <= window.size <= LARGEST_SIZE
    assert 1 <= window.room(0.0) <= window.room(0.3) <= LARGEST_SIZE


def test_writing_to_a_far_server_ends_with_more_requests_under_way(
    cassandra, connection, keyspace, monkeypatch
):
    monkeypatch.setattr(windows, "SLOT_SECONDS", 0.06)
    name = create_table(connection, keyspace, "far", "k int PRIMARY KEY, v int")
    table = describe_table(connection, name)

    def answer_late(chunk: bytes) -> bytes:
        time.sleep(0.02)
        return chunk

    with (
        proxy_before(cassandra.port, answer_late) as proxy,
        Connection(CassandraSettings(port=proxy.port)) as far,
    ):
        writer = Writer(
            far,
            [prepare_insert(far, table, ("k", "v"), using="", retry_seconds=10.0)],
            table,
            consistency="ONE",
            budget=RateBudget(get_context("spawn")),
            retry_seconds=10.0,
            on_retry=lambda error: None,
        )
        began, number = time.monotonic(), 0
        for number in count():
            row = [number.to_bytes(4, "big"), b"\0\0\0\1"]
            writer.write_group([join_cells(row, UNSET)], None)
            if far.window.size > 32 or time.monotonic() - began > 30:
                break
        writer.flush()

    assert far.window.size > 32
    assert writer.rows_written == number + 1


def test_no_request_waits_for_the_acknowledgement_of_the_one_before(connection):
    sockets = [
        each._socket for pool in connection.session.get_pools() for each in pool.get_connections()
    ]

    assert sockets
    assert all(each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in sockets)


def test_a_server_that_is_slow_with_a_page_is_asked_for_smaller_ones(
    cassandra, connection, keyspace, monkeypatch
):
    monkeypatch.setattr(stores, "SLOW_PAGE_SECONDS", 0.05)
    name = create_table(connection, keyspace, "slow", "k int PRIMARY KEY, v int")
    fill(connection, name, "k, v", [(k, k) for k in range(300)])
    delays = iter([0.2, 0.2])

    def answer_late(chunk: bytes) -> bytes:
        # What belongs to connecting and preparing is not held up.
        time.sleep(next(delays, 0.0) if reading else 0.0)
        return chunk

    reading = False
    with (
        proxy_before(cassandra.port, answer_late) as proxy,
        Connection(CassandraSettings(port=proxy.port)) as slow,
    ):
        table = describe_table(slow, name)
        read = prepare_range_read(slow, table, ("k", "v"), retry_seconds=10.0)
        reading = True
        pages = list(
            read_pages(
                slow,
                read,
                split_ring(1)[0],
                consistency="ONE",
                fetch_size=100,
                budget=RateBudget(get_context("spawn")),
                retry_seconds=10.0,
                on_retry=lambda error: None,
            )
        )

    assert sum(page.row_count for page in pages) == 300
    assert pages[0].row_count == 100
    # The page after it was under way already.
    assert min(page.row_count for page in pages[2:-1]) < 30
