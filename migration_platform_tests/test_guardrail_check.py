"""A table is read whole, cells that are too large are counted, and nothing is written."""

import itertools

import dagster as dg
import pytest
from click.testing import CliRunner

from migration_platform.cli import main
from migration_platform.components.table.guardrail_check import check_key
from migration_platform.copying.large_cells import declare_check
from migration_platform.copying.rehearsal import rehearse
from migration_platform.cql.names import TableName
from migration_platform.declaration.filters import Filter
from migration_platform.declaration.migration import Endpoint
from migration_platform.declaration.step_names import step_name
from migration_platform.errors import DeclarationError, PreflightError
from migration_platform.stores.kinds import open_origin
from migration_platform.stores.planning import plan_check
from migration_platform_tests.comparing import OneProcess
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    make_project,
    refusal,
)
from migration_platform_tests.tables import create_table, insert_rows, rows_of

pytestmark = DAGSTERS_OWN_WARNINGS
KB = 1000
KEY_OF_EACH_HALF = (1, 3)


@pytest.fixture
def make(connection, keyspace):
    return lambda name, body: create_table(connection, keyspace, name, body)


def planned(migration, connection):
    return plan_check(migration, open_origin(migration, connection))


def measured(connection, table, limit=1, **options):
    migration = declare_check(Endpoint("a", table), limit, token_ranges=4, **options)
    plan = planned(migration, connection)
    found = rehearse(OneProcess(plan, connection), plan, migration.ranges, None)  # type: ignore
    assert found.failed == ()
    return found.counts


