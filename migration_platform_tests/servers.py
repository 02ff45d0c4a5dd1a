"""Real servers that the tests start for themselves, and a proxy that loses what a test wants lost.

Every server listens on 127.0.0.1 only, on a free port, with its data in a temporary folder; a
cluster's nodes listen on 127.0.0.1, .2, .3 and so on.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from cassandra import ConsistencyLevel, DriverException
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
from cassandra.policies import WhiteListRoundRobinPolicy

from migration_platform.local import stack
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.ports import LOCALHOST, free_port, port_is_free
from migration_platform.local.server import Server
from migration_platform.local.stack import JARS_VARIABLE, Running, running
from migration_platform.token_ranges import split_ring

REPOSITORY = Path(__file__).parent.parent
SMALL_HEAP_MB = 384
"""Enough for a server that holds a few thousand rows."""
QUICK = {
    # A thousand tables come and go: their schema need not survive the server.
    "cassandra.test.flush_local_schema_changes": "false",
    # A password is hashed where a role is made and at each login: a hundred milliseconds each.
    "cassandra.auth_bcrypt_gensalt_log2_rounds": "4",
}
"""Java properties of a server that is never started again and guards nothing."""
PATIENCE_SECONDS = 60
"""How long a test waits for what it does not measure: a busy machine is no fault of the code."""


def jars_folder() -> Path:
    """The cache of jars: shared by every server of every test, and downloaded once."""
    return Path(os.environ.get(JARS_VARIABLE) or REPOSITORY / ".migration-platform" / "jars")


def run_server(
    server: Server, home: Path, port: int | None = None
) -> AbstractContextManager[Running]:
    """Start a server for the length of a `with` block; nothing of it is left behind."""
    return running(server, home=home, port=port, jars_folder=jars_folder())


@dataclass(frozen=True)
class Node:
    """A node of a cluster."""

    server: Cassandra
    home: Path
    port: int

    def start(self) -> Running:
        """Start it, with what data it has, and wait until it answers clients."""
        return stack.start(self.server, home=self.home, port=self.port, jars_folder=jars_folder())

    @property
    def pid(self) -> int | None:
        """The number of its process; None if it is not running."""
        return next(
            (
                status.server.pid
                for status in stack.status(home=self.home)
                if status.server and status.state in ("starting", "running")
            ),
            None,
        )

    def kill(self) -> None:
        """End its process at once, as a machine that loses its power does."""
        if self.pid is not None:
            process = psutil.Process(self.pid)
            process.kill()
            # Its port is free only once all of its threads have ended.
            process.wait(PATIENCE_SECONDS)
        stack.stop(self.server.name, home=self.home)


@contextmanager
def run_cluster(
    home: Path,
    nodes: int = 3,
    *,
    tokens: int = 4,
    heap_mb: int = SMALL_HEAP_MB,
    settings: Mapping[str, object] | None = None,
) -> Iterator[list[Node]]:
    """Start a cluster for the length of a `with` block; its nodes share a port.

    Nodes that join one after the other take half a minute. These know their tokens and are each
    other's seeds, so that they start side by side, as quickly as the processors allow. Each has
    `tokens` slices of the ring, in turn, of equal width.
    """
    addresses = [f"127.0.0.{number}" for number in range(1, nodes + 1)]
    port, storage_port = _port_free_on(addresses), _port_free_on(addresses)
    ends = [token_range.end for token_range in split_ring(nodes * tokens)]
    members = [
        Node(
            Cassandra(
                address=address,
                storage_port=storage_port,
                seeds=tuple(f"{each}:{storage_port}" for each in addresses),
                cluster_name="nodes",
                num_tokens=tokens,
                heap_mb=heap_mb,
                settings={
                    "initial_token": ",".join(str(end) for end in ends[number::nodes]),
                    **(settings or {}),
                },
            ),
            home / f"node{number + 1}",
            port,
        )
        for number, address in enumerate(addresses)
    ]
    with ThreadPoolExecutor(nodes) as pool:
        try:
            list(pool.map(Node.start, members))
            if nodes > 1:
                list(pool.map(partial(wait_for_others, others=nodes - 1), members))
            yield members
        finally:
            # Nothing of them is needed any more, and an orderly end takes seconds.
            for node in members:
                node.kill()


def wait_for_others(node: Node, others: int) -> None:
    """Wait until a node knows all others of its cluster, and that they are up."""
    profile = ExecutionProfile(
        load_balancing_policy=WhiteListRoundRobinPolicy([node.server.address]),
        consistency_level=ConsistencyLevel.ALL,
        request_timeout=PATIENCE_SECONDS,
    )
    with Cluster(
        [node.server.address],
        port=node.port,
        protocol_version=5,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        connect_timeout=PATIENCE_SECONDS,
        control_connection_timeout=PATIENCE_SECONDS,
    ) as cluster:
        session = cluster.connect()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            known = list(session.execute("SELECT peer FROM system.peers_v2"))
            with suppress(DriverException, NoHostAvailable):
                # It has replicas on all nodes; each of them must answer.
                session.execute("SELECT parent_id FROM system_distributed.parent_repair_history")
                if len(known) == others:
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{node.server.address} knows {known} and not {others} others")
            time.sleep(0.1)


def _port_free_on(addresses: Sequence[str]) -> int:
    while True:
        port = free_port()
        if all(port_is_free(port, address) for address in addresses):
            return port


class Proxy:
    """A TCP proxy before a server; `answer` sees each chunk that the server sends back.

    What `answer` returns is what the client gets, so an empty result swallows the answer. `listen`
    is called for each connection, and what it gives hears each chunk that the client sends.
    """

    def __init__(
        self,
        target_port: int,
        answer: Callable[[bytes], bytes],
        listen: Callable[[], Callable[[bytes], None]] | None = None,
    ):
        self._target_port = target_port
        self._answer = answer
        self._listen = listen or (lambda: lambda chunk: None)
        self._listener = socket.create_server((LOCALHOST, 0))
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def _start(self, function: Callable, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection((LOCALHOST, self._target_port))
            except OSError:
                return
            with self._lock:
                if self._closed:
                    client.close()
                    server.close()
                    return
                self._sockets += [client, server]
            self._start(self._pump, client, server, _heard_by(self._listen()))
            self._start(self._pump, server, client, self._answer)

    def _pump(
        self, source: socket.socket, sink: socket.socket, change: Callable[[bytes], bytes]
    ) -> None:
        with suppress(OSError):
            while chunk := source.recv(65_536):
                sink.sendall(change(chunk))
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Cut the connections that there are; new ones are let in."""
        with self._lock:
            for end in self._sockets[1:]:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut every connection and wait for the threads."""
        with self._lock:
            self._closed = True
            sockets = list(self._sockets)
        for end in sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for end in sockets:
            end.close()


def _heard_by(listener: Callable[[bytes], None]) -> Callable[[bytes], bytes]:
    def pass_on(chunk: bytes) -> bytes:
        listener(chunk)
        return chunk

    return pass_on


@contextmanager
def proxy_before(
    port: int,
    answer: Callable[[bytes], bytes],
    listen: Callable[[], Callable[[bytes], None]] | None = None,
) -> Iterator[Proxy]:
    """Put a proxy before a server for the length of a `with` block."""
    proxy = Proxy(port, answer, listen)
    try:
        yield proxy
    finally:
        proxy.close()
