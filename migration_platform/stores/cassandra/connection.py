"""Cassandra: connect, and send requests whose pages stay bytes.

Requests go through the driver's `ResponseFuture`, which keeps its host choice, timeouts and
re-preparing; but the pages that come back stay bytes. The driver's own retries are off: how often
and how long a request is tried again is for this package to say.
"""

# The driver has no type hints: pyright infers wrong types from its attributes' first values.
# pyright: reportOptionalMemberAccess=false, reportOptionalIterable=false
# pyright: reportOptionalOperand=false, reportOperatorIssue=false, reportArgumentType=false
# pyright: reportReturnType=false

import logging
import re
import socket
import ssl
from bisect import bisect_left
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cassandra import ConsistencyLevel, ProtocolVersion
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import (
    EXEC_PROFILE_DEFAULT,
    Cluster,
    DefaultConnection,
    ExecutionProfile,
    NoHostAvailable,
    ResponseFuture,
    Session,
)
from cassandra.policies import (
    ConstantReconnectionPolicy,
    DCAwareRoundRobinPolicy,
    FallthroughRetryPolicy,
    HostDistance,
    TokenAwarePolicy,
)
from cassandra.pool import Host
from cassandra.protocol import ProtocolHandler, ResultMessage, read_int
from cassandra.query import PreparedStatement, tuple_factory

from migration_platform.cql.rows import Page
from migration_platform.errors import causes_of
from migration_platform.pacing.retries import ask_patiently
from migration_platform.stores.cassandra.tls import build_context
from migration_platform.stores.cassandra.unreachable import build_refusal
from migration_platform.stores.cassandra.window import Window
from migration_platform.token_ranges import serialize_key

MURMUR3 = "org.apache.cassandra.dht.Murmur3Partitioner"
REQUEST_TIMEOUT_SECONDS = 15.0
"""Longer than the servers' own timeouts (10 s for a range), so that they speak first."""
CONNECT_TIMEOUT_SECONDS = 5.0
LEAST_PAGE_ROWS, MAX_PAGE_ROWS = 10, 5_000
FIRST_PAGE_ROWS = 50
"""Small enough for rows of 1 MB; the rows that it brings set the size of the next."""
PROBE_SECONDS = 5.0
SOCKET_BYTES = 1 << 18


@dataclass(frozen=True)
class TlsSettings:
    """Files in PEM form. Without `ca_file` the system's authorities are trusted."""

    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    check_hostname: bool = True

    def to_context(self) -> ssl.SSLContext:
        """Build the context that the driver hands to each connection.

        Raises:
            PreflightError: a file is missing, or does not hold what it should.
        """
        return build_context(
            ca_file=self.ca_file,
            certificate_file=self.certificate_file,
            key_file=self.key_file,
            check_hostname=self.check_hostname,
        )


@dataclass(frozen=True)
class CassandraSettings:
    """How to reach a cluster; the password never shows in a `repr`."""

    contact_points: tuple[str, ...] = ("127.0.0.1",)
    port: int = 9042
    local_datacenter: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: TlsSettings | None = None

    def connect(self) -> "Connection":
        """Connect once; close what it gives, or use it as a context manager.

        Raises:
            PreflightError: nobody answers, or the server refuses the user; one sentence.
        """
        return Connection(self)

    def __str__(self) -> str:
        return f"{', '.join(self.contact_points)} port {self.port}"


class _PageResult(ResultMessage):
    """A result whose rows stay the bytes that came."""

    def recv_results_rows(
        self, f, protocol_version, user_type_map, result_metadata, column_encryption_policy
    ):
        self.recv_results_metadata(f, user_type_map)
        row_count = read_int(f)
        self.column_names = self.column_types = None
        self.parsed_rows = Page(f.read(), row_count, self.paging_state)


class _Socket(DefaultConnection):  # type: ignore
    """A connection that reads and sends in pieces larger than the driver's 4 KiB.

    A page or a request is then a call or two into the kernel, not hundreds. Rows of 100 KB are
    copied a quarter faster.
    """

    in_buffer_size = out_buffer_size = SOCKET_BYTES


class _PageHandler(ProtocolHandler):
    message_types_by_opcode = {  # noqa: RUF012, the driver's attribute
        **ProtocolHandler.message_types_by_opcode,
        ResultMessage.opcode: _PageResult,
    }


