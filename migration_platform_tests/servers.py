"""Real servers that the tests start for themselves, and a proxy that loses what a test wants lost.

Every server listens on 127.0.0.1 only, on a free port, with its data in a temporary folder.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from migration_platform.local.servers import LOCALHOST, Server
from migration_platform.local.stack import JARS_VARIABLE, Running, running

REPOSITORY = Path(__file__).parent.parent
SMALL_HEAP_MB = 384
"""Enough for a server that holds a few thousand rows."""


def jars_folder() -> Path:
    """The cache of jars: shared by every server of every test, and downloaded once."""
    return Path(os.environ.get(JARS_VARIABLE) or REPOSITORY / ".migration-platform" / "jars")


def run_server(
    server: Server, home: Path, port: int | None = None
) -> AbstractContextManager[Running]:
    """Start a server for the length of a `with` block; nothing of it is left behind."""
    return running(server, home=home, port=port, jars_folder=jars_folder())


class Proxy:
    """A TCP proxy before a server; `answer` sees each chunk that the server sends back.

    What `answer` returns is what the client gets, so an empty result swallows the answer.
    """

    def __init__(self, target_port: int, answer: Callable[[bytes], bytes]):
        self._target_port = target_port
        self._answer = answer
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
            self._start(self._pump, client, server, lambda chunk: chunk)
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


@contextmanager
def proxy_before(port: int, answer: Callable[[bytes], bytes]) -> Iterator[Proxy]:
    """Put a proxy before a server for the length of a `with` block."""
    proxy = Proxy(port, answer)
    try:
        yield proxy
    finally:
        proxy.close()
