"""Why there is no connection to a cluster, as one sentence with the way out.

The driver tells much of it in riddles: a server that is no Cassandra has a strange version of the
protocol, one that hangs up does not answer in time. So a server that took a connection, and did
not say in Cassandra's protocol what is wrong, is asked once more by hand.
"""

import socket
from typing import Any, Literal, Protocol

from cassandra import AuthenticationFailed, OperationTimedOut, UnresolvableContactPoints
from cassandra.cluster import Cluster, NoHostAvailable
from cassandra.connection import ConnectionException, ProtocolError

from migration_platform.errors import PreflightError, explain, is_transient

PROBE_SECONDS = 2.0
# A request for the options of a server. Cassandra takes what follows for the beginning of another,
# and a server with a protocol of lines answers at last.
_QUESTION = bytes((4, 0, 0, 0, 5, 0, 0, 0, 0)) + b"\r\n\r\n"
_ANSWERS_OF_CASSANDRA = (0x83, 0x84, 0x85)
_TLS_ALERT = b"\x15\x03"
_DEMANDS_TLS = "demands TLS, give the store a tls block"
_RIGHT_PORT = "set the store's port to that of Cassandra's native protocol, by default 9042"


class Settings(Protocol):
    """What of a store's settings matters here."""

    contact_points: tuple[str, ...]
    port: int
    local_datacenter: str | None
    username: str | None
    password: str | None
    tls: Any


def build_refusal(
    settings: Settings, failure: Exception, cluster: Cluster | None = None
) -> PreflightError:
    """Give the refusal of a connection that failed.

    Its cause says whether another try may succeed; there is none where none can. `cluster` knows
    the hosts, as far as the driver came.
    """
    told, is_final = _tell(settings, failure, _datacenters(cluster))
    refusal = PreflightError(f"cannot connect to {settings}: {told}")
    refusal.__cause__ = None if is_final and is_transient(failure) else failure
    return refusal


def _tell(settings: Settings, failure: Exception, datacenters: set[str]) -> tuple[str, bool]:
    """Give the reason and the way out, and whether it is final."""
    by_host = _by_host(failure)
    if any(isinstance(cause, AuthenticationFailed) for cause in by_host.values()):
        return _tell_refused_user(settings), True
    if isinstance(failure, UnicodeError):
        return "a name in the store's contact_points cannot be the name of a host", True
    wanted = settings.local_datacenter
    if wanted and datacenters and wanted not in datacenters:
        return (
            f"the cluster has no datacenter {wanted}; set the store's local_datacenter to one of "
            f"its own: {', '.join(sorted(datacenters))}"
        ), True
    no_address = _tell_unknown_names(settings)
    if isinstance(failure, UnresolvableContactPoints):
        return no_address or "the name server did not know its contact_points just now", False
    told = explain(failure)
    if settings.tls is None and (found := _ask_by_hand(by_host)) is not None:
        told, is_final = _tell_answer(found, told)
        if is_final:
            return told, True
    return "; ".join(filter(None, (told, _tls_hint(settings, told), no_address))), False


def _tell_answer(answer: bytes | Literal["silence"], told: str) -> tuple[str, bool]:
    """Say what the answer to a question by hand means, after what the driver `told`."""
    if isinstance(answer, str):
        return f"{told}; if what is there is no Cassandra, {_RIGHT_PORT}", False
    if not answer:
        return (
            f"the server hangs up without an answer; if it {_DEMANDS_TLS}, and if it is no "
            f"Cassandra, {_RIGHT_PORT}"
        ), False
    if answer.startswith(_TLS_ALERT):
        return f"the server {_DEMANDS_TLS}", True
    if answer[0] in _ANSWERS_OF_CASSANDRA:
        return told, False
    who = "an HTTP server" if answer.startswith((b"HTTP/", b"<")) else "another kind of server"
    return f"{who} answers there, and no Cassandra; {_RIGHT_PORT}", True


def _by_host(failure: Exception) -> dict[str, Any]:
    """Give what went wrong by host; of a failure that names none, under no name."""
    if not isinstance(failure, NoHostAvailable):
        return {"": failure}
    return failure.errors if isinstance(failure.errors, dict) else {}


def _tell_refused_user(settings: Settings) -> str:
    if settings.username is None:
        return "the server asks who is there; give the store a username and a password"
    told = "the server refused the user name or the password"
    return told if settings.password else f"{told}; the store gives no password"


def _datacenters(cluster: Cluster | None) -> set[str]:
    # Without type hints of the driver's own, its metadata seem to be None.
    metadata: Any = cluster and cluster.metadata
    hosts = metadata.all_hosts() if metadata else ()
    return {host.datacenter for host in hosts if host.datacenter}


def _tell_unknown_names(settings: Settings) -> str:
    unknown = []
    for name in settings.contact_points:
        try:
            socket.getaddrinfo(name, settings.port, type=socket.SOCK_STREAM)
        except OSError:
            unknown.append(name)
    if not unknown:
        return ""
    return (
        f"no address is known for {', '.join(unknown)}; correct the store's contact_points, or "
        "make the name known to this machine"
    )


def _ask_by_hand(by_host: dict[str, Any]) -> bytes | Literal["silence"] | None:
    """Give the first bytes of an answer, none if the server hangs up; None if nobody is there.

    Hosts that let nobody in, and those that spoke as Cassandra does, are not asked.
    """
    for host, cause in by_host.items():
        if not isinstance(cause, OperationTimedOut | ConnectionException | ProtocolError):
            continue
        address, _, port = host.rpartition(":")
        try:
            with socket.create_connection((address, int(port)), PROBE_SECONDS) as line:
                try:
                    line.sendall(_QUESTION)
                    return line.recv(16)
                except TimeoutError:
                    return "silence"
        except ConnectionResetError:
            return b""
        except (OSError, ValueError):
            continue
    return None


def _tls_hint(settings: Settings, told: str) -> str:
    """Say what a handshake that failed may want: TLS itself tells it in riddles."""
    if settings.tls is None:
        return f"if the server {_DEMANDS_TLS}" if "reset by peer" in told else ""
    if "CERTIFICATE_VERIFY_FAILED" in told:
        return "the server's certificate must come from an authority in tls.ca_file and name it"
    if "WRONG_VERSION_NUMBER" in told:
        return "the server speaks no TLS, so leave tls out"
    if "EOF occurred" in told or "ALERT" in told or "reset by peer" in told:
        return "if the server demands certificates, it must trust tls.certificate_file"
    return ""
