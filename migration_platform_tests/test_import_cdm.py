"""A properties file of the Cassandra Data Migrator becomes declarations that mean the same."""

import re
import shlex
from dataclasses import replace

import pytest
import yaml
from click.testing import CliRunner

from migration_platform.cdm.import_cdm import import_file, import_properties
from migration_platform.cdm.java_splits import split_text, validate_split
from migration_platform.cdm.properties import PROPERTIES, SPELLINGS, UPSTREAM
from migration_platform.cli import main
from migration_platform.components.table.guardrail_check import (
    GuardrailCheck,
    build_check_asset,
    check_key,
)
from migration_platform.components.table.migration import TableMigration
from migration_platform.components.table.naming import build_job
from migration_platform.cql.literals import parse_literal
from migration_platform.cql.names import TableName
from migration_platform.declaration.columns import ExplodeMap, ExtractJson
from migration_platform.declaration.filters import ColumnFilter, Filter
from migration_platform.declaration.migration import Guardrails, Migration
from migration_platform.declaration.times import RowMax
from migration_platform.errors import DeclarationError
from migration_platform.stores.cassandra.connection import CassandraSettings
from migration_platform_tests.cells import read_cells
from migration_platform_tests.dagster_project import DAGSTERS_OWN_WARNINGS, make_project
from migration_platform_tests.tables import copy_table, create_table, insert_rows, rows_of

pytestmark = DAGSTERS_OWN_WARNINGS
TABLE = {"schema.origin.keyspaceTable": "shop.orders"}
EXTRACT = {
    "feature.extractJson.originColumn": "payload",
    "feature.extractJson.propertyMapping": "mail:email",
}
CONSTANT = {"feature.constantColumns.names": "a", "feature.constantColumns.values": "'x'"}


def imported(values=None, /, **options):
    """Import a file that holds these properties, and the origin's table."""
    lines = [f"spark.cdm.{name}={value}" for name, value in {**TABLE, **(values or {})}.items()]
    return import_properties("\n".join(lines).replace("\\", "\\\\").encode(), **options)


def declared(result):
    """Load the YAML of the migration as Dagster would."""
    (text,) = [text for name, text in result.files.items() if "stores" not in name]
    attributes = yaml.safe_load(text)["attributes"]
    return TableMigration.resolve_from_dict(attributes).to_migration()


# -- every property --------------------------------------------------------------------------------


def store(side, **expected):
    def check(result):
        (found,) = [found for name, found in result.stores.items() if name.endswith(side)]
        assert found | expected == found

    return check


def with_(**expected):
    def check(result):
        assert {name: getattr(result.migration, name) for name in expected} == expected

    return check


def side_with(side, **expected):
    def check(result):
        endpoint = getattr(result.migration, side)
        assert {name: getattr(endpoint, name) for name in expected} == expected

    return check


def columns(**expected):
    def check(result):
        assert {name: getattr(result.migration.columns, name) for name in expected} == expected

    return check


def launched(part):
    def check(result):
        assert part in result.launch

    return check


def told(result):
    """Nothing becomes of it: the migration is the one without, and the report says so."""
    assert any("has no equivalent: " in note for note in result.notes)


def refused(part):
    return part


