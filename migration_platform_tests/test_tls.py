"""A cluster that demands a password and TLS, with and without certificates of the client."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trustme

from migration_platform.errors import PreflightError
from migration_platform.local.servers import Cassandra, TlsFiles
from migration_platform.stores.cassandra import CassandraSettings, Connection, TlsSettings
from migration_platform_tests.servers import SMALL_HEAP_MB, run_server


@dataclass(frozen=True)
class SecureServer:
    settings: CassandraSettings
    stranger_ca: str
    authority: trustme.CA


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureServer]:
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = trustme.CA(), trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    client = authority.issue_cert("client.example")
    ca_file, stranger_file = folder / "ca.pem", folder / "stranger.pem"
    authority.cert_pem.write_to_path(ca_file)
    stranger.cert_pem.write_to_path(stranger_file)
    keystore = folder / "server.pem"
    keystore.write_bytes(in_pkcs8(server))
    certificate, key = folder / "client.pem", folder / "client.key"
    client.cert_chain_pems[0].write_to_path(certificate)
    client.private_key_pem.write_to_path(key)
    options = Cassandra(
        cluster_name="secure",
        heap_mb=SMALL_HEAP_MB,
        password=True,
        tls=TlsFiles(keystore=keystore, truststore=ca_file, client_certificates=False),
    )
    with run_server(options, folder / "home") as running:
        yield SecureServer(
            CassandraSettings(
                port=running.port,
                username="cassandra",
                password="cassandra",
                tls=TlsSettings(str(ca_file), str(certificate), str(key)),
            ),
            str(stranger_file),
            authority,
        )


def in_pkcs8(issued: trustme.LeafCert) -> bytes:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return text + b"".join(part.bytes() for part in issued.cert_chain_pems)


def why_refused(settings: CassandraSettings) -> str:
    with pytest.raises(PreflightError) as refused:
        Connection(settings)
    return str(refused.value)


def test_a_store_with_password_and_tls_connects(secure: SecureServer):
    with Connection(secure.settings) as connection:
        assert connection.session.execute("SELECT cluster_name FROM system.local").one()[0]


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


def test_a_server_of_a_stranger_is_refused(secure: SecureServer):
    assert secure.settings.tls is not None
    tls = replace(secure.settings.tls, ca_file=secure.stranger_ca)
    assert "certificate" in why_refused(replace(secure.settings, tls=tls)).lower()


def test_a_plain_line_to_a_server_that_wants_tls_is_refused(secure: SecureServer):
    assert "cannot connect" in why_refused(replace(secure.settings, tls=None))


def test_a_wrong_password_is_refused_in_one_sentence_without_the_password(secure: SecureServer):
    message = why_refused(replace(secure.settings, password="hunter2-wrong"))
    assert "refused the user name or the password" in message
    assert "hunter2" not in message
    assert "\n" not in message


def test_a_missing_certificate_file_is_named_as_a_problem_of_tls(
    secure: SecureServer, tmp_path: Path
):
    tls = TlsSettings(ca_file=str(tmp_path / "nowhere.pem"))
    assert "TLS files" in why_refused(replace(secure.settings, tls=tls))
