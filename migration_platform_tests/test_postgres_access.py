"""Who is let in to PostgreSQL, and what a user who is let in may do: each refusal is a sentence."""

import logging
import ssl
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme

from migration_platform.errors import (
    DeniedError,
    MigrationError,
    PermanentError,
    PreflightError,
    TransientError,
)
from migration_platform.pacing.retries import connect_patiently
from migration_platform.plan.model import Plan
from migration_platform.stores.kinds import open_origin, open_target
from migration_platform.stores.permissions import look_again, refuse_denied
from migration_platform.stores.postgres.connection import Postgres, PostgresSettings
from migration_platform_tests.postgres_tables import (
    Configured,
    OwnServer,
    own_server,
    plan_table,
    settings_of,
    tls_before,
)
from migration_platform_tests.servers import proxy_before
from migration_platform_tests.tables import copy_ranges, create_table, fill, in_process

SECRET, WRONG = "s3cret 'that\\must-not leak", "wr0ng-that-must-not-leak"
CONNECTIONS = 12
RULES = (
    "host all mover 127.0.0.0/8 scram-sha-256",
    "host all poor,crowd,late 127.0.0.0/8 trust",
)


@pytest.fixture(scope="module")
def guarded() -> Iterator[OwnServer]:
    """A server that asks who comes, and lets few come at once."""
    options = {"max_connections": str(CONNECTIONS)}
    with own_server(Configured(options=options, rules=RULES)) as own:
        own.sql("CREATE ROLE mover LOGIN PASSWORD '{}'".format(SECRET.replace("'", "''")))
        own.sql("CREATE ROLE poor LOGIN; CREATE ROLE crowd LOGIN; CREATE ROLE late NOLOGIN")
        yield own


def why_refused(settings: PostgresSettings) -> str:
    """Give the one sentence of a refusal that no other try would change."""
    with pytest.raises(PreflightError) as refused:
        connect_patiently(settings.connect, 20.0)
    message = str(refused.value)
    assert "\n" not in message
    return message


# -- who is let in -------------------------------------------------------------------------------


