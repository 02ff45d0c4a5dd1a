"""What PostgreSQL answers when it refuses: sorted by SQLSTATE, told in one sentence.

The classes are those of https://www.postgresql.org/docs/current/errcodes-appendix.html. What a
server says in DETAIL is never told: it quotes rows.
"""

from migration_platform.errors import (
    AttemptError,
    MigrationError,
    PermanentError,
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
_OF_VALUES = (
    "21000",  # a batch that holds a row twice
    "22",  # a value that its type does not hold
    "23",  # a constraint
    "44000",  # a view's check option
    "54000",  # a key that is too long for an index
    "P0001",  # what a trigger raises
)
UNIQUE_VIOLATION = "23505"


class Refusal(Exception):  # noqa: N818, it reads as what it is
    """What a server answered instead of a result.

    `constraint` and `column` are names of the table's, and empty where it names none.
    """

    def __init__(self, sqlstate: str, message: str, constraint: str = "", column: str = ""):
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = " ".join(message.split())
        self.constraint = constraint
        self.column = column

    def __reduce__(self):
        """Give what makes it anew in another process."""
        return Refusal, (self.sqlstate, self.message, self.constraint, self.column)

    @property
    def is_about_values(self) -> bool:
        """Whether another row might have been taken."""
        return self.sqlstate.startswith(_OF_VALUES)

    def to_error(self) -> MigrationError:
        """Give it as the error that says whether trying again can help."""
        where = [f"constraint {self.constraint}"] if self.constraint else []
        where += [f"column {self.column}"] if self.column and not self.constraint else []
        told = (
            f"the server said: {self.message} ({', '.join([f'SQLSTATE {self.sqlstate}', *where])})"
        )
        if self.sqlstate.startswith(_PASSING):
            return AttemptError(told)
        return RefusedValuesError(told) if self.is_about_values else PermanentError(told)


class LostConnectionError(AttemptError):
    """The connection broke, or the server did not answer in time; what was asked may be done."""
