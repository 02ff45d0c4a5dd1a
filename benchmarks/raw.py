"""Writes ready-made requests straight to a socket: a client that costs next to nothing.

Protocol 4, whose frames are a header and a body. Requests are sent as soon as others are answered,
all that are due in one piece.
"""

# The driver carries no types: what is inferred from its attributes' first values is wrong.
# pyright: reportArgumentType=false, reportOperatorIssue=false

import socket
import time
from collections.abc import Sequence
from struct import Struct

from cassandra import ConsistencyLevel
from cassandra.query import PreparedStatement

_HEADER, _SHORT, _INT, _LONG = Struct(">BBhBi"), Struct(">H"), Struct(">i"), Struct(">q")
_VERSION, _STARTUP, _READY, _RESULT, _EXECUTE = 4, 0x01, 0x02, 0x08, 0x0A
_VALUES_AND_TIMESTAMP = 0x21
HEADER_BYTES = _HEADER.size
RECEIVE_BYTES = 1 << 18


def make_bodies(
    statement: PreparedStatement, rows: Sequence[bytes], consistency: str
) -> list[bytes]:
    """Make an EXECUTE of each row, all but its timestamp."""
    head = _SHORT.pack(len(statement.query_id)) + statement.query_id
    head += _SHORT.pack(getattr(ConsistencyLevel, consistency)) + bytes([_VALUES_AND_TIMESTAMP])
    head += _SHORT.pack(len(statement.column_metadata))
    return [head + row for row in rows]


class RawClient:
    """One connection."""

    def __init__(self, address: str, port: int):
        self._socket = socket.create_connection((address, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""
        options = {b"CQL_VERSION": b"3.0.0"}
        body = _SHORT.pack(len(options))
        for pair in options.items():
            body += b"".join(_SHORT.pack(len(text)) + text for text in pair)
        self._socket.sendall(_HEADER.pack(_VERSION, 0, 0, _STARTUP, len(body)) + body)
        while not self._answers(_READY):
            pass

    def close(self) -> None:
        self._socket.close()

    def write(self, bodies: Sequence[bytes], in_flight: int, pace: int | None = None) -> None:
        """Send all, and wait for the answers; at most `pace` a second.

        Raises:
            OSError: the server refused one.
        """
        free, sent, began = list(range(in_flight)), 0, time.monotonic()
        while sent < len(bodies) or len(free) < in_flight:
            due = len(bodies) if pace is None else int((time.monotonic() - began) * pace) + 1
            count = min(len(free), min(due, len(bodies)) - sent)
            if count > 0:
                now = time.time_ns() // 1000
                parts = []
                for body in bodies[sent : sent + count]:
                    header = _HEADER.pack(_VERSION, 0, free.pop(), _EXECUTE, len(body) + 8)
                    parts += (header, body, _LONG.pack(now))
                self._socket.sendall(b"".join(parts))
                sent += count
            if len(free) < in_flight:
                free += self._answers(_RESULT)
            elif sent < len(bodies) and pace is not None:
                time.sleep(max(0.0, began + sent / pace - time.monotonic()))

    def _answers(self, expected: int) -> list[int]:
        """Wait for answers; gives the streams that are free again."""
        received = self._socket.recv(RECEIVE_BYTES)
        if not received:
            raise OSError("the server has closed the connection")
        data, at, found = self._unread + received, 0, []
        while at + HEADER_BYTES <= len(data):
            _, _, stream, opcode, size = _HEADER.unpack_from(data, at)
            if at + HEADER_BYTES + size > len(data):
                break
            if opcode != expected:
                raise OSError(f"the server answers with {opcode}: {data[at:][:200]!r}")
            found.append(stream)
            at += HEADER_BYTES + size
        self._unread = data[at:]
        return found
