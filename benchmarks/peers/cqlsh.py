"""cqlsh COPY: the table goes TO a CSV file and comes FROM it, as Cassandra's documents show it."""

import sys

from benchmarks.peers import PROCESSES, Peer, Place, Work
from migration_platform.demo import sample

# Stands for null: by default an empty field does, and every empty text would become null.
NULL = "NULL_"
COPY = Work(
    name="cqlsh COPY TO and FROM",
    group="copy",
    keeps="nothing",
    lacks="TTL, writetime, comparison, fractions of a second; needs the disk for the table as CSV",
)


def commands(place: Place, work: Work, keyspace: str) -> list[list[str]]:
    """Give the two commands, with a file between them."""
    file = place.folder / "cqlsh.csv"
    file.unlink(missing_ok=True)
    columns = ", ".join(name for name, _ in sample.COLUMNS)

    def run(table: str, direction: str, settings: str) -> list[str]:
        statement = (
            f"COPY {keyspace}.{table} ({columns}) {direction} '{file}' WITH NULL='{NULL}' "
            f"AND NUMPROCESSES={PROCESSES} AND {settings}"
        )
        return [sys.executable, "-m", "cqlshlib", place.host, str(place.port), "-e", statement]

    return [
        run(sample.ORIGIN_TABLE, "TO", "PAGESIZE=5000 AND MAXREQUESTS=6"),
        run(sample.TARGET_TABLE, "FROM", "INGESTRATE=1000000 AND MAXINSERTERRORS=0"),
    ]


PEER = Peer(
    name="cqlsh",
    works=(COPY,),
    settings=f"NUMPROCESSES={PROCESSES}, PAGESIZE=5000, INGESTRATE=1000000 (so that it does not "
    "limit), NULL; everything else as it is by default",
    packages=("cqlsh",),
    installed=True,
    commands=commands,
)
