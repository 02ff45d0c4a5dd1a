"""PostgreSQL servers that a test may stop, fill or shut, and plans to copy to them."""

import select
import socket
import ssl
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import psycopg

from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.local import LocalStackError, stack
from migration_platform.local.ports import LOCALHOST, free_port
from migration_platform.local.postgres import Postgres as LocalPostgres
from migration_platform.local.server import Launch
from migration_platform.local.stack import Running
from migration_platform.plan.model import Plan
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.kinds import open_origin, open_target, plan_between
from migration_platform.stores.planning import make_target
from migration_platform.stores.postgres.connection import Postgres, PostgresSettings
from migration_platform.stores.postgres.declaration import PostgresTarget
from migration_platform_tests.servers import PATIENCE_SECONDS

ADMIN = "postgres"
"""May always come in, from this machine, without a password."""


@dataclass(frozen=True, kw_only=True)
class Configured(LocalPostgres):
    """A server with settings of its own, and rules of who may come in and how."""

    address: str = LOCALHOST
    options: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[str, ...] = ("host all all 127.0.0.0/8 trust",)

    def answers(self, port: int) -> bool:
        with suppress(psycopg.Error):
            psycopg.connect(host=self.address, port=port, user=ADMIN, connect_timeout=3).close()
            return True
        return False

    def prepare(self, **options: Any) -> Launch:
        launch = super().prepare(**options)
        first = f"host all {ADMIN} 127.0.0.0/8 trust"
        rules = "\n".join((first, *self.rules, ""))
        (options["folder"] / "data" / "pg_hba.conf").write_text(rules)
        given = {"listen_addresses": self.address, **self.options}
        added = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
        return replace(launch, command=(*launch.command, *added))


@dataclass
class OwnServer:
    """A server that a test has for itself."""

    server: Configured
    home: Path
    port: int

    def start(self) -> Running:
        """Start it, with what data it has, and wait until it answers."""
        return stack.start(self.server, home=self.home, port=self.port)

    @property
    def process(self) -> psutil.Process:
        (pid,) = (s.server.pid for s in stack.status(home=self.home) if s.server)
        return psutil.Process(pid)

    def crash(self) -> None:
        """End it at once, as a machine that loses its power does: the next start recovers it."""
        family = [self.process, *self.process.children(recursive=True)]
        for process in family:
            process.kill()
        psutil.wait_procs(family, timeout=PATIENCE_SECONDS)
        stack.stop(self.server.name, home=self.home)

    def sql(self, text: str, *, user: str = ADMIN) -> list[tuple]:
        """Ask it as somebody who has nothing of ours."""
        with psycopg.connect(
            f"host={self.server.address} port={self.port} user={user} dbname=postgres",
            autocommit=True,
        ) as connection:
            cursor = connection.execute(text.encode())
            return cursor.fetchall() if cursor.description else []


@contextmanager
def own_server(
    server: Configured | None = None, *, home: Path | None = None, port: int | None = None
) -> Iterator[OwnServer]:
    """Start a server for the length of a `with` block."""
    # Not below pytest's folder, which is shut for the server's user.
    with TemporaryDirectory(prefix="postgres-") as folder:
        Path(folder).chmod(0o711)
        own = OwnServer(server or Configured(), home or Path(folder), port or free_port())
        try:
            try:
                own.start()
            except LocalStackError as error:
                error.add_note((own.home / own.server.name / "server.log").read_text())
                raise
            yield own
        finally:
            stack.stop(own.server.name, home=own.home)


@contextmanager
def tls_before(port: int, context: ssl.SSLContext) -> Iterator[int]:
    """Let a server be asked by TLS alone, which the one of this machine was not built with.

    Gives the port at which that is so.
    """
    listener = socket.create_server((LOCALHOST, 0))

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=speak, args=(client,), daemon=True).start()

    def speak(client: socket.socket) -> None:
        # What libpq asks first: for TLS or, in vain, for Kerberos.
        with suppress(OSError), client:
            while (asked := client.recv(8)[4:]) != b"\x04\xd2\x16\x2f":
                client.sendall(b"N") if asked else client.close()
            client.sendall(b"S")
            with (
                context.wrap_socket(client, server_side=True) as inner,
                socket.create_connection((LOCALHOST, port)) as server,
            ):
                forward(inner, server)

    def forward(client: ssl.SSLSocket, server: socket.socket) -> None:
        while True:
            ready = [client] if client.pending() else select.select([client, server], [], [])[0]
            for end, other in ((client, server), (server, client)):
                if end in ready:
                    chunk = end.recv(65_536)
                    if not chunk:
                        return
                    other.sendall(chunk)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE_SECONDS)
        listener.close()


def settings_of(port: int, **options: Any) -> PostgresSettings:
    """Say how a server of this machine is reached."""
    given = {"hosts": (LOCALHOST,), "username": ADMIN, "sslmode": "disable", **options}
    return PostgresSettings(port=port, **given)


def plan_table(
    connection: Connection, pg: Postgres, origin: TableName, into: str = "", **options: Any
) -> Plan:
    """Plan a migration to a table of its own, which is created unless it is named."""
    declared = PostgresTarget(**{"create": not into, **options.pop("postgres", {})})
    name = TableName("", into or f"t{uuid.uuid4().hex}")
    rate = options.pop("rows_per_second", None)
    migration = Migration(
        Endpoint("a", origin),
        Endpoint("b", name, declared=declared, rows_per_second=rate),
        **{
            "token_ranges": 3,
            "retry_seconds": 20.0,
            "writetime": "now",
            "ttl": "none",
            **options,
        },
    )
    plan = plan_between(migration, connection, pg)
    return make_target(
        plan, open_origin(migration, connection), open_target(migration, pg), lambda _: None
    )
