"""A small tenant's move for tests: its tables, its declaration, and what it leaves in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cassandra.cluster import Session

from migration_platform.cql.names import TableName
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.tenant.changes import Changes
from migration_platform.tenant.declaration import Change, Lookup, Move, TableStep
from migration_platform.tenant.proof import Proof
from migration_platform.tenant.records import PlanFolder, seal_backup
from migration_platform.tenant.shape import shape_table
from migration_platform.tenant.steps import (
    apply_table_range,
    plan_table,
    refuse_out_of_order,
    require_plan,
    require_table,
    restore_step,
)
from migration_platform_tests.tables import create_table, insert_rows

OLD, NEW, OTHER = "01241408242723225614", "01246375399411712074", "0123653943740170242"
USER = (
    "id text PRIMARY KEY, rootorgid text, channel text, isdeleted boolean, roles list<text>, "
    "name text"
)
USER_ORG = (
    "id text PRIMARY KEY, userid text, organisationid text, hashtagid text, isdeleted boolean"
)
BATCH = "id text PRIMARY KEY, createdfor list<text>, status int"
BATCH_OF_COURSE = (
    "courseid text, batchid text, createdfor list<text>, status int, "
    "PRIMARY KEY (courseid, batchid)"
)
ORGANISATION = "id text PRIMARY KEY, hashtagid text, status int"


@dataclass
class Tenants:
    """Two organisations in a keyspace, and a folder for their move."""

    connection: Connection
    reader: Session
    keyspace: str
    folder: Path
    steps: list[TableStep] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def organisations(self) -> TableName:
        return TableName(self.keyspace, "organisation")

    @property
    def move(self) -> Move:
        return Move(
            "rajasthan", "sunbird", OLD, NEW, self.organisations, tuple(self.steps), **self.settings
        )

    def make(self, table: str, body: str, rows: list[Mapping[str, Any]] | None = None) -> TableName:
        name = create_table(self.connection, self.keyspace, table, body)
        insert_rows(self.connection, name, rows or [])
        return name

    def step(
        self, name: str, table: str, select: str, *changes: Change, **options: Any
    ) -> TableStep:
        step = TableStep(
            name,
            TableName(self.keyspace, table),
            select,
            changes,
            **{"id_file": f"{name}.csv", "token_ranges": 2, **options},
        )
        self.steps.append(step)
        return step

    def rows(self, table: str) -> dict[str, dict[str, Any]]:
        """Read a table with the driver alone, by id."""
        found = self.reader.execute(f'SELECT * FROM "{self.keyspace}"."{table}"')
        return {row.get("id") or row["batchid"]: row for row in found}

    def execute(self, cql: str) -> None:
        self.reader.execute(cql.replace("KS.", f'"{self.keyspace}".'))

    def plan(self, step: TableStep, connection: Connection | None = None) -> PlanFolder:
        return plan_table(connection or self.connection, self.move, step, self.folder)

    def apply(
        self, step: TableStep, connection: Connection | None = None, **options: Any
    ) -> "Applied":
        """Apply the newest plan to all ranges, as a real run does."""
        used = connection or self.connection
        refuse_out_of_order(self.move, self.folder, step)
        plan = require_plan(self.move, self.folder, step)
        shape = require_table(shape_table(used, self.move, step), plan)
        changes, proof = Changes(), Proof()
        for token_range in step.ranges:
            done = apply_table_range(used, self.move, shape, plan, token_range, **options)
            changes.add(done.changes)
            assert done.proof is not None
            proof.add(done.proof)
        seal_backup(plan)
        return Applied(changes, proof)

    def run(self, step: TableStep) -> "Applied":
        self.plan(step)
        return self.apply(step)

    def restore(self, step: TableStep, *, dry_run: bool = False) -> Changes:
        return restore_step(self.connection, self.move, step, self.folder, dry_run=dry_run)

    def ids(self, step: TableStep) -> list[str]:
        text = (self.folder / step.id_file).read_text()
        assert text == "" or text.endswith("\n")
        return sorted(text.splitlines())


@dataclass(frozen=True)
class Applied:
    changes: Changes
    proof: Proof


def users_of(tenants: Tenants, **options: Any) -> TableStep:
    """Declare the step that moves users, as the defs of Rajasthan do."""
    return tenants.step(
        "users",
        "user",
        "rootorgid",
        Change("rootorgid", replace="value"),
        Change("channel", constant="rj"),
        **options,
    )


def user_orgs_of(tenants: Tenants) -> TableStep:
    return tenants.step(
        "user_organisations",
        "user_org",
        "organisationid",
        Change("organisationid", replace="value"),
        Change("hashtagid", lookup=Lookup(tenants.organisations, "hashtagid")),
        duplicates_by="userid",
    )


def batches_of(tenants: Tenants, which: str = "first", **options: Any) -> TableStep:
    return tenants.step(
        "course_batches",
        "course_batch",
        "createdfor",
        Change("createdfor", replace=which),  # type: ignore[arg-type]
        **options,
    )


def organisation_of(tenants: Tenants) -> TableStep:
    return tenants.step(
        "organisation", "organisation", "id", Change("status", constant=0), token_ranges=1
    )


def changed(step: TableStep, **options: Any) -> TableStep:
    return replace(step, **options)