CDM = RowMax(collections=False, expiring_cells_only=True, if_none_counts="now")
FORMAT = {"transform.codecs": "TIMESTAMP_STRING_FORMAT"}
TLS = {"connect.origin.tls.enabled": "true", "connect.target.tls.enabled": "true"}
NO_ASTRA = refused("has no equivalent: Astra")
CASES = {
    **{
        f"connect.{side}.{name}": case
        for side in ("origin", "target")
        for name, case in {
            "host": ("10.0.0.1:9142, 10.0.0.2:9142", store(side, port=9142)),
            "port": ("9999", store(side, port=9999, contact_points=["localhost"])),
            "scb": ("file:///bundle.zip", NO_ASTRA),
            "username": ("me", store(side, username="me")),
            "password": ("s3cr3t", store(side, password={"env": f"CDM_{side.upper()}_PASSWORD"})),
            "astra.database.id": ("1234", NO_ASTRA),
            "astra.scb.region": ("eu", told),
            "astra.scb.type": ("region", told),
            "astra.scb.custom.domain": ("example.org", told),
            "tls.enabled": ("true", store(side, tls={})),
            "tls.trustStore.path": ("/a/b.jks", store(side, tls={"ca_file": "/a/b.pem"}), TLS),
            "tls.trustStore.password": ("s3cr3t", told),
            "tls.trustStore.type": ("PKCS12", told),
            "tls.keyStore.path": (
                "k.jks",
                store(side, tls={"certificate_file": "k-certificate.pem", "key_file": "k-key.pem"}),
                TLS,
            ),
            "tls.keyStore.password": ("s3cr3t", told),
            "tls.enabledAlgorithms": ("TLS_AES_128_GCM_SHA256", told),
            "tls.isAstra": ("true", NO_ASTRA),
        }.items()
    },
    "schema.origin.keyspaceTable": (
        'Shop."My Orders"',
        side_with("target", table=TableName("Shop", "My Orders")),
    ),
    "schema.origin.column.ttl.automatic": (
        "false",
        with_(ttl="none", row_max=replace(CDM, expiring_cells_only=False)),
    ),
    "schema.origin.column.ttl.names": (
        'a, "B"',
        with_(ttl="row_max", row_max=replace(CDM, ttl_columns=("a", "B"))),
        {"schema.origin.column.ttl.automatic": "false"},
    ),
    "schema.origin.column.writetime.automatic": ("false", with_(writetime="now", row_max=CDM)),
    "schema.origin.column.writetime.names": (
        "a,b",
        with_(writetime="row_max", row_max=replace(CDM, writetime_columns=("a", "b"))),
    ),
    "schema.origin.column.skip": ("a,B", columns(skip=("a", "B"))),
    "schema.origin.column.names.to.target": ('a:b,C:"d"', columns(rename={"a": "b", "C": "d"})),
    "schema.ttlwritetime.calc.useCollections": (
        "true",
        with_(row_max=replace(CDM, collections=True)),
    ),
    "schema.target.keyspaceTable": ("a.b", side_with("target", table=TableName("a", "b"))),
    "autocorrect.missing": ("true", with_(repair=("missing",), diff_mode="origin_only")),
    "autocorrect.mismatch": ("TRUE", with_(repair=("mismatched",))),
    "autocorrect.missing.counter": (
        "true",
        with_(repair=("missing", "counters")),
        {"autocorrect.missing": "true"},
    ),
    "trackRun": ("true", with_(tracking=True)),
    "trackRun.previousRunId": ("17", launched('{"resume": "17"}')),
    "trackRun.runId": ("18", launched('{"run_id": 18}')),
    "trackRun.autoRerun": ("true", launched('{"resume": "auto"}')),
    "trackRun.rerunMultiplier": (
        "4",
        launched('{"resume": "auto", "split_pending": 4}'),
        {"trackRun.autoRerun": "true"},
    ),
    "perfops.numParts": ("128", with_(token_ranges=128)),
    "perfops.batchSize": ("1", told),
    "perfops.ratelimit.origin": ("5", side_with("origin", rows_per_second=5)),
    "perfops.ratelimit.target": ("5", side_with("target", rows_per_second=5)),
    "perfops.consistency.read": ("one", side_with("origin", consistency="ONE")),
    "perfops.consistency.write": ("ALL", side_with("target", consistency="ALL")),
    "perfops.fetchSizeInRows": ("7", side_with("origin", fetch_size=7)),
    "perfops.errorLimit": ("3", told),
    "transform.missing.key.ts.replace.value": (
        "1685577600000",
        columns(key_defaults_by_type={"text": "", "ascii": "", "timestamp": 1685577600000}),
    ),
    "transform.custom.writetime": ("5", with_(writetime=5, writetime_increment_by=0)),
    "transform.custom.writetime.incrementBy": (
        "1",
        with_(writetime="row_max", writetime_increment_by=1),
    ),
    "transform.custom.ttl": ("60", with_(ttl=60)),
    "transform.codecs": ("INT_STRING, ASCII_BLOB", columns(codecs=("INT_STRING", "ASCII_BLOB"))),
    "transform.codecs.timestamp.string.format": (
        "yyyy-MM-dd",
        columns(timestamp_format="yyyy-MM-dd"),
        FORMAT,
    ),
    "transform.codecs.timestamp.string.zone": (
        "Europe/Berlin",
        columns(timestamp_zone="Europe/Berlin"),
        FORMAT,
    ),
    "transform.map.remove.null.value": ("true", told),
    "filter.cassandra.partition.min": ("-5", with_(filter=Filter(token_min=-5))),
    "filter.cassandra.partition.max": ("5", with_(filter=Filter(token_max=5))),
    "filter.cassandra.whereCondition": ("AND a = 'b c'", with_(filter=Filter(where="a = 'b c'"))),
    "filter.java.token.percent": ("10", with_(filter=Filter(coverage_percent=10))),
    "filter.java.writetime.min": (
        "5",
        with_(filter=Filter(writetime_from=5, writetime_to=9)),
        {"filter.java.writetime.max": "9"},
    ),
    "filter.java.writetime.max": ("5", with_(filter=Filter())),
    "filter.java.column.name": ("a", with_(filter=Filter())),
    "filter.java.column.value": (
        "x y",
        with_(filter=Filter(column=ColumnFilter("A", "x y"))),
        {"filter.java.column.name": '"A"'},
    ),
    "feature.constantColumns.names": ("a", columns(constants={"a": "x"}), CONSTANT),
    "feature.constantColumns.types": ("0", told),
    "feature.constantColumns.values": (
        "'it''s',2",
        columns(constants={"a": "it's", "b": 2}),
        {**CONSTANT, "feature.constantColumns.names": "a,b"},
    ),
    "feature.constantColumns.splitRegex": (
        r"\|+",
        columns(constants={"a": "x,y", "b": {"k": 1}, "c": [1, "2.50"]}),
        {
            "feature.constantColumns.names": "a,b,c",
            "feature.constantColumns.values": "'x,y'||{'k': 1}|[1, 2.50]|",
        },
    ),
    "feature.explodeMap.origin.name": (
        "m",
        columns(explode_map=ExplodeMap("m", "k", "v")),
        {"feature.explodeMap.target.name.key": "k", "feature.explodeMap.target.name.value": "v"},
    ),
    "feature.explodeMap.target.name.key": ("k", refused("belong together")),
    "feature.explodeMap.target.name.value": ("v", refused("belong together")),
    "feature.extractJson.exclusive": (
        "true",
        columns(extract_json=ExtractJson("payload", {"mail": "email"}, exclusive=True)),
        EXTRACT,
    ),
    "feature.extractJson.originColumn": ("payload", refused("must be a column and")),
    "feature.extractJson.propertyMapping": (
        "mail",
        columns(extract_json=ExtractJson("payload", {"mail": "mail"})),
        {"feature.extractJson.originColumn": "payload"},
    ),
    "feature.extractJson.overwrite": (
        "true",
        columns(extract_json=ExtractJson("payload", {"mail": "email"}, overwrite=True)),
        EXTRACT,
    ),
    "feature.guardrail.colSizeInKB": (
        "10",
        with_(guardrails=Guardrails(10, "report")),
        {"schema.target.keyspaceTable": "a.b"},
    ),
}
"""For each property a value that is not the default, what becomes of it, and what it needs."""


