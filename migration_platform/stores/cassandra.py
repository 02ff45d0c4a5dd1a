"""Cassandra: connect, describe a table, read a token range as pages.

Requests go through the driver's `ResponseFuture`, which keeps its host choice, timeouts and
re-preparing; but the pages that come back stay bytes. The driver's own retries are off: how often
and how long a request is tried again is for this package to say.
"""

# The driver carries no types: what is inferred from its attributes' first values is wrong.
# pyright: reportOptionalMemberAccess=false, reportOptionalIterable=false
# pyright: reportOptionalOperand=false, reportOperatorIssue=false, reportArgumentType=false
# pyright: reportReturnType=false

import difflib
import logging
import re
import socket
import ssl
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from struct import Struct
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
from cassandra.metadata import KeyspaceMetadata, TableMetadata
from cassandra.policies import (
    ConstantReconnectionPolicy,
    DCAwareRoundRobinPolicy,
    FallthroughRetryPolicy,
    HostDistance,
    TokenAwarePolicy,
)
from cassandra.pool import Host
from cassandra.protocol import ExecuteMessage, ProtocolHandler, ResultMessage, read_int
from cassandra.query import PreparedStatement, tuple_factory

from migration_platform.cql_types import parse_type, show_value
from migration_platform.errors import (
    MigrationError,
    PermanentError,
    PreflightError,
    TransientError,
    UnreadableError,
    causes_of,
    explain,
    is_about_row,
    is_transient,
    may_be_too_much,
)
from migration_platform.migration import TableName, quote
from migration_platform.rate import RateBudget
from migration_platform.retries import Attempts, ask_patiently
from migration_platform.rows import Page, compile_splitter, split_cells
from migration_platform.stores.window import Window
from migration_platform.token_ranges import TokenRange, serialize_key, token_of_key

MURMUR3 = "org.apache.cassandra.dht.Murmur3Partitioner"
REQUEST_TIMEOUT_SECONDS = 15.0
"""Longer than the servers' own timeouts (10 s for a range), so that they speak first."""
CONNECT_TIMEOUT_SECONDS = 5.0
PAGE_BYTES = 2_500_000
"""What a page should weigh: 5,000 rows of 500 bytes, past which a page was no quicker."""
LEAST_PAGE_ROWS, MAX_PAGE_ROWS = 10, 5_000
FIRST_PAGE_ROWS = 50
"""Small enough for rows of 1 MB; the rows that it brings set the size of the next."""
SLOW_PAGE_SECONDS = 2.0
"""A page that takes longer is on its way to the server's read timeout (5 s, of ranges 10 s)."""
TRIES_BEFORE_A_CUT = 3
"""With pages of a quarter, then a sixteenth of the rows: more rows are seldom what is too much."""
PROBE_SECONDS = 5.0
MOST_UNREADABLE = 10
"""Past so many partitions of one range that cannot be read, the fault is not theirs."""
RETRY_SECONDS_AFTER_AN_UNREADABLE = 10.0
READS_IN_FLIGHT = 48
SOCKET_BYTES = 1 << 18

_LONG = Struct(">q")


@dataclass(frozen=True)
class TlsSettings:
    """Files in PEM form. Without `ca_file` the system's authorities are trusted."""

    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    check_hostname: bool = True

    def to_context(self) -> ssl.SSLContext:
        """Build the context that the driver hands to each connection."""
        context = ssl.create_default_context(cafile=self.ca_file)
        context.check_hostname = self.check_hostname
        if self.certificate_file:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context


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


@dataclass(frozen=True)
class Column:
    """A column: `cql_type` with the fields of user-defined types written out."""

    name: str
    cql_type: str
    is_static: bool = False


