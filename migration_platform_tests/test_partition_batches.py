"""Requests of several partitions: what they may hold, what the server says of them."""

import multiprocessing
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_platform.pacing.rate import RateBudget
from migration_platform.stores.cassandra.tables import describe_table
from migration_platform.stores.cassandra.writes import (
    BATCH_BYTES,
    BATCH_PARTITIONS,
    Chunk,
    Item,
    Writer,
    join_chunks,
    prepare_insert,
)
from migration_platform_tests.tables import copy_table, create_table, fill, rows_of

ROWS = 400
LARGEST_BYTES = 432
"""Of a value, if ten rows of it are to fit."""


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(1, BATCH_BYTES + 900))),
    st.integers(1, 12),
)
def test_no_row_is_lost_or_doubled_or_overtaken_and_no_limit_passed(found, most):
    chunks = [
        (place, Chunk([b"%d" % number] * rows, rows, size, b"%d" % number))
        for number, (place, rows, size) in enumerate(found)
    ]
    place_of: dict[Item | None, int] = {chunk.routing_key: place for place, chunk in chunks}
    given_items = [item for _, chunk in chunks for item in chunk.items]
    size = sum(chunk.size for _, chunk in chunks)

    joined = list(join_chunks(chunks, most))

    items = [item for chunk in joined for item in chunk.items]
    assert Counter(items) == Counter(given_items)
    for place in range(4):
        assert [item for item in items if place_of[item] == place] == [
            item for item in given_items if place_of[item] == place
        ]
    for chunk in joined:
        assert chunk.partitions <= most
        assert chunk.size <= BATCH_BYTES or chunk.partitions == 1
        assert chunk.rows == len(chunk.items)
        assert len(set(chunk.items)) <= chunk.partitions
        assert {place_of[item] for item in chunk.items} <= {place_of[chunk.routing_key]}
    assert sum(chunk.partitions for chunk in joined) == len(chunks)
    assert sum(chunk.size for chunk in joined) == size


def test_small_partitions_share_their_requests_and_large_ones_do_not():
    few = [(0, Chunk([b""], 1, 100, None)) for _ in range(25)]
    large = [(0, Chunk([b""], 1, BATCH_BYTES // 2 + 1, None)) for _ in range(3)]
    assert [chunk.partitions for chunk in join_chunks(few)] == [10, 10, 5]
    assert [chunk.partitions for chunk in join_chunks(large)] == [1, 1, 1]


@pytest.fixture
def sent(connection, monkeypatch):
    """What is sent to the server while a test runs, reads left out."""
    futures, send = [], connection.send

    def note(message, **options):
        future = send(message, **options)
        if hasattr(message, "items"):
            futures.append(future)
        return future

    monkeypatch.setattr(connection, "send", note)
    return futures


def test_a_copy_in_shared_requests_gives_the_same_table(connection, reader, keyspace, sent):
    origin = create_table(connection, keyspace, "a", "k int, c int, v text, PRIMARY KEY (k, c)")
    body = "c int, k int, v text, s text static, PRIMARY KEY (c, k)"
    target, other = (create_table(connection, keyspace, name, body) for name in "bc")
    fill(connection, origin, "k, c, v", [(n % 2, n // 2, "x" * (n % 50)) for n in range(ROWS)])

    counts = copy_table(connection, origin, target, token_ranges=1)
    together = len(sent)
    copy_table(connection, origin, other, token_ranges=1, batch_across_partitions=False)

    assert (counts.written, counts.retries) == (ROWS, 0)
    assert (together, len(sent) - together) == (ROWS // 2 // BATCH_PARTITIONS, ROWS // 2)
    assert all(not future.warnings for future in sent)
    assert rows_of(reader, target) == rows_of(reader, other)
    assert [(row["k"], row["c"], row["v"]) for row in rows_of(reader, target)] == [
        (row["k"], row["c"], row["v"]) for row in rows_of(reader, origin)
    ]


def test_static_cells_share_requests_too(connection, reader, keyspace, sent):
    body = "k int, c int, s text static, v int, PRIMARY KEY (k, c)"
    origin, target = (create_table(connection, keyspace, name, body) for name in "ab")
    fill(connection, origin, "k, s", [(n, f"s{n}") for n in range(30)])
    fill(connection, origin, "k, c, v", [(n % 30, n, n) for n in range(60)])

    counts = copy_table(connection, origin, target, token_ranges=1)

    assert (counts.written, counts.statics) == (60, 30)
    assert len(sent) == 2 * 30 // BATCH_PARTITIONS
    assert rows_of(reader, target) == rows_of(reader, origin)


@pytest.mark.parametrize("large", [False, True])
def test_a_server_warns_of_nothing_within_the_limits(connection, keyspace, sent, large):
    name = create_table(connection, keyspace, "a", "k int PRIMARY KEY, v blob")
    table = describe_table(connection, name)
    statement = prepare_insert(connection, table, ("k", "v"), using="", retry_seconds=5)
    writer = Writer(
        connection,
        [statement],
        table,
        consistency="ONE",
        budget=RateBudget(multiprocessing.get_context("spawn")),
        retry_seconds=5,
        on_retry=lambda error: None,
    )

    def write(size: int, most: int = BATCH_PARTITIONS) -> tuple[int, bool]:
        """Give the number of requests, and whether the server warned of one."""
        sent.clear()
        value = b"\0\0\0\4%b" + size.to_bytes(4, "big") + b"x" * size
        keys = (number.to_bytes(4, "big") for number in range(3 * BATCH_PARTITIONS))
        writer.write_groups(((0, None, [value % key]) for key in keys), most)
        writer.flush()
        return len(sent), any(future.warnings for future in sent)

    assert write(LARGEST_BYTES if large else 1) == (3, False)
    if large:
        # What does not fit goes into one more.
        assert write(LARGEST_BYTES + 1) == (4, False)
    else:
        assert write(1, BATCH_PARTITIONS + 1) == (3, True)