@pytest.mark.parametrize("name", CASES)
def test_each_property_becomes_what_it_means(name):
    value, check, *needed = CASES[name]
    values = {**(needed[0] if needed else {}), name: value}
    if isinstance(check, str):
        with pytest.raises(DeclarationError, match=check):
            imported(values)
        return
    result = imported(values)
    check(result)
    assert declared(result) == result.migration
    if check is told:
        assert result.migration == imported(needed[0] if needed else {}).migration
    assert "s3cr3t" not in result.report() + str(result.files) + repr(result)


def test_all_properties_are_known_and_each_is_tested():
    assert len(UPSTREAM) == 87
    assert [known.name for known in UPSTREAM if known.name not in CASES] == []
    assert CASES.keys() <= PROPERTIES.keys()
    shown = CliRunner().invoke(main, ["import-cdm", "--list-properties"]).output
    for known in PROPERTIES.values():
        (line,) = [line for line in shown.splitlines() if line.split()[0] == known.key]
        assert (known.default or "-") in line
        assert known.becomes in line
    assert all(f"spark.cdm.{name} " in shown for name in SPELLINGS)


def test_a_file_that_names_only_a_table_has_the_migrators_defaults():
    result = imported()
    default = result.migration
    assert (default.writetime, default.ttl, default.row_max) == ("row_max", "row_max", CDM)
    assert (default.tracking, default.repair, default.token_ranges) == (False, (), 64)
    assert default.origin.rows_per_second == default.target.rows_per_second == 20_000
    assert default.origin.table == default.target.table == TableName("shop", "orders")
    assert set(result.variables) == {"CDM_ORIGIN_PASSWORD", "CDM_TARGET_PASSWORD"}
    assert result.stores["cdm_origin"]["username"] == "cassandra"
    assert "username" not in imported({"connect.origin.username": ""}).stores["cdm_origin"]


# -- what a file is for ----------------------------------------------------------------------------

