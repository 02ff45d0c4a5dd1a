"""A target in YSQL, as the migrator's fork for YugabyteDB names one: whether, where, which table.

The fork writes neither writetimes nor TTLs there, and looks at its Cassandra target no more: what a
file says of these does nothing, which is told.
"""

import re
from typing import Any

from migration_platform.cdm.properties import PREFIX, PROPERTIES, YSQL, YSQL_JOBS
from migration_platform.cdm.settings import Settings, unquoted
from migration_platform.cdm.stores import add_login, read_hosts
from migration_platform.cql.literals import parse_literal
from migration_platform.cql.names import TableName

_TYPES = ("yugabyte", "yugabytedb", "ysql", "postgres", "postgresql")
_PLACES = ("host", "port", "database", "username", "password", "schema")
"""What a file gives of a target that it means; all else may be left from a sample."""
_SSL_MODES = ("require", "verify-ca", "verify-full")
_MAX_MILLISECONDS = 2**31 - 1
"""The most that libpq takes."""
_TIMES = (
    "schema.origin.column.ttl.automatic",
    "schema.origin.column.ttl.names",
    "transform.custom.writetime",
    "transform.custom.writetime.incrementBy",
    "transform.custom.ttl",
)
_TIMES_THAT_FILTER = (
    "schema.origin.column.writetime.automatic",
    "schema.origin.column.writetime.names",
    "schema.ttlwritetime.calc.useCollections",
)
"""These say which cells a filter by writetime looks at, too."""
_ONLY_CASSANDRA = ("perfops.batchSize", "perfops.consistency.write")


def targets_ysql(settings: Settings, job: str | None) -> bool:
    """Say whether the file's target is YSQL: by its job, else by its type, else by what it names.

    A file that names a Cassandra cluster as well is wrong unless a job is given.
    """
    if job == "guardrail":
        return False
    kind = settings.text("connect.target.type").lower() or "cassandra"
    if kind not in ("cassandra", *_TYPES):
        settings.wrong.append(
            f"{PREFIX}connect.target.type must be cassandra, or yugabyte for its YSQL"
        )
    if job in YSQL_JOBS or kind in _TYPES:
        return True
    named = any(settings.given(YSQL + part) for part in _PLACES)
    cluster = settings.given("connect.target.type") or settings.given("connect.target.host")
    if named and cluster and job is None:
        settings.wrong.append(
            "the file names a Cassandra cluster and YSQL as its target; say with --job which one "
            "is meant: migrate for the cluster, yugabyte-migrate for YSQL"
        )
    return named and not cluster


def to_ysql_store(settings: Settings, name: str, variables: dict[str, str]) -> dict[str, Any]:
    """Give the target's store as YAML has it.

    The environment variable of its password is added to `variables`, with whose password it holds.
    """
    hosts, port = read_hosts(settings, (f"{YSQL}host", f"{YSQL}additionalEndpoints"), f"{YSQL}port")
    store: dict[str, Any] = {
        "hosts": list(dict.fromkeys(hosts)),
        "port": port,
        "database": _database(settings),
    }
    add_login(settings, YSQL, store, name, variables)
    return {**store, "schema": _schema(settings), **_tls(settings), **_options(settings)}


def _database(settings: Settings) -> str:
    name = f"{YSQL}database"
    return settings.text(name) or PROPERTIES[name].default


def _schema(settings: Settings) -> str:
    name = f"{YSQL}schema"
    return unquoted(settings.text(name)) or PROPERTIES[name].default


def _tls(settings: Settings) -> dict[str, str]:
    """Give how a connection is encrypted: the fork looks at the mode only where SSL is enabled."""
    mode, authorities = settings.text(f"{YSQL}sslmode").lower(), f"{YSQL}sslrootcert"
    if not settings.flag(f"{YSQL}ssl.enabled"):
        for name in (f"{YSQL}sslmode", authorities):
            if settings.given(name) and settings.text(name).lower() != PROPERTIES[name].default:
                settings.note(f"{PREFIX}{name} does nothing while ssl.enabled is false.")
        settings.note(
            f"sslmode is disable, because {PREFIX}{YSQL}ssl.enabled is false: the password and "
            "all rows travel unencrypted. Set it to verify-full, and ca_file, where the server has "
            "a certificate."
        )
        return {"sslmode": "disable"}
    mode = mode if settings.given(f"{YSQL}sslmode") else "require"
    if mode not in _SSL_MODES:
        settings.wrong.append(
            f"{PREFIX}{YSQL}sslmode must be {', '.join(_SSL_MODES)} where ssl.enabled is true: "
            "every other mode may connect unencrypted"
        )
    if mode == "require":
        settings.note(
            "sslmode is require, which encrypts and does not ask who the server is; verify-full "
            "with ca_file does."
        )
    found = {"sslmode": mode}
    if settings.text(authorities):
        found["ca_file"] = settings.text(authorities).removeprefix("file://")
    return found


