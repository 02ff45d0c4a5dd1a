"""Migrations to DynamoDB as an operator meets them: YAML, runs, checks, and what they say."""

import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from cassandra.cluster import Session
from click.testing import CliRunner

from migration_platform.cli import main
from migration_platform.local.stack import Running
from migration_platform.stores.cassandra.connection import Connection
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    EVERYTHING,
    KEYS,
    RANGES,
    Move,
    Output,
    descendants,
    end_tree,
    gone,
    make_project,
    wait_until,
)
from migration_platform_tests.dynamodb_tables import REGION, plain_client
from migration_platform_tests.servers import PATIENCE_SECONDS
from migration_platform_tests.tables import create_table, fill
from migration_platform_tests.test_components import refusal

pytestmark = DAGSTERS_OWN_WARNINGS

ROWS = 320
COLUMNS = "id uuid PRIMARY KEY, name text, email text, score double"


@dataclass
class Users(Move):
    """A table of users, and the project that migrates it to a DynamoDB table of its own."""

    dynamodb_port: int = 0

    @property
    def target(self) -> dg.AssetKey:
        return dg.AssetKey(["cloud", self.target_name])

    @property
    def diff(self) -> dg.AssetKey:
        return dg.AssetKey(["cloud", f"{self.target_name}_diff"])

    def declare(self, **attributes: Any) -> None:
        origin = {"store": "sunbird", "table": f"{self.keyspace}.users"}
        target = {"store": "cloud", "table": self.target_name, "create": True}
        origin.update(attributes.pop("origin", {}))
        target.update(attributes.pop("target", {}))
        given = {"token_ranges": RANGES, "workers": 1, "retry_seconds": 10, **attributes}
        self.project.declare("users", "TableMigration", origin=origin, target=target, **given)

    def declare_stores(self, **dynamodb: Any) -> None:
        """Declare both stores; `dynamodb` adds to how DynamoDB is reached."""
        endpoint = f"http://127.0.0.1:{self.dynamodb_port}"
        cluster = {"contact_points": ["127.0.0.1"], "port": self.cassandra_port}
        self.project.declare(
            "stores",
            "Stores",
            cassandra={"sunbird": cluster},
            dynamodb={"cloud": {"endpoint_url": endpoint, "region": REGION, **dynamodb}},
        )

    @property
    def cassandra_port(self) -> int:
        return self.connection.cluster.port

    def items(self) -> list[dict[str, Any]]:
        with plain_client(self.dynamodb_port) as client:
            pages = client.get_paginator("scan").paginate(TableName=self.target_name)
            return [item for page in pages for item in page["Items"]]

    def put(self, item: dict[str, Any]) -> None:
        with plain_client(self.dynamodb_port) as client:
            client.put_item(TableName=self.target_name, Item=item)

    def tables(self) -> list[str]:
        with plain_client(self.dynamodb_port) as client:
            pages = client.get_paginator("list_tables").paginate()
            return [name for page in pages for name in page["TableNames"]]

    def command(self, *arguments: str) -> str:
        """Run `migration-platform` on the project, within this process."""
        result = CliRunner().invoke(main, [*arguments, "--project", str(self.project.folder)])
        assert result.exit_code == 0, result.output
        return result.output


@pytest.fixture
def users(
    tmp_path: Path,
    cassandra: Running,
    dynamodb: Running,
    connection: Connection,
    reader: Session,
    keyspace: str,
) -> Users:
    table = create_table(connection, keyspace, "users", COLUMNS)
    rows = [(uuid.uuid4(), f"User{n}", f"user{n}@example.com", n / 4) for n in range(ROWS)]
    fill(connection, table, "id, name, email, score", rows)
    project = make_project(tmp_path, cassandra_port=cassandra.port)
    users = Users(
        project,
        keyspace,
        connection,
        reader,
        "",
        origin_name="users",
        target_name=f"Users_{uuid.uuid4().hex[:12]}",
        dynamodb_port=dynamodb.port,
    )
    users.declare_stores()
    users.declare()
    return users