LIMIT = {"feature.guardrail.colSizeInKB": "10"}
HERE = {"connect.origin.host": "10.0.0.1", **LIMIT}
MEANT = {
    "an origin and a limit": (HERE, True),
    "nothing but a limit": (LIMIT, True),
    "the origin's table once more": ({**HERE, "schema.target.keyspaceTable": "shop.orders"}, True),
    "the origin once more": ({**HERE, "connect.target.host": "10.0.0.1"}, True),
    "another cluster": ({**HERE, "connect.target.host": "10.0.0.2"}, False),
    "another port": (
        {**HERE, "connect.target.host": "10.0.0.1", "connect.target.port": "9043"},
        False,
    ),
    "another table": ({**HERE, "schema.target.keyspaceTable": "shop.b"}, False),
    "no limit": ({"connect.origin.host": "10.0.0.1"}, False),
    "a limit of nothing": ({**HERE, "feature.guardrail.colSizeInKB": "0"}, False),
}


def declared_check(result):
    (text,) = [text for name, text in result.files.items() if "stores" not in name]
    document = yaml.safe_load(text)
    assert document["type"] == "migration_platform.GuardrailCheck"
    return GuardrailCheck.resolve_from_dict(document["attributes"]).to_migration()


@pytest.mark.parametrize("case", MEANT)
def test_a_file_that_names_an_origin_only_and_a_limit_is_a_guardrail_check(case):
    values, is_check = MEANT[case]
    result = imported(values)
    assert result.migration.reads_only == is_check
    assert ("is taken for the migrator's GuardrailCheck" in result.report()) == is_check
    assert ("cdm_target" in result.stores) == (not is_check)
    assert not imported(values, job="migrate").migration.reads_only
    limited = {**values, **LIMIT}
    assert imported(limited, job="guardrail").migration.reads_only


def test_a_guardrail_check_keeps_what_the_file_says_of_reading():
    result = imported(
        {
            **HERE,
            "schema.origin.keyspaceTable": '"My Shop".orders',
            "perfops.numParts": "8",
            "perfops.fetchSizeInRows": "50",
            "perfops.consistency.read": "ONE",
            "perfops.ratelimit.origin": "700",
            "filter.cassandra.whereCondition": "AND a = 1",
            "filter.cassandra.partition.min": "5",
            "filter.java.token.percent": "50",
            "filter.java.column.name": "a",
            "filter.java.column.value": "b",
            "feature.explodeMap.origin.name": "m",
            "connect.target.scb": "file:///bundle.zip",
            "trackRun.runId": "17",
            "trackRun.previousRunId": "16",
        },
        job="guardrail",
    )
    assert declared_check(result) == result.migration
    check = result.migration
    assert check.filter == Filter(where="a = 1", token_min=5, coverage_percent=50)
    assert (check.origin.fetch_size, check.origin.consistency) == (50, "ONE")
    assert (check.origin.rows_per_second, check.token_ranges, check.tracking) == (700, 8, True)
    assert check.guardrails == Guardrails(10, "skip")
    key = check_key(check)
    step = "__".join(key.path)
    assert result.launch == (
        f"dg launch --assets '{key.to_user_string()}' "
        f'--config-json \'{{"ops": {{"{step}": {{"config": {{"run_id": 17}}}}}}}}\''
    )
    report = result.report()
    assert report.startswith('"My Shop".orders: cells of more than 10 KB')
    assert "none is carried over" in report
    assert "filter.java.* is left out" in report
    assert "orders_large_cells/defs.yaml" in result.files


@pytest.mark.parametrize(
    "target",
    [
        {"connect.target.scb": "file:///bundle.zip"},
        {"connect.target.port": "0"},
        {"connect.target.host": "a:1,b:2"},
        {"connect.target.username": "me", "connect.target.password": "s3cr3t"},
        {"connect.target.tls.enabled": "perhaps"},
    ],
    ids=str,
)
def test_a_guardrail_check_has_no_target_whatever_the_file_says_of_one(target):
    result = imported({**HERE, **target}, job="guardrail")
    assert list(result.stores) == ["cdm_origin"]
    assert list(result.variables) == ["CDM_ORIGIN_PASSWORD"]
    assert "cdm_target" not in "".join(result.files.values())


def test_a_check_leaves_the_stores_of_a_migration_as_they_are(tmp_path):
    file, output = tmp_path / "x.properties", tmp_path / "defs"
    lines = [f"spark.cdm.{name}={value}\n" for name, value in {**TABLE, **HERE}.items()]
    file.write_text("".join(lines))
    import_file(file, output, job="migrate")
    stores = (output / "cdm_stores/defs.yaml").read_text()
    assert "cdm_target" in stores
    import_file(file, output, job="guardrail")
    assert (output / "cdm_stores/defs.yaml").read_text() == stores
    assert (output / "orders_large_cells/defs.yaml").is_file()
    other = ["spark.cdm.connect.origin.host=10.0.0.9"]
    with pytest.raises(DeclarationError, match="would be overwritten"):
        import_file(file, output, other, job="guardrail")