CELLS = {
    "a text of 1000 bytes": ("v text", {"v": "x" * KB}, None),
    "a text of 1001 bytes": ("v text", {"v": "x" * (KB + 1)}, {"v": 1}),
    "letters of two bytes": ("v text", {"v": "ä" * (KB // 2 + 1)}, {"v": 1}),
    "a blob": ("v blob", {"v": b"\x00" * 2 * KB}, {"v": 1}),
    "a list as a whole": ("l list<text>", {"l": ["x" * 300] * 4}, {"l": 1}),
    "a map as a whole": ("m map<text, text>", {"m": {"k": "x" * KB}}, {"m": 1}),
    "a frozen type": ("t tuple<text, int>", {"t": ("x" * KB, 1)}, {"t": 1}),
    "two cells of a row": (
        "v text, w text",
        {"v": "x" * 2 * KB, "w": "x" * 2 * KB},
        {"v": 1, "w": 1},
    ),
    "null": ("v text", {}, None),
}


@pytest.mark.parametrize("case", CELLS)
def test_cells_are_measured_as_they_are_and_a_row_counts_once(connection, reader, make, case):
    columns, row, expected = CELLS[case]
    table = make("a", f"k int PRIMARY KEY, {columns}")
    insert_rows(connection, table, [{"k": 1, **row}, {"k": 2}])
    counts = measured(connection, table)
    assert (counts.read, counts.too_large) == (2, 1 if expected else 0)
    assert dict(counts.large_cells) == (expected or {})


def test_keys_and_static_cells_and_counters_are_read_too(connection, make):
    table = make("a", "k text, c text, s text STATIC, v int, PRIMARY KEY (k, c)")
    insert_rows(connection, table, [{"k": "x" * 2 * KB, "c": c, "s": "x" * 3 * KB} for c in "ab"])
    counts = measured(connection, table)
    # A static cell is one for its whole partition.
    assert dict(counts.large_cells) == {"k": 2, "s": 1}
    assert (counts.read, counts.too_large) == (2, 2)
    counters = make("b", "k int PRIMARY KEY, n counter")
    connection.session.execute(f"UPDATE {counters} SET n = n + 1 WHERE k = 1", timeout=60)
    assert measured(connection, counters).read == 1


def test_only_what_the_filter_takes_is_read(connection, make):
    table = make("a", "k int PRIMARY KEY, v text, w int")
    rows = [{"k": k, "v": "x" * 2 * KB, "w": k % 2} for k in range(20)]
    insert_rows(connection, table, rows)
    assert measured(connection, table, chosen=Filter(where="w = 1")).too_large == 10
    assert 0 < measured(connection, table, chosen=Filter(token_min=0)).too_large < 20
    with pytest.raises(PreflightError, match=r"cannot be checked: filter\.where is refused"):
        measured(connection, table, chosen=Filter(where="nothing = 1"))
    with pytest.raises(PreflightError, match="there is no table"):
        measured(connection, TableName(table.keyspace, "none"))
    with pytest.raises(DeclarationError, match="max_column_kb is 0; valid are 1 to"):
        measured(connection, table, 0)


def test_a_check_that_would_read_what_the_table_does_not_hold_is_refused(roles):
    masked = roles.make("masked", "k int PRIMARY KEY, v text MASKED WITH mask_inner(1, 1)")
    roles.execute(f"INSERT INTO {{ks}}.masked (k, v) VALUES (1, '{'x' * 2 * KB}')")
    plain = roles.make("plain", "k int PRIMARY KEY, v text")
    with pytest.raises(PreflightError, match=r"cannot be checked: .*GRANT SELECT ON TABLE"):
        measured(roles.connect(), plain)
    connection = roles.connect("SELECT ON KEYSPACE {ks}")
    with pytest.raises(PreflightError, match=r"cannot be checked: .* has masked columns \(v\)"):
        measured(connection, masked)
    assert measured(roles.admin, masked).too_large == 1
    allowed = roles.connect("SELECT ON KEYSPACE {ks}", "UNMASK ON KEYSPACE {ks}")
    assert measured(allowed, masked).too_large == 1


def test_a_check_that_no_replicas_can_answer_is_refused(connection, make):
    origin = Endpoint("a", make("a", "k int PRIMARY KEY"), consistency="THREE")
    with pytest.raises(PreflightError, match=r"cannot be checked: origin\.consistency THREE"):
        planned(declare_check(origin, 1), connection)
    own = Endpoint("a", TableName("system", "local"))
    with pytest.raises(PreflightError, match="is a table that each node keeps for itself"):
        planned(declare_check(own, 1), connection)


@pytest.fixture
def project(tmp_path, cassandra):
    return make_project(tmp_path, cassandra_port=cassandra.port)


def test_a_check_ends_green_with_its_counts_and_is_tracked(
    connection, reader, make, project, keyspace
):
    table = make("big", "k int PRIMARY KEY, v text, w text")
    insert_rows(
        connection,
        table,
        [
            {"k": k, "v": "x" * (2 * KB if k < 3 else 5), "w": "y" * 2 * KB * (k == 0)}
            for k in range(8)
        ],
    )
    before = rows_of(reader, table)
    tracking = f"{keyspace}_tracking"
    project.declare(
        "check",
        "GuardrailCheck",
        origin={"store": "sunbird", "table": str(table)},
        max_column_kb=1,
        token_ranges=4,
        workers=1,
        tracking_keyspace=tracking,
    )
    asset = dg.AssetKey(["sunbird", keyspace, "big_large_cells"])
    step = "__".join(asset.path)
    config = {"ops": {step: {"config": {"run_id": 17}}}}
    try:
        run = project.run(None, assets=[asset], config=config).assert_success()
        told = run.materializations(asset)[None]
        assert (told["rows_read"], told["rows_with_large_cells"]) == (8, 3)
        assert told["large_cells"] == {"v": 3, "w": 1}
        assert told["found"] == "3 of 8 rows have a cell of more than 1 KB"
        assert len(told["large_samples"]) == 4
        assert "Guardrail Check Job - Starting" in project.messages_of(run.run_id)
        (info,) = rows_of(reader, TableName(tracking, "cdm_run_info"))
        assert (info["run_type"], info["run_id"], info["status"]) == ("GUARDRAIL", 17, "ENDED")
        assert info["table_name"] == "big"
        assert info["run_info"] == (
            "Read: 8; Valid: 5; Skipped: 0; Large: 3; Partitions Passed: 4; Partitions Failed: 0"
        )
        details = rows_of(reader, TableName(tracking, "cdm_run_details"))
        assert [row["status"] for row in details] == ["PASS"] * 4
        shown = CliRunner().invoke(main, ["status", "--project", str(project.folder)]).output
        assert f"sunbird/{keyspace}.big large cells: " in shown
        assert "GUARDRAIL  ENDED" in shown
        named = ["status", asset.to_user_string(), "--project", str(project.folder)]
        assert CliRunner().invoke(main, named).exit_code == 0
        named = ["rate", asset.to_user_string(), "--project", str(project.folder)]
        slow = CliRunner().invoke(main, [*named, "--origin-rows", "500"])
        assert "500" in slow.output, slow.output
        again = project.run(None, assets=[asset], config=config)
        assert not again.success
        assert "Run id 17 already exists for table big" in again.error
    finally:
        reader.execute(f"DROP KEYSPACE IF EXISTS {tracking}", timeout=60)
    assert rows_of(reader, table) == before


def test_a_range_that_cannot_be_read_is_red_and_noted(connection, make, reader, project, keyspace):
    names = [f"v{n}" for n in range(1000)]
    table = make("a", f"k int, c int, {' int, '.join(names)} int, PRIMARY KEY (k, c)")
    tracking = f"{keyspace}_tracking"
    # In each half of the ring more tombstones than the server reads for one page.
    nulls = connection.session.prepare(
        f"UPDATE {table} SET {' = ?, '.join(names)} = ? WHERE k = ? AND c = ?"
    )
    for k, c in itertools.product(KEY_OF_EACH_HALF, range(101)):
        connection.session.execute(nulls, [*[None] * len(names), k, c], timeout=60)
    project.declare(
        "check",
        "GuardrailCheck",
        origin={"store": "sunbird", "table": str(table)},
        max_column_kb=1,
        **{"token_ranges": 2, "workers": 1, "retry_seconds": 1, "tracking_keyspace": tracking},
    )
    try:
        run = project.run(None, assets=[dg.AssetKey(["sunbird", keyspace, "a_large_cells"])])
        assert not run.success
        assert f"{keyspace}.a: 2 ranges could not be read" in run.error
        (info,) = rows_of(reader, TableName(tracking, "cdm_run_info"))
        assert info["status"] == "ENDED"
        assert info["run_info"].endswith("Partitions Passed: 0; Partitions Failed: 2")
        details = rows_of(reader, TableName(tracking, "cdm_run_details"))
        assert [row["status"] for row in details] == ["FAIL", "FAIL"]
    finally:
        reader.execute(f"DROP KEYSPACE IF EXISTS {tracking}", timeout=60)


FILTERS = {
    "where": ({"where": "w = 1"}, "where w = 1"),
    "tokens": ({"token_min": 5, "token_max": 9}, "tokens 5 to 9"),
    "a part": ({"coverage_percent": 1}, "the low 1 % of each range"),
    "several": (
        {"where": "w = 1", "coverage_percent": 50},
        "where w = 1; the low 50 % of each range",
    ),
}


@pytest.mark.parametrize("case", FILTERS)
def test_what_is_found_names_the_rows_that_were_looked_at(connection, make, project, case):
    chosen, told = FILTERS[case]
    table = make("a", "k int PRIMARY KEY, w int")
    origin = {"store": "sunbird", "table": str(table)}
    options = {"token_ranges": 2, "workers": 1, "tracking": False}
    project.declare(
        "check", "GuardrailCheck", origin=origin, max_column_kb=1, filter=chosen, **options
    )
    asset = dg.AssetKey(["sunbird", table.keyspace, "a_large_cells"])
    run = project.run(None, assets=[asset]).assert_success()
    metadata = run.materializations(asset)[None]
    assert metadata["filter"] == told
    assert metadata["found"] == f"0 of 0 rows have a cell of more than 1 KB. Filter: {told}."
    assert metadata["found"] in project.messages_of(run.run_id)


@pytest.mark.parametrize("name", ["tä", "a b", "a-b", "a.b", "Ω"])
def test_a_table_of_any_name_can_be_declared(project, keyspace, name):
    # Servers of today make no such table, and those of long ago did.
    table = TableName(keyspace, name)
    origin = {"store": "sunbird", "table": str(table)}
    options = {"token_ranges": 1, "workers": 1, "tracking": False}
    project.declare("check", "GuardrailCheck", origin=origin, max_column_kb=1, **options)
    asset = check_key(declare_check(Endpoint("sunbird", table), 1))
    config = {"ops": {step_name(asset.path): {"config": {}}}}
    assert "there is no table" in project.run(None, assets=[asset], config=config).error
    target = {**origin, "store": "reports"}
    project.declare("move", "TableMigration", origin=origin, target=target)
    project.load().resolve_asset_graph()


def test_a_check_that_is_to_finish_transactions_is_refused(project):
    origin = {"store": "sunbird", "table": "a.b", "finish_transactions": True}
    project.declare("check", "GuardrailCheck", origin=origin, max_column_kb=1)
    assert "origin.finish_transactions is for what is copied" in refusal(project)


def test_wrong_attributes_are_refused_by_name(project):
    project.declare("check", "GuardrailCheck", origin={"store": "sunbird"}, max_kb=1)
    message = refusal(project)
    assert "origin.table is missing" in message
    assert "max_column_kb is missing" in message
    assert "there is no attribute max_kb; did you mean max_column_kb?" in message
