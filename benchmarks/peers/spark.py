"""The Spark Cassandra Connector through pyspark, as Sunbird's job and scylla-migrator use it.

One Java machine, started beforehand and warm from the run before, which a job's is not: the figures
are its best. Sunbird's job also counts the table first, and partitions it anew by the target's key.
"""

import sys

from benchmarks.peers import KEYSPACE, PROCESSES, Peer, Work
from benchmarks.peers.serving import serve
from migration_platform.demo import sample

AS_READ = Work(
    name="Spark Cassandra Connector",
    group="copy",
    keeps="nothing",
    lacks="TTL, writetime, comparison",
)
REPARTITIONED = Work(
    name="Spark Cassandra Connector, repartitioned",
    group="copy",
    keeps="nothing",
    lacks="TTL, writetime, comparison",
)
MEMORY = "1g"
PEER = Peer(
    name="spark",
    works=(AS_READ, REPARTITIONED),
    settings=f"`local[{PROCESSES}]`, {MEMORY} heap, ignoreNulls; the second by `batchid`, "
    f"{PROCESSES} shuffle partitions; the connector's defaults (5 concurrent writes a task, "
    "batches of 1 KiB by partition)",
    packages=("pyspark", "spark"),
    installed=True,
    module="benchmarks.peers.spark",
)
FORMAT = "org.apache.spark.sql.cassandra"


def main(host: str, port: str, jars: str, scratch: str) -> None:
    """Serve the copies of one Spark session."""
    # Installed by `make bench` only, in a folder of its own.
    from pyspark.sql import SparkSession  # pyright: ignore[reportMissingImports]

    session = (
        SparkSession.builder.master(f"local[{PROCESSES}]")
        .appName("benchmark")
        .config("spark.jars", jars)
        .config("spark.driver.memory", MEMORY)
        .config("spark.driver.host", host)
        .config("spark.driver.bindAddress", host)
        .config("spark.local.dir", scratch)
        .config("spark.sql.warehouse.dir", f"{scratch}/warehouse")
        .config("spark.sql.shuffle.partitions", PROCESSES)
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.cassandra.connection.host", host)
        .config("spark.cassandra.connection.port", port)
        .config("spark.cassandra.output.ignoreNulls", "true")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("WARN")

    def table(name: str) -> dict[str, str]:
        return {"keyspace": KEYSPACE, "table": name}

    def copy(repartitioned: bool) -> int:
        rows = session.read.format(FORMAT).options(**table(sample.ORIGIN_TABLE)).load()
        if repartitioned:
            rows = rows.repartition("batchid")
        to = rows.write.format(FORMAT).options(**table(sample.TARGET_TABLE))
        to.mode("append").save()
        return 0

    # The schema is read when a table is first used, which belongs to the start.
    session.read.format(FORMAT).options(**table(sample.ORIGIN_TABLE)).load().limit(1).collect()
    serve(lambda request: lambda: copy(request["work"] == REPARTITIONED.name))
    session.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