def test_a_table_is_made_copied_compared_and_repaired(users: Users) -> None:
    project = users.project
    run = project.run().assert_success()

    copied = run.materializations(users.target)
    assert sum(copied[key]["rows_written"] for key in KEYS) == ROWS
    assert len(users.items()) == ROWS
    for asset in (users.target, users.diff):
        assert project.statuses(asset) == dict.fromkeys(KEYS, "success")
    assert all(run.checks[name].passed for name in run.checks)
    assert set(run.checks) == {"row_counts_match", "all_ranges_match", "no_dead_letters"}
    # Runs are tracked in the origin's cluster: DynamoDB has no place for them.
    told = users.command("status", users.target_name)
    assert re.search(r"VALIDATE +ENDED", told), told

    there = sorted(users.items(), key=lambda item: item["id"]["S"])
    project.run().assert_success()
    assert sorted(users.items(), key=lambda item: item["id"]["S"]) == there

    victim = there[7]
    users.put({**victim, "email": {"S": "somebody else's"}})
    red = project.run(assets=[users.diff])
    assert not red.success
    assert list(project.statuses(users.diff).values()).count("failed") == 1
    passed, sentence, metadata = users.check("all_ranges_match")
    assert not passed
    assert "0 missing, 0 extra, 1 mismatched rows" in sentence
    assert victim["id"]["S"] in str(metadata["samples"])

    users.declare(diff={"repair": ["mismatched"]})
    project.run(metadata["ranges_to_rerun"][0], assets=[users.diff]).assert_success()
    assert sorted(users.items(), key=lambda item: item["id"]["S"]) == there
    assert users.check("all_ranges_match")[0]

    users.put({"id": {"S": str(uuid.UUID(int=0))}})
    emptied = project.run(config=users.step_config(truncate_target=True)).assert_success()
    assert sorted(users.items(), key=lambda item: item["id"]["S"]) == there
    logged = project.messages_of(emptied.run_id)
    assert f"Emptied {users.target_name} of {ROWS + 1} items." in logged


def test_a_killed_run_is_resumed_without_loss(users: Users) -> None:
    users.declare(target={"write_units_per_second": 50}, origin={"fetch_size": 10})
    arguments = ("launch", "--assets", users.selection, "--partition-range", EVERYTHING)
    process = users.project.start_dg(*arguments)
    output = Output(process)
    try:
        wait_until(
            lambda: "(2 of 8 ranges)" in output.text or process.poll() is not None,
            PATIENCE_SECONDS * 2,
            "two ranges were copied",
        )
        assert process.poll() is None, output.text
        workers = descendants(process.pid)
        process.kill()
        output.wait(PATIENCE_SECONDS)
        assert gone(workers, 5)
    finally:
        end_tree(process)
        output.close()
    before = users.project.statuses(users.target)
    done = [key for key in KEYS if before[key] == "success"]
    assert 2 <= len(done) < RANGES
    assert len(users.items()) < ROWS

    users.declare()
    run = users.project.run(config=users.step_config(resume="auto")).assert_success()

    copied = run.materializations(users.target)
    carried = [key for key in KEYS if "carried_over_from" in copied[key]]
    assert carried == done
    assert sum(copied[key]["rows_written"] for key in KEYS) == ROWS
    assert len(users.items()) == ROWS
    assert users.check("all_ranges_match")[0]
    assert users.check("row_counts_match")[1] == f"{ROWS} rows on both sides."


def test_a_comparison_of_dynamodb_says_what_it_has_not_looked_at(users: Users) -> None:
    users.project.run().assert_success()
    filled = "attributes that no column fills"
    assert users.check("row_counts_match")[1] == f"{ROWS} rows on both sides."
    assert users.check("all_ranges_match")[1] == (
        f"All {RANGES} ranges match: {ROWS} rows. Not looked at: {filled}."
    )

    # Looked up by the origin's keys, the table may hold whatever else.
    users.put({**users.items()[0], "id": {"S": str(uuid.uuid4())}})
    users.declare(diff={"mode": "origin_only"})
    users.project.run(assets=[users.diff]).assert_success()
    over = "rows that only the target has"
    assert users.check("row_counts_match")[1] == (
        f"{ROWS} rows of the origin are in the target. Not looked at: {over}."
    )
    assert users.check("all_ranges_match")[1] == (
        f"All {RANGES} ranges match: {ROWS} rows. Not looked at: {over}; {filled}."
    )


def test_rows_that_no_item_can_hold_are_rejected_and_replayed(users: Users) -> None:
    users.declare(dead_letters={"max_rows": 5}, tracking_keyspace=users.keyspace)
    bad = uuid.uuid4()
    insert = f"INSERT INTO {{origin}} (id, score, name) VALUES ({bad}, NaN, 'Nan')"
    users.execute(insert)
    letters = dg.AssetKey(["cloud", f"{users.target_name}_dead_letters"])

    run = users.project.run()

    assert "1 missing, 0 extra, 0 mismatched rows" in run.error
    passed, sentence, metadata = users.check("no_dead_letters")
    assert not passed
    assert sentence.startswith(
        f"1 row is stored as a dead letter, such as id={bad}: was rejected: "
    )
    assert "DynamoDB cannot hold the row: score: " in sentence
    assert metadata["dead_letters"] == 1
    assert len(users.items()) == ROWS

    # The declaration is corrected, and not the row.
    users.declare(target={"numbers": "string"}, tracking_keyspace=users.keyspace)
    told = users.project.run(None, assets=[letters]).assert_success().materializations(letters)
    assert (told[None]["replayed"], told[None]["dead_letters"]) == (1, 0)
    assert users.check("no_dead_letters")[0]
    (item,) = [item for item in users.items() if item["id"] == {"S": str(bad)}]
    assert item["score"] == {"S": "NaN"}