def test_a_step_of_a_check_is_named_as_dagster_names_it():
    values = {**LIMIT, "schema.origin.keyspaceTable": 'shop."t\\u00e4-b"', "trackRun.runId": "17"}
    lines = [f"spark.cdm.{name}={value}" for name, value in values.items()]
    result = import_properties("\n".join(lines).encode(), job="guardrail")
    check = declared_check(result)
    options = {"origin": {"store": "a", "table": "a.b"}, "max_column_kb": 1}
    component = GuardrailCheck.resolve_from_dict(options)
    assert f'"{build_check_asset(declared=component, migration=check).op.name}"' in result.launch


def test_a_job_that_lacks_what_it_needs_or_is_none_is_refused():
    with pytest.raises(DeclarationError, match="colSizeInKB is missing: it says how large"):
        imported(job="guardrail")
    with pytest.raises(DeclarationError, match="there is no job copy; valid are migrate, diff"):
        imported(job="copy")


def test_a_file_that_is_for_diffdata_compares_and_copies_nothing():
    migrates, compares = imported(job="migrate"), imported(job="diff")
    assert "--assets 'cdm_target/shop/orders,cdm_target/shop/orders_diff' " in migrates.launch
    assert "--assets 'cdm_target/shop/orders_diff' --partition-range" in compares.launch
    text = compares.files["orders/defs.yaml"]
    assert f"# To copy and compare: {migrates.launch}\n" in text
    assert f"# To compare alone: {compares.launch}\n" in text
    assert migrates.launch in migrates.report()
    assert compares.launch in compares.report()
    # Both may be imported into one project.
    assert compares.files == migrates.files == imported().files


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_of_guides_are_taken_for_what_they_mean(name):
    values = {"trackRun": "true", "track.run": "true"}
    value = values.get(name, "ONE" if "onsistency" in name else "17")
    result = imported({name: value})
    meant = imported({SPELLINGS[name]: value})
    assert (result.migration, result.stores, result.launch) == (
        meant.migration,
        meant.stores,
        meant.launch,
    )
    assert f"is taken as spark.cdm.{SPELLINGS[name]}" in result.report()
    both = imported({name: value, SPELLINGS[name]: PROPERTIES[SPELLINGS[name]].default or "3"})
    assert "is passed over" in both.report()


# -- how files are read ----------------------------------------------------------------------------


def test_what_is_set_on_the_command_line_wins_and_the_last_of_two_lines():
    text = (
        "spark.cdm.schema.origin.keyspaceTable a.b\n"
        "spark.cdm.perfops.numParts : 5\nspark.cdm.perfops.numParts = 6\n"
        "spark.executor.memory 25G\n"
    )
    assert import_properties(text.encode()).migration.token_ranges == 6
    result = import_properties(text.encode(), ["spark.cdm.perfops.numParts=7"])
    assert result.migration.token_ranges == 7
    assert "stands there twice" in result.report()
    assert "Without meaning here: spark.executor.memory." in result.report()


def test_more_ranges_than_there_can_be_are_said():
    result = imported({"perfops.numParts": "5000"})
    assert result.migration.token_ranges == 1024
    assert "the most that there can be, not the 5,000" in result.report()


