"""Properties files of the Cassandra Data Migrator, imported and run as the printed line says."""

import json
import re
import shlex
import time
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from cassandra import InvalidRequest

from migration_platform.cdm.import_cdm import import_file
from migration_platform_tests.dagster_project import DAGSTERS_OWN_WARNINGS, make_project
from migration_platform_tests.servers import REPOSITORY
from migration_platform_tests.tables import create_table, insert_rows, rows_of
from migration_platform_tests.test_docs import blocks_of

pytestmark = DAGSTERS_OWN_WARNINGS


class ImportedFile:
    """A project that holds what a properties file became."""

    def __init__(self, folder, cassandra, properties, **options: Any):
        self.project = make_project(folder, cassandra_port=cassandra.port)
        file = folder / "x.properties"
        file.write_text("".join(f"spark.cdm.{key} = {properties[key]}\n" for key in properties))
        self.report = "\n".join(import_file(file, self.project.defs_folder, **options))
        (self.launch,) = [
            line.strip()
            for line in self.report.splitlines()
            if line.strip().startswith("dg launch")
        ]

    def run(self):
        """Do in this process what the printed line does."""
        words = iter(shlex.split(self.launch)[2:])
        given = dict(zip(words, words, strict=True))
        assets = [dg.AssetKey(name.split("/")) for name in given["--assets"].split(",")]
        return self.project.run(
            given.get("--partition-range"),
            assets=assets,
            config=json.loads(given.get("--config-json", "{}")),
        )

    def asset(self, suffix: str) -> dg.AssetKey:
        first = shlex.split(self.launch)[3].split(",")[0].removesuffix("_plan")
        return dg.AssetKey(f"{first}{suffix}".split("/"))


@pytest.fixture
def import_cdm(tmp_path, cassandra, keyspace):
    """Import a file with these properties, between the keyspace's tables `a` and `b`."""

    def imported(properties=None, /, **options):
        values = {
            "connect.origin.host": "127.0.0.1",
            "connect.origin.port": str(cassandra.port),
            "connect.origin.username": "",
            "connect.target.host": "127.0.0.1",
            "connect.target.port": str(cassandra.port),
            "connect.target.username": "",
            "schema.origin.keyspaceTable": f"{keyspace}.a",
            "schema.target.keyspaceTable": f"{keyspace}.b",
            "perfops.numParts": "2",
            **(properties or {}),
        }
        kept = {key: value for key, value in values.items() if value is not None}
        return ImportedFile(tmp_path, cassandra, kept, **options)

    return imported


@pytest.fixture
def make(connection, keyspace):
    return lambda name, body: create_table(connection, keyspace, name, body)


def test_columns_that_only_the_origin_has_are_left_out_as_the_migrator_does(
    connection, reader, make, import_cdm
):
    origin = make("a", "k int PRIMARY KEY, v int, x int, y set<int>")
    target = make("b", "k int PRIMARY KEY, v int, more int")
    insert_rows(connection, origin, [{"k": k, "v": k, "x": 1, "y": {1}} for k in range(5)])
    imported = import_cdm()
    assert "columns.unmatched is skip" in imported.report
    result = imported.run().assert_success()
    assert result.checks["all_ranges_match"].passed
    assert rows_of(reader, target) == [{"k": k, "more": None, "v": k} for k in range(5)]
    plan = imported.asset("_plan")
    told = imported.project.run(None, assets=[plan]).assert_success().materializations(plan)[None]
    assert (told["columns_left_out"], told["columns_left_unset"]) == ("x, y", "more")
    assert "| x | left out: the target has no such column |" in told["fidelity"]


def test_null_in_a_new_key_becomes_the_time_and_the_empty_text_of_the_migrator(
    connection, reader, make, import_cdm
):
    origin = make("a", "id int PRIMARY KEY, at timestamp, seen timestamp, city text, v int")
    target = make(
        "b",
        "id int, at timestamp, seen timestamp, city text, v int, PRIMARY KEY (id, at, city, seen)",
    )
    then = datetime(2024, 1, 1, tzinfo=UTC)
    insert_rows(
        connection, origin, [{"id": 1}, {"id": 2, "at": then, "city": "Ulm", "v": 2}, {"id": 3}]
    )
    imported = import_cdm({"transform.missing.key.ts.replace.value": "86400000"})
    assert imported.run().assert_success().checks["all_ranges_match"].passed
    day, then = datetime(1970, 1, 2), then.replace(tzinfo=None)
    assert [tuple(row.values()) for row in rows_of(reader, target)] == [
        (day, "", 1, day, None),
        (day, "", 3, day, None),
        (then, "Ulm", 2, day, 2),
    ]


def test_a_null_time_without_a_value_for_it_fails_by_name(connection, make, import_cdm):
    origin = make("a", "id int PRIMARY KEY, at timestamp")
    make("b", "id int, at timestamp, PRIMARY KEY (id, at)")
    insert_rows(connection, origin, [{"id": 1}])
    imported = import_cdm()
    result = imported.run()
    assert not result.success
    assert "has no value for the key column at" in imported.project.messages_of(result.run_id)


