"""How to reach PostgreSQL or YugabyteDB: a value that can be pickled and shows no secrets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from migration_platform.errors import PreflightError

if TYPE_CHECKING:
    from migration_platform.stores.postgres.connection import Postgres

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
    options: Mapping[str, str] = field(default_factory=dict)

    def connect(self) -> "Postgres":
        """Connect once.

        Raises:
            PreflightError: nobody answers, or the user is refused; one sentence.
        """
        from migration_platform.stores.postgres.connection import Postgres

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
