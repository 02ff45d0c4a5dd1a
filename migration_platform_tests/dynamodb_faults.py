"""An HTTP server before DynamoDB Local that does to requests and answers what a test wants done."""

import http.client
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from migration_platform.local.ports import LOCALHOST


@dataclass(frozen=True)
class Asked:
    """A request that came: its operation, its body, whose key signed it, and the second."""

    operation: str
    body: dict[str, Any]
    access_key: str = ""
    at: float = field(default_factory=time.monotonic)

    @property
    def writes(self) -> list[dict[str, Any]]:
        """The items and keys of a BatchWriteItem."""
        return [
            each["PutRequest"]["Item"] if "PutRequest" in each else each["DeleteRequest"]["Key"]
            for each in next(iter(self.body["RequestItems"].values()))
        ]


@dataclass(frozen=True)
class Answered:
    """An answer; one that is `cut` breaks off in the middle of its content."""

    status: int
    headers: dict[str, str]
    content: bytes
    cut: bool = False


Forward = Callable[[dict[str, Any]], Answered]
Fault = Callable[[Asked, Forward], Answered | None]
"""What happens to a request: an answer, or None and the connection is closed."""


def fair(asked: Asked, forward: Forward) -> Answered:
    return forward(asked.body)


def answer_with(status: int, told: dict[str, Any]) -> Answered:
    content = json.dumps(told).encode()
    headers = {"x-amz-crc32": str(zlib.crc32(content)), "Content-Type": "application/json"}
    return Answered(status, headers, content)


def refuse(code: str, message: str = "no reason", status: int = 400) -> Fault:
    """Answer an error as the service writes it; the request never arrives."""
    told = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message}
    return lambda asked, forward: answer_with(status, told)


throttle = refuse("ProvisionedThroughputExceededException", "too fast")
fail = refuse("InternalServerError", "sorry", 500)


def drop(asked: Asked, forward: Forward) -> None:
    """The request never arrives."""


def swallow(asked: Asked, forward: Forward) -> None:
    """The request is carried out, and its answer lost."""
    forward(asked.body)


def cut_off(asked: Asked, forward: Forward) -> Answered:
    return replace(forward(asked.body), cut=True)


def damage(asked: Asked, forward: Forward) -> Answered:
    answer = forward(asked.body)
    changed = answer.content.replace(b"{", b"[", 1).replace(b'"S"', b'"B"')
    return replace(answer, content=changed)


def shorten(asked: Asked, forward: Forward) -> Answered:
    """Half of the answer, with a length that agrees: only its checksum tells."""
    answer = forward(asked.body)
    return replace(answer, content=answer.content[: len(answer.content) // 2])


def delay(seconds: float) -> Fault:
    def wait(asked: Asked, forward: Forward) -> Answered:
        time.sleep(seconds)
        return forward(asked.body)

    return wait


def leave_unprocessed(count: int) -> Fault:
    """Carry out all but the last so many items of a batch, or none, and hand these back."""

    def leave(asked: Asked, forward: Forward) -> Answered:
        told: dict[str, Any] = {}
        if asked.operation == "BatchWriteItem":
            ((table, items),) = asked.body["RequestItems"].items()
            done = items[:-count] if count < len(items) else []
            told["UnprocessedItems"] = {table: items[len(done) :]}
            if done:
                forward({"RequestItems": {table: done}})
        elif asked.operation == "BatchGetItem":
            ((table, wanted),) = asked.body["RequestItems"].items()
            keys = wanted["Keys"]
            done = keys[:-count] if count < len(keys) else []
            if done:
                body = asked.body | {"RequestItems": {table: wanted | {"Keys": done}}}
                told = json.loads(forward(body).content)
            else:
                told["Responses"] = {}
            told["UnprocessedKeys"] = {table: wanted | {"Keys": keys[len(done) :]}}
        else:
            return forward(asked.body)
        return answer_with(200, told)

    return leave


def take_only(count: int) -> Fault:
    """Carry out so many items of a batch of writes, and hand the others back."""

    def take(asked: Asked, forward: Forward) -> Answered | None:
        more = len(asked.writes) - count
        return (leave_unprocessed(more) if more > 0 else fair)(asked, forward)

    return take


class FaultyDynamoDb:
    """A server that hands requests on, each through `fault`; all of them are kept in `asked`."""

    def __init__(self, target_port: int):
        self.fault: Fault = fair
        self.asked: list[Asked] = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                operation = self.headers["X-Amz-Target"].partition(".")[2]
                user = self.headers["Authorization"].partition("Credential=")[2].partition("/")[0]
                asked = Asked(operation, json.loads(data), user)
                with proxy._lock:
                    proxy.asked.append(asked)
                with suppress(OSError):
                    self._answer(proxy.fault(asked, self._forward(asked)))

            def _forward(self, asked: Asked) -> Forward:
                def forward(body: dict[str, Any]) -> Answered:
                    line = http.client.HTTPConnection(LOCALHOST, target_port, timeout=60)
                    names = ("X-Amz-Target", "X-Amz-Date", "Authorization", "Content-Type")
                    headers = {name: self.headers[name] for name in names}
                    try:
                        line.request("POST", "/", json.dumps(body).encode(), headers)
                        answer = line.getresponse()
                        kept = {"x-amz-crc32": answer.headers["x-amz-crc32"] or ""}
                        return Answered(answer.status, kept, answer.read())
                    finally:
                        line.close()

                return forward

            def _answer(self, answer: Answered | None) -> None:
                if answer is None:
                    self.close_connection = True
                    return
                head = f"HTTP/1.1 {answer.status} X\r\nContent-Length: {len(answer.content)}\r\n"
                head += "".join(f"{n}: {v}\r\n" for n, v in answer.headers.items() if v)
                content = answer.content
                if answer.cut:
                    content, self.close_connection = content[: len(content) // 2], True
                self.wfile.write(head.encode() + b"\r\n" + content)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            # Connections that clients keep would be waited for.
            block_on_close = False

        self._server = Server((LOCALHOST, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://{LOCALHOST}:{self._server.server_address[1]}"

    def of(self, operation: str) -> list[Asked]:
        """The requests of one kind so far."""
        return [asked for asked in self.asked if asked.operation == operation]

    def suffer(self, operation: str, faults: Sequence[Fault], then: Fault = fair) -> None:
        """Let the next requests of a kind have these faults, one each, and the others `then`."""
        left = list(faults)

        def happen(asked: Asked, forward: Forward) -> Answered | None:
            if asked.operation != operation:
                return forward(asked.body)
            with self._lock:
                fault = left.pop(0) if left else then
            return fault(asked, forward)

        self.fault = happen

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def faults_before(port: int) -> Iterator[FaultyDynamoDb]:
    """Put faults before a server for the length of a `with` block; at first there are none."""
    proxy = FaultyDynamoDb(port)
    try:
        yield proxy
    finally:
        proxy.close()
