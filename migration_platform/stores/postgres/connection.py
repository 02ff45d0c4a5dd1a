"""Connections to PostgreSQL, asked below psycopg's cursors: values stay bytes, and time is bounded.

libpq never gives up on a server that is there and does not answer. So each request here waits on
its socket for so many seconds, and a connection that is too late is closed.
"""

# psycopg's types do not tell its C and Python implementations apart.
# pyright: reportOptionalMemberAccess=false

import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from migration_platform.errors import PermanentError, PreflightError
from migration_platform.extras import needed_for
from migration_platform.stores.postgres.failures import READ_ONLY, LostConnectionError, Refusal

with needed_for("a PostgreSQL store", extra="postgres"):
    import psycopg
    from psycopg.conninfo import make_conninfo
    from psycopg.pq import Conninfo, ConnStatus, DiagnosticField, ExecStatus

SSL_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
APPLICATION_NAME = "migration_platform"
# What the bytes of values do not depend on, and messages and sessions do.
_ALWAYS = {"timezone": "UTC", "datestyle": "ISO", "intervalstyle": "iso_8601"}


@dataclass(frozen=True)
class PostgresSettings:
    """Where the server is, and as whom it is asked.

    `hosts` are tried in turn until one takes writes. `options` are settings of the connection by
    name: those of libpq, such as `keepalives_idle`, and the server's own, such as `work_mem`.
    """

    hosts: tuple[str, ...]
    port: int = 5432
    database: str = "postgres"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    schema: str = "public"
    sslmode: str = "prefer"
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    connect_timeout_seconds: int = 10
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def connect(self) -> "Postgres":
        """Connect once.

        Raises:
            PreflightError: nobody answers, or the user is refused; one sentence.
        """
        return Postgres(self)

    def to_parameters(self, libpq_names: frozenset[str]) -> dict[str, Any]:
        """Give what libpq is called with; `libpq_names` are the parameters that it knows.

        Raises:
            PreflightError: an option may not be given, or cannot be written.
        """
        own = {
            "host": ",".join(self.hosts),
            "port": self.port,
            "dbname": self.database,
            "user": self.username,
            "password": self.password,
            "sslmode": self.sslmode,
            "sslrootcert": self.ca_file,
            "sslcert": self.certificate_file,
            "sslkey": self.key_file,
            "connect_timeout": self.connect_timeout_seconds,
        }
        fixed = own.keys() | {"options", "target_session_attrs", "client_encoding", "replication"}
        server: dict[str, str] = dict(_ALWAYS)
        given: dict[str, str] = {}
        for name, value in self.options.items():
            if name.lower() in fixed | _ALWAYS.keys():
                raise PreflightError(
                    f"the option {name} is not for options; the store has an attribute for it, or "
                    "needs the value that it sets itself"
                )
            (given if name in libpq_names else server)[name] = str(value)
        return {
            "application_name": APPLICATION_NAME,
            **given,
            **{name: value for name, value in own.items() if value is not None},
            "options": " ".join(f"-c {name}={_escape(text)}" for name, text in server.items()),
            "target_session_attrs": "read-write",
            "client_encoding": "UTF8",
        }


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace(" ", "\\ ")


REQUEST_SECONDS = 30.0
"""How long a request may take until something of its answer comes."""
_CHECK_SECONDS = 5
_LIMITS = """
    SELECT set_config(name, CASE name WHEN 'lock_timeout' THEN '{lock:.3f}s' ELSE '{check}s' END,
        false)
    FROM pg_catalog.pg_settings
    WHERE name IN ('lock_timeout', 'client_connection_check_interval')
    AND setting = '0' AND source <> 'client'
"""
"""Nothing of a client that has gone is done behind its back, as soon as a lock is free: the server
gives up before the client does, and looks whether that is still there."""
_CANCEL_SECONDS = 2.0
_LOOK_SECONDS = 0.5
"""How often who waits looks whether the connections were closed."""
_SLICE = 1 << 20
_COPY_HEADER = 19
"""Bytes of a binary copy before its first row: signature, flags, and the length of nothing."""
_COPY_END = b"\xff\xff"

Parameter = tuple[int, bytes | None]
"""The OID of a value's type, and the value in PostgreSQL's binary format."""
Answer = TypeVar("Answer")


