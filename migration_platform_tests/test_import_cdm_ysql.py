"""A properties file of the fork for YugabyteDB becomes a migration to YSQL that means the same."""

import re
from datetime import UTC, datetime

import psycopg
import pytest
import yaml
from click.testing import CliRunner

from migration_platform.cdm.import_cdm import import_file, import_properties
from migration_platform.cdm.launch import of_diff_alone
from migration_platform.cdm.properties import PROPERTIES, YSQL, YSQL_JOBS
from migration_platform.cli import main
from migration_platform.components.stores import Stores
from migration_platform.components.table.migration import TableMigration
from migration_platform.declaration.times import RowMax
from migration_platform.errors import DeclarationError
from migration_platform_tests.dagster_project import DAGSTERS_OWN_WARNINGS, make_project
from migration_platform_tests.servers import REPOSITORY
from migration_platform_tests.tables import create_table, insert_rows
from migration_platform_tests.test_docs import blocks_of

pytestmark = DAGSTERS_OWN_WARNINGS
TABLE = {"schema.origin.keyspaceTable": "shop.customer"}
HOST = {f"{YSQL}host": "10.0.0.1"}
SECURE = {f"{YSQL}ssl.enabled": "true"}
DEFAULT_STORE = {
    "hosts": ["localhost"],
    "port": 5433,
    "database": "yugabyte",
    "username": "yugabyte",
    "password": {"env": "CDM_TARGET_PASSWORD"},
    "schema": "public",
    "sslmode": "disable",
    "options": {"tcp_user_timeout": 60000},
}


def imported(values=None, /, *, job="yugabyte-migrate", **options):
    lines = [f"spark.cdm.{name}={value}" for name, value in {**TABLE, **(values or {})}.items()]
    return import_properties("\n".join(lines).replace("\\", "\\\\").encode(), job=job, **options)


def documents(result):
    """Give the attributes of the stores' file and of the table's, as YAML reads them."""
    stores, table = (yaml.safe_load(text) for text in result.files.values())
    assert stores["type"] == "migration_platform.Stores"
    assert table["type"] == "migration_platform.TableMigration"
    return stores["attributes"], table["attributes"]


def declared(result):
    """Load both files as Dagster would, and give the migration."""
    stores, table = documents(result)
    kinds = Stores.resolve_from_dict(stores).kinds()
    return TableMigration.resolve_from_dict(table).to_migration(kinds)


# -- every property --------------------------------------------------------------------------------


def store(**expected):
    """The target's store is the default one but for this; None is what it lacks."""

    def check(result):
        changed = {**DEFAULT_STORE, **expected}
        wanted = {name: value for name, value in changed.items() if value is not None}
        assert result.stores["cdm_target"] == wanted

    return check


def told(part):
    """Nothing is written of it, and the report says what there is in its place."""

    def check(result):
        assert documents(result) == documents(imported())
        assert part in result.report()

    return check


CASES = {
    "connect.target.type": ("yugabyte", store()),
    f"{YSQL}host": (
        "a:5444, b:5444",
        store(hosts=["a", "b"], port=5444),
    ),
    f"{YSQL}port": ("5444", store(port=5444)),
    f"{YSQL}database": ("crm", store(database="crm")),
    f"{YSQL}username": ("mover", store(username="mover")),
    f"{YSQL}password": ("s3cr3t", store()),
    f"{YSQL}schema": ("sales", store(schema="sales")),
    f"{YSQL}ssl.enabled": ("true", store(sslmode="require")),
    f"{YSQL}sslmode": ("VERIFY-CA", store(sslmode="verify-ca"), SECURE),
    f"{YSQL}sslrootcert": ("/ca.pem", store(sslmode="require", ca_file="/ca.pem"), SECURE),
    f"{YSQL}pool.maxSize": ("7", told("workers says how many processes write")),
    f"{YSQL}pool.minSize": ("7", told("a worker keeps its connections")),
    f"{YSQL}additionalEndpoints": (
        "10.0.0.2:5433,[::1],localhost",
        store(hosts=["localhost", "10.0.0.2", "::1"]),
    ),
    f"{YSQL}topologyKeys": ("a.b.c", told("name those of the nearest zone first")),
    f"{YSQL}batchSize": ("50", told("chosen by the engine; target.batch_rows says another")),
    f"{YSQL}loadBalance": ("false", told("hosts are tried in turn")),
    f"{YSQL}rewriteBatchedInserts": ("false", told("rows travel in batches")),
    f"{YSQL}prepareThreshold": ("9", told("it is the JDBC driver's, which is not used")),
    f"{YSQL}socketTimeout": ("1500", store(options={"tcp_user_timeout": 1500})),
    f"{YSQL}tcpKeepAlive": (
        "false",
        store(options={"tcp_user_timeout": 60000, "keepalives": 0}),
    ),
}
"""For each property a value that is not the default, what becomes of it, and what it needs."""


