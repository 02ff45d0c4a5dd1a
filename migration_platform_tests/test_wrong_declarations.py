"""What is said of declarations that are wrong: each mistake with its file, all of them at once."""

import re
from pathlib import Path
from textwrap import dedent

import pytest

from migration_platform.errors import DeclarationError
from migration_platform_tests.dagster_project import DAGSTERS_OWN_WARNINGS, Project, make_project

pytestmark = DAGSTERS_OWN_WARNINGS

COPY = """\
type: migration_platform.TableMigration
attributes:
  origin: {store: sunbird, table: ks.a}
  target: {store: reports, table: ks.b}
"""
KEYSPACE = """\
type: migration_platform.KeyspaceMigration
attributes:
  origin: {store: sunbird, keyspace: shop}
  target: {store: reports}
"""
CHECK = """\
type: migration_platform.GuardrailCheck
attributes:
  origin: {store: sunbird, table: ks.a}
  max_column_kb: 10
"""
STORES = """\
type: migration_platform.Stores
attributes:
  cassandra:
    more: {contact_points: [127.0.0.1]}
"""
VALID_STORES = "valid are 'sunbird', 'reports', 'monitoring'"
NOT_DECLARED = (
    "no component migration_platform.Stores of this project declares a store of that name"
)
KINDS = "cassandra, dynamodb, kafka, neo4j, postgres, sunbird_sync"
DIFF = (
    "mode, compare_writetime, compare_form, ignore_newer_than_seconds, read_units_per_second, "
    "repair, repair_writetime"
)