@dataclass(frozen=True)
class Table:
    """What a migration needs to know of a table; `table_id` changes when it is made anew."""

    name: TableName
    table_id: str
    columns: tuple[Column, ...]
    partition_key: tuple[str, ...]
    clustering_columns: tuple[str, ...]
    default_ttl_seconds: int
    tells_elements: bool = True
    """Whether writetime() and ttl() work on unfrozen collections: since Cassandra 5.0."""
    is_murmur3: bool = True
    """Whether tokens are what Murmur3 gives: YugabyteDB says so, and hashes keys its own way."""
    view_of: TableName | None = None
    """The base table, where this is a materialized view."""

    @property
    def primary_key(self) -> tuple[str, ...]:
        """Partition key, then clustering columns."""
        return self.partition_key + self.clustering_columns

    def type_of(self, column: str) -> str:
        """Give the type of a column that exists."""
        return next(c.cql_type for c in self.columns if c.name == column)


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
            # What is unset, null or too long for a key has no owner; the server says so better.
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
        except Exception:  # whatever it is: the request that failed before is what is told
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
    failure: Exception | None = None
    # The older one costs the client a tenth less, but nothing guards its frames by checksums.
    for version in (ProtocolVersion.V5, ProtocolVersion.V4):
        profile = ExecutionProfile(
            load_balancing_policy=_ReplicasFirst(
                DCAwareRoundRobinPolicy(settings.local_datacenter or "")
            ),
            retry_policy=_NO_RETRIES,
            request_timeout=REQUEST_TIMEOUT_SECONDS,
            row_factory=tuple_factory,
            consistency_level=ConsistencyLevel.LOCAL_QUORUM,
        )
        try:
            cluster = Cluster(
                contact_points=list(settings.contact_points),
                port=settings.port,
                protocol_version=version,
                execution_profiles={EXEC_PROFILE_DEFAULT: profile},
                auth_provider=PlainTextAuthProvider(settings.username, settings.password or "")
                if settings.username
                else None,
                ssl_context=settings.tls.to_context() if settings.tls else None,
                # A server that comes back is used within a second: runs wait for it.
                reconnection_policy=ConstantReconnectionPolicy(1.0, max_attempts=None),
                connection_class=_Socket,
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                control_connection_timeout=CONNECT_TIMEOUT_SECONDS,
                # Else a request waits for the acknowledgement of the one before: up to 40 ms.
                sockopts=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            )
        except OSError as error:
            raise PreflightError(f"cannot use the TLS files: {explain(error)}") from error
        try:
            return cluster, cluster.connect()
        except Exception as error:
            cluster.shutdown()
            failure = error
            if not _speaks_older_version(error):
                break
    assert failure is not None
    told = explain(failure)
    raise PreflightError(f"cannot connect to {settings}: {told}{_tls_hint(settings, told)}") from (
        failure
    )


def _tls_hint(settings: CassandraSettings, told: str) -> str:
    """Say what a handshake that failed may want: TLS itself tells it in riddles."""
    if settings.tls is None:
        cut_off = "reset by peer" in told or "closed" in told
        return "; if the server demands TLS, give the store a tls block" if cut_off else ""
    if "CERTIFICATE_VERIFY_FAILED" in told:
        return "; the server's certificate must come from an authority in tls.ca_file and name it"
    if "WRONG_VERSION_NUMBER" in told:
        return "; the server speaks no TLS, so leave tls out"
    if "EOF occurred" in told or "ALERT" in told or "reset by peer" in told:
        return "; if the server demands certificates, it must trust tls.certificate_file"
    return ""


def _speaks_older_version(error: Exception) -> bool:
    causes = causes_of(error) if isinstance(error, NoHostAvailable) else ()
    return any("protocol version" in str(cause).lower() for cause in (error, *causes))


# -- tables ------------------------------------------------------------------------------------