@pytest.mark.parametrize("name", CASES)
def test_each_property_of_the_fork_becomes_what_it_means(name):
    value, check, *needed = CASES[name]
    result = imported({**(needed[0] if needed else {}), name: value})
    check(result)
    assert declared(result) == result.migration
    assert "s3cr3t" not in result.report() + str(result.files) + repr(result)
    # The text of a file gives the same store.
    stores, _ = documents(result)
    written = stores["postgres"]["cdm_target"]
    assert {"options": {}, **written} == {"options": {}, **result.stores["cdm_target"]}


def test_all_properties_of_the_fork_are_tested_and_each_has_an_attribute_or_a_reason():
    of_fork = [name for name in PROPERTIES if name.startswith(YSQL) or name.endswith("target.type")]
    assert of_fork == list(CASES)
    assert len(of_fork) == 20
    for name in of_fork:
        known = PROPERTIES[name]
        assert known.fate in ("becomes", "none"), name
        assert known.becomes.startswith("none: ") == (known.fate == "none")


def test_a_file_that_names_only_a_table_has_the_forks_defaults():
    result = imported()
    stores, table = documents(result)
    assert result.stores["cdm_target"] == DEFAULT_STORE
    assert list(stores) == ["cassandra", "postgres"]
    assert list(stores["cassandra"]) == ["cdm_origin"]
    assert table == {
        "origin": {"store": "cdm_origin", "table": "shop.customer", "rows_per_second": 20_000},
        "target": {"store": "cdm_target", "table": "shop.customer", "rows_per_second": 20_000},
        "writetime": "now",
        "ttl": "none",
        "columns": {"unmatched": "skip"},
        "diff": {"mode": "origin_only"},
        "tracking": False,
    }
    assert result.variables["CDM_TARGET_PASSWORD"].endswith("is the word yugabyte")
    assert "the password and all rows travel unencrypted" in result.report()


# -- which target is meant -------------------------------------------------------------------------

CLUSTER = {"connect.target.host": "10.0.0.9"}


@pytest.mark.parametrize(
    ("values", "job", "is_ysql"),
    [
        (HOST, None, True),
        ({f"{YSQL}database": "shop"}, None, True),
        ({"connect.target.type": "yugabyte"}, None, True),
        ({"connect.target.type": "YSQL", **CLUSTER}, None, True),
        ({}, "yugabyte-migrate", True),
        ({**CLUSTER, "connect.target.type": "cassandra"}, "yugabyte-validate", True),
        ({**CLUSTER, **HOST}, "yugabyte-migrate", True),
        ({**CLUSTER, **HOST}, "migrate", False),
        ({**HOST, "connect.target.type": "cassandra"}, "diff", False),
        (HOST, "migrate", True),
        ({f"{YSQL}pool.maxSize": "7"}, None, False),
        ({"connect.target.type": "cassandra"}, None, False),
        ({}, None, False),
    ],
    ids=str,
)
def test_the_target_is_ysql_where_the_job_the_type_or_a_place_says_so(values, job, is_ysql):
    result = imported(values, job=job)
    stores, _ = documents(result)
    assert ("postgres" in stores) == is_ysql
    assert ("cdm_target" in stores["cassandra"]) == (not is_ysql)
    assert (result.migration.writetime == "now") == is_ysql


def test_a_guardrail_check_of_a_file_for_ysql_has_no_target():
    limit = {"feature.guardrail.colSizeInKB": "10", "schema.target.keyspaceTable": "a"}
    result = imported({**HOST, **CLUSTER, **limit}, job="guardrail")
    assert list(result.stores) == ["cdm_origin"]
    assert "ysql" not in result.report().lower()


def test_what_a_file_says_of_ysql_is_told_where_the_target_is_a_cassandra_cluster():
    report = imported({**CLUSTER, **HOST}, job="migrate").report()
    assert f"spark.cdm.{YSQL}host has no equivalent: the target is a Cassandra cluster." in report


