"""A table is read whole, cells that are too large are counted, and nothing is written."""

import dagster as dg
import pytest
from click.testing import CliRunner

from migration_platform.cli import main
from migration_platform.errors import DeclarationError, PreflightError
from migration_platform.large_cells import declare_check, plan_check
from migration_platform.migration import Endpoint, Filter, TableName
from migration_platform.rehearsal import rehearse
from migration_platform_tests.comparing import OneProcess
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    make_project,
    refusal,
)
from migration_platform_tests.tables import create_table, insert_rows, rows_of

pytestmark = DAGSTERS_OWN_WARNINGS
KB = 1000


@pytest.fixture
def make(connection, keyspace):
    return lambda name, body: create_table(connection, keyspace, name, body)


def measured(connection, table, limit=1, **options):
    migration = declare_check(Endpoint("a", table), limit, token_ranges=4, **options)
    plan = plan_check(migration, connection)
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
    table = make("a", "k int PRIMARY KEY")
    tracking = f"{keyspace}_tracking"
    # The only node cannot answer for three.
    project.declare(
        "check",
        "GuardrailCheck",
        origin={"store": "sunbird", "table": str(table), "consistency": "THREE"},
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


def test_wrong_attributes_are_refused_by_name(project):
    project.declare("check", "GuardrailCheck", origin={"store": "sunbird"}, max_kb=1)
    message = refusal(project)
    assert "origin.table is missing" in message
    assert "max_column_kb is missing" in message
    assert "there is no attribute max_kb; did you mean max_column_kb?" in message
