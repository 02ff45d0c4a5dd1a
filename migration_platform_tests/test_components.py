"""The components as another project uses them: found, scaffolded, checked, launched, refused."""

import shutil
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.schedule_definition import ScheduleExecutionData
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from dagster._grpc.impl import get_external_schedule_execution

from migration_platform.components.table.attributes import (
    FilterAttributes,
    OriginAttributes,
    TargetAttributes,
)
from migration_platform.components.table.migration import TableMigration
from migration_platform.declaration.columns import Columns, ExplodeMap, ExtractJson
from migration_platform.declaration.filters import ColumnFilter, Filter
from migration_platform.declaration.migration import Guardrails, Migration
from migration_platform.declaration.times import RowMax
from migration_platform.demo.sample import create_tables, fill_origin
from migration_platform.errors import DeclarationError
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.stack import Running
from migration_platform.stores.cassandra.connection import CassandraSettings
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    EVERYTHING,
    KEYS,
    Move,
    Project,
    make_project,
    refusal,
)
from migration_platform_tests.servers import QUICK, SMALL_HEAP_MB, run_server
from migration_platform_tests.tables import patient_connection

pytestmark = DAGSTERS_OWN_WARNINGS

RIGHT, WRONG = "s3cret-that-must-not-leak", "wr0ng-that-must-not-leak"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose stores nobody asks."""
    return make_project(tmp_path, cassandra_port=9, kafka_port=9)


def declare(project: Project, name: str = "copy", **attributes: Any) -> None:
    """Declare a migration that is complete but for what the test is about."""
    origin = {"store": "sunbird", "table": "ks.a", **attributes.pop("origin", {})}
    target = {"store": "reports", "table": "ks.b", **attributes.pop("target", {})}
    project.declare(name, "TableMigration", origin=origin, target=target, **attributes)


# -- from another project ----------------------------------------------------------------------


def test_a_scaffolded_migration_loads_once_its_tables_are_filled_in(
    move: Move, tmp_path: Path
) -> None:
    project = move.project
    listed = project.run_dg("list", "components").assert_success().output
    assert "migration_platform.TableMigration" in listed
    assert "migration_platform.Stores" in listed
    shutil.rmtree(project.defs_folder / "enrolments")

    project.run_dg("scaffold", "defs", "migration_platform.TableMigration", "mine").assert_success()

    file = project.defs_folder / "mine" / "defs.yaml"
    document = yaml.safe_load(file.read_text())
    assert document["type"] == "migration_platform.TableMigration"
    document["attributes"] = {
        "origin": {"store": "sunbird", "table": f"{move.keyspace}.{move.origin_name}"},
        "target": {"store": "reports", "table": f"{move.keyspace}.{move.target_name}"},
        "token_ranges": 8,
    }
    file.write_text(yaml.safe_dump(document))
    project.run_dg("check", "defs").assert_success()


def test_dg_launches_a_partition_and_a_range_of_partitions(move: Move) -> None:
    move.project.run_dg(
        "launch", "--assets", move.selection, "--partition", KEYS[6]
    ).assert_success()
    assert move.target_rows() == move.origin_rows(KEYS[6])

    move.project.run_dg(
        "launch", "--assets", move.selection, "--partition-range", f"{KEYS[0]}...{KEYS[5]}"
    ).assert_success()
    assert move.target_rows() == move.origin_rows(*KEYS[:7])


def test_dg_check_names_an_unknown_attribute_and_its_line(project: Project) -> None:
    declare(project, colour="red")

    checked = project.run_dg("check", "yaml")

    assert checked.code != 0
    assert "'colour' was unexpected" in checked.output


def test_the_docs_explain_every_attribute() -> None:
    from migration_platform.components.stores import Stores

    for component in (TableMigration, Stores):
        assert component.__doc__
        schema = component.get_model_cls().model_json_schema()
        for model in (schema, *schema["$defs"].values()):
            for name, attribute in model["properties"].items():
                assert attribute.get("description"), f"{model['title']}.{name}"


# -- what is refused ---------------------------------------------------------------------------


def test_unknown_attributes_at_every_depth_are_refused_by_name_in_one_message(
    project: Project,
) -> None:
    declare(
        project,
        token_range=7,
        origin={"tabel": "x"},
        target={"rows": 1},
        diff={"mod": "two_way"},
        events={"store": "monitoring", "topic": "t", "topics": 1},
    )

    message = refusal(project)

    assert "no attribute token_range; did you mean token_ranges?" in message
    assert "no attribute origin.tabel; did you mean origin.table?" in message
    assert "no attribute target.rows; " in message
    assert "no attribute diff.mod; did you mean diff.mode? valid are diff.mode" in message
    assert "no attribute events.topics; did you mean events.topic?" in message
    assert "valid are origin, target, token_ranges, ranges_per_run," in message


def test_unknown_attributes_of_transformations_and_filters_are_refused_too(
    project: Project,
) -> None:
    declare(
        project,
        columns={"renam": {}, "explode_map": {"colum": "a"}, "extract_json": {"proprties": {}}},
        filter={"were": "a = 1", "column": {"nam": "a"}},
        guardrails={"max_kb": 1},
        diff={"repairs": []},
    )

    message = refusal(project)

    for part in (
        "no attribute columns.renam; did you mean columns.rename?",
        "no attribute columns.explode_map.colum; did you mean columns.explode_map.column?",
        "columns.explode_map.column is missing: The origin's map column;",
        "no attribute columns.extract_json.proprties; did you mean columns.extract_json.prop",
        "no attribute filter.were; did you mean filter.where?",
        "no attribute filter.column.nam; did you mean filter.column.name?",
        "no attribute guardrails.max_kb; did you mean guardrails.max_column_kb?",
        "no attribute diff.repairs; did you mean diff.repair?",
    ):
        assert part in message


def test_values_of_the_wrong_form_are_refused_by_name_in_one_message(project: Project) -> None:
    declare(
        project,
        workers="many",
        writetime=True,
        token_ranges=True,
        columns={
            "rename": {True: "a"},
            "skip": "a",
            "constants": ["a"],
            "codecs": [5],
            "explode_map": "scores",
            "key_defaults": 5,
        },
        filter={"where": 5, "coverage_percent": True, "column": "status"},
        guardrails=100,
        truncate_target="perhaps",
        diff={"repair": "counters"},
    )

    message = refusal(project)

    assert "\n" not in message
    for part in (
        "workers must be a whole number: Processes of a run; default: one a core;",
        "writetime must be text or a whole number: cell keeps",
        "token_ranges must be a whole number: ",
        "columns.rename must be a block of name: value, with words such as yes, on or 1 in quotes",
        "columns.skip must be a list such as [a, b]",
        "columns.constants must be a block of name: value",
        "columns.codecs must be a list",
        "columns.explode_map must be a block with column, key, value: ",
        "columns.key_defaults must be a block of name: value",
        "filter.where must be text: ",
        "filter.coverage_percent must be a whole number: ",
        "filter.column must be a block with name, value: ",
        "guardrails must be a block with max_column_kb, action: ",
        "truncate_target must be true or false: ",
        "diff.repair must be a list",
    ):
        assert part in message


def test_transformations_and_filters_that_cannot_work_are_refused_with_all_the_rest(
    project: Project,
) -> None:
    declare(
        project,
        target={"table": "no table"},
        writetime="now",
        columns={"rename": {"a": "b"}, "skip": ["a"], "constants": {"c": None}},
        filter={"where": "a = 1; DROP TABLE b", "writetime_from": "soon", "writetime_to": True},
        guardrails={"max_column_kb": 1, "action": "drop"},
        collisions="latest",
        diff={"compare_writetime": True, "repair": ["counters", "missing", "all"]},
    )

    message = refusal(project)

    assert "\n" not in message
    for part in (
        "'no table' is no table name",
        "columns.constants.c is null, which writes nothing; give a value",
        "filter.where has ';'; it must be conditions joined by AND",
        "filter.writetime_from is 'soon'; write microseconds since 1970, or a time such as 2026-01",
        "filter.writetime_to is 'True'; write microseconds",
        "guardrails.action is 'drop'; valid are report, skip, fail",
        "collisions is 'latest'; valid are refuse, newest, oldest",
        "diff.compare_writetime needs writetimes that are kept",
        "diff.repair names 'all'; valid are missing, mismatched, extra, counters",
    ):
        assert part in message


def test_unknown_attributes_of_stores_are_refused_by_their_whole_name(project: Project) -> None:
    project.declare(
        "stores",
        "Stores",
        cassandra={"sunbird": {"usernam": "u", "tls": {"ca": 1}}},
        kafka={"monitoring": {"servers": "x"}},
        mongodb={},
    )

    message = refusal(project)

    assert "no attribute cassandra.sunbird.usernam; did you mean cassandra.sunbird.user" in message
    assert "no attribute cassandra.sunbird.tls.ca; " in message
    assert "no attribute kafka.monitoring.servers; " in message
    assert "no attribute mongodb; valid are cassandra, dynamodb, kafka" in message


def test_wrong_values_are_refused_together_with_the_valid_ones(project: Project) -> None:
    declare(
        project,
        origin={"table": "no table", "consistency": "MOST", "fetch_size": 0},
        target={"rows_per_second": 0},
        token_ranges=1025,
        workers=0,
        writetime="max",
        ttl=0,
        tracking_keyspace="my keyspace",
        dead_letters={"max_rows": -1},
        ranges_per_run="some",
        diff={"mode": "both"},
        retry_seconds=-1,
    )

    message = refusal(project)

    for part in (
        "'no table' is no table name; write keyspace.table",
        "origin.consistency is 'MOST'; valid are LOCAL_QUORUM, ",
        "origin.fetch_size is 0; valid are 1 to 100000",
        "target.rows_per_second is 0",
        "token_ranges is 1025; valid are 1 to 1024",
        "workers is 0; valid are 1 to 256",
        "writetime is 'max'; valid are cell, row_max, now, or microseconds since 1970",
        "ttl is 0; valid are cell, row_max, none, or 1 to 630720000 seconds",
        "tracking_keyspace is 'my keyspace'; valid are 1 to 48 letters, digits and underscores",
        "dead_letters.max_rows is -1",
        "ranges_per_run is 'some'; valid are all or a number from 1",
        "diff.mode is 'both'; valid are two_way, origin_only",
        "retry_seconds is -1",
    ):
        assert part in message


def test_truncate_target_and_several_runs_contradict_each_other(project: Project) -> None:
    declare(project, truncate_target=True, ranges_per_run=4)

    assert "truncate_target needs ranges_per_run: all" in refusal(project)


def test_a_table_is_not_copied_onto_itself(project: Project) -> None:
    declare(project, target={"store": "sunbird", "table": "KS.A"})

    assert "origin and target are both ks.a in sunbird" in refusal(project)


@pytest.mark.parametrize("password", [RIGHT, "{{ env.HOME }}"])
def test_a_password_in_a_file_is_refused_without_repeating_it(
    project: Project, password: str
) -> None:
    project.declare(
        "stores", "Stores", cassandra={"sunbird": {"username": "u", "password": password}}
    )

    with pytest.raises(DeclarationError, match="password must be a block with env: ") as caught:
        project.load()

    shown = project.run_dg("list", "defs", "--json").output
    assert "cassandra.sunbird.password must be a block with env: As {env: NAME}" in shown
    assert RIGHT not in shown + str(caught.getrepr(showlocals=False))


def test_a_store_that_is_not_declared_is_named_beside_those_that_are(project: Project) -> None:
    declare(project, origin={"store": "sunbrid"})

    checked = project.run_dg("check", "defs")

    assert checked.code != 0
    assert "'sunbrid'" in checked.output
    assert "'sunbird', 'reports', 'monitoring'" in checked.output


def test_stores_of_the_wrong_kind_are_refused(project: Project) -> None:
    declare(project, target={"store": "monitoring"}, events={"store": "sunbird", "topic": "t"})

    assert refusal(project) == (
        "target.store is monitoring, a kafka store; valid are the cassandra and dynamodb "
        "and postgres stores sunbird, reports; events.store is sunbird, a cassandra store; "
        "valid are the kafka stores monitoring"
    )


def test_a_cron_line_that_is_none_is_refused(project: Project) -> None:
    declare(project, schedule="every day")

    assert "invalid cron schedule 'every day'" in refusal(project)


# -- what is declared --------------------------------------------------------------------------

EVERY_ATTRIBUTE = """
writetime: row_max
ttl: 86400
row_max: {collections: false, if_none_counts: now}
writetime_increment_by: 7
columns:
  rename: {Old Name: new, a: b}
  skip: [c, "D"]
  constants: {source: legacy, version: 3, ratio: 0.5, live: true, tags: [x], since: 2026-01-01}
  codecs: [INT_STRING, TIMESTAMP_STRING_FORMAT]
  timestamp_format: yyyy-MM-dd'T'HH:mm
  timestamp_zone: Europe/Berlin
  explode_map: {column: scores, key: subject, value: score}
  extract_json: {column: payload, properties: {name: full_name}, overwrite: true}
  key_defaults: {tenant: "", level: 0}
  key_defaults_by_type: {text: "12", timestamp: 5}
  unmatched: skip