def test_yugabyte_validate_compares_and_copies_nothing():
    migrates, compares = (imported(HOST, job=job) for job in YSQL_JOBS)
    assert "--assets 'cdm_target/shop/customer,cdm_target/shop/customer_diff' " in migrates.launch
    assert "--assets 'cdm_target/shop/customer_diff' --partition-range" in compares.launch
    assert migrates.files == compares.files == imported(HOST, job=None).files
    report = compares.report()
    assert "diff.mode is origin_only, because YugabyteValidate compares one way" in report


# -- names of tables -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "table"),
    [
        ({"schema.target.keyspaceTable": "customer"}, "public.customer"),
        ({"schema.target.keyspaceTable": "customer", f"{YSQL}schema": "crm"}, "crm.customer"),
        ({"schema.target.keyspaceTable": "crm.customer"}, "crm.customer"),
        ({"schema.target.keyspaceTable": "crm.c", f"{YSQL}schema": "sales"}, "crm.c"),
        ({"schema.target.keyspaceTable": "crm.c", f"{YSQL}database": "crm"}, "public.c"),
        (
            {
                "schema.target.keyspaceTable": "crm.c",
                f"{YSQL}database": "crm",
                f"{YSQL}schema": "sales",
            },
            "sales.c",
        ),
        ({"schema.target.keyspaceTable": "yugabyte.crm.c"}, "crm.c"),
        ({"schema.target.keyspaceTable": "yugabyte.yugabyte.c"}, "yugabyte.c"),
        ({"schema.target.keyspaceTable": '"My Schema"."Order"'}, '"My Schema"."Order"'),
        ({f"{YSQL}database": "shop"}, "public.customer"),
        ({}, "shop.customer"),
    ],
    ids=str,
)
def test_a_table_is_where_the_fork_looks_for_it_first(values, table):
    result = imported(values)
    _, written = documents(result)
    assert written["target"]["table"] == table
    assert declared(result) == result.migration
    assert f"target.table is {table}, by the fork's rule for" in result.report()


# -- what YSQL does not have, or the fork does not do ----------------------------------------------


def test_what_the_fork_does_not_look_at_is_named_and_nothing_comes_of_it():
    ignored = {
        "schema.origin.column.ttl.names": "a",
        "schema.origin.column.writetime.names": "a",
        "schema.ttlwritetime.calc.useCollections": "true",
        "transform.custom.writetime": "5",
        "transform.custom.writetime.incrementBy": "1",
        "transform.custom.ttl": "60",
        "perfops.consistency.write": "ALL",
        "perfops.batchSize": "5",
        "connect.target.host": "10.0.0.9",
        "connect.target.scb": "file:///bundle.zip",
        "connect.target.password": "s3cr3t",
        "connect.target.tls.enabled": "perhaps",
    }
    result = imported(ignored)
    assert documents(result) == documents(imported())
    told = " ".join(n for n in result.notes if n.startswith("Without meaning for a target in YSQL"))
    assert set(re.findall(r"spark\.cdm\.([\w.]+\w)", told)) == set(ignored)
    assert not any("has no equivalent" in note for note in result.notes)
    assert "Without meaning" not in imported(HOST).report()


def test_a_filter_by_writetime_still_looks_at_the_origins_times():
    window = {"filter.java.writetime.min": "5", "filter.java.writetime.max": "9"}
    chosen = imported({**window, "schema.origin.column.writetime.names": "a"}).migration
    assert (chosen.filter.writetime_from, chosen.filter.writetime_to) == (5, 9)
    assert chosen.row_max == RowMax(writetime_columns=("a",), collections=False)
    with pytest.raises(DeclarationError, match="needs writetimes that are read"):
        imported({**window, "schema.origin.column.writetime.automatic": "false"})


def test_what_autocorrect_says_is_repaired_but_a_counter_is_a_number():
    result = imported(
        {
            "autocorrect.missing": "true",
            "autocorrect.mismatch": "true",
            "autocorrect.missing.counter": "true",
        }
    )
    assert result.migration.repair == ("missing", "mismatched")
    assert "YugabyteValidate repairs nothing" in result.report()
    assert "a counter is a number like any other" in result.report()


def test_null_in_a_new_key_is_no_empty_text_and_a_time_only_where_one_is_given():
    assert imported().migration.columns.key_defaults_by_type == {}
    name = "transform.missing.key.ts.replace.value"
    assert imported({name: "5"}).migration.columns.key_defaults_by_type == {"timestamp": 5}