def test_null_keys_get_the_time_where_their_columns_are_named():
    result = imported(
        {"transform.missing.key.ts.replace.value": "1685577600000"}, timestamp_keys=["at", "on"]
    )
    assert result.migration.columns.key_defaults == {"at": 1685577600000, "on": 1685577600000}
    assert result.migration.columns.key_defaults_by_type == {"text": "", "ascii": ""}
    assert declared(result) == result.migration


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"perfops.numPart": "1", "foo": "s3cr3t"}, ["numPart; did you mean", "spark.cdm.foo"]),
        ({"trackRun": "yes", "perfops.numParts": "x"}, ["trackRun must be", "a whole number"]),
        ({"schema.origin.keyspaceTable": ""}, ["keyspaceTable is missing"]),
        ({"schema.origin.keyspaceTable": "orders"}, ["must be keyspace.table"]),
        ({"connect.origin.host": "a:1,b:2"}, ["names several ports"]),
        ({"connect.target.port": "70000"}, ["from 1 to 65535"]),
        ({"connect.origin.host": "a:70000"}, ["from 1 to 65535"]),
        ({"connect.origin.host": "a:" + "9" * 5000}, ["must be hosts with commas"]),
        ({"trackRun.previousRunId": "-5"}, ["previousRunId must be the id of a run, 1 to"]),
        ({"trackRun.runId": str(2**63)}, ["trackRun.runId must be the id of a run, 1 to"]),
        ({"schema.target.keyspaceTable": "shop.cdm_stores"}, ["in the folder cdm_stores; choose"]),
        ({"perfops.consistency.write": "ANY"}, ["target.consistency is 'ANY'; valid are"]),
        ({"perfops.numParts": "0"}, ["token_ranges is 0"]),
        ({"filter.cassandra.whereCondition": "a = 1 OR b = 2"}, ["filter.where has 'OR'"]),
        ({"filter.cassandra.partition.max": str(2**127 - 1)}, ["filter.token_max"]),
        ({"transform.codecs": "NO_SUCH"}, ["columns.codecs names 'NO_SUCH'; valid are"]),
        ({**CONSTANT, "feature.constantColumns.names": "a,b"}, ["are 2 and", "values 1"]),
        ({**CONSTANT, "feature.constantColumns.values": "'x"}, ["no CQL literal"]),
        ({**CONSTANT, "feature.constantColumns.splitRegex": "("}, ["no regular expression"]),
        (
            {**CONSTANT, "feature.constantColumns.splitRegex": "a{99999999999}"},
            ["no regular expression"],
        ),
        (
            {**CONSTANT, "feature.constantColumns.splitRegex": "(" * 5000 + ")" * 5000},
            ["no regular expression"],
        ),
        *(
            ({**CONSTANT, "feature.constantColumns.splitRegex": pattern}, ["repeats a group"])
            for pattern in ("(a+)+$", "(a|a)*b", "(?:a*){9}", "(?x)(a+) # +\t+")
        ),
        (
            {
                "feature.constantColumns.names": "a",
                "feature.constantColumns.splitRegex": "a*a*a*$",
                "feature.constantColumns.values": "a" * 9_000,
            },
            ["3 quantifiers and alternatives, too many for values of 9,000 characters"],
        ),
        (
            {**CONSTANT, "feature.constantColumns.values": "'" + "a" * 10_000 + "'"},
            ["values must have at most 10,000 characters"],
        ),
        ({"trackRun.rerunMultiplier": "1001"}, ["rerunMultiplier must be at most 1,000"]),
        ({"schema.origin.column.names.to.target": "a"}, ["must be origin:target"]),
        (
            {"connect.target.yugabyte.host": "ysql", "connect.target.host": "10.0.0.1"},
            ["names a Cassandra cluster and YSQL as its target; say with --job"],
        ),
        ({**CONSTANT, "feature.constantColumns.values": "'{{ x }}'"}, ["a template"]),
        (
            {
                "schema.origin.column.writetime.automatic": "false",
                "filter.java.writetime.min": "1",
                "filter.java.writetime.max": "2",
            },
            ["needs writetimes that are read"],
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_one_message(values, parts):
    with pytest.raises(DeclarationError) as refusal:
        imported(values)
    assert all(part in str(refusal.value) for part in parts), refusal.value
    assert "s3cr3t" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("pattern", "text", "parts"),
    [
        (",", "a,b", ["a", "b"]),
        (r"\|+", "a||b|", ["a", "b"]),
        (r"\s*,\s*", "a , b", ["a", "b"]),
        ("[)+]+", "a)+b", ["a", "b"]),
        ("[]*)*]", "a]b", ["a", "b"]),
        (r"\)+", "a))b", ["a", "b"]),
        (r"(?:-)", "a-b", ["a", "b"]),
        ("|", "ab", ["a", "b"]),
    ],
)
def test_a_text_is_split_where_its_pattern_says(pattern, text, parts):
    splitter = re.compile(pattern)
    assert validate_split(splitter, text) == []
    assert split_text(splitter, text) == parts


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("'it''s'", "it's"),
        ("$$it's$$", "it's"),
        (" -12 ", -12),
        ("1.50", "1.50"),
        ("TRUE", True),
        ("0xCAFE", "0xCAFE"),
        ("{'a':1, 'b': [2]}", {"a": 1, "b": [2]}),
        ("{1:'x'}", [[1, "x"]]),
        ("{1, 2}", [1, 2]),
        ("(1, 'a')", [1, "a"]),
        ("{street: 'x', zip: 1}", {"street": "x", "zip": 1}),
        ("123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-42d3-a456-426614174000"),
    ],
)
def test_literals_are_read(literal, value):
    assert parse_literal(literal) == value