filter:
  where: "status = 'active'"
  token_min: -9223372036854775808
  token_max: 9223372036854775806
  coverage_percent: 50
  writetime_from: 2026-01-01T00:00:00Z
  writetime_to: 1800000000000000
  column: {name: deleted, value: true}
guardrails: {max_column_kb: 100, action: skip}
collisions: newest
diff: {mode: origin_only, compare_writetime: true, repair: [counters]}
"""


def test_every_attribute_of_the_yaml_reaches_the_migration(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(project, **yaml.load(EVERY_ATTRIBUTE, AsDagster))

    migration = declared_migration(project, monkeypatch)

    assert (migration.writetime, migration.ttl) == ("row_max", 86400)
    assert migration.writetime_increment_by == 7
    assert migration.row_max == RowMax(collections=False, if_none_counts="now")
    assert migration.columns == Columns(
        rename={"Old Name": "new", "a": "b"},
        skip=("c", "D"),
        constants={
            "source": "legacy",
            "version": 3,
            "ratio": 0.5,
            "live": True,
            "tags": ["x"],
            "since": "2026-01-01",
        },
        codecs=("INT_STRING", "TIMESTAMP_STRING_FORMAT"),
        timestamp_format="yyyy-MM-dd'T'HH:mm",
        timestamp_zone="Europe/Berlin",
        explode_map=ExplodeMap("scores", "subject", "score"),
        extract_json=ExtractJson("payload", {"name": "full_name"}, overwrite=True),
        key_defaults={"tenant": "", "level": 0},
        key_defaults_by_type={"text": "12", "timestamp": 5},
        unmatched="skip",
    )
    assert migration.filter == Filter(
        where="status = 'active'",
        token_min=-(2**63),
        token_max=2**63 - 2,
        coverage_percent=50,
        writetime_from=1_767_225_600_000_000,
        writetime_to=1_800_000_000_000_000,
        column=ColumnFilter("deleted", "true"),
    )
    assert migration.guardrails == Guardrails(100, "skip")
    assert (migration.collisions, migration.diff_mode) == ("newest", "origin_only")
    assert (migration.compare_writetime, migration.repair) == (True, ("counters",))


def test_dg_check_accepts_every_attribute_of_the_yaml(project: Project) -> None:
    declare(project, **yaml.load(EVERY_ATTRIBUTE, AsDagster))

    project.run_dg("check", "yaml").assert_success()


def test_what_is_not_declared_is_what_a_migration_does_by_itself(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(project)

    declared = declared_migration(project, monkeypatch)

    plain = Migration(declared.origin, declared.target)
    assert declared == plain


def test_the_targets_page_tells_what_is_not_copied_as_it_is(project: Project) -> None:
    declare(project, **yaml.load(EVERY_ATTRIBUTE, AsDagster))

    graph = project.load().resolve_asset_graph()

    described = graph.get(dg.AssetKey(["reports", "ks", "b"])).description or ""
    for line in (
        "- **Writetime and TTL**: `row_max`, `86400`",
        "- **Renamed**: `Old Name` to `new`, `a` to `b`",
        "- **Not copied**: `c`, `D`",
        "- **Only rows**: `status = 'active'`",
        "- **Only a sample**: the low 50 % of each range",
        "- **Left out**: rows whose `deleted` is `true`",
        "- **Cells over**: 100 KB: skip",
        "- **Rows that become one**: the newest wins",
    ):
        assert line in described


@pytest.mark.parametrize(
    ("value", "microseconds"),
    [
        (1_700_000_000_000_000, 1_700_000_000_000_000),
        ("1700000000000000", 1_700_000_000_000_000),
        ("2026-01-01T00:00:00Z", 1_767_225_600_000_000),
        ("2026-01-01T01:00:00.000001+01:00", 1_767_225_600_000_001),
        ("2026-01-01 00:00", 1_767_225_600_000_000),
        ("2026-01-01", 1_767_225_600_000_000),
        (date(2026, 1, 1), 1_767_225_600_000_000),
        (datetime(2026, 1, 1), 1_767_225_600_000_000),
        (datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-1))), 1_767_229_200_000_000),
        (None, None),
    ],
)
def test_a_time_is_microseconds_or_iso_8601_and_utc_unless_it_says_otherwise(
    value: Any, microseconds: int | None
) -> None:
    component = TableMigration(
        origin=OriginAttributes(store="a", table="k.a"),
        target=TargetAttributes(store="b"),
        filter=FilterAttributes(writetime_from=value),
    )

    assert component.to_migration().filter.writetime_from == microseconds


@pytest.mark.parametrize("value", ["", "yesterday", "2026-13-01", 1.5, ["2026"], "0" * 10_000])
def test_a_time_that_is_none_is_refused(value: Any) -> None:
    component = TableMigration(
        origin=OriginAttributes(store="a", table="k.a"),
        target=TargetAttributes(store="b"),
        filter=FilterAttributes(writetime_to=value),
    )

    with pytest.raises(DeclarationError, match=r"filter\.writetime_to is .*; write microseconds"):
        component.to_migration()


def test_numbers_may_come_from_the_environment(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SINCE", "1700000000000000")
    monkeypatch.setenv("SECONDS", "60")
    declare(
        project,
        writetime="{{ env.SINCE }}",
        ttl="{{ env.SECONDS }}",
        filter={"writetime_from": "{{ env.SINCE }}", "coverage_percent": "{{ env.SECONDS }}"},
    )

    migration = declared_migration(project, monkeypatch)

    assert (migration.writetime, migration.ttl) == (1_700_000_000_000_000, 60)
    assert migration.filter == Filter(writetime_from=1_700_000_000_000_000, coverage_percent=60)


def declared_migration(project: Project, monkeypatch: pytest.MonkeyPatch) -> Migration:
    """Load the project's only migration as Dagster does, and give its declaration."""
    seen: list[Migration] = []

    def keep(component: TableMigration, kinds: Mapping[str, str]) -> Migration:
        seen.append(to_migration(component, kinds))
        return seen[-1]

    to_migration = TableMigration.to_migration
    monkeypatch.setattr(TableMigration, "to_migration", keep)
    project.load()
    return seen[0]