def test_runs_are_tracked_in_the_origins_cluster_and_resumed_from_there():
    result = imported({"trackRun": "true", "prevRunId": "17"})
    report = result.report()
    assert result.migration.tracking
    assert result.migration.tracked_at == result.migration.origin
    assert "live in the keyspace migration_platform of the origin's cluster" in report
    assert "tracking_keyspace names the keyspace of the origin's cluster with its tables" in report
    assert '{"resume": "17"}' in result.launch
    with pytest.raises(DeclarationError, match="rerunMultiplier must be at most"):
        imported({"trackRun": "true", "trackRun.rerunMultiplier": "1001"})


def constants(values):
    names = ",".join("abcdefgh"[: values.count("|") + 1])
    return {
        "feature.constantColumns.names": names,
        "feature.constantColumns.values": values,
        "feature.constantColumns.splitRegex": r"\|",
    }


def test_constants_are_literals_or_texts_without_their_quotes():
    values = "'it''s'|CDM_MIGRATION|2024-12-17T10:00:00.123Z|old cluster|3|true|2.50|['a', 1]"
    assert list(imported(constants(values)).migration.columns.constants.values()) == [
        "it's",
        "CDM_MIGRATION",
        "2024-12-17T10:00:00.123Z",
        "old cluster",
        3,
        True,
        "2.50",
        ["a", 1],
    ]
    # Of a Cassandra table they are literals of CQL, as ever.
    with pytest.raises(DeclarationError, match="no CQL literal"):
        imported(constants("old cluster"), job="migrate")


@pytest.mark.parametrize("value", ["'open", "null", "it's", "[1"])
def test_a_constant_that_is_no_value_is_refused(value):
    with pytest.raises(DeclarationError, match="that of a is no CQL literal"):
        imported(constants(value))


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"connect.target.type": "oracle"}, ["type must be cassandra, or yugabyte"]),
        ({f"{YSQL}port": "0"}, [f"{YSQL}port must be from 1 to 65535"]),
        ({f"{YSQL}host": "a b"}, [f"{YSQL}host must be hosts with commas"]),
        ({f"{YSQL}additionalEndpoints": "a b"}, [f"{YSQL}additionalEndpoints must be hosts"]),
        ({f"{YSQL}additionalEndpoints": "a:1"}, ["names several ports"]),
        ({**SECURE, f"{YSQL}sslmode": "prefer"}, ["sslmode must be require, verify-ca, verify"]),
        ({**SECURE, f"{YSQL}sslmode": "disable"}, ["may connect unencrypted"]),
        ({f"{YSQL}ssl.enabled": "perhaps"}, ["ssl.enabled must be true or false"]),
        ({f"{YSQL}tcpKeepAlive": "perhaps"}, ["tcpKeepAlive must be true or false"]),
        ({f"{YSQL}socketTimeout": "-1"}, ["socketTimeout must be milliseconds, 0 to 2147483647"]),
        ({f"{YSQL}socketTimeout": "1m"}, ["socketTimeout must be a whole number"]),
        ({"schema.target.keyspaceTable": "a.b.c.d"}, ["must be table, schema.table or database"]),
        ({"schema.target.keyspaceTable": "crm.a.b"}, ["the database crm, and", "name one"]),
        ({"schema.origin.keyspaceTable": ""}, ["keyspaceTable is missing"]),
        ({"schema.origin.keyspaceTable": "customer"}, ["must be keyspace.table"]),
        ({f"{YSQL}batchsize": "1"}, [f"did you mean spark.cdm.{YSQL}batchSize?"]),
        ({f"{YSQL}database": "{{ x }}"}, ["a template"]),
        ({"schema.target.keyspaceTable": "a" * 64}, ["target.table", "up to 63 bytes"]),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_one_message(values, parts):
    with pytest.raises(DeclarationError) as refusal:
        imported({f"{YSQL}password": "s3cr3t", **values})
    assert all(part in str(refusal.value) for part in parts), refusal.value
    assert "s3cr3t" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_socket_that_waits_for_ever_has_no_option():
    assert "options" not in imported({f"{YSQL}socketTimeout": "0"}).stores["cdm_target"]


def test_the_command_line_takes_the_jobs_of_the_fork(tmp_path):
    file, output = tmp_path / "yugabyte-migrate.properties", tmp_path / "defs"
    file.write_text("spark.cdm.connect.origin.host=10.0.0.1\n")
    command = ["import-cdm", str(file), "--output", str(output), "--job", "yugabyte-validate"]
    ended = CliRunner().invoke(
        main, [*command, "--set", "spark.cdm.schema.origin.keyspaceTable=shop.customer"]
    )
    assert ended.exit_code == 0, ended.output
    assert (output / "customer/defs.yaml").is_file()
    assert "postgres:" in (output / "cdm_stores/defs.yaml").read_text("utf-8")