@pytest.mark.parametrize("literal", ["", "'a", "[1", "1 2", "null", ",", "{1, 2: 3}", "[" * 999])
def test_what_is_no_literal_is_refused(literal):
    with pytest.raises(ValueError, match=r"\w+"):
        parse_literal(literal)


# -- what is written -------------------------------------------------------------------------------


def test_files_that_are_there_are_kept_unless_they_say_the_same_or_force_is_used(tmp_path):
    file, output = tmp_path / "x.properties", tmp_path / "defs"
    file.write_text("spark.cdm.schema.origin.keyspaceTable=shop.orders\n")
    command = ["import-cdm", str(file), "--output", str(output)]
    first = CliRunner().invoke(main, command)
    assert (first.exit_code, first.output.count("wrote ")) == (0, 2)
    assert CliRunner().invoke(main, command).output.count("left ") == 2
    again = [*command, "--set", "spark.cdm.perfops.numParts=8"]
    refusal = CliRunner().invoke(main, again)
    assert refusal.exit_code == 1
    assert "orders/defs.yaml would be overwritten; use --force" in refusal.output
    assert "token_ranges" not in (output / "orders/defs.yaml").read_text().split("type:")[1]
    assert CliRunner().invoke(main, [*again, "--force"]).exit_code == 0
    assert "token_ranges: 8" in (output / "orders/defs.yaml").read_text()
    missing = CliRunner().invoke(main, ["import-cdm", "none", "--output", str(output)])
    assert (missing.exit_code, missing.output.count("cannot read none")) == (1, 1)


EVERYTHING = """\
spark.cdm.connect.origin.host                  127.0.0.1:{port}
spark.cdm.connect.origin.password              s3cr3t-origin
spark.cdm.connect.target.host = 127.0.0.1
spark.cdm.connect.target.port: {port}
spark.cdm.connect.target.password=s3cr3t-target
spark.cdm.schema.origin.keyspaceTable          {keyspace}.origin
spark.cdm.schema.target.keyspaceTable          {keyspace}.target
spark.cdm.schema.origin.column.names.to.target v:w
spark.cdm.schema.origin.column.skip            unwanted
spark.cdm.transform.custom.writetime.incrementBy 1
spark.cdm.transform.codecs                     INT_STRING
spark.cdm.filter.java.column.name              tenant
spark.cdm.filter.java.column.value             Test
spark.cdm.feature.constantColumns.names        made_by,version
spark.cdm.feature.constantColumns.values       'a, b'|3
spark.cdm.feature.constantColumns.splitRegex   \\\\|
spark.cdm.perfops.numParts                     2
spark.cdm.perfops.fetchSize                    10
spark.cdm.track.run                            false
"""
WRITTEN = 1_700_000_000_000_000


def test_a_table_moves_through_an_imported_declaration(
    tmp_path, cassandra, connection, reader, keyspace, monkeypatch
):
    origin = create_table(
        connection,
        keyspace,
        "origin",
        "k int PRIMARY KEY, v int, tenant text, e set<int>, unwanted text",
    )
    target = create_table(
        connection,
        keyspace,
        "target",
        "k int PRIMARY KEY, w text, tenant text, e set<int>, made_by text, version int",
    )
    insert_rows(
        connection,
        origin,
        [
            {"k": k, "v": k, "tenant": "test " if k % 3 == 0 else "real", "unwanted": "u"}
            for k in range(30)
        ],
        using=f"USING TIMESTAMP {WRITTEN}",
    )
    reader.execute(f"UPDATE {origin} USING TIMESTAMP {WRITTEN + 9} AND TTL 900 SET v = 1 WHERE k=1")
    reader.execute(f"UPDATE {origin} USING TIMESTAMP {WRITTEN + 99} SET e = {{1}} WHERE k = 1")
    project = make_project(tmp_path, cassandra_port=cassandra.port)
    file = tmp_path / "x.properties"
    file.write_text(EVERYTHING.format(port=cassandra.port, keyspace=keyspace))
    report = "\n".join(import_file(file, project.defs_folder))
    assert "s3cr3t" not in report
    for path in project.defs_folder.rglob("*.yaml"):
        assert "s3cr3t" not in path.read_text()
    for side in ("ORIGIN", "TARGET"):
        assert f"CDM_{side}_PASSWORD" in report
        monkeypatch.setenv(f"CDM_{side}_PASSWORD", f"s3cr3t-{side.lower()}")

    (line,) = [line for line in report.splitlines() if line.strip().startswith("dg launch")]
    keys = re.fullmatch(r"(.*)\.\.\.(.*)", shlex.split(line)[-1])
    assert keys is not None
    result = project.run(f"{keys[1]}...{keys[2]}").assert_success()
    assert result.checks["all_ranges_match"].passed
    assert "s3cr3t" not in project.messages_of(result.run_id)
    moved = rows_of(reader, target)
    assert [row["k"] for row in sorted(moved, key=lambda r: r["k"])] == [
        k for k in range(30) if k % 3
    ]
    first = next(row for row in moved if row["k"] == 1)
    assert (first["w"], first["made_by"], first["version"]) == ("1", "a, b", 3)
    (job,) = [
        key
        for key in project.load().resolve_asset_graph().materializable_asset_keys
        if key.path[-1] == "target"
    ]
    assert f"'{job.to_user_string()},{job.to_user_string()}_diff'" in line