class Session:
    """One connection, used by one thread at a time.

    It is opened when it is asked, and anew when it broke, until `ended` is set.
    """

    def __init__(self, connect: Callable[[], Any], ended: threading.Event):
        self._connect = connect
        self._ended = ended
        self._connection: Any = None
        self._prepared: set[bytes] = set()
        self.temporary: set[str] = set()
        """The temporary tables that were made in it since it was opened."""

    @property
    def connection(self) -> Any:
        """The psycopg connection; it is opened where there is none.

        Raises:
            LostConnectionError, PreflightError: it could not be opened.
            PermanentError: all connections were closed for good.
        """
        if self._connection is None:
            self._refuse_ended()
            self._connection = self._connect()
            with suppress(Refusal):
                # A server that knows no such settings works without them.
                self.run(_LIMITS.format(lock=REQUEST_SECONDS * 2 / 3, check=_CHECK_SECONDS))
        return self._connection

    @property
    def opened(self) -> Any:
        """The psycopg connection, if there is one."""
        return self._connection

    @property
    def pgconn(self) -> Any:
        """The libpq connection; psycopg has made it one that does not block."""
        return self.connection.pgconn

    def close(self) -> None:
        """Close it; it is opened again when it is asked again."""
        connection, self._connection = self._connection, None
        self._prepared, self.temporary = set(), set()
        if connection is not None:
            connection.close()

    def _refuse_ended(self) -> None:
        if self._ended.is_set():
            raise PermanentError("the connections to the server were closed")

    def lend(self, ask: Callable[[Any], Answer]) -> Answer:
        """Let psycopg's connection be asked; its time is not limited.

        Raises:
            LostConnectionError: the connection broke.
        """
        connection = self.connection
        try:
            return ask(connection)
        except psycopg.OperationalError as error:
            self.close()
            raise LostConnectionError(f"the connection broke: {_one_line(error)}") from error

    def roll_back(self) -> None:
        """Undo what was begun; a connection that broke has undone it itself.

        Raises:
            LostConnectionError: the connection broke.
        """
        if self._connection is not None:
            self.run("ROLLBACK")

    def ask(
        self,
        sql: str,
        parameters: Sequence[Parameter] = (),
        *,
        seconds: float | None = None,
        prepare: bool = False,
    ) -> Any:
        """Send a statement with values, and give its result; values in it are binary.

        Raises:
            Refusal: the server refused it.
            LostConnectionError: the connection broke, or the time is over.
        """
        values = [value for _, value in parameters]
        types = [oid for oid, _ in parameters]
        formats = [1] * len(parameters)

        def send() -> None:
            text = sql.encode()
            if not prepare:
                self.pgconn.send_query_params(text, values, types, formats, 1)
                return
            if text not in self._prepared:
                self.pgconn.send_prepare(_name_of(text), text, types)
                self._results(seconds)
                self._prepared.add(text)
            self.pgconn.send_query_prepared(_name_of(text), values, formats, 1)

        return self._guard(send, lambda: self._results(seconds))[-1]

    def run(self, sql: str, *, seconds: float | None = None) -> list[Any]:
        """Run statements without values, separated by semicolons; give their results.

        Raises:
            Refusal: the server refused one; of those in one text all are undone.
            LostConnectionError: the connection broke, or the time is over.
        """
        return self._guard(
            lambda: self.pgconn.send_query(sql.encode()), lambda: self._results(seconds)
        )

    def copy_in(self, sql: str, data: Iterable[bytes], *, seconds: float | None = None) -> None:
        """Run statements of which the last is a COPY FROM STDIN, and give it the data.

        Raises:
            Refusal: the server refused it.
            LostConnectionError: the connection broke, or the time is over.
        """

        def put() -> None:
            self._results(seconds)
            for piece in data:
                view = memoryview(piece)
                for at in range(0, len(view), _SLICE):
                    self.pgconn.put_copy_data(view[at : at + _SLICE])
                    # libpq would keep whatever the server has not taken yet.
                    self._flush(seconds)
            self.pgconn.put_copy_end()
            self._results(seconds)

        self._guard(lambda: self.pgconn.send_query(sql.encode()), put)

    def copy_out(self, sql: str, *, seconds: float | None = None) -> Iterator[bytes]:
        """Run a COPY TO STDOUT in the binary format, and give its rows.

        Raises:
            Refusal: the server refused it.
            LostConnectionError: the connection broke, or the time is over.
        """
        self._guard(lambda: self.pgconn.send_query(sql.encode()), lambda: self._results(seconds))
        skip, ended = _COPY_HEADER, False
        try:
            while not ended:
                size, data = self._guard(lambda: None, lambda: self.pgconn.get_copy_data(1))
                if size == 0:
                    self._guard(lambda: None, lambda: self._wait(seconds, writing=False))
                    continue
                if size < 0:
                    ended = True
                    self._guard(lambda: None, lambda: self._results(seconds))
                    return
                row = bytes(data[skip:])
                skip = 0
                if row != _COPY_END:
                    yield row
        finally:
            if not ended:
                # Whoever asks next would get the rest of this answer.
                self.close()

    def _guard(self, send: Callable[[], None], wait: Callable[[], Answer]) -> Answer:
        """Do both; close the connection where it broke, or where an answer is still to come."""
        try:
            send()
            return wait()
        except Refusal as refusal:
            if refusal.sqlstate == READ_ONLY:
                # It may be the standby by now: another host may take writes.
                self.close()
            raise
        except psycopg.Error as error:
            self.close()
            raise LostConnectionError(f"the connection broke: {_one_line(error)}") from error
        except BaseException:
            self.close()
            raise

    def _results(self, seconds: float | None) -> list[Any]:
        """Wait for the results of what was sent, up to a COPY.

        Raises:
            Refusal: there is an error among them.
        """
        pgconn, found, refusal = self.pgconn, [], None
        self._flush(seconds)
        while True:
            while pgconn.is_busy():
                self._wait(seconds, writing=False)
            result = pgconn.get_result()
            if result is None:
                break
            if result.status == ExecStatus.FATAL_ERROR:
                refusal = refusal or _to_refusal(result)
                continue
            found.append(result)
            if result.status in (ExecStatus.COPY_IN, ExecStatus.COPY_OUT):
                break
        if pgconn.status == ConnStatus.BAD:
            told = refusal.message if refusal else "the server ended it"
            raise LostConnectionError(f"the connection broke: {told}")
        if refusal is not None:
            raise refusal
        return found

    def _flush(self, seconds: float | None) -> None:
        while self.pgconn.flush():
            self._wait(seconds, writing=True)

    def _wait(self, seconds: float | None, *, writing: bool) -> None:
        pgconn = self.pgconn
        seconds = REQUEST_SECONDS if seconds is None else seconds
        poll = select.poll()
        poll.register(pgconn.socket, select.POLLIN | (select.POLLOUT if writing else 0))
        deadline = time.monotonic() + seconds
        while not (events := poll.poll(min(seconds, _LOOK_SECONDS) * 1000)):
            if self._ended.is_set():
                self._cancel()
                self._refuse_ended()
            if time.monotonic() >= deadline:
                self._cancel()
                raise LostConnectionError(f"the server did not answer within {seconds:.0f} s")
        if events[0][1] & ~select.POLLOUT:
            pgconn.consume_input()

    def _cancel(self) -> None:
        """Ask the server to give up a request, or it may do it when nobody waits any more."""
        with suppress(psycopg.Error):
            # A server that does not even answer this is beyond asking.
            self.connection.cancel_safe(timeout=_CANCEL_SECONDS)