def test_a_repair_of_what_has_no_time_that_counts_wins_as_the_migrators_does(
    connection, reader, make, import_cdm
):
    origin, target = (make(name, "k int PRIMARY KEY, e set<int>") for name in "ab")
    for k in (1, 2, 3):
        reader.execute(f"INSERT INTO {origin} (k, e) VALUES ({k}, {{{k}}}) USING TIMESTAMP 1000")
    imported = import_cdm({"autocorrect.missing": "true", "autocorrect.mismatch": "true"})
    assert imported.run().assert_success().checks["all_ranges_match"].passed
    reader.execute(f"DELETE FROM {target} WHERE k = 1")
    reader.execute(f"UPDATE {target} SET e = {{9}} WHERE k = 2")
    diff = imported.asset("_diff")
    ranges = shlex.split(imported.launch)[-1]
    imported.project.run(ranges, assets=[diff]).assert_success()
    assert rows_of(reader, target) == [{"e": {k}, "k": k} for k in (1, 2, 3)]
    plan = imported.asset("_plan")
    told = imported.project.run(None, assets=[plan]).assert_success().materializations(plan)[None]
    assert "the time of the copy, because no column counts for a row's" in told["fidelity"]


ORIGIN_ONLY = dict.fromkeys(
    ("connect.target.host", "connect.target.port", "connect.target.username")
)


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ({**ORIGIN_ONLY, "schema.target.keyspaceTable": None}, {}),
        ({"schema.target.keyspaceTable": "{keyspace}.a"}, {}),
        ({"feature.explodeMap.origin.name": "m"}, {"job": "guardrail"}),
    ],
    ids=["an origin only", "the origin as target", "a target that is never asked"],
)
def test_a_guardrail_check_ends_green_with_its_counts_and_writes_nothing(
    connection, reader, make, import_cdm, keyspace, target, options
):
    origin = make("a", "k int PRIMARY KEY, v text, m map<text, text>")
    rows = [{"k": k, "v": "x" * (1001 if k < 3 else 1000), "m": {"a": "b"}} for k in range(9)]
    insert_rows(connection, origin, rows)
    named = {name: value and value.format(keyspace=keyspace) for name, value in target.items()}
    imported = import_cdm({**named, "feature.guardrail.colSizeInKB": "1"}, **options)
    before = rows_of(reader, origin)
    run = imported.run().assert_success()
    told = run.materializations(imported.asset(""))[None]
    assert (told["rows_read"], told["rows_with_large_cells"]) == (9, 3)
    assert told["large_cells"] == {"v": 3}
    assert all("v (1.0 KB)" in sample for sample in told["large_samples"])
    assert "Final Large Record Count: 3" in imported.project.messages_of(run.run_id)
    assert rows_of(reader, origin) == before


def test_the_printed_line_of_a_check_succeeds_in_a_shell_whatever_it_finds(
    connection, make, import_cdm
):
    origin = make("a", "k int PRIMARY KEY, v text")
    insert_rows(connection, origin, [{"k": 1, "v": "x" * 2000}])
    imported = import_cdm(
        {
            **ORIGIN_ONLY,
            "schema.target.keyspaceTable": None,
            "feature.guardrail.colSizeInKB": "1",
        }
    )
    ended = imported.project.run_dg(*shlex.split(imported.launch)[1:]).assert_success()
    assert "1 of 1 rows have a cell of more than 1 KB" in ended.output


def test_diffdata_says_what_differs_and_copies_nothing(connection, reader, make, import_cdm):
    origin, target = (make(name, "k int PRIMARY KEY, v int") for name in "ab")
    insert_rows(connection, origin, [{"k": 1, "v": 1}])
    imported = import_cdm(job="diff")
    result = imported.run()
    assert not result.success
    assert "1 missing, 0 extra, 0 mismatched rows" in result.error
    assert rows_of(reader, target) == []
    # What something else has copied is right as well.
    insert_rows(connection, target, [{"k": 1, "v": 1}])
    imported.run().assert_success()


def test_the_queries_of_the_yugabytedb_guide_show_an_imported_files_run(
    connection, reader, make, import_cdm, keyspace
):
    make("customer", "k int PRIMARY KEY, v int")
    insert_rows(connection, make("a", "k int PRIMARY KEY, v int"), [{"k": 1, "v": 1}])
    properties = {"schema.target.keyspaceTable": f"{keyspace}.customer", "track.run": "true"}
    run_id = time.time_ns()
    import_cdm({**properties, "run.id": run_id}).run().assert_success()
    page = REPOSITORY / "docs" / "yugabyte.md"
    runs, details, failed = (
        re.sub("<[A-Z_]+>", str(run_id), block.text).rstrip(";")
        for block in blocks_of(page)
        if block.language == "sql"
    )
    found = [row for row in reader.execute(runs) if row["run_id"] >= run_id]
    ids = [row["run_id"] for row in found]
    assert ids == sorted(ids, reverse=True)
    assert {row["run_type"] for row in found} == {"MIGRATE", "VALIDATE"}
    assert {row["status"] for row in found} == {"ENDED"}
    ranges = list(reader.execute(details))
    assert [row["status"] for row in ranges] == ["PASS", "PASS"]
    assert ranges[0]["token_min"] < ranges[1]["token_min"]
    assert list(reader.execute(failed)) == []
    # As the guide prints it.
    with pytest.raises(InvalidRequest, match="ALLOW FILTERING"):
        reader.execute(failed.removesuffix(" ALLOW FILTERING"))
