"""What PostgreSQL answers when it refuses: sorted by SQLSTATE, told in one sentence.

The classes are those of https://www.postgresql.org/docs/current/errcodes-appendix.html. What a
server says in DETAIL is never told: it quotes rows.
"""

import re

from migration_platform.errors import (
    AttemptError,
    MigrationError,
    PermanentError,
    RefusedRequestError,
    RefusedValuesError,
)

_PASSING = (
    "08",  # the connection
    "40",  # rolled back: 40001 is usual on YugabyteDB, 40P01 is a deadlock
    "53",  # no room on the disk, no memory, no connection left
    "55P03",  # a lock that somebody holds
    "57014",  # cancelled by statement_timeout
    "57P0",  # the server ends, crashed, or starts
    "58030",  # an input or output error of its disk
    "25006",  # read only: a standby, until it is the primary
)
VALUES_PATTERN = (
    "^("
    "21000"  # a batch that holds a row twice
    "|22"  # a value that its type does not hold
    "|23"  # a constraint
    "|44000"  # a view's check option
    "|54000"  # a key that is too long for an index
    "|P0|09|27|38"  # what a trigger raises, as a rule
    "|(?![0-4]|5[34578]|72|F0|HV|XX)"  # what a trigger raises by a code of its own
    ")"
)
"""SQLSTATEs of what one row may be refused for and another not; the server reads it as well."""
_OF_REQUESTS = (
    "28",  # a user who may not connect any more
    "3D",  # a database that is not there
    "3F",  # a schema
    "42",  # a table, a column, a right
)
_WAYS_OUT = {
    "25006": "name the primary among the store's hosts",
    "26000": "name the server itself, not a pooler that gives a session to many clients",
    "42501": "grant it to the store's user",
    "53100": "make room on the server's disk, and run it again",
    "53300": "raise max_connections there, or lower workers",
    "53400": "raise that limit, or lower target.batch_rows",
    "55P03": "end the session that holds the lock, which pg_locks names, or raise retry_seconds",
    "57014": "raise statement_timeout in the store's options, or lower target.batch_rows",
}
UNIQUE_VIOLATION = "23505"
READ_ONLY = "25006"


class Refusal(Exception):  # noqa: N818, it reads as what it is
    """What a server answered instead of a result.

    `constraint` and `column` are names of the table's, and empty where it names none.
    """

    def __init__(self, sqlstate: str, message: str, constraint: str = "", column: str = ""):
        super().__init__(message)
        self.sqlstate = sqlstate
        told = " ".join(message.split())
        # What it quotes of a value that a type does not hold is the row's own.
        self.message = re.sub('".*"', '"..."', told) if sqlstate.startswith("22") else told
        self.constraint = constraint
        self.column = column

    def __reduce__(self):
        """Give what makes it anew in another process."""
        return Refusal, (self.sqlstate, self.message, self.constraint, self.column)

    @property
    def is_about_values(self) -> bool:
        """Whether another row might have been taken."""
        if self.message.startswith("invalid memory alloc request size"):
            # A row of more than a gigabyte, which has no SQLSTATE of its own.
            return True
        return re.match(VALUES_PATTERN, self.sqlstate) is not None

    @property
    def may_pass(self) -> bool:
        """Whether the same request may be taken later."""
        return self.sqlstate.startswith(_PASSING)

    def to_error(self) -> MigrationError:
        """Give it as the error that says whether trying again can help."""
        where = [f"constraint {self.constraint}"] if self.constraint else []
        where += [f"column {self.column}"] if self.column and not self.constraint else []
        told = (
            f"the server said: {self.message} ({', '.join([f'SQLSTATE {self.sqlstate}', *where])})"
        )
        if self.sqlstate in _WAYS_OUT:
            told += f"; {_WAYS_OUT[self.sqlstate]}"
        if self.may_pass:
            return AttemptError(told)
        if self.is_about_values:
            return RefusedValuesError(told)
        is_about_request = self.sqlstate.startswith(_OF_REQUESTS)
        return RefusedRequestError(told) if is_about_request else PermanentError(told)


class LostConnectionError(AttemptError):
    """The connection broke, or the server did not answer in time; what was asked may be done."""