def _options(settings: Settings) -> dict[str, dict[str, int]]:
    options: dict[str, int] = {}
    name = f"{YSQL}socketTimeout"
    milliseconds = settings.number(name) or 0
    if not 0 <= milliseconds <= _MAX_MILLISECONDS:
        settings.wrong.append(f"{PREFIX}{name} must be milliseconds, 0 to {_MAX_MILLISECONDS}")
    if milliseconds:
        options["tcp_user_timeout"] = milliseconds
        settings.note(
            f"{PREFIX}{name} is options.tcp_user_timeout, {milliseconds} milliseconds: a server "
            "that acknowledges nothing for so long is given up. It does not limit a statement; "
            "statement_timeout in options does."
        )
    if not settings.flag(f"{YSQL}tcpKeepAlive"):
        options["keepalives"] = 0
    return {"options": options} if options else {}


def to_ysql_table(settings: Settings) -> TableName | None:
    """Read table, schema.table or database.schema.table as the fork does; the schema is named.

    Of two parts the first is a schema, unless it is the name of the database: then the store's
    schema holds the table. So it is with the origin's name where there is no other.
    """
    name = "schema.target.keyspaceTable"
    is_given = settings.given(name)
    text = settings.text(name) if is_given else settings.text("schema.origin.keyspaceTable")
    part = r'("(?:[^"]|"")+"|[^".\s]+)'
    found = re.fullmatch(rf"(?:(?:{part}\.)?{part}\.)?{part}", text)
    if not found:
        if is_given:
            settings.wrong.append(
                f"{PREFIX}{name} must be table, schema.table or database.schema.table"
            )
        return None
    first, second, table = (unquoted(each) if each else "" for each in found.groups())
    database = _database(settings)
    if first and first != database:
        settings.wrong.append(
            f"{PREFIX}{name} names the database {first}, and {PREFIX}{YSQL}database is {database}; "
            "name one database"
        )
    schema = _schema(settings) if second in ("", database) and not first else second
    named = TableName(schema, table)
    settings.note(
        f"target.table is {named}, by the fork's rule for {text}. Where there is no such table the "
        "plan says so; the fork looks for it in other schemas, too."
    )
    return named


def parse_constant(text: str) -> Any:
    """Read a constant as the fork does: a literal of CQL, or a text without its quotes.

    Raises:
        ValueError: it is neither; one sentence.
    """
    try:
        return parse_literal(text)
    except ValueError:
        plain = text.strip()
        if not plain or plain.lower() == "null" or re.search(r"['\"\[\]{}()]|\$\$", plain):
            raise
        return plain


def has_no_meaning(name: str) -> bool:
    """Say whether a property is for a Cassandra target only, and one in YSQL has none of it."""
    if name.startswith("connect.target."):
        return not name.startswith(YSQL) and name != "connect.target.type"
    return name in _ONLY_CASSANDRA


def note_ysql(settings: Settings, *, filters_by_writetime: bool) -> None:
    """Say what differs with a target in YSQL, and which of the file's properties do nothing."""
    settings.note(
        "writetime is now and ttl is none, because YSQL has neither. With writetime: row_max and "
        "target.writetime_column a row keeps its newest writetime, and the newest row wins."
    )
    timed = _TIMES if filters_by_writetime else (*_TIMES, *_TIMES_THAT_FILTER)
    _note_without_meaning(settings, [name for name in timed if _differs(settings, name)])
    others = [name for name in PROPERTIES if has_no_meaning(name) and settings.given(name)]
    _note_without_meaning(settings, others)
    settings.note(
        "A row that the server refuses fails its range; with dead_letters.max_rows such rows "
        "become dead letters, and a run that leaves any is not green. The fork writes them to "
        "failed_records and failed_keys, and the range passes."
    )
    settings.note(
        "Timestamps are written in UTC, where the fork takes the zone of its machine. Collections "
        "and user-defined types become arrays and jsonb, where it writes the text that Java makes "
        "of them; the plan says how each column arrives."
    )


def _differs(settings: Settings, name: str) -> bool:
    known = PROPERTIES[name].default.lower()
    return settings.given(name) and settings.text(name).lower() != known


def _note_without_meaning(settings: Settings, names: list[str]) -> None:
    if names:
        listed = ", ".join(PREFIX + name for name in names)
        settings.note(f"Without meaning for a target in YSQL: {listed}.")
