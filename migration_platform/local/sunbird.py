"""A stand-in of Sunbird's sync and search APIs with an index behind them, for demo and tests.

It is no Sunbird: it answers as Sunbird's lms service of 2019 does, and its index is a dict. A sync
is answered at once; the rows are read and indexed afterwards, one request after the other.
"""

import argparse
import hmac
import json
import logging
import os
import signal
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from migration_platform.local.cassandra import Cassandra
from migration_platform.local.ports import LOCALHOST
from migration_platform.local.sunbird_service import SUNBIRD_KEY_VARIABLE

if TYPE_CHECKING:
    from migration_platform.stores.cassandra.connection import Connection

SYNC_PATH = "/v1/data/sync"
SYNC_TYPES = ("user", "organisation", "batch", "user_course")
SEARCH_PATHS = {
    "user": "/v1/user/search",
    "batch": "/v1/course/batch/list",
    "organisation": "/v1/org/search",
}
# As a gateway publishes them.
_PUBLIC_PATHS = {
    "/api/data/v1/index/sync": SYNC_PATH,
    "/api/user/v1/search": SEARCH_PATHS["user"],
    "/api/course/v1/batch/list": SEARCH_PATHS["batch"],
    "/api/org/v1/search": SEARCH_PATHS["organisation"],
}
MAX_BODY_BYTES = 64 << 20
_LOG = logging.getLogger(__name__)

Document = Mapping[str, Any]
ReadRows = Callable[[str, Sequence[str] | None], Mapping[str, Document]]
"""Gives the documents of an object type by id, as they are in the database now; None: of all."""


@dataclass(frozen=True)
class Received:
    """A request that came; `at` is a second of the monotonic clock, `body` parsed JSON or None."""

    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: Any
    at: float
    connection: int

    @property
    def request(self) -> dict[str, Any]:
        """The inner request; empty if there is none."""
        inner = self.body.get("request") if isinstance(self.body, dict) else None
        return inner if isinstance(inner, dict) else {}

    @property
    def ids(self) -> list[str]:
        """The ids of a sync."""
        return self.request.get("objectIds") or []


@dataclass(frozen=True)
class Answer:
    """An answer; `length` is the Content-Length that it claims, None for the true one.

    With a negative one it claims none, and ends where the connection does.
    """

    status: int
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None


Fault = Callable[[Received, Callable[[], Answer]], Answer | None]
"""What happens to a request: it may be carried out or not; None resets the connection."""


