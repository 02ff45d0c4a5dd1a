"""A Neo4j database: cursors that stream, and transactions that are tried again within bounds.

The driver's own repetition stays unused: it gives up when the answer to a commit is lost, which is
when a compare-and-set may safely be tried again.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString, TypeVar, cast
from urllib.parse import urlsplit

from migration_platform.errors import (
    AttemptError,
    DeclarationError,
    MigrationError,
    PermanentError,
    PreflightError,
    TransientError,
)
from migration_platform.extras import needed_for
from migration_platform.pacing.retries import Attempts

with needed_for("a Neo4j store", extra="neo4j"):
    import neo4j
    from neo4j.exceptions import (
        AuthError,
        ConnectionAcquisitionTimeoutError,
        DriverError,
        GqlError,
        IncompleteCommit,
        Neo4jError,
        ServiceUnavailable,
    )

SCHEMES = ("bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc")
CONNECT_TIMEOUT_SECONDS = 5.0
ACQUISITION_TIMEOUT_SECONDS = 15.0
TRANSACTION_TIMEOUT_SECONDS = 120.0
"""Of one batch; a lock that another client keeps ends it."""
FETCH_RECORDS = 1_000
MAX_REASON_CHARS = 500

# The driver warns of each label and property that the database does not know yet, with the query;
# counts say that too.
logging.getLogger("neo4j.notifications").setLevel(logging.ERROR)

# The driver names the server three times, which the sentence around it does already.
_WHERE = re.compile(r"^Couldn't connect to \S+ \(resolved to .*?\):\s*", re.DOTALL)
_ADDRESS = re.compile(r"\w+Address\(\('([^']+)', (\d+)[^)]*\)\)")

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Neo4jSettings:
    """How to reach a database; the password never shows in a `repr`.

    Attributes:
        uri: `bolt://host:port` for one server, `neo4j://` for a cluster; `+s` for TLS.
        username: Without one there is no authentication.
        password: Password of the user.
        database: Name of the database; None for the user's own.
        retry_seconds: How long a transaction that fails is tried again.
    """

    uri: str = "bolt://127.0.0.1:7687"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    retry_seconds: float = 60.0

    def connect(self) -> "Graph":
        """Connect once; close what it gives, or use it as a context manager.

        Raises:
            DeclarationError: the address is none, or has a password in it.
            PreflightError: nobody answers, or the server refuses the user or is too old.
        """
        return Graph(self)

    def __str__(self) -> str:
        return self.uri


class Graph:
    """One open pool of connections to a database."""

    def __init__(self, settings: Neo4jSettings):
        """Connect once.

        Raises:
            DeclarationError, PreflightError: see `Neo4jSettings.connect`; one sentence.
        """
        _require_address(settings.uri)
        self.settings = settings
        try:
            self._driver = neo4j.GraphDatabase.driver(
                settings.uri,
                auth=(settings.username, settings.password or "") if settings.username else None,
                connection_timeout=CONNECT_TIMEOUT_SECONDS,
                connection_acquisition_timeout=ACQUISITION_TIMEOUT_SECONDS,
                telemetry_disabled=True,
            )
        except (DriverError, ValueError, OSError) as error:
            raise DeclarationError(f"Neo4j at {settings} is refused: {_explain(error)}") from error
        try:
            self._check()
        except BaseException:
            self._driver.close()
            raise

    def _check(self) -> None:
        """Ask for the version, in the database that is meant."""
        where = f"Neo4j at {self.settings}"
        try:
            with self._session(neo4j.READ_ACCESS) as session:
                summary = session.run("RETURN 1").consume()
        except ServiceUnavailable as error:
            raise PreflightError(
                f"{where} does not answer ({_explain(error)}); is it running, and is the address"
                " right?"
            ) from error
        except (DriverError, Neo4jError, OSError) as error:
            raise PreflightError(f"{where} cannot be used: {_explain(error)}") from error
        # elementId() came with version 5.
        found = re.match(r"Neo4j/(\d+)\.", summary.server.agent)
        if found and int(found[1]) < 5:
            raise PreflightError(
                f"{where} is {summary.server.agent}; Neo4j 5 or newer is needed, upgrade it first"
            )

    def stream(
        self,
        query: str,
        parameters: Mapping[str, Any] | None = None,
        fetch_records: int = FETCH_RECORDS,
    ) -> Iterator[neo4j.Record]:
        """Read records as they come; at most two fetches of them are held.

        Beginning is tried again, a cursor that is cut off is not: what came may have been used.

        Raises:
            PermanentError: the server refuses the query.
            TransientError: it was unreachable for too long, or was lost on the way.
        """
        attempts = Attempts(self.settings.retry_seconds)
        came = 0
        while True:
            try:
                with self._session(neo4j.READ_ACCESS, fetch_records) as session:
                    for record in session.run(trusted(query), dict(parameters or {})):
                        came += 1
                        yield record
                    return
            except (DriverError, Neo4jError, OSError) as error:
                failure = _sort(error)
                if came and isinstance(failure, AttemptError):
                    raise TransientError(
                        f"Neo4j was lost after {came} nodes were read; start the step again"
                        f" ({failure})"
                    ) from error
                _pause(attempts, failure, error)

    def write(self, work: Callable[[neo4j.Transaction], Answer]) -> Answer:
        """Run work as one transaction, until it is acknowledged.

        It is run again after a failure, and also when the answer to a commit is lost: it must be
        safe to do twice.

        Raises:
            PermanentError: the server refuses.
            TransientError: it kept failing for `retry_seconds`.
        """
        attempts = Attempts(self.settings.retry_seconds)
        while True:
            try:
                with (
                    self._session(neo4j.WRITE_ACCESS) as session,
                    session.begin_transaction(timeout=TRANSACTION_TIMEOUT_SECONDS) as transaction,
                ):
                    answer = work(transaction)
                    transaction.commit()
                    return answer
            except (DriverError, Neo4jError, OSError) as error:
                _pause(attempts, _sort(error), error)

    def close(self) -> None:
        """Close every connection."""
        self._driver.close()

    def __enter__(self) -> "Graph":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _session(self, access: str, fetch_records: int = FETCH_RECORDS) -> neo4j.Session:
        return self._driver.session(
            database=self.settings.database,
            default_access_mode=access,
            fetch_size=fetch_records,
        )


def _require_address(uri: str) -> None:
    """Refuse what is no address, and never repeat one that holds a password.

    Raises:
        DeclarationError: one sentence.
    """
    try:
        parts = urlsplit(uri)
        host, has_login = parts.hostname, "@" in parts.netloc
        _ = parts.port
    except ValueError:
        host, has_login, parts = None, "@" in uri, None
    if has_login:
        raise DeclarationError(
            "the uri of a Neo4j store holds a user name or a password; give them as username and"
            " password, the latter from an environment variable"
        )
    if parts is None or parts.scheme not in SCHEMES or not host:
        raise DeclarationError(
            f"{uri[:200]!r} is no address of Neo4j; write bolt://host:port, valid schemes are"
            f" {', '.join(SCHEMES)}"
        )


def trusted(query: str) -> LiteralString:
    """Vouch for a query: the driver's type asks for literals, and these quote and bind instead."""
    return cast(LiteralString, query)