def describe_table(connection: Connection, name: TableName) -> Table:
    """Read a table's schema from the server.

    Raises:
        PreflightError: the keyspace or table is missing (the message lists the ones there are),
            or the cluster's partitioner is not Murmur3.
    """
    metadata = connection.cluster.metadata
    partitioner = _ask(connection, "SELECT partitioner FROM system.local")[0]
    if partitioner != MURMUR3:
        raise PreflightError(
            f"the cluster at {connection.settings} uses {partitioner.rpartition('.')[2]}; "
            "token ranges need Murmur3Partitioner"
        )
    keyspace = metadata.keyspaces.get(name.keyspace)
    if keyspace is None:
        known = [k for k in metadata.keyspaces if not k.startswith("system")]
        raise PreflightError(
            f"there is no keyspace {quote(name.keyspace)} at {connection.settings}; "
            f"there {_are(known, name.keyspace)}"
        )
    table = keyspace.tables.get(name.table) or keyspace.views.get(name.table)
    if table is None:
        raise PreflightError(
            f"there is no table {name} at {connection.settings}; "
            f"in the keyspace there {_are(list(keyspace.tables), name.table)}"
        )
    return _to_table(connection, name, keyspace, table)


def _ask(connection: Connection, cql: str, values: tuple = ()) -> tuple:
    try:
        return connection.session.execute(cql, values).one() or ("",)
    except Exception as error:
        raise PreflightError(
            f"cannot read the schema at {connection.settings}: {explain(error)}"
        ) from error


def _to_table(
    connection: Connection, name: TableName, keyspace: KeyspaceMetadata, table: TableMetadata
) -> Table:
    view = keyspace.views.get(name.table)
    kind = "views" if view else "tables"
    column = "view_name" if kind == "views" else "table_name"
    found = _ask(
        connection,
        f"SELECT id FROM system_schema.{kind} WHERE keyspace_name = %s AND {column} = %s",  # noqa: S608
        (name.keyspace, name.table),
    )
    multicell = [
        quote(c.name)
        for c in table.columns.values()
        if parse_type(expand_type(c.cql_type, keyspace)).is_multicell
    ]
    return Table(
        name=name,
        table_id=str(found[0]),
        columns=tuple(
            Column(c.name, expand_type(c.cql_type, keyspace), bool(c.is_static))
            for c in table.columns.values()
        ),
        partition_key=tuple(c.name for c in table.partition_key),
        clustering_columns=tuple(c.name for c in table.clustering_key),
        default_ttl_seconds=int(table.options.get("default_time_to_live") or 0),
        tells_elements=not multicell or _tells_elements(connection, name, multicell[0]),
        is_murmur3=_is_murmur3(connection),
        view_of=TableName(name.keyspace, view.base_table_name) if view else None,
    )


def _is_murmur3(connection: Connection) -> bool:
    """Let the server hash a key that every one has."""
    try:
        found = connection.session.execute("SELECT token(key) FROM system.local").one()
    except Exception as error:
        if is_transient(error):
            raise PreflightError(
                f"cannot read the schema at {connection.settings}: {explain(error)}"
            ) from error
        return False
    return found is not None and found[0] == token_of_key(b"local")


def _tells_elements(connection: Connection, name: TableName, column: str) -> bool:
    try:
        connection.prepare(f"SELECT writetime({column}), ttl({column}) FROM {name}")  # noqa: S608
    except PermanentError:
        return False
    return True


def expand_type(cql_type: str, keyspace: KeyspaceMetadata) -> str:
    """Write user-defined types as their fields, so that equal text means equal bytes."""

    def fields_of(found: re.Match) -> str:
        name = found[0]
        plain = name[1:-1].replace('""', '"') if name.startswith('"') else name
        user_type = keyspace.user_types.get(plain)
        if user_type is None:
            return name
        fields = zip(user_type.field_names, user_type.field_types, strict=True)
        inner = ", ".join(f"{quote(n)} {expand_type(str(t), keyspace)}" for n, t in fields)
        return f"{{{inner}}}"

    # A vector's class name stands in single quotes in old releases; the words in it are no types.
    return re.sub(r'"(?:[^"]|"")+"|[A-Za-z_][A-Za-z0-9_]*', fields_of, cql_type)


def _are(names: list[str], wanted: str) -> str:
    if not names:
        return "are none"
    close = difflib.get_close_matches(wanted, names, n=3) or sorted(names)
    shown = ", ".join(quote(n) for n in close[:10])
    more = f" and {len(names) - 10} more" if len(close) > 10 else ""
    return f"are {len(names)}, among them {shown}{more}" if len(names) > 1 else f"is {shown}"


