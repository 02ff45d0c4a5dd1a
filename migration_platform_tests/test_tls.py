"""A cluster that demands a password, TLS and a certificate of the client, all at once."""

import logging
import socket
import ssl
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
import pytest
import trustme
import yaml
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster_shared.serdes import serialize_value

from migration_platform.demo.sample import create_tables, fill_origin
from migration_platform.errors import PreflightError
from migration_platform.local.cassandra import Cassandra, TlsFiles
from migration_platform.resources import CassandraResource, KafkaResource
from migration_platform.stores.cassandra.connection import (
    CassandraSettings,
    Connection,
    TlsSettings,
)
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    KEYS,
    Project,
    make_project,
    wait_until,
)
from migration_platform_tests.servers import SMALL_HEAP_MB, run_server
from migration_platform_tests.tables import be_patient, patient_connection

RIGHT, WRONG = "s3cret-that-must-not-leak", "wr0ng-that-must-not-leak"
TARGET = "report_user_enrolments"


@dataclass(frozen=True)
class SecureServer:
    """`settings` are those of a role whose password is `RIGHT` and what comes after it."""

    settings: CassandraSettings
    stranger_ca: str
    stranger_certificate: str
    stranger_key: str
    authority: trustme.CA

    @property
    def tls(self) -> TlsSettings:
        assert self.settings.tls is not None
        return self.settings.tls


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureServer]:
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = trustme.CA(), trustme.CA()
    ca_file, stranger_file = folder / "ca.pem", folder / "stranger.pem"
    authority.cert_pem.write_to_path(ca_file)
    stranger.cert_pem.write_to_path(stranger_file)
    keystore = folder / "server.pem"
    keystore.write_bytes(in_pkcs8(authority.issue_cert("127.0.0.1")))
    certificate, key = write_certificate(folder, "client", authority)
    strange_certificate, strange_key = write_certificate(folder, "strange", stranger)
    options = Cassandra(
        cluster_name="secure",
        heap_mb=SMALL_HEAP_MB,
        password=True,
        tls=TlsFiles(keystore=keystore, truststore=ca_file, client_certificates=True),
    )
    with run_server(options, folder / "home") as running:
        settings = CassandraSettings(
            port=running.port,
            username="cassandra",
            password="cassandra",
            tls=TlsSettings(str(ca_file), certificate, key),
        )
        # What no part of the way may take for anything but characters.
        password = RIGHT + """ ü'"{{ x }}%s$HOME\\"""
        with wait_until(lambda: first_connection(settings), 120, "the first role") as connection:
            be_patient(connection.session)
            escaped = password.replace("'", "''")
            connection.session.execute(
                f"CREATE ROLE mover WITH PASSWORD = '{escaped}' AND LOGIN = true "
                "AND SUPERUSER = true"
            )
            create_tables(connection, "ks")
            fill_origin(connection, 50, keyspace="ks")
        yield SecureServer(
            replace(settings, username="mover", password=password),
            str(stranger_file),
            strange_certificate,
            strange_key,
            authority,
        )


def write_certificate(folder: Path, name: str, authority: trustme.CA) -> tuple[str, str]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    issued = authority.issue_cert("client.example")
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    return str(certificate), str(key)


def first_connection(settings: CassandraSettings) -> Connection | None:
    """Connect, unless the server's first role is not there yet."""
    try:
        return Connection(settings)
    except PreflightError:
        return None


def in_pkcs8(issued: trustme.LeafCert, passphrase: bytes | None = None) -> bytes:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    lock = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
    return text + b"".join(part.bytes() for part in issued.cert_chain_pems)


def why_refused(settings: CassandraSettings) -> str:
    """Give the one sentence of the refusal, which holds nothing of the password."""
    with pytest.raises(PreflightError) as refused:
        Connection(settings)
    message = str(refused.value)
    assert message.startswith("cannot ")
    assert "\n" not in message
    assert not settings.password or settings.password[:6] not in message
    return message


# -- who is let in -----------------------------------------------------------------------------


def test_a_store_with_password_tls_and_certificate_connects(secure: SecureServer):
    with Connection(secure.settings) as connection:
        assert connection.session.execute("SELECT cluster_name FROM system.local").one()[0]