CASES: dict[str, tuple[dict[str, str], str]] = {
    "a store's name with a typo": (
        {"copy": COPY.replace("sunbird", "sunbrid")},
        f"copy/defs.yaml: origin.store is 'sunbrid', and {NOT_DECLARED}; did you mean sunbird? "
        f"{VALID_STORES}",
    ),
    "a store's name like no other": (
        {"copy": COPY.replace("reports", "warehouse")},
        f"copy/defs.yaml: target.store is 'warehouse', and {NOT_DECLARED}; {VALID_STORES}",
    ),
    "a store for events with a typo": (
        {"copy": COPY + "  events: {store: monitorin, topic: t}\n"},
        f"copy/defs.yaml: events.store is 'monitorin', and {NOT_DECLARED}; did you mean "
        f"monitoring? {VALID_STORES}",
    ),
    "a store of a keyspace with a typo": (
        {"all": KEYSPACE.replace("reports", "report")},
        f"all/defs.yaml: target.store is 'report', and {NOT_DECLARED}; did you mean reports? "
        f"{VALID_STORES}",
    ),
    "a store of a check with a typo": (
        {"large": CHECK.replace("sunbird", "sunbirds")},
        f"large/defs.yaml: origin.store is 'sunbirds', and {NOT_DECLARED}; did you mean sunbird? "
        f"{VALID_STORES}",
    ),
    "a store's name with a typo beside a wrong value": (
        {"copy": COPY.replace("sunbird", "sunbrid") + "  token_ranges: 0\n"},
        f"copy/defs.yaml: origin.store is 'sunbrid', and {NOT_DECLARED}; did you mean sunbird? "
        f"{VALID_STORES}; token_ranges is 0; valid are 1 to 1024",
    ),
    "a kind of store with a typo": (
        {"more": STORES.replace("cassandra:", "casandra:")},
        "more/defs.yaml: there is no attribute casandra; did you mean cassandra? valid are "
        + KINDS,
    ),
    "a misspelt kind hides no store that others use": (
        {"stores": STORES.replace("cassandra:", "casandra:"), "copy": COPY},
        "stores/defs.yaml: there is no attribute casandra; did you mean cassandra? valid are "
        + KINDS,
    ),
    "an attribute of a store with a typo": (
        {"more": STORES.replace("contact_points", "contact_point")},
        "more/defs.yaml: there is no attribute cassandra.more.contact_point; did you mean "
        "cassandra.more.contact_points? valid are ",
    ),
    "an attribute of a keyspace with a typo": (
        {"all": KEYSPACE + "  inclde: [a]\n"},
        "all/defs.yaml: there is no attribute inclde; did you mean include? valid are ",
    ),
    "two migrations to one target": (
        {"copy": COPY, "copy_again": COPY.replace("ks.a", "ks.c")},
        "2 files declare something wrong:\n"
        "copy/defs.yaml: reports/ks/b is the target of copy_again/defs.yaml, too; give one of "
        "them another target, or remove it\n"
        "copy_again/defs.yaml: reports/ks/b is the target of copy/defs.yaml, too; give one of "
        "them another target, or remove it",
    ),
    "two migrations to one target in one file": (
        {"copy": f"{COPY}---\n{COPY}"},
        "2 files declare something wrong:\n"
        "copy/defs.yaml: reports/ks/b is the target of copy/defs.yaml (document 2), too; give one "
        "of them another target, or remove it\n"
        "copy/defs.yaml (document 2): reports/ks/b is the target of copy/defs.yaml, too; give one "
        "of them another target, or remove it",
    ),
    "two stores of one name": (
        {"more": STORES.replace("more:", "sunbird:")},
        "2 files declare something wrong:\n"
        "more/defs.yaml: cassandra.sunbird has the name of a store in stores/defs.yaml, and names "
        "of stores must differ; rename one of them\n"
        "stores/defs.yaml: cassandra.sunbird has the name of a store in more/defs.yaml, and names "
        "of stores must differ; rename one of them",
    ),
    "two stores of one name and two kinds": (
        {"more": f"{STORES}  dynamodb:\n    more: {{region: eu-west-1}}\n"},
        "more/defs.yaml: cassandra.more has the name of dynamodb.more, and names of stores must "
        "differ; rename one of them; dynamodb.more has the name of cassandra.more, and names of "
        "stores must differ; rename one of them",
    ),
    "an attribute twice": (
        {"copy": COPY + "  token_ranges: 8\n  token_ranges: 16\n"},
        "copy/defs.yaml: token_ranges stands in line 5 and again in line 6; keep one",
    ),
    "an attribute of a block twice": (
        {"copy": COPY + "  diff:\n    mode: two_way\n    mode: origin_only\n"},
        "copy/defs.yaml: diff.mode stands in line 6 and again in line 7; keep one",
    ),
    "a store twice": (
        {"more": f"{STORES}    more: {{contact_points: [127.0.0.2]}}\n"},
        "more/defs.yaml: cassandra.more stands in line 4 and again in line 5; keep one",
    ),
    "a block that is none": (
        {"copy": COPY + "  diff: yes\n"},
        f"copy/defs.yaml: diff must be a block with {DIFF}: How both tables are compared",
    ),
    "no attributes": (
        {"copy": "type: migration_platform.TableMigration\n"},
        "copy/defs.yaml: origin is missing: Where rows come from; target is missing: Where rows "
        "go to",
    ),
    "an owner who is none": (
        {"copy": COPY + "  owners: [me]\n"},
        "copy/defs.yaml: owners holds 'me'; write an e-mail address, or team: and a name",
    ),
    "a group that is none": (
        {"copy": COPY + "  group: my group\n"},
        "copy/defs.yaml: group is 'my group'; write letters, digits and underscores",
    ),
    "a schedule that is none": (
        {"copy": COPY + "  schedule: every day\n"},
        "copy/defs.yaml: schedule is the invalid cron schedule 'every day'; write minute, hour, "
        "day, month and day of the week, as in 0 3 * * * for each night at three",
    ),
    "a template that cannot be filled in": (
        {"copy": COPY.replace("sunbird", "'{{ envv.X }}'")},
        "copy/defs.yaml: origin.store holds a template that cannot be filled in: 'envv' not found "
        "in scope, available scope is: ",
    ),
    "mistakes of several kinds in several files": (
        {
            "a": COPY + "  token_range: 8\n",
            "b": COPY.replace("ks.b", "ks.c") + "  owners: [me]\n  workers: 0\n",
            "c": COPY.replace("ks.b", "ks.d").replace("sunbird", "sunbrid"),
            "d": COPY.replace("ks.b", "ks.e"),
            "e": KEYSPACE + "  create: [everything]\n",
            "f": STORES + "    more: {}\n",
        },
        "5 files declare something wrong:\n"
        "a/defs.yaml: there is no attribute token_range; did you mean token_ranges? valid are ",
    ),
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose stores nobody asks."""
    return make_project(tmp_path, cassandra_port=9, kafka_port=9)


def write(project: Project, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = project.defs_folder / name / "defs.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(dedent(text))


def within(project: Project, told: str) -> str:
    """Give a message with its files as the project's own `defs` folder sees them."""
    return told.replace(f"{project.module}/defs/", "")


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_told_with_its_file_and_the_way_out(project: Project, name: str) -> None:
    files, expected = CASES[name]
    write(project, files)

    with pytest.raises(DeclarationError) as refused:
        project.load()

    told = within(project, str(refused.value))
    if expected.endswith((" ", "of")):
        assert told.startswith(expected)
    else:
        assert told == expected
    assert refused.value.__cause__ is None


def test_of_many_mistakes_each_file_has_its_line_and_those_that_are_right_have_none(
    project: Project,
) -> None:
    files, _ = CASES["mistakes of several kinds in several files"]
    write(project, files)

    with pytest.raises(DeclarationError) as refused:
        project.load()

    lines = within(project, str(refused.value)).splitlines()[2:]
    assert lines == [
        "b/defs.yaml: owners holds 'me'; write an e-mail address, or team: and a name; workers is "
        "0; valid are 1 to 256",
        "c/defs.yaml: origin.store is 'sunbrid', and " + NOT_DECLARED + "; did you mean sunbird? "
        "valid are 'more', 'sunbird', 'reports', 'monitoring'",
        "e/defs.yaml: create names everything; valid are keyspace, types, tables",
        "f/defs.yaml: cassandra.more stands in line 4 and again in line 5; keep one",
    ]


def test_a_store_of_the_projects_own_python_code_is_left_to_dagster(project: Project) -> None:
    write(project, {"copy": COPY.replace("sunbird", "by_hand")})
    (project.defs_folder / "by_hand.py").write_text(
        "import dagster as dg\n"
        "from migration_platform.resources import CassandraResource\n\n"
        "defs = dg.Definitions(resources={'by_hand': CassandraResource()})\n"
    )

    project.load().resolve_implicit_global_asset_job_def()


# -- as the commands show it -------------------------------------------------------------------


MISTAKES = {
    "one": COPY + "  token_range: 8\n",
    "two": COPY.replace("ks.b", "ks.c") + "  colour: 1\n",
}
SENTENCES = (
    r"2 files declare something wrong:\n"
    r"\w+/defs/one/defs.yaml: there is no attribute token_range; did you mean token_ranges\? .*\n"
    r"\w+/defs/two/defs.yaml: there is no attribute colour; .*\n"
)


@pytest.mark.parametrize("command", [("check", "defs"), ("list", "defs")])
def test_a_command_that_loads_definitions_tells_all_before_dagsters_trace(
    project: Project, command: tuple[str, str]
) -> None:
    write(project, MISTAKES)

    ended = project.run_dg(*command)

    assert ended.code != 0
    assert len(re.findall(SENTENCES, ended.output)) == 1, ended.output
    assert "Stack Trace" not in re.split(SENTENCES, ended.output)[0]
    assert "Error while" not in ended.output


def test_a_launch_tells_all_and_shows_no_trace(project: Project) -> None:
    write(project, MISTAKES)

    ended = project.run_dg("launch", "--assets", "reports/ks/b", "--partition", "00-of-64")

    assert ended.code != 0
    assert re.fullmatch(f"Error: {SENTENCES}", ended.output), ended.output


def test_a_schema_check_that_is_asked_for_still_names_line_and_attribute(project: Project) -> None:
    write(project, {"copy": COPY + "  colour: red\n"})

    for command in (("check", "yaml"), ("check", "defs", "--check-yaml")):
        ended = project.run_dg(*command)

        assert ended.code != 0
        assert "defs/copy/defs.yaml:5" in ended.output
        assert "'colour' was unexpected" in ended.output


def test_a_failed_run_shows_its_sentence_without_a_trace(project: Project) -> None:
    write(project, {"copy": COPY + "  retry_seconds: 0\n"})
    expected = (
        r"ks\.b: cannot connect to 127\.0\.0\.1 port 9: no host answered .*, after one try in 0 s"
    )

    ended = project.run_dg("launch", "--assets", "reports/ks/b", "--partition", "00-of-64")

    assert ended.code != 0
    # Once for the step, and once more for the run where Dagster shows that event as well.
    assert len(re.findall(expected, ended.output)) in (1, 2), ended.output
    for word in ("Stack Trace", "Traceback", "Failure:", 'File "'):
        assert word not in ended.output
    (run,) = project.runs()
    with project.instance() as instance:
        failures = [
            event.dagster_event.event_specific_data
            for event in instance.all_logs(run.run_id)
            if event.dagster_event and event.dagster_event.is_failure
        ]
    for failure in failures:
        error = failure.error
        assert re.fullmatch(f"{expected}\n", error.message)
        assert (list(error.stack), error.cause, error.context) == ([], None, None)
    assert len(failures) == 2


def test_a_run_of_a_wrong_declaration_shows_no_password(project: Project) -> None:
    secret = "s3cret-that-must-not-leak"
    write(project, {"more": f"{STORES}    other: {{username: u, password: {secret}}}\n"})

    for command in (("check", "defs"), ("list", "defs"), ("launch", "--assets", "*")):
        shown = project.run_dg(*command).output
        assert "cassandra.other.password must be a block with env: As {env: NAME}" in shown
        assert secret not in shown