def _sort(error: Exception) -> MigrationError:
    """Say whether another try may succeed."""
    again = (
        isinstance(error, IncompleteCommit | ConnectionAcquisitionTimeoutError | OSError)
        # The server's own limit for a transaction: what held the lock may be gone.
        or (isinstance(error, Neo4jError) and "TransactionTimedOut" in (error.code or ""))
        or (isinstance(error, GqlError) and _is_retryable(error))
    )
    return (AttemptError if again else PermanentError)(_explain(error))


def _is_retryable(error: GqlError) -> bool:
    return isinstance(error, DriverError | Neo4jError) and error.is_retryable()


def _pause(attempts: Attempts, failure: MigrationError, cause: Exception) -> None:
    """Wait for the next try.

    Raises:
        PermanentError, TransientError: there is none.
    """
    try:
        delay = attempts.delay_after(failure)
    except MigrationError as final:
        raise type(final)(f"Neo4j: {final}") from cause
    time.sleep(delay)


def _explain(error: Exception) -> str:
    """Give an error as one sentence; a server's may repeat a query, so it is cut."""
    if isinstance(error, AuthError):
        return "the server refused the user name or the password"
    if isinstance(error, Neo4jError):
        said = f"the server said: {error.code}: {error.message}"
    else:
        said = _ADDRESS.sub(r"\1:\2", _WHERE.sub("", str(error))) or type(error).__name__
    said = " ".join(said.split())
    return said if len(said) <= MAX_REASON_CHARS else f"{said[:MAX_REASON_CHARS]}..."