REFUSED = "the server refused the user name or the password"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"password": WRONG}, REFUSED),
        ({"password": ""}, f"{REFUSED}; the store gives no password"),
        ({"password": None}, f"{REFUSED}; the store gives no password"),
        ({"username": "nobody"}, REFUSED),
        (
            {"username": None},
            "the server asks who is there; give the store a username and a password",
        ),
    ],
)
def test_a_wrong_user_or_password_is_refused_in_one_sentence(
    secure: SecureServer, change: dict, told: str
):
    message = why_refused(replace(secure.settings, **change))
    assert message == f"cannot connect to {secure.settings}: {told}"


def test_a_plain_line_to_a_server_that_wants_tls_is_refused(secure: SecureServer):
    assert "demands TLS, give the store a tls block" in why_refused(
        replace(secure.settings, tls=None)
    )


def test_a_client_without_a_certificate_is_refused(secure: SecureServer):
    tls = replace(secure.tls, certificate_file=None, key_file=None)
    assert "must trust tls.certificate_file" in why_refused(replace(secure.settings, tls=tls))


def test_a_client_with_the_certificate_of_a_stranger_is_refused(secure: SecureServer):
    tls = replace(
        secure.tls, certificate_file=secure.stranger_certificate, key_file=secure.stranger_key
    )
    assert "must trust tls.certificate_file" in why_refused(replace(secure.settings, tls=tls))


@pytest.mark.parametrize("trusted", ["a stranger", "the system"])
def test_a_server_of_an_authority_that_is_not_trusted_is_refused(
    secure: SecureServer, trusted: str
):
    tls = replace(secure.tls, ca_file=secure.stranger_ca if trusted == "a stranger" else None)
    message = why_refused(replace(secure.settings, tls=tls))
    assert "must come from an authority in tls.ca_file" in message


def test_a_server_whose_certificate_names_another_host_is_refused(secure: SecureServer):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    secure.authority.issue_cert("other.example").configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))

    def greet() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, suppress(OSError):
                    context.wrap_socket(client, server_side=True).close()

    thread = threading.Thread(target=greet)
    thread.start()
    try:
        port = listener.getsockname()[1]
        assert "certificate" in why_refused(replace(secure.settings, port=port)).lower()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


@pytest.mark.parametrize(
    ("attribute", "lacks"),
    [
        ("ca_file", "certificate in PEM form"),
        ("certificate_file", "certificate in PEM form"),
        ("key_file", "key in PEM form without a passphrase"),
    ],
)
def test_a_file_that_is_missing_or_holds_something_else_is_named_by_its_attribute(
    secure: SecureServer, tmp_path: Path, attribute: str, lacks: str
):
    wrong = tmp_path / "wrong.pem"
    settings = replace(secure.settings, tls=replace(secure.tls, **{attribute: str(wrong)}))
    said = f"cannot use the TLS files: tls.{attribute}: {wrong}"
    assert why_refused(settings) == f"{said} cannot be read: No such file or directory"
    wrong.write_text("hardly a certificate")
    assert why_refused(settings) == f"{said} holds no {lacks}"


def test_a_key_of_another_certificate_and_a_locked_key_are_told_apart(
    secure: SecureServer, tmp_path: Path
):
    tls = replace(secure.tls, key_file=secure.stranger_key)
    assert why_refused(replace(secure.settings, tls=tls)) == (
        f"cannot use the TLS files: tls.key_file: {secure.stranger_key} is not the key of "
        "tls.certificate_file"
    )
    locked = tmp_path / "locked.key"
    locked.write_bytes(in_pkcs8(secure.authority.issue_cert("client.example"), b"a passphrase"))
    tls = replace(secure.tls, key_file=str(locked))
    assert why_refused(replace(secure.settings, tls=tls)) == (
        f"cannot use the TLS files: tls.key_file: {locked} holds no key in PEM form without a "
        "passphrase"
    )


# -- where the password shows ------------------------------------------------------------------