class AsDagster(yaml.SafeLoader):
    """Reads times as text, which is how Dagster reads the file."""


AsDagster.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


# -- what is built -----------------------------------------------------------------------------


def test_a_migration_becomes_an_origin_a_plan_a_target_a_diff_and_two_checks(
    project: Project,
) -> None:
    declare(project, group="reporting", owners=["team:data", "ops@example.org"], token_ranges=4)

    graph = project.load().resolve_asset_graph()

    origin, target = dg.AssetKey(["sunbird", "ks", "a"]), dg.AssetKey(["reports", "ks", "b"])
    diff = dg.AssetKey(["reports", "ks", "b_diff"])
    plan = dg.AssetKey(["reports", "ks", "b_plan"])
    letters = dg.AssetKey(["reports", "ks", "b_dead_letters"])
    assert graph.get_all_asset_keys() == {origin, target, diff, plan, letters}
    assert graph.external_asset_keys == {origin}
    assert graph.get(target).parent_keys == {origin}
    assert graph.get(diff).parent_keys == {target}
    for key in (target, diff):
        node = graph.get(key)
        assert node.group_name == "reporting"
        assert set(node.owners) == {"team:data", "ops@example.org"}
        assert node.backfill_policy == dg.BackfillPolicy.single_run()
        assert node.partitions_def is not None
        assert list(node.partitions_def.get_partition_keys())[:2] == ["00-of-4", "01-of-4"]
    assert {key.name for key in graph.asset_check_keys} == {
        "row_counts_match",
        "all_ranges_match",
        "no_dead_letters",
    }
    assert {key.asset_key for key in graph.asset_check_keys} == {target}