def test_an_imported_file_gives_the_migrators_writetimes_and_ttls(connection, reader, keyspace):
    body = "k int PRIMARY KEY, a int, b int, e set<int>"
    origin, target = (create_table(connection, keyspace, name, body) for name in ("a", "b"))
    for what, after, ttl in [("a = 1", 10, 1000), ("b = 1", 20, 0), ("e = {1}", 30, 3000)]:
        reader.execute(
            f"UPDATE {origin} USING TIMESTAMP {WRITTEN + after} AND TTL {ttl} SET {what} "
            "WHERE k = 1"
        )
    names = "schema.origin.column."
    increment = {"transform.custom.writetime.incrementBy": "5"}
    for values, writetime, ttl in [
        ({}, 20, 1000),
        ({"schema.ttlwritetime.calc.useCollections": "true", **increment}, 35, 3000),
        ({f"{names}writetime.names": "a", f"{names}ttl.names": "b", **increment}, 15, None),
        ({"transform.custom.writetime": str(WRITTEN + 7), "transform.custom.ttl": "50"}, 7, 50),
    ]:
        reader.execute(f"TRUNCATE {target}")
        declaration = imported(values).migration
        copy_table(
            connection,
            origin,
            target,
            writetime=declaration.writetime,
            ttl=declaration.ttl,
            writetime_increment_by=declaration.writetime_increment_by,
            row_max=declaration.row_max,
        )
        cells = [cell for place, cell in read_cells(reader, target).items() if place.column]
        assert {cell.writetime_us for cell in cells} == {WRITTEN + writetime}
        lives = {cell.expires_at is not None for cell in cells}
        assert lives == {ttl is not None}


def test_text_that_looks_like_something_else_stays_text():
    result = imported(
        {
            "feature.constantColumns.names": "a,b,c,d",
            "feature.constantColumns.values": "'12'|'True'|['1', '[2]']|{'k': '0x1'}",
            "feature.constantColumns.splitRegex": "[|]",
            "filter.java.column.name": "1",
            "filter.java.column.value": "1e3",
            "connect.origin.username": "123",
        }
    )
    constants = {"a": "12", "b": "True", "c": ["1", "[2]"], "d": {"k": "0x1"}}
    assert result.migration.columns.constants == constants
    assert declared(result) == result.migration
    assert yaml.safe_load(result.files["cdm_stores/defs.yaml"])["attributes"]["cassandra"][
        "cdm_origin"
    ]["username"] == repr("123")


def test_stores_and_names_are_those_that_dagster_gives():
    result = imported({"schema.target.keyspaceTable": '"My Shop".orders'}, prefix="old")
    job = build_job(result.migration)
    assert f"'{job.target.to_user_string()},{job.diff.to_user_string()}'" in result.launch
    assert list(result.files) == ["old_stores/defs.yaml", "orders/defs.yaml"]
    settings = CassandraSettings(**{**result.stores["old_origin"], "password": None})
    assert settings.port == 9042
    with pytest.raises(DeclarationError, match="cannot begin the names"):
        imported(prefix="a/../b")


def test_a_whole_migration_is_the_same_when_its_yaml_is_read():
    result = imported(
        {name: case[0] for name, case in CASES.items() if not isinstance(case[1], str)}
        | {
            "feature.constantColumns.values": "'x'|2",
            "feature.constantColumns.names": "a,b",
            "feature.explodeMap.target.name.key": "k",
            "feature.explodeMap.target.name.value": "v",
            "feature.extractJson.originColumn": "payload",
            "feature.extractJson.exclusive": "false",
            "schema.origin.column.skip": "zz",
            "schema.origin.column.names.to.target": "x:y",
            "filter.java.writetime.min": "1",
            "transform.codecs": "TIMESTAMP_STRING_FORMAT",
        }
    )
    assert isinstance(result.migration, Migration)
    assert declared(result) == result.migration