def test_a_password_is_asked_for_and_shown_nowhere(guarded: OwnServer, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    right = settings_of(guarded.port, username="mover", password=SECRET)
    with right.connect() as connection:
        assert connection.product == "PostgreSQL"
    wrong = why_refused(replace(right, password=WRONG))
    assert 'password authentication failed for user "mover"' in wrong
    assert "set the store's username and password" in wrong
    missing = why_refused(replace(right, password=None))
    assert missing.endswith("the store declares none; set password: {env: NAME}")
    unknown = why_refused(settings_of(guarded.port, username="late"))
    assert 'role "late" is not permitted to log in' in unknown
    nobody = why_refused(settings_of(guarded.port, username="nobody_at_all"))
    assert "no pg_hba.conf entry" in nobody
    elsewhere = why_refused(replace(right, database="nowhere"))
    assert 'database "nowhere" does not exist' in elsewhere
    option = why_refused(replace(right, options={"no_such_setting": SECRET}))
    assert "see the store's options" in option
    told = [repr(right), repr(wrong), missing, unknown, elsewhere, caplog.text, *capfd.readouterr()]
    for secret in (SECRET, WRONG, SECRET[:6]):
        assert secret not in "\n".join(told)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Certificates of a server and a client, and of an authority that knows neither."""
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    stranger.cert_pem.write_to_path(folder / "stranger.pem")
    for name, host in (("server", "localhost"), ("client", "client.example")):
        issued = authority.issue_cert(host)
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        (folder / f"{name}.key").chmod(0o600)
    return folder


def server_context(files: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "server.pem", files / "server.key")
    context.load_verify_locations(files / "ca.pem")
    return context


def test_tls_is_used_as_it_is_declared(guarded: OwnServer, files: Path):
    plain = settings_of(guarded.port, username="poor")
    assert "set the store's sslmode" in why_refused(replace(plain, sslmode="require"))
    with tls_before(guarded.port, server_context(files)) as port:
        hidden = replace(plain, port=port, sslmode="require")
        with hidden.connect() as connection:
            assert connection.session("questions").pgconn.ssl_in_use
        verified = replace(hidden, sslmode="verify-full", ca_file=str(files / "ca.pem"))
        with replace(verified, hosts=("localhost",)).connect():
            pass
        told = why_refused(verified)
        assert "does not match host name" in told
        assert told.endswith("name the host as its certificate does")
        with replace(verified, sslmode="verify-ca").connect():
            pass
        stranger = replace(verified, ca_file=str(files / "stranger.pem"))
        assert "certificate verify failed" in why_refused(stranger)


def test_files_of_certificates_are_named_where_they_are_missing(guarded: OwnServer, files: Path):
    context = server_context(files)
    context.verify_mode = ssl.CERT_REQUIRED
    with tls_before(guarded.port, context) as port:
        certified = settings_of(
            port,
            username="poor",
            sslmode="verify-ca",
            ca_file=str(files / "ca.pem"),
            certificate_file=str(files / "client.pem"),
            key_file=str(files / "client.key"),
        )
        with certified.connect():
            pass
        for name in ("ca_file", "certificate_file", "key_file"):
            gone = str(files / f"gone.{name}")
            told = why_refused(replace(certified, **{name: gone}))
            assert told == f"there is no file {gone}, which the store's {name} names"
        told = why_refused(replace(certified, certificate_file=None, key_file=None))
        assert "certificate required" in told


# -- what a user may do --------------------------------------------------------------------------


@pytest.fixture
def origin(connection, keyspace):
    table = create_table(connection, keyspace, "o", "k int PRIMARY KEY, v text")
    fill(connection, table, "k, v", [(n, f"v{n}") for n in range(200)])
    return table


@pytest.fixture
def poor(guarded: OwnServer) -> Iterator[Postgres]:
    with settings_of(guarded.port, username="poor").connect() as connection:
        yield connection


def why_denied(plan: Plan, connection: Any, pg: Postgres) -> str:
    sides = open_origin(plan.migration, connection), open_target(plan.migration, pg)
    with pytest.raises(PreflightError) as denied:
        refuse_denied(plan, *sides)
    return str(denied.value)


def test_rights_that_a_run_needs_are_named_before_anything_is_written(
    guarded, connection, origin, poor
):
    own, into = guarded, f"t{uuid.uuid4().hex}"
    own.sql(f"CREATE TABLE {into} (k int PRIMARY KEY, v text)")
    plan = plan_table(connection, poor, origin, into)
    assert f"GRANT SELECT, INSERT, UPDATE ON public.{into}" in why_denied(plan, connection, poor)
    own.sql(f"GRANT SELECT, INSERT, UPDATE ON {into} TO poor")
    own.sql("REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC")
    told = why_denied(plan, connection, poor)
    assert "GRANT TEMPORARY ON DATABASE" in told
    assert "target.method to values" in told
    # As it says, the other way needs no such right.
    plan = plan_table(connection, poor, origin, into, postgres={"method": "values"})
    assert copy_ranges(in_process(plan, connection, poor)).written == 200
    own.sql("GRANT TEMPORARY ON DATABASE postgres TO PUBLIC")


def test_a_schema_in_which_nothing_may_be_made_is_named(guarded: OwnServer, connection, origin):
    guarded.sql("CREATE SCHEMA shut; GRANT USAGE ON SCHEMA shut TO poor")
    with settings_of(guarded.port, username="poor", schema="shut").connect() as pg:
        with pytest.raises(MigrationError) as denied:
            plan_table(connection, pg, origin)
        assert "permission denied for schema shut (SQLSTATE 42501); grant it" in str(denied.value)


def test_a_right_that_is_taken_away_on_the_way_ends_the_run(guarded, connection, origin, poor):
    own, into = guarded, f"t{uuid.uuid4().hex}"
    own.sql(f"CREATE TABLE {into} (k int PRIMARY KEY, v text)")
    own.sql(f"GRANT SELECT, INSERT, UPDATE ON {into} TO poor")
    plan = plan_table(connection, poor, origin, into)
    stores = in_process(plan, connection, poor)
    first, second, _ = plan.migration.ranges
    copied = copy_ranges(stores, [first]).written
    own.sql(f"REVOKE INSERT ON {into} FROM poor")
    with pytest.raises(PermanentError, match=r"permission denied for table .*; grant it to"):
        copy_ranges(stores, [second])
    sides = open_origin(plan.migration, connection), open_target(plan.migration, poor)
    with pytest.raises(DeniedError, match=r"the run ended, because .* GRANT INSERT"):
        look_again(plan, *sides)
    assert own.sql(f"SELECT count(*) FROM {into}") == [(copied,)]


# -- where there is no room, and where nothing may be written ------------------------------------


def test_a_server_with_all_its_connections_taken_is_asked_again(guarded: OwnServer):
    settings = settings_of(guarded.port, username="poor")
    with ExitStack() as crowd:
        taken = f"host=127.0.0.1 port={guarded.port} user=crowd dbname=postgres"
        with suppress(psycopg.OperationalError):
            for _ in range(CONNECTIONS):
                crowd.enter_context(psycopg.connect(taken))
        with pytest.raises(TransientError) as given_up:
            connect_patiently(settings.connect, 0.5)
        assert "raise max_connections there, or lower workers, after" in str(given_up.value)
        told: list[str] = []

        def leave(why: str) -> None:
            told.append(why)
            crowd.close()

        with connect_patiently(settings.connect, 20.0, leave):
            assert "cannot be reached" in told[0]


@pytest.fixture
def pair(guarded: OwnServer) -> Iterator[tuple[OwnServer, OwnServer]]:
    """Two servers on one port of two addresses, of which only the first takes writes."""
    with own_server(Configured()) as first:
        standby = Configured(address="127.0.0.2", options={"default_transaction_read_only": "on"})
        with own_server(standby, port=first.port) as second:
            yield first, second


def test_the_host_that_takes_writes_is_found_also_when_it_changes(connection, origin, pair):
    first, second = pair
    into = f"t{uuid.uuid4().hex}"
    create = f"CREATE TABLE {into} (k int PRIMARY KEY, v text)"
    first.sql(create)
    second.sql(f"BEGIN READ WRITE; {create}; COMMIT")
    settings = settings_of(first.port, hosts=("127.0.0.2", "127.0.0.1"))
    with pytest.raises(TransientError, match=r"takes writes: .* name the primary among"):
        connect_patiently(replace(settings, hosts=("127.0.0.2",)).connect, 0.3)
    with settings.connect() as pg:
        plan = plan_table(connection, pg, origin, into)
        stores = in_process(plan, connection, pg)
        before = copy_ranges(stores, plan.migration.ranges[:1])
        for server, readonly in ((first, "on"), (second, "off")):
            server.sql(f"ALTER SYSTEM SET default_transaction_read_only = {readonly}")
        # What its command line says overrules that of the second; it is started anew.
        second.crash()
        second.server = replace(second.server, options={})
        second.start()
        first.sql("SELECT pg_reload_conf()")
        after = copy_ranges(stores, plan.migration.ranges[1:])
        assert after.retries > 0
        count = f"SELECT count(*) FROM {into}"
        assert first.sql(count) == [(before.written,)]
        assert second.sql(count) == [(after.written,)]
        assert before.written + after.written == 200


def test_a_host_that_is_down_is_passed_over(guarded: OwnServer):
    # Nobody listens there.
    settings = settings_of(guarded.port, username="poor", hosts=("127.0.0.9", "127.0.0.1"))
    with settings.connect():
        pass
    with proxy_before(guarded.port, lambda answer: b"") as silent:
        mute = settings_of(silent.port, username="poor", connect_timeout_seconds=2)
        with pytest.raises(TransientError, match=r"cannot be reached: .*timeout"):
            connect_patiently(mute.connect, 0.3)