# -- reading -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RangeRead:
    """The prepared read of a slice of a table: how many cells a row has, and where its key is."""

    statement: PreparedStatement
    table: Table
    cells: int
    key_positions: tuple[int, ...]

    def last_key(self, page: Page) -> list[bytes]:
        """Give the partition key of a page's last row: asked for only where a range is cut."""
        starts = compile_splitter(self.cells, 0)(page.data, page.row_count).starts
        row = split_cells(page.data[starts[-2] :], self.cells)
        return [row[position] or b"" for position in self.key_positions]


def prepare_range_read(
    connection: Connection,
    table: Table,
    columns: tuple[str, ...],
    *,
    times: Sequence[str] = (),
    where: str | None = None,
    statics: bool = False,
    retry_seconds: float,
) -> RangeRead:
    """Prepare the read of a slice `(start, end]` of the ring, the columns in the given order.

    `columns` hold at least the partition key. `times` are selected behind them. `where` is a
    user's own condition. With `statics` each partition gives one row.
    """
    selected = ", ".join((*(quote(name) for name in columns), *times))
    statement = connection.prepare(
        f"SELECT {'DISTINCT ' if statics else ''}{selected} FROM {table.name} "  # noqa: S608
        f"WHERE {_in_slice(table)}" + (f" AND {where} ALLOW FILTERING" if where else ""),
        retry_seconds=retry_seconds,
    )
    positions = tuple(columns.index(name) for name in table.partition_key)
    return RangeRead(statement, table, len(columns) + len(times), positions)


def _in_slice(table: Table) -> str:
    key = ", ".join(quote(name) for name in table.partition_key)
    return f"token({key}) >= ? AND token({key}) <= ?"


def read_pages(
    connection: Connection,
    read: RangeRead,
    token_range: TokenRange,
    *,
    consistency: str,
    fetch_size: int | None,
    budget: RateBudget,
    retry_seconds: float,
    on_retry: Callable[[BaseException], None],
    on_piece: Callable[[TokenRange], None] = lambda piece: None,
    on_split: Callable[[TokenRange, tuple[TokenRange, ...]], None] = lambda piece, pieces: None,
    on_unreadable: Callable[[TokenRange, UnreadableError], None] | None = None,
) -> Iterator[Page]:
    """Read a token range page by page, the next page under way while one is in use.

    At most two pages are in memory. A page that fails is asked for again, from where the last
    good one ended, so nothing is skipped or read twice. When that stays too much for a server
    that answers otherwise, what is left is cut in pieces, until each can be read or a partition
    is alone, which is then read with ever smaller pages.

    `on_split` gets a piece that is cut, and the pieces that take its place, which fill it
    exactly, in order; they may be cut again. `on_piece` gets each piece, in the order of tokens,
    once all its rows were given and the caller asks for more: the whole range, if it was never
    cut. With `on_unreadable`, which gets the piece of a partition that cannot be read, what is
    behind it is read all the same, and the first such error raised in the end; whatever is
    raised, the pieces that `on_piece` was told of are whole, and no others.

    Raises:
        UnreadableError: the server is up and yet cannot give a single partition.
        PermanentError: the server refused.
        TransientError: the server did not answer; what came before was whole.
    """
    reading = _Reading(connection, read, consistency, fetch_size, budget, retry_seconds, on_retry)
    left = deque([_Left(token_range)])
    unreadable: list[UnreadableError] = []
    while left:
        now = left.popleft()
        try:
            rest = yield from _read_until_cut(reading, now)
        except UnreadableError as error:
            unreadable.append(error)
            if on_unreadable is not None:
                on_unreadable(now.piece, error)
            if on_unreadable is None or len(unreadable) >= MOST_UNREADABLE:
                break
            # Were each of many to be tried as long, a run would tell of a broken table late.
            reading.retry_seconds = min(retry_seconds, RETRY_SECONDS_AFTER_AN_UNREADABLE)
            continue
        left.extendleft(reversed(rest))
        if not rest:
            on_piece(now.piece)
        elif len(rest) > 1:
            on_split(now.piece, tuple(each.piece for each in rest))
    if unreadable:
        raise unreadable[0]


