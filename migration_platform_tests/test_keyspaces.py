"""A whole keyspace by one declaration: tables found, schema made, and a cutover that is honest."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import ComponentTree, DagsterInstance
from dagster._core.definitions.definitions_load_context import (
    DefinitionsLoadContext,
    DefinitionsLoadType,
)

from migration_platform.comparing.scope import DECLARED_FILTER
from migration_platform.components.keyspace.attributes import TableAttributes
from migration_platform.components.keyspace.cutover import MovedTable, judge_checks
from migration_platform.components.keyspace.cutover_asset import build_cutover_sensor
from migration_platform.components.keyspace.declared import KnownTables
from migration_platform.components.keyspace.migration import KeyspaceMigration
from migration_platform.components.table.migration import TableMigration
from migration_platform.components.table.naming import build_job
from migration_platform.cql.names import TableName, quote
from migration_platform.declaration.migration import Migration
from migration_platform.errors import PreflightError
from migration_platform.local.stack import Running
from migration_platform.stores.cassandra.connection import Connection
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    KEYS,
    RANGES,
    Project,
    make_project,
    refusal,
)
from migration_platform_tests.tables import create_table, fill

pytestmark = DAGSTERS_OWN_WARNINGS

SHOP = ("Customers", "audit_log", "item_a", "item_b", "orders", "select")


def declare(project: Project, name: str = "whole", **attributes: Any) -> None:
    """Declare the migration of a keyspace that is complete but for what the test is about."""
    origin = {"store": "sunbird", "keyspace": "shop", **attributes.pop("origin", {})}
    target = {"store": "reports", **attributes.pop("target", {})}
    given = {"token_ranges": RANGES, "workers": 1, "tracking": False, **attributes}
    project.declare(name, "KeyspaceMigration", origin=origin, target=target, **given)


def resolve(**attributes: Any) -> KeyspaceMigration:
    """Resolve a declaration as YAML would."""
    return KeyspaceMigration.resolve_from_dict(
        {
            "origin": {"store": "sunbird", "keyspace": "shop"},
            "target": {"store": "reports"},
            **attributes,
        }
    )


def state_file(project: Project, key: str = "sunbird.shop-__reports.shop") -> Path:
    return project.defs_folder / ".local_defs_state" / f"KeyspaceMigration__{key}__" / "state"


def remember(project: Project, *tables: str, views: Sequence[str] = ()) -> None:
    """Keep a list of tables, as a refresh does."""
    file = state_file(project)
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {"origin": "sunbird.shop", "tables": sorted(tables), "views": list(views)}
    file.write_text(json.dumps(document))


def refresh(project: Project) -> None:
    """Do what `dg utils refresh-defs-state` does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(project.folder))
        (component,) = ComponentTree.for_project(project.folder).get_all_components(
            KeyspaceMigration
        )
        asyncio.run(component.refresh_state(project.folder))


