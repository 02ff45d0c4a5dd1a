"""Writes the facts of declarations that have none yet, and of those that are named anew.

    python -m migration_platform_tests.recorded.write [NAME ...]

`run` names the run that was left half done. What is recorded is a promise to those who run
migrations: ranges that were copied before count only while it stays. Name a declaration only where
that is meant to end.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from migration_platform.local.cassandra import Cassandra
from migration_platform.local.dynamodb import DynamoDb as DynamoDbLocal
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform_tests.dagster_project import make_project
from migration_platform_tests.dynamodb_tables import dynamodb_settings
from migration_platform_tests.recorded import run
from migration_platform_tests.recorded.declarations import DECLARED
from migration_platform_tests.recorded.facts import FILE, gather, read_file, tables_made
from migration_platform_tests.servers import run_server
from migration_platform_tests.tables import plain_session


def main(*anew: str) -> None:
    # DynamoDB Local takes any credentials, but wants some.
    os.environ |= {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    known = read_file() if FILE.exists() else {}
    names = [name for name in DECLARED if name not in known or name in anew]
    with (
        tempfile.TemporaryDirectory() as folder,
        run_server(Cassandra(), Path(folder)) as cassandra,
        run_server(DynamoDbLocal(), Path(folder)) as dynamodb,
        Connection(CassandraSettings(port=cassandra.port)) as connection,
        dynamodb_settings(dynamodb.port).connect() as dynamo,
        tables_made(connection),
    ):
        found = gather(Path(folder) / "facts", names, connection, dynamo, cassandra.port)
        if "run" in anew or not run.FILE.exists():
            write_run(Path(folder) / "run", cassandra.port)
    facts = {name: found.get(name) or known[name] for name in DECLARED}
    FILE.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"written: {', '.join(names) or 'nothing, for all is recorded'}")


def write_run(folder: Path, port: int) -> None:
    """Let a run end half done, and write what it leaves."""
    project = make_project(folder, cassandra_port=port)
    project.declare("half", "TableMigration", **run.DECLARED)
    with plain_session(CassandraSettings(port=port)) as session, run.tracking_keyspace(session):
        run.fill_origin(session)
        project.run(f"{run.BEGUN[0]}...{run.BEGUN[-1]}")
        run.write_run(session, project.home)


if __name__ == "__main__":
    main(*sys.argv[1:])
