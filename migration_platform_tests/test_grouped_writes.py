"""What of a copy arrives at Cassandra as one request, seen on the wire before the server."""

import re
import struct
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from migration_platform.local.stack import Running
from migration_platform_tests.dagster_project import DAGSTERS_OWN_WARNINGS, Move
from migration_platform_tests.servers import proxy_before

pytestmark = DAGSTERS_OWN_WARNINGS

STARTUP, EXECUTE, BATCH = 0x01, 0x0A, 0x0D
ENVELOPE = struct.Struct(">BBhBi")
"""Version, flags, stream, opcode and length of the body."""
SEGMENT_HEADER, SEGMENT_TRAILER = 6, 4
BATCHES, ROWS_A_BATCH = 12, 3
BATCH_ID = re.compile(rb"batch-\d{4}")


class Requests:
    """The requests with rows in them, as the server gets them: how many rows of each batch."""

    def __init__(self) -> None:
        self.rows: list[Counter[str]] = []

    def listen(self) -> Callable[[bytes], None]:
        """Begin to hear what one connection sends."""
        reader = self._read()
        next(reader)
        return reader.send

    def _read(self) -> Generator[None, bytes, None]:
        """Read the native protocol 5 without compression: its envelopes, later in segments."""
        wire = envelopes = b""
        framed = False
        while True:
            wire += yield
            if framed:
                payloads, wire = _open_segments(wire)
                envelopes += payloads
            else:
                envelopes, wire = envelopes + wire, b""
            while len(envelopes) >= ENVELOPE.size:
                version, _, _, opcode, length = ENVELOPE.unpack_from(envelopes)
                end = ENVELOPE.size + length
                if len(envelopes) < end:
                    break
                self._note(opcode, envelopes[ENVELOPE.size : end])
                envelopes = envelopes[end:]
                # The client waits for the answer to this one, and sends segments then.
                framed = framed or (opcode == STARTUP and version == 5)

    def _note(self, opcode: int, body: bytes) -> None:
        rows = Counter(found.decode() for found in BATCH_ID.findall(body))
        if rows and opcode in (EXECUTE, BATCH):
            self.rows.append(rows)


def _open_segments(wire: bytes) -> tuple[bytes, bytes]:
    """Give what whole segments hold, and what is left of the next one."""
    payloads = b""
    while len(wire) >= SEGMENT_HEADER:
        size = int.from_bytes(wire[:3], "little") & 0x1FFFF
        end = SEGMENT_HEADER + size + SEGMENT_TRAILER
        if len(wire) < end:
            break
        payloads += wire[SEGMENT_HEADER : SEGMENT_HEADER + size]
        wire = wire[end:]
    return payloads, wire


@pytest.fixture
def requests(move: Move, cassandra: Running) -> Iterator[Requests]:
    """What arrives at the target's cluster, of enrolments that the origin has user by user."""
    move.execute("TRUNCATE {origin}")
    for user in range(ROWS_A_BATCH):
        for batch in range(BATCHES):
            move.execute(
                "INSERT INTO {origin} (userid, courseid, batchid, progress) "
                f"VALUES ('user-{user}-{batch % 3}', 'c', 'batch-{batch:04d}', {user})"
            )
    seen = Requests()
    with proxy_before(cassandra.port, lambda chunk: chunk, seen.listen) as proxy:
        stores = {
            name: {"contact_points": ["127.0.0.1"], "port": port}
            for name, port in (("sunbird", cassandra.port), ("reports", proxy.port))
        }
        move.project.declare("stores", "Stores", cassandra=stores)
        yield seen


def copy(move: Move, **attributes: Any) -> None:
    move.declare(token_ranges=1, **attributes)
    move.project.run("00-of-1", assets=[move.target]).assert_success()
    move.assert_same_rows()


def test_rows_of_one_batch_are_one_request_and_no_request_mixes_batches(
    move: Move, requests: Requests
) -> None:
    copy(move, group_writes_by=["batchid"], batch_across_partitions=False)

    assert all(len(rows) == 1 for rows in requests.rows)
    arrived = Counter(rows.total() for rows in requests.rows)
    assert arrived == {ROWS_A_BATCH: BATCHES}


def test_batches_may_share_a_request_and_none_is_torn_apart(move: Move, requests: Requests) -> None:
    copy(move, group_writes_by=["batchid"])

    assert len(requests.rows) < BATCHES
    together = [number for rows in requests.rows for number in rows.values()]
    assert together == [ROWS_A_BATCH] * BATCHES


def test_without_grouping_each_row_is_a_request_of_its_own(move: Move, requests: Requests) -> None:
    copy(move, group_writes_by=[])

    assert [rows.total() for rows in requests.rows] == [1] * (BATCHES * ROWS_A_BATCH)