def test_a_table_moves_to_postgresql_through_an_imported_declaration(
    tmp_path, cassandra, postgres, connection, reader, keyspace, monkeypatch
):
    origin = create_table(
        connection, keyspace, "customer", "id int PRIMARY KEY, at timestamp, tags list<text>, x int"
    )
    moment = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
    rows = [{"id": n, "at": moment, "tags": ["a", str(n)], "x": n} for n in range(20)]
    insert_rows(connection, origin, rows)
    address = f"host=127.0.0.1 port={postgres.port} user=postgres dbname=postgres"
    with psycopg.connect(address, autocommit=True) as server:
        server.execute(f"CREATE SCHEMA {keyspace}")
        server.execute(
            f"CREATE TABLE {keyspace}.customer (id int PRIMARY KEY, at timestamptz, tags text[], "
            "created_by text, migrated timestamptz)"
        )
        project = make_project(tmp_path, cassandra_port=cassandra.port)
        (project.defs_folder / "stores" / "defs.yaml").unlink()
        file = tmp_path / "yugabyte-migrate.properties"
        values = {
            "connect.origin.host": "127.0.0.1",
            "connect.origin.port": cassandra.port,
            "connect.origin.username": "",
            f"{YSQL}host": "127.0.0.1",
            f"{YSQL}port": postgres.port,
            f"{YSQL}database": "postgres",
            f"{YSQL}username": "postgres",
            "schema.origin.keyspaceTable": f"{keyspace}.customer",
            "feature.constantColumns.names": "created_by,migrated",
            "feature.constantColumns.values": "CDM_MIGRATION,'2026-11-01T12:00:00Z'",
            "perfops.numParts": 2,
            "trackRun": "true",
        }
        file.write_text("".join(f"spark.cdm.{key}={value}\n" for key, value in values.items()))
        import_file(file, project.defs_folder)
        monkeypatch.setenv("CDM_TARGET_PASSWORD", "any: it is not asked for")
        result = project.run("00-of-2...01-of-2").assert_success()
        assert result.checks["all_ranges_match"].passed
        found = server.execute(f"SELECT * FROM {keyspace}.customer ORDER BY id").fetchall()
        server.execute(f"DROP SCHEMA {keyspace} CASCADE")
    constants = ("CDM_MIGRATION", datetime(2026, 11, 1, 12, tzinfo=UTC))
    assert found == [(n, moment, ["a", str(n)], *constants) for n in range(20)]
    runs = reader.execute(
        "SELECT * FROM migration_platform.cdm_run_info WHERE table_name = 'customer'"
    )
    assert {row["run_type"] for row in runs} == {"MIGRATE", "VALIDATE"}


# -- the documentation -----------------------------------------------------------------------------

PAGE = REPOSITORY / "docs" / "yugabyte.md"


def test_the_page_shows_what_its_properties_file_becomes():
    blocks = blocks_of(PAGE)
    (properties,) = [block.text for block in blocks if block.language == "properties"]
    shown = [yaml.safe_load(b.text) for b in blocks if b.text.startswith("type: ")]
    result = import_properties(
        properties.encode(), ["spark.cdm.trackRun=true"], job="yugabyte-migrate"
    )
    assert [yaml.safe_load(text) for text in result.files.values()] == shown
    launches = [b.text for b in blocks if b.text.startswith("dg launch")]
    assert result.launch in launches
    assert of_diff_alone(result.launch) in launches


def test_the_page_says_what_there_is_in_place_of_each_command_of_the_guide():
    table = PAGE.read_text("utf-8").partition("## Each command")[2].partition("### ")[0]
    for part in [
        "--properties-file",
        "--conf",
        "YugabyteMigrate",
        "YugabyteValidate",
        "trackRun",
        "prevRunId",
        "partition.min",
        "--master",
        "--driver-memory",
        "customer_migration_",
        "Number of Splits",
        "Coverage Percent",
        "failed_records",
        "failed_keys",
        "migration_summary",
        "performance_",
        "all runs",
        "ranges of a run",
        "failed ranges",
        "row counts",
        "suggest token ranges",
    ]:
        assert any(part in row.split("|")[1] for row in table.splitlines() if "|" in row), part