@dataclass(frozen=True)
class Key:
    """The partition that a request is about, as the driver's "query" by which it picks a host."""

    keyspace: str
    routing_key: bytes


@dataclass(frozen=True)
class Slice:
    """The slice of the ring that a request is about, by which it goes to a replica of `token`.

    The replicas take turns by `turn`: several workers that read neighbouring slices ask several
    hosts, and a slice that failed at one is asked of the next.
    """

    keyspace: str
    token: int
    turn: int = 0


class _ReplicasFirst(TokenAwarePolicy):
    """The driver's choice of a replica by a key, and the same by a token where there is no key."""

    def make_query_plan(self, working_keyspace=None, query=None):
        if not isinstance(query, Slice):
            return super().make_query_plan(working_keyspace, query)
        return self._plan_of_slice(query)

    def _plan_of_slice(self, wanted: Slice) -> Generator[Host, Any, None]:
        ring = self._cluster_metadata.token_map
        found = ring.get_replicas(wanted.keyspace, ring.token_class(wanted.token)) if ring else ()
        # A host of another datacenter is as far as any that is no replica.
        replicas = [host for host in found if self.distance(host) == HostDistance.LOCAL]
        first = wanted.turn % len(replicas) if replicas else 0
        up = [host for host in replicas[first:] + replicas[:first] if host.is_up]
        yield from up
        for host in self._child_policy.make_query_plan(wanted.keyspace, wanted):
            if host not in up:
                yield host


class Connection:
    """One open connection pool to a cluster, for the life of a process."""

    def __init__(self, settings: CassandraSettings):
        """Connect once.

        Raises:
            PreflightError: nobody answers, or the server refuses the user; one sentence.
        """
        self.settings = settings
        self.cluster, self.session = _connect(settings)
        self.page_rows = FIRST_PAGE_ROWS
        self.window = Window()

    @property
    def protocol_version(self) -> int:
        """The native protocol's version that both sides speak."""
        return self.cluster.protocol_version

    @property
    def host_ids(self) -> frozenset[str]:
        """The ids of the cluster's hosts, which no other cluster has."""
        return frozenset(str(host.host_id) for host in self.cluster.metadata.all_hosts())

    @property
    def host_count(self) -> int:
        """How many hosts the cluster has, as far as the driver knows."""
        return len(self.cluster.metadata.all_hosts())

    @property
    def has_choice(self) -> bool:
        """Whether there is more than one host, so that it matters which one a request goes to."""
        return self.host_count > 1

    def place_keys(self, keyspace: str) -> Callable[[bytes], int | None]:
        """Build the function that gives keys with the same replicas the same number.

        A key is serialized; None where the driver knows of no replica. What it finds is as of now:
        a ring that changes afterwards makes requests that rely on it dearer, not wrong.
        """
        ring = self.cluster.metadata.token_map
        if ring is None or not ring.ring:
            return lambda _: None
        # The driver's own search compares objects, which costs more than all the rest.
        ends = [token.value for token in ring.ring]
        numbers: dict[frozenset[Host], int | None] = {frozenset(): None}
        places = [
            numbers.setdefault(frozenset(ring.get_replicas(keyspace, token)), len(numbers))
            for token in ring.ring
        ]
        places.append(places[0])  # what comes after the last token belongs to the first one
        to_token = ring.token_class.hash_fn
        return lambda key: places[bisect_left(ends, to_token(key))]

    def router(self, statement: PreparedStatement) -> Callable[[Sequence[Any]], Key | None]:
        """Build the function that gives the partition which bound values name, for `send`.

        It gives None where none is needed.
        """
        positions = statement.routing_key_indexes
        if not positions or not self.has_choice:
            return lambda _: None
        keyspace = statement.column_metadata[0].keyspace_name  # type: ignore

        def route(values: Sequence[Any]) -> Key | None:
            cells = [values[position] for position in positions]
            # A key that is unset, null or too long has no replica; the server explains that better.
            if any(not isinstance(cell, bytes) or len(cell) >= 2**16 for cell in cells):
                return None
            return Key(keyspace, serialize_key(cells))

        return route

    def close(self) -> None:
        """Close every connection."""
        self.cluster.shutdown()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(self, cql: str, *, retry_seconds: float = 0.0) -> PreparedStatement:
        """Prepare a statement; a failure is one sentence.

        Raises:
            PermanentError, TransientError: the server refused it or did not answer.
        """
        return ask_patiently(
            lambda: self.session.prepare(cql), retry_seconds, "cannot prepare a statement"
        )

    def answers(self) -> bool:
        """Say whether the server answers a trivial query now."""
        try:
            self.session.execute("SELECT key FROM system.local", timeout=PROBE_SECONDS)
        except Exception:  # the error to report is that of the first request
            return False
        return True

    def send(
        self, message, *, query=None, statement: PreparedStatement | None = None
    ) -> ResponseFuture:
        """Send a ready-made message; its rows come back as a `Page`.

        By `query` (a `Key`, a `Slice`, or what has keyspace and routing_key) the driver picks a
        host; without one the hosts take turns.
        """
        future = ResponseFuture(
            self.session,
            message,
            query,
            REQUEST_TIMEOUT_SECONDS,
            prepared_statement=statement,
            retry_policy=_NO_RETRIES,
            row_factory=_keep_page,
            load_balancer=self.cluster.profile_manager.default.load_balancing_policy,
        )
        future._protocol_handler = _PageHandler
        return future