def test_a_refused_password_shows_in_no_repr_traceback_or_log(
    secure: SecureServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    caplog.set_level(logging.DEBUG)
    settings = replace(secure.settings, password=WRONG)
    with pytest.raises(PreflightError) as refused:
        Connection(settings)

    told = traceback.TracebackException.from_exception(refused.value, capture_locals=True)
    shown = [repr(settings), str(settings), repr(refused.value), *told.format()]
    shown += [caplog.text, *capfd.readouterr()]

    assert WRONG not in "".join(shown)
    assert "PreflightError: cannot connect" in "".join(shown)


@pytest.mark.parametrize(
    "resource",
    [
        CassandraResource(username="u", password=RIGHT),
        KafkaResource(bootstrap_servers="a", username="u", password=RIGHT),
    ],
    ids=["cassandra", "kafka"],
)
def test_a_resource_does_not_show_its_password(resource: CassandraResource | KafkaResource):
    assert resource.to_settings().password == RIGHT
    assert RIGHT not in f"{resource!r} {resource} {resource.to_settings()!r}"


class TestRuns:
    """Dagster's runs over TLS, with the password in an environment variable."""

    pytestmark = DAGSTERS_OWN_WARNINGS

    @pytest.fixture
    def project(
        self, secure: SecureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Project:
        assert secure.settings.password is not None
        monkeypatch.setenv("MOVER_PASSWORD", secure.settings.password)
        project = make_project(tmp_path, cassandra_port=secure.settings.port)
        cluster = {
            "port": secure.settings.port,
            "username": "mover",
            "password": {"env": "MOVER_PASSWORD"},
            "tls": {
                "ca_file": secure.tls.ca_file,
                "certificate_file": secure.tls.certificate_file,
                "key_file": secure.tls.key_file,
            },
        }
        project.declare("stores", "Stores", cassandra={"sunbird": cluster, "reports": cluster})
        project.declare(
            "copy",
            "TableMigration",
            origin={"store": "sunbird", "table": "ks.user_enrolments"},
            target={"store": "reports", "table": "ks.report_user_enrolments"},
            token_ranges=len(KEYS),
            writetime="now",
            ttl="none",
            workers=2,
            retry_seconds=5,
        )
        return project

    def test_a_table_is_copied_and_compared_and_the_password_shows_nowhere(
        self, project: Project, secure: SecureServer, capfd: pytest.CaptureFixture[str]
    ):
        result = project.run().assert_success()

        assert result.checks["all_ranges_match"].passed
        assert len(result.materializations(dg.AssetKey(["reports", "ks", TARGET]))) == len(KEYS)
        assert_hidden(RIGHT, project, project.messages_of(result.run_id), *capfd.readouterr())
        with patient_connection(secure.settings) as connection:
            rows = connection.session.execute(f"SELECT count(*) FROM ks.{TARGET}").one()
        assert rows == (50,)

    def test_a_run_with_a_wrong_password_fails_in_one_sentence_that_does_not_show_it(
        self,
        project: Project,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ):
        monkeypatch.setenv("MOVER_PASSWORD", WRONG)

        result = project.run()

        assert not result.success
        assert "the server refused the user name or the password" in result.error
        messages = project.messages_of(result.run_id)
        assert_hidden(WRONG, project, messages, result.error, *capfd.readouterr())

    def test_definitions_and_yaml_hold_the_name_of_the_variable_and_not_the_password(
        self, project: Project
    ):
        definitions = project.load()

        snapshot = serialize_value(RepositorySnap.from_def(definitions.get_repository_def()))
        resources = repr(definitions.resources)

        assert RIGHT not in snapshot + resources
        assert "MOVER_PASSWORD" in snapshot
        file = project.defs_folder / "stores" / "defs.yaml"
        again = yaml.safe_dump(yaml.safe_load(file.read_text()))
        assert "env: MOVER_PASSWORD" in again
        assert_hidden(RIGHT, project)


def assert_hidden(secret: str, project: Project, *texts: str) -> None:
    """Look for a secret in texts and in every file of a project and of its Dagster."""
    for text in texts:
        assert secret not in text
    files = [path for root in (project.folder, project.home) for path in root.rglob("*")]
    for path in files:
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path