def test_mistakes_are_one_sentence_before_anything_is_written(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**attributes: Any) -> str:
        users.declare(**attributes)
        return refusal(users.project)

    assert "writetime is 'cell', but an item of DynamoDB has one time" in refused(writetime="cell")
    assert "did you mean target.billing_mode?" in refused(target={"biling_mode": "PROVISIONED"})
    assert "there is no attribute target.attributes.name.renam;" in refused(
        target={"attributes": {"name": {"renam": "x"}}}
    )
    assert "target.attributes.name renames name, and columns.rename renames it; keep" in refused(
        target={"attributes": {"name": {"rename": "a"}}}, columns={"rename": {"name": "b"}}
    )
    assert "target.attributes.name drops the column and says what becomes of it" in refused(
        target={"attributes": {"name": {"drop": True, "rename": "a"}}}
    )
    assert "target.key.partition is empty; name its columns, or leave target.key" in refused(
        target={"key": {"partition": []}}
    )
    assert "target.numbers is 'round'; valid are refuse, string" in refused(
        target={"numbers": "round"}
    )
    assert "target.create, target.ttl_attribute mean something to DynamoDB only" in refused(
        target={"store": "sunbird", "table": "a.b", "ttl_attribute": "x"}
    )

    users.declare()
    sides = {"origin": {"store": "sunbird", "keyspace": users.keyspace}}
    kind = "KeyspaceMigration"
    users.project.declare("all", kind, **sides, target={"store": "cloud", "keyspace": "x"})
    assert "target.store is cloud, a dynamodb store, but a keyspace is" in refusal(users.project)
    users.project.declare("all", kind, **sides, target={"store": "sunbird", "keyspace": "x"})
    assert users.project.load()

    def said(**attributes: Any) -> str:
        users.declare(**attributes)
        run = users.project.run(KEYS[0])
        assert not run.success
        assert "Traceback" not in run.error
        return run.error

    assert f"there is no table {users.target_name}" in said(target={"create": False})
    assert "id of the origin's key would not be copied; copy it, or name" in said(
        target={"attributes": {"id": {"drop": True}}}
    )
    assert "target.attributes.name: NS is no attribute type for values of text" in said(
        target={"attributes": {"name": {"type": "NS"}}}
    )
    assert "columns.skip or target.attributes names nothing, which" in said(
        target={"attributes": {"nothing": {"drop": True}}}
    )
    assert "target.key names nobody, which nothing fills" in said(
        target={"key": {"partition": "nobody"}}
    )
    users.declare_stores(profile="nobody")
    assert "nobody" in said()
    users.declare_stores()
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        assert "credentials" in said()
    assert users.target_name not in users.tables()


def test_the_plan_tells_what_a_copy_will_consume(users: Users) -> None:
    users.declare(
        target={
            "write_units_per_second": 100,
            "indexes": {"by_email": {"partition": "email", "projection": "KEYS_ONLY"}},
        }
    )
    users.execute(f"INSERT INTO {{origin}} (id, score) VALUES ({uuid.uuid4()}, Infinity)")
    plan = dg.AssetKey(["cloud", f"{users.target_name}_plan"])

    run = users.project.run(None, assets=[plan]).assert_success()

    told = run.materializations(plan)[None]
    assert (told["estimated_items"], told["estimated_write_units"]) == (ROWS, ROWS)
    assert told["estimated_index_write_units"] == ROWS
    assert told["rows_that_no_item_can_hold"] == 1
    lines = {line.split(" | ")[0].strip("| "): line for line in told["cost"].split("\n")}
    assert "every row was read" in lines["items"]
    assert "at least 0:00:07" in lines["duration of the copy"]
    assert "score: no N holds Infinity" in lines["rows that no item can hold"]
    assert users.target_name not in users.tables()
    values = {line.split(" | ")[0].strip("| "): line for line in told["fidelity"].split("\n")}
    assert values["score"].startswith(
        "| score | N: as they are; a row with what no N holds is rejected"
    )
    assert values["id"] == "| id | S: as they are |  | ✓ |"
    assert "no writetime is kept; no item expires" in values["(writetime and TTL)"]
    assert told["inexact"] == "(writetime and TTL)"