def test_ranges_per_run_becomes_the_backfill_policy(project: Project) -> None:
    declare(project, ranges_per_run=3)

    graph = project.load().resolve_asset_graph()

    policy = graph.get(dg.AssetKey(["reports", "ks", "b_diff"])).backfill_policy
    assert policy == dg.BackfillPolicy.multi_run(3)


def test_two_migrations_may_read_one_origin(project: Project) -> None:
    declare(project, "first", target={"table": "ks.one"})
    declare(project, "second", target={"table": "ks.two"})

    graph = project.load().resolve_asset_graph()

    origin = dg.AssetKey(["sunbird", "ks", "a"])
    children = graph.get(origin).child_keys
    names = ("one", "one_plan", "two", "two_plan")
    assert children == {dg.AssetKey(["reports", "ks", name]) for name in names}


def test_a_target_may_be_the_origin_of_the_next_migration(project: Project) -> None:
    declare(project, "first", target={"table": "ks.b"})
    declare(project, "second", origin={"store": "reports", "table": "ks.b"},
            target={"table": "ks.c"})  # fmt: skip

    graph = project.load().resolve_asset_graph()

    middle = graph.get(dg.AssetKey(["reports", "ks", "b"]))
    assert middle.is_materializable
    assert dg.AssetKey(["reports", "ks", "c"]) in middle.child_keys