def targets(project: Project) -> set[str]:
    """The tables that are migrated: those whose assets have a diff."""
    names = {key.path[-1] for key in project.load().resolve_asset_graph().get_all_asset_keys()}
    return {name.removesuffix("_diff") for name in names if name.endswith("_diff")}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose stores nobody asks, and which knows the tables of a shop."""
    project = make_project(tmp_path, cassandra_port=9)
    remember(project, *SHOP, views=["orders_by_day"])
    return project


# -- which tables ------------------------------------------------------------------------------


def test_all_tables_are_migrated_and_loading_them_asks_no_database(project: Project) -> None:
    declare(project)

    assert targets(project) == set(SHOP)


def test_names_and_patterns_choose_and_leave_out(project: Project) -> None:
    declare(project, include=["item_*", "orders", "audit_log"], exclude=["audit_*", "*_b"])

    assert targets(project) == {"item_a", "orders"}


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"include": ["order"]}, "include names order, ... did you mean orders?"),
        ({"include": ["ordr*"]}, "include names ordr*, which matches no table of sunbird.shop"),
        ({"exclude": ["Order"]}, "valid are Customers, audit_log, item_a, item_b, orders, select"),
        ({"tables": {"oders": {"workers": 1}}}, "tables names oders"),
        ({"include": ["orders_by_day"]}, "materialized view: views are not migrated"),
        (
            {"exclude": ["orders"], "tables": {"orders": {"workers": 1}}},
            "tables names orders, which include and exclude leave out",
        ),
        ({"create": ["views"]}, "create names views; valid are keyspace, types, tables"),
        ({"target": {"store": "sunbird"}}, "the same keyspace of one store"),
        ({"replication": {"dc1": 3}}, "replication names no class"),
        (
            {"tables": {"orders": {"token_rangs": 4}}},
            "no attribute tables.orders.token_rangs; ... did you mean tables.orders.token_ranges?",
        ),
        (
            {"tables": {"orders": {"writetime": "never"}, "item_a": {"token_ranges": 0}}},
            "tables.item_a: token_ranges ... ; tables.orders: writetime",
        ),
        ({"defs_state": {"management_type": "LEGACY_CODE_SERVER_SNAPSHOTS"}}, "must be LOCAL_"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_what_does_not_exist_is_refused_with_what_would_be_valid(
    project: Project, attributes: dict[str, Any], told: str
) -> None:
    declare(project, **attributes)

    said = refusal(project)
    assert [part for part in told.split(" ... ") if part not in said] == [], said


def test_a_table_that_a_table_migration_moves_too_is_refused(project: Project) -> None:
    declare(project)
    project.declare(
        "one",
        "TableMigration",
        origin={"store": "sunbird", "table": "shop.orders"},
        target={"store": "reports"},
    )

    assert "migrates orders to reports.shop, too: exclude it here" in refusal(project)


def test_a_table_whose_asset_would_have_the_name_of_anothers_is_left_out_and_told(
    project: Project,
) -> None:
    remember(project, "orders", "orders_diff")
    declare(project)
    assert targets(project) == {"orders"}

    declare(project, tables={"orders_diff": {"target": {"table": "orders_difference"}}})
    assert targets(project) == {"orders", "orders_difference"}


def test_without_a_list_the_definitions_load_and_a_run_says_what_to_do(project: Project) -> None:
    state_file(project).unlink()
    declare(project)

    assert targets(project) == set()
    result = project.run(None, assets=[dg.AssetKey(["reports", "shop_schema"])])
    assert "the tables of sunbird.shop are not known yet: run `dg utils refresh" in result.error


def test_a_refresh_that_fails_keeps_the_list(project: Project) -> None:
    declare(project)
    before = state_file(project).read_text()

    with pytest.raises(PreflightError, match="cannot connect"):
        refresh(project)

    assert state_file(project).read_text() == before
    assert targets(project) == set(SHOP)


def test_a_keyspace_can_be_copied_to_two_places_and_on_from_there(project: Project) -> None:
    project.declare("more", "Stores", cassandra={"archive": {"port": 9}, "last": {"port": 9}})
    declare(project)
    declare(project, "archive", target={"store": "archive"})
    declare(project, "last", origin={"store": "archive"}, target={"store": "last"})
    for key in ("sunbird.shop-__archive.shop", "archive.shop-__last.shop"):
        file = state_file(project, key)
        file.parent.mkdir()
        file.write_text(state_file(project).read_text())

    graph = project.load().resolve_asset_graph()

    path = [dg.AssetKey([store, "shop", "orders"]) for store in ("sunbird", "archive", "last")]
    assert path[0] in graph.get(path[1]).parent_keys
    assert path[1] in graph.get(path[2]).parent_keys


@pytest.mark.parametrize("load_type", list(DefinitionsLoadType))
def test_the_list_can_be_kept_in_dagsters_own_storage_also_for_the_process_of_a_run(
    project: Project, load_type: DefinitionsLoadType
) -> None:
    declare(project, defs_state={"management_type": "VERSIONED_STATE_STORAGE"})
    file = state_file(project)
    with project.instance() as instance:
        storage = instance.defs_state_storage
        assert storage is not None
        key = "KeyspaceMigration[sunbird.shop->reports.shop]"
        storage.upload_state_from_path(key, version="one", path=file)
        file.unlink()
        DefinitionsLoadContext.set(DefinitionsLoadContext(load_type))
        try:
            assert targets(project) == set(SHOP)
        finally:
            DefinitionsLoadContext._instance = None


# -- what holds for all, and for one -----------------------------------------------------------


def migration_of(declared: KeyspaceMigration, table: str) -> Migration:
    return declared.to_table_migration(table).to_migration()


def test_a_table_has_what_holds_for_all_but_for_what_it_says_itself() -> None:
    declared = resolve(
        origin={"store": "sunbird", "keyspace": "Shop", "rows_per_second": 100, "fetch_size": 7},
        target={"store": "reports", "keyspace": "New", "consistency": "QUORUM"},
        token_ranges=16,
        diff={"repair": ["missing"], "compare_writetime": True},
        tables={
            "orders": {
                "token_ranges": 4,
                "diff": {"mode": "origin_only"},
                "origin": {"rows_per_second": 5},
                "target": {"table": "Orders2"},
                "columns": {"rename": {"a": "b"}},
                "partition_key": ["b"],
            }
        },
    )
    orders, items = migration_of(declared, "orders"), migration_of(declared, "select")

    assert (orders.token_ranges, items.token_ranges) == (4, 16)
    assert (orders.diff_mode, items.diff_mode) == ("origin_only", "two_way")
    assert orders.repair == items.repair == ("missing",)
    assert orders.compare_writetime
    assert (orders.origin.rows_per_second, items.origin.rows_per_second) == (5, 100)
    assert orders.origin.fetch_size == 7
    assert orders.target.consistency == items.target.consistency == "QUORUM"
    assert orders.target.table == TableName("New", "Orders2")
    assert items.origin.table == TableName("Shop", "select")
    assert items.target.table == TableName("New", "select")
    assert dict(orders.columns.rename) == {"a": "b"}


def test_every_attribute_of_a_table_can_be_given_for_all_tables_or_for_one() -> None:
    for_all, for_one = set(KeyspaceMigration.model_fields), set(TableAttributes.model_fields)

    assert set(TableMigration.model_fields) - for_all == {"columns", "group_writes_by"}
    assert set(TableMigration.model_fields) - for_one == {
        "schedule", "group", "tracking", "tracking_keyspace", "owners"
    }  # fmt: skip


def test_the_docs_explain_every_attribute() -> None:
    model = KeyspaceMigration.get_model_cls()
    assert model is not None
    schema = model.model_json_schema()
    for block in (schema, *schema["$defs"].values()):
        for name, attribute in block.get("properties", {}).items():
            assert attribute.get("description"), f"{block['title']}.{name}"


def test_one_launch_can_hold_all_that_is_copied(project: Project) -> None:
    """Every asset of the group takes a range of partitions in a single run."""
    declare(project)
    graph = project.load().resolve_asset_graph()

    chosen = dg.AssetSelection.from_coercible("group:shop").resolve(graph)

    assert dg.AssetKey(["reports", "shop_schema"]) in chosen
    assert len(chosen) == 2 + 2 * len(SHOP)
    for key in chosen:
        assert graph.get(key).backfill_policy == dg.BackfillPolicy.single_run()
    for name in SHOP:
        parents = graph.get(dg.AssetKey(["reports", "shop", name])).parent_keys
        assert dg.AssetKey(["reports", "shop_schema"]) in parents


# -- the cutover ----------------------------------------------------------------------------------


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as instance:
        yield instance


def moved_table(name: str = "orders") -> MovedTable:
    job = build_job(migration_of(resolve(token_ranges=2), name))
    keys = (dg.AssetCheckKey(job.target, "row_counts_match"), dg.AssetCheckKey(job.target, "other"))
    return MovedTable(name, job, keys)


def copy_of(instance: DagsterInstance, table: MovedTable) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(table.job.target, partition="0-of-2")
    )


def evaluate(
    instance: DagsterInstance, key: dg.AssetCheckKey, passed: bool = True, **more: Any
) -> None:
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=key.asset_key, check_name=key.name, passed=passed, metadata={}, **more
        )
    )


def test_a_table_is_ready_only_while_each_of_its_checks_is_green_and_newer_than_its_last_copy(
    instance: DagsterInstance,
) -> None:
    table = moved_table()
    first, second = table.checks
    assert judge_checks(instance, table) == ["nothing was copied yet"]
    copy_of(instance, table)
    assert judge_checks(instance, table) == ["row_counts_match never ran", "other never ran"]
    evaluate(instance, first)
    evaluate(instance, second, passed=False)
    assert judge_checks(instance, table) == ["other is red"]
    evaluate(instance, second, passed=False, severity=dg.AssetCheckSeverity.WARN)
    assert judge_checks(instance, table) == []
    copy_of(instance, table)
    old = "is older than the last copy or comparison"
    assert judge_checks(instance, table) == [f"row_counts_match {old}", f"other {old}"]
    evaluate(instance, first)
    evaluate(instance, second)
    assert judge_checks(instance, table) == []


def test_a_check_of_a_run_with_a_filter_of_its_own_makes_no_table_ready(
    instance: DagsterInstance,
) -> None:
    table = moved_table()
    copy_of(instance, table)
    first, second = table.checks
    evaluate(instance, second)
    event = dg.AssetCheckEvaluation(
        asset_key=first.asset_key,
        check_name=first.name,
        passed=True,
        metadata={DECLARED_FILTER: "all rows"},
    )
    instance.report_runless_asset_event(event)
    assert judge_checks(instance, table) == [
        "row_counts_match speaks of a run with a filter of its own"
    ]


def test_the_cutover_turns_red_when_a_table_is_copied_again_and_never_green_by_itself(
    instance: DagsterInstance,
) -> None:
    table, declared = moved_table(), resolve()
    cutover = dg.AssetCheckKey(declared.cutover_key, "ready_for_cutover")
    schemas = dg.AssetCheckKey(declared.schema_key, "schemas_match")
    sensor = build_cutover_sensor(declared=declared, known=KnownTables(("orders",), (table,), {}))

    def look() -> tuple[str, bool | None]:
        skipped = sensor(dg.build_sensor_context(instance=instance))
        storage = instance.event_log_storage
        record = storage.get_latest_asset_check_execution_by_key([cutover]).get(cutover)
        assert isinstance(skipped, dg.SkipReason)
        if record is None or record.event is None or record.event.dagster_event is None:
            return str(skipped.skip_message), None
        evaluation = record.event.dagster_event.asset_check_evaluation_data
        return str(skipped.skip_message), evaluation.passed

    copy_of(instance, table)
    for key in (*table.checks, schemas):
        evaluate(instance, key)
    assert look() == ("The cutover is not green.", None)
    evaluate(instance, cutover)
    assert look() == ("The cutover is green, and still true.", True)
    copy_of(instance, table)
    said, passed = look()
    assert said.startswith("reports.shop is not ready for the cutover: orders (row_counts_match")
    assert passed is False
    for key in table.checks:
        evaluate(instance, key)
    assert look() == ("The cutover is not green.", False)
    evaluate(instance, cutover)
    evaluate(instance, schemas, passed=False)
    assert "schema (schemas_match is red)" in look()[0]


# -- a keyspace from one cluster to another ----------------------------------------------------


def cutover_of(project: Project, key: dg.AssetKey) -> tuple[bool, str]:
    result = project.run(None, assets=[key])
    evaluation = result.checks["ready_for_cutover"]
    assert evaluation.passed == result.success
    return result.success, evaluation.description or ""


def test_a_keyspace_is_created_copied_proven_and_its_cutover_tells_what_is_open(
    tmp_path: Path, cassandra: Running, connection: Connection, keyspace: str
) -> None:
    there = f"New_{keyspace}"
    connection.session.execute(f"CREATE TYPE {keyspace}.address (street text)")
    body = "id int, at int, a frozen<address>, PRIMARY KEY (id, at)"
    orders = create_table(connection, keyspace, "orders", body)
    users = create_table(connection, keyspace, "Users", 'id int PRIMARY KEY, "Name" text')
    create_table(connection, keyspace, "audit_log", "id int PRIMARY KEY")
    fill(connection, orders, "id, at", [(i, -i) for i in range(40)])
    fill(connection, users, 'id, "Name"', [(i, "n") for i in range(30)])
    project = make_project(tmp_path, cassandra_port=cassandra.port)
    declare(
        project,
        origin={"keyspace": keyspace},
        target={"keyspace": there},
        exclude=["audit_*"],
        tables={"orders": {"partition_key": ["at"]}},
    )
    refresh(project)
    schema, cutover = (
        dg.AssetKey(["reports", f"{there}_{what}"]) for what in ("schema", "cutover")
    )
    try:
        passed, said = cutover_of(project, cutover)
        assert not passed
        assert "keyspace: it is missing at the target" in said
        assert "Users (nothing was copied yet); orders (nothing was copied yet)" in said

        copied = [
            schema,
            *(
                dg.AssetKey(["reports", there, name + suffix])
                for name in ("orders", "Users")
                for suffix in ("", "_diff")
            ),
        ]
        result = project.run(f"{KEYS[0]}...{KEYS[-1]}", assets=copied).assert_success()

        created = [
            event.materialization.metadata["created"].value
            for event in result.events
            if event.is_step_materialization and event.asset_key == schema
        ]
        assert created == [f'keyspace {quote(there)}, type address, table "Users", table orders']
        assert result.checks["schemas_match"].passed
        count = f"SELECT count(*) FROM {quote(there)}"
        assert connection.session.execute(f"{count}.orders").one()[0] == 40
        assert connection.session.execute(f'{count}."Users"').one()[0] == 30
        passed, said = cutover_of(project, cutover)
        assert passed, said
        ready = f"reports.{there} is ready for the cutover: the schemas match, and all "
        assert said.startswith(ready)
        assert said.endswith(
            " checks of 2 tables are green. Not looked at: writetimes and TTLs (Users, orders). "
            "Tables that are not migrated: audit_log."
        )

        connection.session.execute(f"CREATE TABLE {keyspace}.fresh (id int PRIMARY KEY)")
        connection.session.execute(f'ALTER TABLE {quote(there)}."Users" DROP "Name"')
        connection.session.execute(f"DROP TABLE {quote(there)}.orders")
        passed, said = cutover_of(project, cutover)
        assert not passed
        assert "table fresh: it is new at the origin and not migrated yet" in said
        assert 'table "Users": the target lacks column "Name"' in said
        assert "table orders: it is missing at the target" in said
        assert "orders (it cannot be copied as it is declared now)" in said

        refresh(project)
        assert targets(project) == {"orders", "Users", "fresh"}
        again = project.run(None, assets=[schema]).assert_success()
        assert not again.checks["schemas_match"].passed
        assert "fresh" not in (again.checks["schemas_match"].description or "")
        # Made anew, the table is another one: what was proven of the old one says nothing of it.
        assert (
            f"orders ({RANGES} of {RANGES} ranges are not copied" in cutover_of(project, cutover)[1]
        )
    finally:
        connection.session.execute(f"DROP KEYSPACE IF EXISTS {quote(there)}", timeout=60)


def test_a_green_cutover_says_of_which_rows_it_speaks_and_what_is_only_warned_of(
    tmp_path: Path, cassandra: Running, connection: Connection, keyspace: str
) -> None:
    there = f"new_{keyspace}"
    body = "id int PRIMARY KEY, name text, more text"
    active, empty = (create_table(connection, keyspace, name, body) for name in ("active", "empty"))
    fill(connection, active, "id, name", [(i, "a" if i % 4 else "b") for i in range(40)])
    connection.session.execute(f"CREATE INDEX by_name ON {empty} (name)")
    project = make_project(tmp_path, cassandra_port=cassandra.port)
    declare(
        project,
        origin={"keyspace": keyspace},
        target={"keyspace": there},
        writetime="now",
        ttl="none",
        tables={
            "active": {
                "filter": {"where": "name = 'b'"},
                "columns": {"skip": ["more"]},
                "diff": {"mode": "origin_only"},
            }
        },
    )
    refresh(project)
    keys = [
        dg.AssetKey(["reports", there, name + suffix])
        for name in ("active", "empty")
        for suffix in ("", "_diff")
    ]
    schema, cutover = (
        dg.AssetKey(["reports", f"{there}_{what}"]) for what in ("schema", "cutover")
    )
    try:
        made = project.run(f"{KEYS[0]}...{KEYS[-1]}", assets=[schema, *keys]).assert_success()
        to_create = made.checks["schemas_match"].metadata["to_create_at_the_target"].value
        assert to_create == f"```sql\nCREATE INDEX by_name ON {there}.empty (name);\n```"

        passed, said = cutover_of(project, cutover)

        assert passed, said
        assert (
            f"reports.{there} is ready for the cutover: the schemas match but for what is only"
            in said
        )
        assert "by_name" in said
        assert said.endswith(
            " checks of 2 tables are green. Filter: where name = 'b' (active). Not looked at: rows "
            "that only the target has (active); the origin's column more, which is not copied "
            "(active). Without a row to compare: empty."
        )
    finally:
        connection.session.execute(f"DROP KEYSPACE IF EXISTS {there}", timeout=60)


def test_a_scaffolded_keyspace_is_listed_and_its_tables_are_found(
    tmp_path: Path, cassandra: Running, connection: Connection, keyspace: str
) -> None:
    create_table(connection, keyspace, "orders", "id int PRIMARY KEY")
    project = make_project(tmp_path, cassandra_port=cassandra.port)
    project.run_dg(
        "scaffold", "defs", "migration_platform.KeyspaceMigration", "whole"
    ).assert_success()
    file = project.defs_folder / "whole" / "defs.yaml"
    text = file.read_text()
    for word, real in (
        ("my_origin", "sunbird"), ("my_target", "reports"), ("my_keyspace", keyspace)
    ):  # fmt: skip
        assert word in text
        text = text.replace(word, real)
    file.write_text(text)

    project.run_dg("utils", "refresh-defs-state").assert_success()

    assert targets(project) == {"orders"}
    kept = state_file(project, f"sunbird.{keyspace}-__reports.{keyspace}")
    assert json.loads(kept.read_text())["tables"] == ["orders"]