def _name_of(statement: bytes) -> bytes:
    return b"mp_%x" % (hash(statement) & 0xFFFF_FFFF_FFFF_FFFF)


def _to_refusal(result: Any) -> Refusal:
    def field(which: DiagnosticField) -> str:
        return (result.error_field(which) or b"").decode("utf-8", "replace")

    return Refusal(
        field(DiagnosticField.SQLSTATE),
        # What libpq itself has to tell has no fields.
        field(DiagnosticField.MESSAGE_PRIMARY) or _one_line(result.error_message),
        field(DiagnosticField.CONSTRAINT_NAME),
        field(DiagnosticField.COLUMN_NAME),
    )


def _one_line(error: BaseException | str) -> str:
    # What libpq supposes after that is no help.
    told = " ".join(str(error).split()).partition(" This probably means")[0]
    return told or type(error).__name__


@dataclass(frozen=True)
class Lane:
    """A thread with a connection of its own: batches on it follow each other."""

    session: Session
    threads: ThreadPoolExecutor


class Postgres:
    """A process's connections to one server, by what they are used for.

    Attributes:
        settings: How it is reached.
        product: `PostgreSQL` or `YugabyteDB`.
        version: What the server calls itself.
        version_number: As `server_version_num`, 160004.
    """

    def __init__(self, settings: PostgresSettings):
        self.settings = settings
        self._sessions: dict[str, Session] = {}
        self._lanes: dict[int, Lane] = {}
        self._ended = threading.Event()
        session = self.session("questions")
        try:
            (row,) = ask_rows(session, "SELECT version(), current_setting('server_version_num')")
        except LostConnectionError as error:
            self.close()
            raise PreflightError(str(error)) from error
        except Refusal as refusal:
            self.close()
            raise PreflightError(str(refusal.to_error())) from refusal.to_error()
        self.version, number = row
        self.version_number = int(number)
        self.product = "YugabyteDB" if "-YB-" in self.version else "PostgreSQL"

    @property
    def is_yugabyte(self) -> bool:
        """Whether it is YugabyteDB, of which `version()` holds `-YB-`.

        https://docs.yugabyte.com/stable/api/ysql/exprs/func_yb_version/
        """
        return self.product == "YugabyteDB"

    def __enter__(self) -> "Postgres":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; what is under way on them is given up."""
        self._ended.set()
        for lane in self._lanes.values():
            lane.threads.shutdown(cancel_futures=True)
        for session in self._sessions.values():
            session.close()

    def session(self, use: str) -> Session:
        """Give the connection for a use; one that is not there yet is opened when it is asked."""
        if use not in self._sessions:
            self._sessions[use] = Session(lambda: connect(self.settings), self._ended)
        return self._sessions[use]

    def lane(self, number: int) -> Lane:
        """Give one of the lanes on which batches are written; all writers share them."""
        if number not in self._lanes:
            threads = ThreadPoolExecutor(1, thread_name_prefix="postgres")
            self._lanes[number] = Lane(self.session(f"write {number}"), threads)
        return self._lanes[number]


def connect(settings: PostgresSettings) -> Any:
    """Open a connection to the first host that takes writes.

    Raises:
        LostConnectionError: nobody answers, or not now.
        PreflightError: the user is refused, or the settings are none.
    """
    known = frozenset(each.keyword.decode() for each in Conninfo.get_defaults())
    where = f"{', '.join(settings.hosts)}, port {settings.port}, database {settings.database}"
    _refuse_missing_files(settings)
    try:
        parameters = settings.to_parameters(known)
        conninfo = make_conninfo(**parameters)
        return psycopg.Connection.connect(conninfo, autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        raise _explain_refusal(error, where, settings) from None


def _refuse_missing_files(settings: PostgresSettings) -> None:
    for name in ("ca_file", "certificate_file", "key_file"):
        path = getattr(settings, name)
        if path and path != "system" and not Path(path).is_file():
            raise PreflightError(f"there is no file {path}, which the store's {name} names")


_FINAL = {
    "no password supplied": "the store declares none; set password: {env: NAME}",
    "password authentication failed": "set the store's username and password",
    "no encryption": "add one there, or set the store's sslmode to require if it demands TLS",
    "does not match host name": "name the host as its certificate does",
    "does not support SSL": "set the store's sslmode to prefer or disable",
    "certificate": "see the store's ca_file, certificate_file and key_file",
    "private key": "see the store's key_file",
    "does not exist": "",
    "no pg_hba.conf entry": "",
    "not permitted to log in": "",
    "permission denied": "",
    "authentication failed": "",
    "authentication method": "",
    "unrecognized configuration parameter": "see the store's options",
    "invalid": "",
}
"""Of what a refusal is told that no other try would change, and the way out."""


def _explain_refusal(error: BaseException, where: str, settings: PostgresSettings) -> Exception:
    told = _one_line(error)
    for secret in (settings.password, settings.options.get("sslpassword")):
        if secret:
            told = told.replace(secret, "********")
    for words, way_out in _FINAL.items():
        if words in told:
            said = f"{where} refuses the connection: {told}"
            return PreflightError(f"{said}; {way_out}" if way_out else said)
    if "read-only" in told:
        return LostConnectionError(
            f"no host of {where} takes writes: each that answers is a standby ({told}); name the "
            "primary among the store's hosts"
        )
    crowded = "too many" in told or "connection slots are reserved" in told
    way_out = "; raise max_connections there, or lower workers" if crowded else ""
    return LostConnectionError(f"{where} cannot be reached: {told}{way_out}")


def ask_rows(session: Session, sql: str, parameters: Sequence[Parameter] = ()) -> list[tuple]:
    """Ask for rows of texts; a null is None.

    The statement has to cast what it selects to text.

    Raises:
        Refusal, LostConnectionError: as `Session.ask`.
    """
    result = session.ask(sql, parameters)
    cells = range(result.nfields)
    return [
        tuple(_text(result.get_value(row, cell)) for cell in cells) for row in range(result.ntuples)
    ]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