def test_hostile_table_names_give_assets_that_can_be_selected(project: Project) -> None:
    declare(project, origin={"table": '"My Keyspace"."a.b/c"'}, target={"table": '"Ks"."x*y"'})

    defs = project.load()

    keys = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    assert keys == {
        "sunbird/My_Keyspace/a_b_c",
        *(f"reports/Ks/x_y{suffix}" for suffix in ("", "_diff", "_plan", "_dead_letters")),
    }


# -- schedules ---------------------------------------------------------------------------------


def test_the_schedules_run_request_is_a_full_copy(move: Move) -> None:
    move.declare(schedule="15 19 * * *")

    (request,) = evaluate_schedule(move)

    name = f"{'__'.join(move.target.path)}_job"
    defs = move.project.load()
    with move.project.instance() as instance:
        result = defs.resolve_job_def(name).execute_in_process(instance=instance, tags=request.tags)
        assert result.success
    move.assert_same_rows()
    assert move.check("all_ranges_match")[0] is True


def test_a_schedule_gives_as_many_runs_as_the_ranges_need(move: Move) -> None:
    move.declare(schedule="15 19 * * *", ranges_per_run=3)

    requests = evaluate_schedule(move)

    assert len({request.run_key for request in requests}) == 3
    ranges = [
        (r.tags[ASSET_PARTITION_RANGE_START_TAG], r.tags[ASSET_PARTITION_RANGE_END_TAG])
        for r in requests
    ]
    assert ranges == [(KEYS[0], KEYS[2]), (KEYS[3], KEYS[5]), (KEYS[6], KEYS[7])]


