"""What can go wrong on the way of a row, and whether trying again can help.

    MigrationError
    ├── DeclarationError    a user's mistake, found before anything is written
    ├── PreflightError      the stores do not allow the declared migration; nothing is written
    ├── PermanentError      the server refused; the same request would be refused again
    │   ├── DeniedError     it refuses the whole table to this run: no other range fares better
    │   ├── UnreadableError it is up, and yet cannot read a partition, however little at a time
    │   ├── RefusedValuesError  it refused the values in a request, as an item that is too large
    │   └── RefusedRequestError it refused what a request names, as a table that was dropped
    └── TransientError      the server was unreachable or busy for longer than `retry_seconds`
        └── AttemptError    one try failed, at a store whose requests this package sends itself

The driver's own exceptions are sorted once, by `is_transient`, and turned into one sentence by
`explain`; no other place looks into them.
"""

import re

from cassandra import (
    AuthenticationFailed,
    CDCWriteFailure,
    CoordinationFailure,
    InvalidRequest,
    OperationTimedOut,
    ReadFailure,
    ReadTimeout,
    Timeout,
    Unauthorized,
    Unavailable,
    UnresolvableContactPoints,
)
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionException, ConnectionShutdown
from cassandra.protocol import (
    ErrorMessage,
    IsBootstrappingErrorMessage,
    OverloadedErrorMessage,
    ServerError,
    SyntaxException,
    TruncateError,
)


class MigrationError(Exception):
    """Any failure that this package explains in one sentence."""


class DeclarationError(MigrationError):
    """The declaration of a migration contradicts itself or names what does not exist."""


class PreflightError(MigrationError):
    """The stores do not allow the declared migration; nothing was written."""


class PermanentError(MigrationError):
    """A server refused a request, and would refuse it again."""


class DeniedError(PermanentError):
    """A server has begun to refuse a whole table to a run, so that the run is over."""


class UnreadableError(PermanentError):
    """A server that is up cannot read a partition, however little of it at a time."""


class RefusedValuesError(PermanentError):
    """A server refused a request for the values in it."""


class RefusedRequestError(PermanentError):
    """A server refused a request for what it names, or for who sends it, and not for its values."""


class TransientError(MigrationError):
    """A server did not answer as it should for longer than the time given to retries."""


class AttemptError(TransientError):
    """One try of a request failed, and another may succeed."""


_PERMANENT = (AuthenticationFailed, InvalidRequest, Unauthorized, SyntaxException)
_TRANSIENT = (
    OperationTimedOut,
    CDCWriteFailure,  # no room for a log of changes, until whoever reads that takes some away
    Timeout,  # ReadTimeout and WriteTimeout
    Unavailable,
    CoordinationFailure,  # ReadFailure and WriteFailure: a replica failed, another may not
    ConnectionException,
    ConnectionShutdown,
    UnresolvableContactPoints,  # a name server may be away, a host's name may be about to come
    OverloadedErrorMessage,
    IsBootstrappingErrorMessage,
    TruncateError,
    ServerError,
    OSError,
    AttemptError,
)

_CAS_WRITE_UNKNOWN = 0x1700
"""Protocol v5: a conditional write may or may not have happened. The driver has no class for it."""

# How the driver writes down what a server answered.
_FROM_SERVER = re.compile(
    r'Error from server: code=\w+ \[(.*?)\] message="(.*?)"(?: info=(\{.*\}))?', re.DOTALL
)


def is_transient(error: BaseException) -> bool:
    """Say whether the same request may succeed later.

    A `NoHostAvailable` is as transient as what the hosts answered: one wrong password makes it
    permanent, because every further try could lock the account.
    """
    if isinstance(error, _PERMANENT):
        return False
    if isinstance(error, NoHostAvailable):
        causes = causes_of(error)
        return not any(isinstance(cause, _PERMANENT) for cause in causes)
    if isinstance(error, ErrorMessage) and error.code == _CAS_WRITE_UNKNOWN:
        return True
    return isinstance(error, _TRANSIENT)


def may_be_too_much(error: BaseException) -> bool:
    """Say whether a read may have failed because it is too much: too large, too many tombstones."""
    return isinstance(error, ReadFailure | ReadTimeout | OperationTimedOut)


_NOT_ABOUT_A_ROW = re.compile(
    r"does not exist|unconfigured|undefined column|unknown (?:identifier|keyspace)|consistency"
    r"|is not allowed|not supported|permission"
    r"|guardrail (?!(?!page_)\w*size|items_per_collection|\w*timestamp\b)\w+ violated",
    re.IGNORECASE,
)


def is_about_row(error: BaseException | None) -> bool:
    """Say whether a server refused a write for its values: a key too long, a cell too large.

    Servers since Cassandra 4.1 refuse all of that as invalid, just as a write to a table that was
    dropped or at a level that is not allowed, which would be refused for every row.
    """
    if isinstance(error, RefusedValuesError):
        return True
    return isinstance(error, InvalidRequest) and not _NOT_ABOUT_A_ROW.search(str(error))


def may_concern_all(error: BaseException | None) -> bool:
    """Say whether what made a task fail may make every other one fail as well.

    A permission that was taken away, a table that was dropped, a statement that no longer fits:
    whether it is so must be asked, for it may as well be one server that lags behind.
    """
    while error is not None:
        if isinstance(error, AuthenticationFailed | Unauthorized | SyntaxException):
            return True
        if isinstance(error, RefusedRequestError):
            return True
        if isinstance(error, InvalidRequest) and not is_about_row(error):
            return True
        error = error.__cause__
    return False


def explain(error: BaseException) -> str:
    """Give an error as one sentence, without addresses of objects and without tracebacks."""
    if isinstance(error, MigrationError):
        return str(error)
    if isinstance(error, NoHostAvailable):
        causes = causes_of(error)
        for cause in causes:
            if isinstance(cause, _PERMANENT):
                return explain(cause)
        hosts = error.errors if isinstance(error.errors, dict) else {}
        told = {f"{host}: {explain(cause)}" for host, cause in hosts.items()}
        return "no host answered" + (f" ({'; '.join(sorted(told))})" if told else "")
    if isinstance(error, AuthenticationFailed):
        return "the server refused the user name or the password"
    if isinstance(error, OperationTimedOut):
        return "the server did not answer in time"
    if isinstance(error, ErrorMessage):
        return f"the server said: {error.summary}: {error.message}"
    message = " ".join(str(part) for part in error.args) if error.args else ""
    message = " ".join((message or type(error).__name__).split())
    if found := _FROM_SERVER.fullmatch(message):
        summary, said, info = found.groups()
        details = re.sub(r"[{}':]", "", info or "")
        return f"the server said: {summary}: {said}" + (f" ({details})" if details else "")
    return message


def causes_of(error: NoHostAvailable) -> list[BaseException]:
    """Give what the hosts answered: the driver keeps it by host, or as a plain list."""
    found = error.errors
    return list(found.values()) if isinstance(found, dict) else list(found or [])