_NO_RETRIES = FallthroughRetryPolicy()


def near_hosts(connection: Connection) -> list[Host]:
    """Give the hosts to which requests go, as far as they are up."""
    policy = connection.cluster.profile_manager.default.load_balancing_policy
    hosts = connection.cluster.metadata.all_hosts()
    return [h for h in hosts if h.is_up and policy.distance(h) == HostDistance.LOCAL]


def page_of(future: ResponseFuture) -> Page:
    """Wait for a read and take its page, once; raises what the driver raises."""
    future.result()
    # The page itself: `result` would wrap it, for it is no list of rows. A future and its timer
    # hold each other, so a page left there would stay until Python looks for such rings, seldom.
    page, future._final_result = future._final_result, None
    return page


def _keep_page(_names: object, page: Page) -> Page:
    return page


def _connect(settings: CassandraSettings) -> tuple[Cluster, Session]:
    # What the driver logs while a host is away is told once, by the request that fails.
    logging.getLogger("cassandra").setLevel(logging.CRITICAL)
    context = settings.tls.to_context() if settings.tls else None
    # The older one costs the client a tenth less, but nothing guards its frames by checksums.
    for version in (ProtocolVersion.V5, ProtocolVersion.V4):
        cluster: Cluster | None = None
        try:
            cluster = _build_cluster(settings, version, context)
            return cluster, cluster.connect()
        except Exception as error:
            if cluster is not None:
                cluster.shutdown()
            if version == ProtocolVersion.V4 or not _speaks_older_version(error):
                refusal = build_refusal(settings, error, cluster)
                raise refusal from refusal.__cause__
    raise AssertionError("the last version is refused or taken")


def _build_cluster(
    settings: CassandraSettings, version: int, context: ssl.SSLContext | None
) -> Cluster:
    profile = ExecutionProfile(
        load_balancing_policy=_ReplicasFirst(
            DCAwareRoundRobinPolicy(settings.local_datacenter or "")
        ),
        retry_policy=_NO_RETRIES,
        request_timeout=REQUEST_TIMEOUT_SECONDS,
        row_factory=tuple_factory,
        consistency_level=ConsistencyLevel.LOCAL_QUORUM,
    )
    return Cluster(
        contact_points=list(settings.contact_points),
        port=settings.port,
        protocol_version=version,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        auth_provider=PlainTextAuthProvider(settings.username, settings.password or "")
        if settings.username
        else None,
        ssl_context=context,
        # A server that comes back is used within a second: runs wait for it.
        reconnection_policy=ConstantReconnectionPolicy(1.0, max_attempts=None),
        connection_class=_Socket,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        control_connection_timeout=CONNECT_TIMEOUT_SECONDS,
        # Else a request waits for the acknowledgement of the one before: up to 40 ms.
        sockopts=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    )


_OLDER_VERSION = re.compile(r"protocol[ _]version|version of the protocol", re.IGNORECASE)
"""Cassandra 3.11 has a draft of version 5: "Beta version of the protocol used (5/v5-beta)"."""


def _speaks_older_version(error: Exception) -> bool:
    causes = causes_of(error) if isinstance(error, NoHostAvailable) else ()
    return any(_OLDER_VERSION.search(str(cause)) for cause in (error, *causes))