def evaluate_schedule(move: Move) -> list[dg.RunRequest]:
    """Evaluate the schedule as the daemon's code server does."""
    repository = move.project.load().get_repository_def()
    with move.project.instance() as instance:
        data = get_external_schedule_execution(
            repository,
            instance.get_ref(),
            f"{'__'.join(move.target.path)}_schedule",
            scheduled_execution_timestamp=None,
            scheduled_execution_timezone=None,
            log_key=None,
        )
    assert isinstance(data, ScheduleExecutionData), data
    return list(data.run_requests or ())


# -- secrets -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A Cassandra that asks for a password, which is not the one that it came with."""
    server = Cassandra(
        cluster_name="guarded", password=True, heap_mb=SMALL_HEAP_MB, properties=QUICK
    )
    with run_server(server, tmp_path_factory.mktemp("guarded")) as running:
        settings = CassandraSettings(port=running.port, username="cassandra", password="cassandra")
        with patient_connection(settings) as connection:
            connection.session.execute(
                f"CREATE ROLE mover WITH PASSWORD = '{RIGHT}' AND LOGIN = true AND SUPERUSER = true"
            )
            create_tables(connection, "ks")
            fill_origin(connection, 50, keyspace="ks")
        yield running


def test_passwords_reach_neither_definitions_nor_logs_nor_errors_nor_any_file(
    guarded: Running, kafka: Running, tmp_path: Path
) -> None:
    project = make_project(tmp_path, cassandra_port=guarded.port, kafka_port=kafka.port)
    cluster = {
        "contact_points": ["127.0.0.1"],
        "port": guarded.port,
        "username": "mover",
        "password": {"env": "MOVER_PASSWORD"},
    }
    project.declare("stores", "Stores", cassandra={"sunbird": cluster, "reports": cluster})
    declare(
        project,
        origin={"table": "ks.user_enrolments"},
        target={"table": "ks.report_user_enrolments"},
        token_ranges=8,
        retry_seconds=5,
    )
    table = "reports/ks/report_user_enrolments"
    launch = ["launch", "--assets", f"{table},{table}_diff", "--partition-range", EVERYTHING]
    project.environment["MOVER_PASSWORD"] = WRONG

    refused = project.run_dg(*launch)

    assert refused.code != 0
    assert "the server refused the user name or the password" in refused.output
    project.environment["MOVER_PASSWORD"] = RIGHT
    copied = project.run_dg(*launch).assert_success()
    listed = project.run_dg("list", "defs", "--json").assert_success()
    shown = refused.output + copied.output + listed.output
    assert RIGHT not in shown
    assert WRONG not in shown
    # The event log, the runs, captured output: whatever Dagster keeps.
    searched = [path for path in project.home.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" and path.stat().st_size for path in searched)
    for path in searched:
        content = path.read_bytes()
        assert RIGHT.encode() not in content, path
        assert WRONG.encode() not in content, path