class Sunbird:
    """A running stand-in. `index` has the documents by object type, `received` all requests.

    `synced_everything` counts the requests without ids, each of which indexed every row.
    """

    def __init__(
        self,
        read_rows: ReadRows,
        api_key: str,
        *,
        port: int = 0,
        index_delay_seconds: float = 0.0,
        fault: Fault | None = None,
        tls: ssl.SSLContext | None = None,
    ):
        """Start on 127.0.0.1, on a free port unless one is given."""
        self.fault = fault
        self.received: list[Received] = []
        self.index: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in SYNC_TYPES}
        self.synced_everything = 0
        self.index_delay_seconds = index_delay_seconds
        self._read_rows = read_rows
        self._api_key = api_key
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[tuple[str, list[str] | None] | None] = SimpleQueue()
        self._idle = threading.Condition(self._lock)
        self._waiting = 0
        self._server = _Server((LOCALHOST, port), _handler_of(self))
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://{LOCALHOST}:{self.port}"
        self.sync_url = self.url + SYNC_PATH
        self.search_urls = {kind: self.url + path for kind, path in SEARCH_PATHS.items()}
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True),
            threading.Thread(target=self._index_rows, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def syncs(self) -> list[Received]:
        """The requests to the sync API so far."""
        return [each for each in self.received if _path_of(each) == SYNC_PATH]

    def settle(self, seconds: float = 30.0) -> bool:
        """Wait until everything that was accepted is indexed; False if that takes too long."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._waiting, seconds)

    def read_again(self, kind: str, ids: list[str] | None = None) -> None:
        """Have rows indexed, all of them without ids; returns at once."""
        with self._lock:
            self._waiting += 1
        self._jobs.put((kind, ids))

    def stop_listening(self) -> None:
        """Free the port; what is under way goes on."""
        self._server.shutdown()
        self._server.server_close()

    def close(self) -> None:
        """Stop listening and indexing."""
        self.stop_listening()
        self._jobs.put(None)
        for thread in self._threads:
            thread.join(10)

    def _index_rows(self) -> None:
        while job := self._jobs.get():
            kind, ids = job
            if self.index_delay_seconds:
                time.sleep(self.index_delay_seconds)
            documents: Mapping[str, Document] = {}
            try:
                documents = self._read_rows(kind, ids)
            except Exception:
                # As Sunbird does, whose caller has had its answer long ago.
                _LOG.exception("cannot read the rows of %s", kind)
            with self._idle:
                # A document of a row that is gone stays, which Sunbird only logs.
                for row_id, document in documents.items():
                    self.index[kind][row_id] = dict(document)
                self._waiting -= 1
                self._idle.notify_all()

    # -- what the APIs answer; called by the threads of connections

    def answer(self, received: Received) -> Answer:
        """Carry out a request and give its answer."""
        path = _path_of(received)
        if not self._knows(received.headers):
            return _refusal(401, "UNAUTHORIZED_USER", "You are not authorized.")
        if received.body is None:
            return _refusal(400, "CLIENT_ERROR", "The request is no JSON.")
        if path == SYNC_PATH:
            return self._sync(received.request)
        for kind, search_path in SEARCH_PATHS.items():
            if path == search_path:
                return self._search(kind, received.request)
        return _refusal(404, "RESOURCE_NOT_FOUND", "There is no such API.")

    def answer_get(self, headers: Mapping[str, str]) -> Answer:
        """Refuse a GET, as a gateway does: for the key first, and then because no API takes one."""
        if not self._knows(headers):
            return _refusal(401, "UNAUTHORIZED_USER", "You are not authorized.")
        return _refusal(404, "RESOURCE_NOT_FOUND", "There is no such API.")

    def _knows(self, headers: Mapping[str, str]) -> bool:
        given = headers.get("Authorization", "")
        return hmac.compare_digest(given.encode(), f"Bearer {self._api_key}".encode())

    def _sync(self, request: dict[str, Any]) -> Answer:
        kind, ids = request.get("objectType"), request.get("objectIds")
        # The service validates only what is for Elasticsearch.
        if request.get("operationFor") not in (None, "keycloak"):
            if not isinstance(kind, str) or not kind:
                said = "Data type of objectType should be String."
                return _refusal(400, "UOS_0003", said)
            if ids is not None and not isinstance(ids, list):
                return _refusal(400, "UOS_0003", "Data type of objectIds should be List.")
            if kind not in SYNC_TYPES:
                return _refusal(400, "UOS_0072", "Invalid Object Type.")
        if kind in SYNC_TYPES:
            with self._lock:
                self.synced_everything += not ids
            self.read_again(kind, list(ids) if ids else None)
        return _success("api.data.sync", "SUCCESS")

    def _search(self, kind: str, request: dict[str, Any]) -> Answer:
        filters = request.get("filters")
        if not isinstance(filters, dict):
            return _refusal(400, "UOS_0003", "Data type of filters should be Map.")
        limit = request.get("limit", 250)
        with self._lock:
            found = [each for each in self.index[kind].values() if _matches(each, filters)]
        return _success("api.search", {"count": len(found), "content": found[:limit]})


@contextmanager
def serve_sunbird(read_rows: ReadRows, api_key: str, **options: Any) -> Iterator[Sunbird]:
    """Run a stand-in for the length of a `with` block; the options are those of `Sunbird`."""
    server = Sunbird(read_rows, api_key, **options)
    try:
        yield server
    finally:
        server.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Connections that clients keep would be waited for.
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell what went wrong, unless a client only went away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _handler_of(sunbird: Sunbird) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(sunbird.answer_get(dict(self.headers)))

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
                self.close_connection = True
                self._send(_refusal(413, "CLIENT_ERROR", "The request is too large."))
                return
            try:
                body = json.loads(self.rfile.read(int(length)))
            except (ValueError, RecursionError):
                body = None
            received = Received(
                self.path, dict(self.headers), body, time.monotonic(), self.client_address[1]
            )
            sunbird.received.append(received)
            fault = sunbird.fault
            with suppress(OSError):
                if fault is None:
                    self._send(sunbird.answer(received))
                else:
                    self._send(fault(received, lambda: sunbird.answer(received)))

        def _send(self, answer: Answer | None) -> None:
            if answer is None:
                # Without lingering a close is a reset.
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
                return
            length = len(answer.content) if answer.length is None else answer.length
            self.close_connection |= length != len(answer.content)
            head = f"HTTP/1.1 {answer.status} X\r\n"
            head += f"Content-Length: {length}\r\n" if length >= 0 else ""
            headers = {"Content-Type": "application/json", **answer.headers}
            head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            self.wfile.write(head.encode() + b"\r\n" + answer.content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002, as inherited
            pass

    return Handler


def _path_of(received: Received) -> str:
    path = received.path.partition("?")[0]
    return _PUBLIC_PATHS.get(path, path)


def _matches(document: Document, filters: Mapping[str, Any]) -> bool:
    """Say whether each filter's value, or one of them, is the field or an element of it."""
    for name, wanted in filters.items():
        held = document.get(name)
        values = held if isinstance(held, list | tuple | set) else [held]
        any_of = wanted if isinstance(wanted, list) else [wanted]
        if not any(value in any_of for value in values):
            return False
    return True


def _success(api: str, response: Any) -> Answer:
    return _envelope(200, api, None, "SUCCESS", None, "OK", {"response": response})


def _refusal(status: int, err: str, errmsg: str) -> Answer:
    code = "SERVER_ERROR" if status >= 500 else "CLIENT_ERROR"
    return _envelope(status, "api.data.sync", err, "FAILED", errmsg, code, {})


def _envelope(
    status: int,
    api: str,
    err: str | None,
    param_status: str,
    errmsg: str | None,
    response_code: str,
    result: dict[str, Any],
) -> Answer:
    now = datetime.now(UTC)
    told = {
        "id": api,
        "ver": "v1",
        "ts": now.strftime("%Y-%m-%d %H:%M:%S:") + f"{now.microsecond // 1000:03d}+0000",
        "params": {
            "resmsgid": "",
            "msgid": "",
            "err": err,
            "status": param_status,
            "errmsg": errmsg,
        },
        "responseCode": response_code,
        "result": result,
    }
    return Answer(status, json.dumps(told, default=str).encode())


# -- as a server of the local stack --------------------------------------------------------------

KEYSPACE = "sunbird"
CASSANDRA_SECONDS = 90.0
"""How long the reading of rows waits for a Cassandra that is still starting."""
TABLES = {"user": "user", "batch": "course_batch", "organisation": "organisation"}
FEW_IDS = 200
SECRETS = ("password", "temppassword")
_CASED_NAMES = """
    addedBy addressId contactDetail countryCode courseAdditionalInfo courseCreator courseId
    createdBy createdDate createdFor emailVerified endDate enrollmentType externalId firstName
    hashTagId homeUrl imgUrl isApproved isDefault isDeleted isRejected isRootOrg lastLoginTime
    lastName locationIds loginId noOfMembers orgCode orgJoinDate orgLeftDate orgName orgType
    organisationId parentOrgId phoneVerified preferredLanguage profileVisibility registryId
    rootOrgId startDate tncAcceptedOn tncAcceptedVersion updatedBy updatedDate userId userName
"""
_CASED = {name.lower(): name for name in _CASED_NAMES.split()}
"""The index writes names as Sunbird's code does, Cassandra in small letters."""


def read_documents(
    connection: "Connection", kind: str, ids: Sequence[str] | None, keyspace: str = KEYSPACE
) -> Mapping[str, Document]:
    """Read rows as documents of the index: a user's has its organisations."""
    from cassandra import InvalidRequest

    table = TABLES.get(kind)
    if table is None:
        return {}
    try:
        documents = {row["id"]: row for row in _rows(connection, f"{keyspace}.{table}", "id", ids)}
        if kind == "user":
            for row in documents.values():
                row["organisations"] = []
            # Past some users one scan is quicker than as many look-ups.
            of_users = list(documents) if ids and len(ids) <= FEW_IDS else None
            for row in _rows(connection, f"{keyspace}.user_org", "userid", of_users):
                if user := documents.get(row.get("userId")):
                    user["organisations"].append(row)
    except InvalidRequest:
        _LOG.warning("there is no table of %s in the keyspace %s yet", kind, keyspace)
        return {}
    return documents


def _rows(
    connection: "Connection", table: str, column: str, values: Sequence[str] | None
) -> Iterator[dict[str, Any]]:
    """Give a table's rows with one of the values, or all of them."""
    from cassandra.concurrent import execute_concurrent_with_args

    select = f"SELECT * FROM {table}"  # noqa: S608
    if values is None:
        results: Any = [connection.session.execute(select)]
    else:
        statement = connection.prepare(f"{select} WHERE {column} = ?")
        results = (
            found
            for _, found in execute_concurrent_with_args(
                connection.session, statement, [(value,) for value in values], concurrency=50
            )
        )
    for result in results:
        names: list[str] = result.column_names
        for row in result:
            yield {
                # The driver's maps are none that JSON knows.
                _CASED.get(name, name): dict(value) if isinstance(value, Mapping) else value
                for name, value in zip(names, row, strict=True)
                if value is not None and name not in SECRETS
            }


def _connect(home: Path) -> "Connection":
    """Connect to the home's Cassandra, once it is there.

    Raises:
        PreflightError: it is not.
    """
    from migration_platform.errors import PreflightError
    from migration_platform.local.stack import status
    from migration_platform.stores.cassandra.connection import CassandraSettings

    deadline = time.monotonic() + CASSANDRA_SECONDS
    while True:
        for found in status(home=home):
            if found.name == Cassandra.name and found.state == "running" and found.server:
                return CassandraSettings(port=found.server.port).connect()
        if time.monotonic() > deadline:
            raise PreflightError("no Cassandra runs; start it with: local up cassandra")
        time.sleep(0.2)


def main() -> None:
    """Serve the rows of the home's Cassandra until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="The local stack's folder.")
    parser.add_argument("--port", type=int, required=True, help="Where to listen, on 127.0.0.1.")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")

    def read_rows(kind: str, ids: Sequence[str] | None) -> Mapping[str, Document]:
        with _connect(given.home) as connection:
            return read_documents(connection, kind, ids)

    server = Sunbird(read_rows, os.environ[SUNBIRD_KEY_VARIABLE], port=given.port)
    for kind in TABLES:
        server.read_again(kind)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    # A process whose threads still end keeps the port for a moment, and the next start wants it.
    server.stop_listening()


if __name__ == "__main__":
    main()
