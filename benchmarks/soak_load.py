"""What applications do to a table all day long: rows, cells, elements and partitions come and go.

Every change is told to a topic by its key alone, after the server has taken it, as an application
with an outbox does. Some changes tell their partition only.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cassandra import DriverException, InvalidRequest
from cassandra.cluster import NoHostAvailable, Session
from cassandra.connection import ConnectionException
from confluent_kafka import KafkaException, Producer

from migration_platform.cql.names import TableName

PARTITIONS = 400
ROWS_A_PARTITION = 12
TTL_SECONDS = (5, 60)
COLUMNS = (
    "k int, c int, s text static, v text, n bigint, tags set<text>, props map<text, text>, "
    "steps list<int>, PRIMARY KEY (k, c)"
)
STATEMENTS: Mapping[str, tuple[str, str]] = {
    "insert": (
        "INSERT INTO {} (k, c, v, n, tags, props, steps) VALUES (?, ?, ?, ?, ?, ?, ?)",
        "row",
    ),
    "insert with TTL": ("INSERT INTO {} (k, c, v, n) VALUES (?, ?, ?, ?) USING TTL ?", "row"),
    "update a cell": ("UPDATE {} SET v = ? WHERE k = ? AND c = ?", "row"),
    "refresh a TTL": ("UPDATE {} USING TTL ? SET n = ? WHERE k = ? AND c = ?", "row"),
    "delete a cell": ("DELETE n FROM {} WHERE k = ? AND c = ?", "row"),
    "add to a set": ("UPDATE {} SET tags = tags + ? WHERE k = ? AND c = ?", "row"),
    "take from a set": ("UPDATE {} SET tags = tags - ? WHERE k = ? AND c = ?", "row"),
    "put into a map": ("UPDATE {} SET props[?] = ? WHERE k = ? AND c = ?", "row"),
    "delete from a map": ("DELETE props[?] FROM {} WHERE k = ? AND c = ?", "row"),
    "append to a list": ("UPDATE {} SET steps = steps + ? WHERE k = ? AND c = ?", "row"),
    "set a static cell": ("UPDATE {} SET s = ? WHERE k = ?", "partition"),
    "delete a static cell": ("DELETE s FROM {} WHERE k = ?", "partition"),
    "delete a row": ("DELETE FROM {} WHERE k = ? AND c = ?", "row"),
    "delete some rows": ("DELETE FROM {} WHERE k = ? AND c >= ? AND c < ?", "partition"),
    "delete a partition": ("DELETE FROM {} WHERE k = ?", "partition"),
}
"""What is done, by name: the statement, and whether its message tells the row or the partition."""
WEIGHTS = (30, 6, 20, 4, 6, 6, 4, 6, 4, 3, 3, 1, 8, 1, 0.3)


def operations(seed: int) -> Iterator[tuple[str, list[Any], dict[str, int]]]:
    """Give what is done, forever: its name, what is bound, and the key that its message tells."""
    chance = random.Random(seed)
    names = tuple(STATEMENTS)
    while True:
        name = chance.choices(names, WEIGHTS)[0]
        k, c = chance.randrange(PARTITIONS), chance.randrange(ROWS_A_PARTITION)
        yield name, _bind(chance, name, k, c), _key(name, k, c)


def _key(name: str, k: int, c: int) -> dict[str, int]:
    return {"k": k, "c": c} if STATEMENTS[name][1] == "row" else {"k": k}


def _bind(chance: random.Random, name: str, k: int, c: int) -> list[Any]:
    text, number = f"{chance.getrandbits(64):x}", chance.getrandbits(40)
    word, ttl = chance.choice("abcdef"), chance.randint(*TTL_SECONDS)
    words = {chance.choice("abcdef") for _ in range(3)}
    bound: dict[str, list[Any]] = {
        "insert": [k, c, text, number, words, dict.fromkeys(words, text), [number % 7] * 2],
        "insert with TTL": [k, c, text, number, ttl],
        "update a cell": [text, k, c],
        "refresh a TTL": [ttl, 7, k, c],
        "delete a cell": [k, c],
        "add to a set": [words, k, c],
        "take from a set": [{word}, k, c],
        "put into a map": [word, text, k, c],
        "delete from a map": [word, k, c],
        "append to a list": [[number % 9], k, c],
        "set a static cell": [text, k],
        "delete a static cell": [k],
        "delete a row": [k, c],
        "delete some rows": [k, c, c + 4],
        "delete a partition": [k],
    }
    return bound[name]


@dataclass
class Load:
    """An application that writes at a rate, until it is stopped; `done` counts what it did.

    A write that fails is tried again until it is taken. Its message follows it, and is tried again
    until the broker has it.
    """

    session: Session
    table: TableName
    bootstrap_servers: str
    topic: str
    rate: float
    seed: int
    done: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    last_error: str = ""

    def __post_init__(self) -> None:
        """Prepare what is done."""
        self._stopped = threading.Event()
        self._prepared = {
            name: self.session.prepare(text.format(self.table))
            for name, (text, _) in STATEMENTS.items()
        }
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        ended_early = not self._thread.is_alive()
        self._stopped.set()
        self._thread.join()
        if ended_early:
            raise RuntimeError("the writer ended before its time")

    def _run(self) -> None:
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "acks": "all",
                "linger.ms": 5,
                "message.timeout.ms": 0,
                "log_level": 0,
            }
        )
        began = time.monotonic()
        for count, (name, values, key) in enumerate(operations(self.seed)):
            if self._stopped.wait(max(0.0, began + count / self.rate - time.monotonic())):
                break
            self._write(name, values)
            self._tell(producer, key)
            self.done[name] += 1
        producer.flush()

    def _write(self, name: str, values: list[Any]) -> None:
        statement = self._prepared[name].bind(values)
        while True:
            try:
                self.session.execute(statement)
            except (DriverException, NoHostAvailable, ConnectionException) as error:
                if isinstance(error, InvalidRequest):
                    raise
                self.failed += 1
                self.last_error = f"{type(error).__name__}: {error}"
                time.sleep(0.2)
            else:
                return

    def _tell(self, producer: Producer, key: dict[str, int]) -> None:
        message = json.dumps({"after": key}).encode()
        while True:
            try:
                producer.produce(self.topic, message, key=str(key["k"]).encode())
            except (BufferError, KafkaException):
                producer.poll(0.2)
            else:
                producer.poll(0)
                return