@dataclass(frozen=True)
class _Left:
    """What is left to read of a piece: all of it, or what the server's `state` says.

    `token` is set when there is but one partition left, and `key` when that is known as well.
    """

    piece: TokenRange
    state: bytes | None = None
    token: int | None = None
    key: Sequence[bytes] = ()

    @property
    def slice(self) -> tuple[int, int]:
        """The bounds of the query, both inclusive, so that the lowest token of all is read, too.

        A state goes on from its own row, whatever the lower one is.
        """
        return self.piece.bounds if self.token is None else (self.token, self.token)


@dataclass(frozen=True)
class _Asked:
    """A page that was asked for: when, how many rows at most; `ended` gets when it came."""

    future: ResponseFuture
    asked_us: int
    rows: int
    began: float
    ended: list[float]

    @property
    def seconds(self) -> float:
        """How long it took; until now, where the one who waits for it was woken first."""
        return (self.ended[0] if self.ended else time.monotonic()) - self.began


@dataclass
class _Reading:
    """How a range is read.

    `most_rows` of a page falls when one fails or is slow, and grows slowly again.
    """

    connection: Connection
    read: RangeRead
    consistency: str
    fetch_size: int | None
    budget: RateBudget
    retry_seconds: float
    on_retry: Callable[[BaseException], None]
    most_rows: int = 2**31 - 1
    failures: int = 0

    @property
    def page_rows(self) -> int:
        """How many rows the next page shall have."""
        # A page must not be more than a second of the budget, or the load would come in bursts.
        wanted = self.fetch_size or self.connection.page_rows
        return max(1, min(wanted, self.most_rows, self.budget.rows_per_second or wanted))

    def ask(self, left: _Left, state: bytes | None) -> _Asked:
        """Ask for a page."""
        rows = self.page_rows
        asked_us, began = time.time_ns() // 1000, time.monotonic()
        future = self._ask_slice(self.read.statement, left, rows, state)
        ended: list[float] = []
        # The next page comes while this one is in use: only the driver's thread sees when.
        future.add_callback(lambda _page: ended.append(time.monotonic()))
        return _Asked(future, asked_us, rows, began, ended)

    def _ask_slice(
        self,
        statement: PreparedStatement,
        left: _Left,
        rows: int | None = None,
        state: bytes | None = None,
    ) -> ResponseFuture:
        bounds = left.slice
        message = ExecuteMessage(
            statement.query_id,
            [_LONG.pack(bound) for bound in bounds],
            getattr(ConsistencyLevel, self.consistency),
            fetch_size=rows,
            paging_state=state,
            skip_meta=bool(statement.result_metadata),
            result_metadata_id=statement.result_metadata_id,
        )
        query = None
        if self.connection.has_choice and self.read.table.is_murmur3:
            # All of a slice at one host, as far as that goes: it reads on where it has just read.
            turn = left.piece.index + self.failures
            query = Slice(self.read.table.name.keyspace, bounds[0], turn)
        future = self.connection.send(message, query=query, statement=statement)
        future.send_request()
        return future

    def note(self, left: _Left, page: Page, asked: _Asked) -> None:
        """Let a page that came set the size of those to come, and wait until it may pass.

        Raises:
            PermanentError: it holds other partitions than the one that was asked for.
        """
        if page.row_count:
            if left.token is not None:
                found = token_of_key(serialize_key(self.read.last_key(page)))
                if found != left.token:
                    raise PermanentError(
                        f"asked for the rest of the partition with token {left.token} of "
                        f"{self.read.table.name}, the server gave one with token {found}"
                    )
            mean = max(1, len(page.data) // page.row_count)
            size = min(PAGE_BYTES, self.budget.size_per_second or PAGE_BYTES)
            self.connection.page_rows = max(LEAST_PAGE_ROWS, min(MAX_PAGE_ROWS, size // mean))
        seconds = asked.seconds
        if seconds > SLOW_PAGE_SECONDS:
            # Slowness has other reasons, too, and pages of a row each would keep it slow.
            least = min(asked.rows, LEAST_PAGE_ROWS)
            self.most_rows = max(least, int(asked.rows * SLOW_PAGE_SECONDS / 2 / seconds))
        elif self.most_rows <= asked.rows:
            self.most_rows += self.most_rows // 16 + 1
        self.budget.take(page.row_count, len(page.data))

    def delay_after(
        self, error: Exception, left: _Left, attempts: Attempts, *, in_vain: bool
    ) -> float | None:
        """Give the seconds to wait before the next try; None if what is left is to be cut.

        Raises:
            PermanentError, TransientError: neither would help.
        """
        # Where tokens are unknown, nothing can be cut at one.
        if not may_be_too_much(error) or not self.read.table.is_murmur3:
            return attempts.delay_after(error)
        is_alone = left.token is not None
        try:
            delay = attempts.delay_after(error)
        except TransientError as failure:
            if not self.connection.answers():
                raise
            if is_alone:
                raise self.unreadable(left, failure) from error
            return None
        return None if in_vain and not is_alone and self.connection.answers() else delay

    def cut(self, left: _Left, last: Page | None, state: bytes | None) -> list[_Left]:
        """Cut what is left of a piece, behind its last page, in up to two; nothing if it is empty.

        One piece is given back if there is but one partition in it.
        """
        piece = left.piece
        if last is not None:
            key = self.read.last_key(last)
            token = token_of_key(serialize_key(key))
            begun = _Left(replace(piece, end=token), state, token, key)
            return [begun, _Left(replace(piece, start=token))] if token < piece.end else [begun]
        first = self._first_partitions(piece)
        if first == []:
            return []
        if first:
            token = token_of_key(serialize_key(first[0]))
            if len(first) == 1 or token == piece.end:
                return [_Left(piece, None, token, first[0])]
            middle = (token + piece.end) // 2
        elif piece.end - piece.start == 1:
            return [_Left(piece, None, piece.end)]
        else:
            middle = (piece.start + piece.end) // 2
        return [_Left(replace(piece, end=middle)), _Left(replace(piece, start=middle))]

    def _first_partitions(self, piece: TokenRange) -> list[list[bytes]] | None:
        """Give the keys of a piece's first partitions, two at most; None if that is too much, too.

        It only saves halving down to a single token, so that no failure of it matters.
        """
        table = self.read.table
        names = ", ".join(quote(name) for name in table.partition_key)
        try:
            statement = self.connection.prepare(
                f"SELECT DISTINCT {names} FROM {table.name} WHERE {_in_slice(table)} LIMIT 2"  # noqa: S608
            )
            page = page_of(self._ask_slice(statement, _Left(piece)))
        except Exception as error:
            self.on_retry(error)
            return None
        cells = split_cells(page.data, page.row_count * len(table.partition_key))
        step = len(table.partition_key)
        return [
            [cell or b"" for cell in cells[at : at + step]] for at in range(0, len(cells), step)
        ]

    def unreadable(self, left: _Left, failure: TransientError) -> UnreadableError:
        """Say which partition a server that is up cannot read."""
        table = self.read.table
        shown = ", ".join(
            f"{quote(name)}={show_value(cell, parse_type(table.type_of(name)))}"
            for name, cell in zip(table.partition_key, left.key, strict=False)
        )
        return UnreadableError(
            f"the partition with token {left.token} of {table.name}"
            + (f" ({shown})" if shown else "")
            + f" cannot be read: {failure}; compact or delete it, or raise the server's limits in "
            "cassandra.yaml (tombstone_failure_threshold, read-size thresholds, timeouts)"
        )


def _read_until_cut(reading: _Reading, left: _Left) -> Generator[Page, None, list[_Left]]:
    """Give the pages of a piece; return what is left of it when that must be cut."""
    state, last = left.state, None
    pending = reading.ask(left, state)
    while True:
        attempts, refused = Attempts(reading.retry_seconds), 0
        while True:
            asked, rows = pending, pending.rows
            try:
                page = replace(page_of(asked.future), asked_us=asked.asked_us)
                break
            except Exception as error:
                # Rows may be far larger than those before them, and the page too large to be sent.
                reading.most_rows = max(1, rows // 4)
                refused += may_be_too_much(error)
                reading.failures += 1
                in_vain = refused >= TRIES_BEFORE_A_CUT or rows == 1
                delay = reading.delay_after(error, left, attempts, in_vain=in_vain)
                reading.on_retry(error)
                if delay is None:
                    return reading.cut(left, last, state)
                # A smaller page is another request, and a server that refuses one is not busy.
                time.sleep(0.0 if may_be_too_much(error) and rows > 1 else delay)
                pending = reading.ask(left, state)
        reading.note(left, page, asked)
        state = page.next_state
        if state is not None:
            pending = reading.ask(left, state)
        if page.row_count:
            last = page
            yield page
        if state is None:
            return []


def read_rows(
    connection: Connection,
    statement: PreparedStatement,
    keys: Iterable[tuple[Any, list[bytes | None]]],
    *,
    consistency: str,
    retry_seconds: float,
    on_retry: Callable[[BaseException], None],
    on_refused: Callable[[Any, PermanentError], None] | None = None,
    in_flight: int = READS_IN_FLIGHT,
    serial_consistency: str | None = None,
) -> Iterator[tuple[Any, Page]]:
    """Read single rows by their bound keys, a bounded number at a time, in the given order.

    Each key comes with a value of the caller's, which is given back beside the page. A key that
    the server refuses, being too long, is left out where `on_refused` is told of it. A statement
    that is tried again may have been carried out: a conditional update must bear that.

    Raises:
        PermanentError, TransientError: a row could not be read.
    """
    serial = getattr(ConsistencyLevel, serial_consistency) if serial_consistency else None
    route = connection.router(statement)

    def ask(values: list[bytes | None], query: Key | None) -> tuple[ResponseFuture, int]:
        message = ExecuteMessage(
            statement.query_id,
            values,
            getattr(ConsistencyLevel, consistency),
            serial_consistency_level=serial,
            skip_meta=bool(statement.result_metadata),
            result_metadata_id=statement.result_metadata_id,
        )
        future = connection.send(message, query=query, statement=statement)
        asked_us = time.time_ns() // 1000
        future.send_request()
        return future, asked_us

    flying: deque[tuple[Any, list[bytes | None], tuple[ResponseFuture, int]]] = deque()

    def settle() -> Iterator[tuple[Any, Page]]:
        mark, values, (future, asked_us) = flying.popleft()
        attempts = Attempts(retry_seconds)
        while True:
            try:
                page = replace(page_of(future), asked_us=asked_us)
            except Exception as error:
                try:
                    delay = attempts.delay_after(error)
                except PermanentError as refusal:
                    if on_refused is None or not is_about_row(error):
                        raise
                    on_refused(mark, refusal)
                    return
                on_retry(error)
                time.sleep(delay)
                # Of the hosts in turn: the one that failed need not be asked again.
                future, asked_us = ask(values, None)
            else:
                yield mark, page
                return

    for mark, values in keys:
        if len(flying) >= in_flight:
            yield from settle()
        flying.append((mark, values, ask(values, route(values))))
    while flying:
        yield from settle()


def truncate(connection: Connection, name: TableName) -> None:
    """Empty a table.

    Raises:
        MigrationError: the server refused or did not answer.
    """
    try:
        # A truncation waits for every node, and for a snapshot where servers take one.
        connection.session.execute(f"TRUNCATE {name}", timeout=120)
    except Exception as error:
        raise MigrationError(f"cannot truncate {name}: {explain(error)}") from error
