"""dsbulk: the table is unloaded into CSV files, which are then loaded, by a Java machine each."""

import shutil

from benchmarks.peers import DATACENTER, Peer, Place, Work, java
from migration_platform.demo import sample

HEAP = "1g"
# Stands for null: by default an empty field does, and every empty text would become null.
NULL = "NULL_"
VALUES = Work(
    name="dsbulk, unload and load",
    group="copy",
    keeps="nothing",
    lacks="TTL, writetime, comparison; needs the disk for the table as CSV",
)
TIMES = Work(
    name="dsbulk, unload and load with times",
    group="copy",
    keeps="writetime and TTL of cells that are no collections",
    lacks="times of collections, comparison; needs the disk for the table as CSV",
)
MAIN = "com.datastax.oss.dsbulk.runner.DataStaxBulkLoader"


def commands(place: Place, work: Work, keyspace: str) -> list[list[str]]:
    """Give the two commands, with an empty folder between them."""
    folder = place.folder / "dsbulk"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    times = work == TIMES

    def run(command: str, table: str, *more: str) -> list[str]:
        return [
            *(str(java()), f"-Xmx{HEAP}", "-cp", ":".join(place.jar_paths("dsbulk")), MAIN),
            *(command, "-h", place.host, "-port", str(place.port), "-dc", DATACENTER),
            *("-k", keyspace, "-t", table, "-url", str(folder / "csv")),
            *("--log.directory", str(folder / "logs"), "--log.verbosity", "quiet"),
            *("--codec.nullStrings", NULL, "-maxErrors", "0"),
            *(("-timestamp", "true", "-ttl", "true") if times else ()),
            *more,
        ]

    return [run("unload", sample.ORIGIN_TABLE), run("load", sample.TARGET_TABLE)]


PEER = Peer(
    name="dsbulk",
    works=(VALUES, TIMES),
    settings=f"{HEAP} heap, `nullStrings`, no errors allowed; the second with `-timestamp true "
    "-ttl true`; everything else as it is by default",
    packages=("dsbulk",),
    commands=commands,
)
