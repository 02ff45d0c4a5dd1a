"""Rows of tables move to another tenant: planned, changed by compare and set, proved, undone."""

import time
from pathlib import Path

import pytest
from cassandra.cluster import Session
from hypothesis import given
from hypothesis import strategies as st

from migration_platform.cql.names import TableName
from migration_platform.cql.types import parse_type
from migration_platform.cql.values import encode_value
from migration_platform.errors import DeclarationError, MigrationError, PreflightError
from migration_platform.plan.model import Column, Table
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.tenant import steps
from migration_platform.tenant.cell_changes import compile_change
from migration_platform.tenant.declaration import Change, Lookup, Move
from migration_platform.tenant.records import newest_plan, plans_of, sole_writer
from migration_platform.tenant.rows import PlannedRow
from migration_platform.tenant.shape import shape_table
from migration_platform.tenant.steps import apply_table_range, read_progress
from migration_platform_tests.servers import proxy_before
from migration_platform_tests.tenants import (
    BATCH,
    BATCH_OF_COURSE,
    NEW,
    OLD,
    ORGANISATION,
    OTHER,
    USER,
    USER_ORG,
    Tenants,
    batches_of,
    changed,
    organisation_of,
    user_orgs_of,
    users_of,
)

USERS = [
    {"id": "old-1", "rootorgid": OLD, "channel": "etb", "isdeleted": False, "roles": ["PUBLIC"]},
    {"id": "old-2", "rootorgid": OLD, "channel": "etb", "isdeleted": True, "name": "पूजा"},
    {"id": "old-3", "rootorgid": OLD},
    {"id": "new-1", "rootorgid": NEW, "channel": "rj", "name": "Asha"},
    {"id": "other-1", "rootorgid": OTHER, "channel": "ap", "roles": ["A", "B"]},
    {"id": "none-1", "name": OLD},
]


@pytest.fixture
def tenants(connection: Connection, reader: Session, keyspace: str, tmp_path: Path) -> Tenants:
    """Two organisations, and nothing of them yet."""
    found = Tenants(connection, reader, keyspace, tmp_path / "move")
    found.make(
        "organisation",
        ORGANISATION,
        [
            {"id": OLD, "hashtagid": "hash-old", "status": 1},
            {"id": NEW, "hashtagid": "hash-new", "status": 1},
            {"id": OTHER, "status": 1},
        ],
    )
    return found


@pytest.fixture
def users(tenants: Tenants) -> Tenants:
    tenants.make("user", USER, USERS)
    users_of(tenants)
    return tenants


# -- the plan ------------------------------------------------------------------------------------


def test_a_plan_names_the_rows_of_the_origin_and_writes_none(users):
    before = users.rows("user")
    manifest = users.plan(users.steps[0]).manifest()
    assert users.rows("user") == before
    assert users.ids(users.steps[0]) == ["old-1", "old-2", "old-3"]
    assert (manifest["planned"], manifest["rows"], manifest["already"]) == (3, 6, 1)


def test_the_preview_shows_what_the_columns_are_and_become(users):
    plan = users.plan(users.steps[0])
    preview = (plan.path / "preview.csv").read_text().splitlines()
    assert preview[0] == "id,rootorgid before,rootorgid after,channel before,channel after"
    assert f"old-1,{OLD},{NEW},etb,rj" in preview
    assert f"old-3,{OLD},{NEW},null,rj" in preview


def test_a_second_plan_overwrites_the_id_file_and_keeps_the_first_plan(users):
    first = users.plan(users.steps[0])
    users.execute("DELETE FROM KS.user WHERE id = 'old-3'")
    users.plan(users.steps[0])
    assert users.ids(users.steps[0]) == ["old-1", "old-2"]
    assert sorted((first.path / "ids.csv").read_text().split()) == ["old-1", "old-2", "old-3"]
    assert len(plans_of(users.folder, "users")) == 2


def test_the_id_file_may_stand_anywhere(users, tmp_path):
    path = tmp_path / "elsewhere" / "user_migration.csv"
    users.steps[0] = changed(users.steps[0], id_file=str(path))
    users.plan(users.steps[0])
    assert sorted(path.read_text().split()) == ["old-1", "old-2", "old-3"]


def test_a_plan_without_rows_leaves_an_empty_id_file(users):
    users.execute("TRUNCATE KS.user")
    assert users.plan(users.steps[0]).manifest()["planned"] == 0
    assert users.ids(users.steps[0]) == []


@pytest.mark.parametrize("missing", [OLD, NEW])
def test_an_organisation_that_does_not_exist_stops_the_plan(users, missing):
    users.execute(f"DELETE FROM KS.organisation WHERE id = '{missing}'")
    with pytest.raises(PreflightError, match=f'no row for .*"{missing}"; correct the id'):
        users.plan(users.steps[0])
    assert plans_of(users.folder, "users") == []


def test_what_does_not_fit_the_table_is_told_in_one_message(tenants):
    tenants.make("user", USER)
    step = tenants.step(
        "users",
        "user",
        "rootorg",
        Change("id", constant="x"),
        Change("chanel", constant="rj"),
        duplicates_by="nobody",
    )
    with pytest.raises(PreflightError) as told:
        tenants.plan(step)
    for part in ("no column rootorg;", "no column chanel;", "no column nobody;", "a key cannot"):
        assert part in str(told.value)


def test_changes_that_do_not_fit_a_type_are_told(tenants):
    tenants.make("user", USER)
    step = tenants.step(
        "users",
        "user",
        "rootorgid",
        Change("channel", replace="first"),
        Change("isdeleted", constant="maybe"),
    )
    with pytest.raises(PreflightError) as told:
        tenants.plan(step)
    assert "channel: replace: first is for lists and sets" in str(told.value)
    assert "isdeleted: 'maybe' is no boolean" in str(told.value)


# -- rules ---------------------------------------------------------------------------------------


def test_only_the_named_columns_of_the_planned_rows_change(users):
    before = users.rows("user")
    done = users.run(users.steps[0])
    assert done.changes.changed == 3
    assert done.proof.reason == ""
    expected = {
        row_id: row | ({"rootorgid": NEW, "channel": "rj"} if row_id.startswith("old") else {})
        for row_id, row in before.items()
    }
    assert users.rows("user") == expected


def test_the_hashtag_of_associations_is_that_of_the_target_organisation(tenants):
    tenants.make(
        "user_org",
        USER_ORG,
        [
            {"id": "a", "userid": "u1", "organisationid": OLD, "hashtagid": "hash-old"},
            {"id": "b", "userid": "u1", "organisationid": NEW, "hashtagid": "hash-new"},
            {"id": "c", "userid": "u2", "organisationid": OLD, "isdeleted": True},
            {"id": "d", "userid": "u3", "organisationid": OTHER},
        ],
    )
    step = user_orgs_of(tenants)
    manifest = tenants.plan(step).manifest()
    assert manifest["looked_up"] == {"hashtagid": "hash-new"}
    # u1 has a row of the target already, and will have two.
    assert manifest["duplicates"] == 1
    duplicates = newest_plan(tenants.folder, step.name).path / "duplicates.csv"
    assert duplicates.read_text().splitlines() == ["id,userid", "a,u1"]
    assert tenants.apply(step).proof.holds
    rows = tenants.rows("user_org")
    assert {(rows[i]["organisationid"], rows[i]["hashtagid"]) for i in "abc"} == {(NEW, "hash-new")}
    assert rows["d"]["organisationid"] == OTHER


@pytest.mark.parametrize(
    ("hashtag", "reason"), [("null", "is null in the row"), (None, "no row with")]
)
def test_a_lookup_without_a_value_stops_the_plan(tenants, hashtag, reason):
    tenants.make("user_org", USER_ORG)
    tenants.make("other", ORGANISATION)
    if hashtag:
        tenants.execute(f"INSERT INTO KS.other (id, hashtagid) VALUES ('{NEW}', {hashtag})")
    other = TableName(tenants.keyspace, "other")
    step = tenants.step(
        "associations",
        "user_org",
        "organisationid",
        Change("hashtagid", lookup=Lookup(other, "hashtagid")),
    )
    with pytest.raises(PreflightError, match=reason):
        tenants.plan(step)


BATCHES = {
    "in-place": (["a", OLD, "b"], ["a", NEW, "b"]),
    "twice": ([OLD, "a", OLD], [NEW, "a", OLD]),
    "both": ([NEW, OLD], [NEW, NEW]),
    "only-new": ([NEW], [NEW]),
    "other": (["a"], ["a"]),
    "null": (None, None),
}


@pytest.mark.parametrize("by_course", [False, True])
def test_the_first_occurrence_in_a_list_changes_in_place(tenants, by_course):
    rows = [
        {"createdfor": before, "status": 1} | ({"batchid": name} if by_course else {"id": name})
        for name, (before, _) in BATCHES.items()
    ]
    if by_course:
        rows = [{"courseid": f"course-{number % 2}", **row} for number, row in enumerate(rows)]
    tenants.make("course_batch", BATCH_OF_COURSE if by_course else BATCH, rows)
    step = batches_of(tenants, id_column="batchid" if by_course else None)
    manifest = tenants.plan(step).manifest()
    assert tenants.ids(step) == ["both", "in-place", "twice"]
    assert [manifest[name] for name in ("planned", "doubles", "again", "already")] == [3, 1, 1, 1]
    assert tenants.apply(step).proof.reason == ""
    found = {name: row["createdfor"] for name, row in tenants.rows("course_batch").items()}
    assert found == {name: after for name, (_, after) in BATCHES.items()}


def test_a_key_of_several_columns_wants_to_know_which_one_is_the_id(tenants):
    tenants.make("course_batch", BATCH_OF_COURSE)
    with pytest.raises(PreflightError, match=r"say in id_column which one.*courseid, batchid"):
        tenants.plan(batches_of(tenants))


def test_a_set_that_names_both_tenants_names_the_target_once(tenants):
    tenants.make("course_batch", "id text PRIMARY KEY, createdfor set<text>, status int")
    tenants.execute(
        f"INSERT INTO KS.course_batch (id, createdfor) VALUES ('a', {{'{OLD}', '{NEW}', 'x'}})"
    )
    assert tenants.run(batches_of(tenants, "all")).proof.reason == ""
    assert set(tenants.rows("course_batch")["a"]["createdfor"]) == {NEW, "x"}


def test_the_organisation_gets_its_status_and_a_second_plan_finds_nothing(tenants):
    step = organisation_of(tenants)
    assert tenants.run(step).changes.changed == 1
    assert {i: row["status"] for i, row in tenants.rows("organisation").items()} == {
        OLD: 0,
        NEW: 1,
        OTHER: 1,
    }
    assert tenants.plan(step).manifest()["planned"] == 0
    assert read_progress(tenants.folder, step).state == "verified"


_TABLE = Table(
    TableName("k", "t"), "", (Column("id", "text"), Column("many", "list<text>")), ("id",), (), 0
)
_MOVE = Move("m", "s", OLD, NEW, TableName("k", "o"), (users_of(Tenants(None, None, "k", Path())),))  # type: ignore[arg-type]
_NAMES = st.lists(st.sampled_from([OLD, NEW, "a", "b", ""]))


def _replace(names: list[str], which: str) -> list[str]:
    change = compile_change(None, _MOVE, _TABLE, Change("many", replace=which), {})  # type: ignore[arg-type]
    kind = parse_type("list<text>")
    found = change(encode_value(names, kind))
    assert encode_value([*names], kind) == encode_value(names, kind)
    from migration_platform.cql.elements import read_elements

    return [element.decode() for element in read_elements(found)]


@given(_NAMES)
def test_replacing_all_changes_every_occurrence_and_nothing_else(names):
    assert _replace(names, "all") == [NEW if name == OLD else name for name in names]


@given(_NAMES)
def test_replacing_the_first_changes_one_place_at_most(names):
    expected = list(names)
    if OLD in expected:
        expected[expected.index(OLD)] = NEW
    assert _replace(names, "first") == expected


_CELLS = st.lists(st.none() | st.binary()).map(tuple)


@given(st.text(), _CELLS, _CELLS, _CELLS, st.booleans(), st.none() | st.binary())
def test_a_planned_row_survives_its_file(row_id, key, before, after, flag, value):
    row = PlannedRow(row_id, key, before, after, flag, not flag, value)
    assert PlannedRow.from_json(row.to_json()) == row


# -- compare and set -----------------------------------------------------------------------------


def test_a_row_that_somebody_changed_since_the_plan_is_left_alone_and_reported(users):
    users.plan(users.steps[0])
    users.execute("UPDATE KS.user SET channel = 'mine' WHERE id = 'old-1'")
    done = users.apply(users.steps[0])
    assert (done.changes.changed, done.changes.conflicts) == (2, 1)
    assert done.changes.samples == [f"old-1: rootorgid is {OLD}, channel is mine"]
    assert not done.proof.holds
    assert users.rows("user")["old-1"]["channel"] == "mine"
    # A new plan sees the row as it is now.
    assert users.run(users.steps[0]).proof.reason == ""
    assert users.rows("user")["old-1"]["rootorgid"] == NEW


def test_a_row_that_was_deleted_since_the_plan_is_not_made_again(users):
    users.plan(users.steps[0])
    users.execute("DELETE FROM KS.user WHERE id = 'old-1'")
    done = users.apply(users.steps[0])
    assert (done.changes.changed, done.changes.gone) == (2, 1)
    assert done.changes.samples == ["old-1 does not exist any more"]
    assert "old-1" not in users.rows("user")


def test_applying_a_plan_again_changes_nothing_and_keeps_the_backup(users):
    users.run(users.steps[0])
    plan = newest_plan(users.folder, "users")
    saved = {path: path.read_bytes() for path in (plan.path / "backup").iterdir()}
    again = users.apply(users.steps[0])
    assert again.proof.reason == ""
    assert {path: path.read_bytes() for path in (plan.path / "backup").iterdir()} == saved


def test_a_run_that_died_halfway_is_finished_by_the_next_with_the_first_backup(users):
    def die(rows: int) -> None:
        raise KeyboardInterrupt

    step = changed(users.steps[0], token_ranges=1)
    users.steps[:] = [step]
    users.plan(step)
    with pytest.raises(KeyboardInterrupt):
        users.apply(step, on_done=die)
    assert read_progress(users.folder, step).state == "planned"
    done = users.apply(step)
    # The first run's rows hold the wanted values already; which ones it was nobody told us.
    assert done.changes.done == 3
    assert done.changes.already >= 1
    assert done.proof.reason == ""
    assert users.restore(step).changed == 3
    assert {users.rows("user")[i]["rootorgid"] for i in ("old-1", "old-2", "old-3")} == {OLD}


def test_a_change_whose_answer_was_lost_is_counted_and_not_reported_as_a_conflict(users):
    lost: list[bytes] = []

    def lose(answer: bytes) -> bytes:
        if b"[applied]" in answer and not lost:
            lost.append(answer)
            proxy.cut()
            return b""
        return answer

    with proxy_before(users.connection.settings.port, lose) as proxy:
        settings = CassandraSettings(port=proxy.port)
        with Connection(settings) as through:
            users.plan(users.steps[0])
            done = users.apply(users.steps[0], through)
    assert lost
    assert done.changes.done == 3
    assert done.proof.reason == ""


def test_a_change_keeps_the_seconds_that_a_row_had_left(tenants):
    tenants.make("user", USER)
    tenants.execute(f"INSERT INTO KS.user (id, rootorgid) VALUES ('a', '{OLD}') USING TTL 5000")
    tenants.execute(f"INSERT INTO KS.user (id, rootorgid) VALUES ('b', '{OLD}')")
    step = users_of(tenants)
    assert tenants.run(step).proof.reason == ""
    found = tenants.reader.execute(f'SELECT id, ttl(rootorgid) AS t FROM "{tenants.keyspace}".user')
    left = {row["id"]: row["t"] for row in found}
    assert left["b"] is None
    assert 4900 < left["a"] <= 5000


# -- proof ---------------------------------------------------------------------------------------


def test_a_row_of_the_origin_that_came_after_the_plan_is_found(users):
    users.plan(users.steps[0])
    users.execute(f"INSERT INTO KS.user (id, rootorgid) VALUES ('late', '{OLD}')")
    proof = users.apply(users.steps[0]).proof
    assert (proof.left, proof.left_samples) == (1, ["late"])
    assert proof.reason == "rows still showing the origin tenant: 1"
    assert users.run(users.steps[0]).proof.reason == ""


def test_what_others_wrote_meanwhile_is_named_and_stops_nothing(users):
    users.plan(users.steps[0])
    users.execute("UPDATE KS.user SET name = 'new name' WHERE id = 'other-1'")
    users.execute("UPDATE KS.user SET isdeleted = true WHERE id = 'old-1'")
    proof = users.apply(users.steps[0]).proof
    assert sorted(proof.written_samples) == ["old-1", "other-1"]
    assert (proof.unexplained, proof.reason) == (0, "")


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE KS.user USING TIMESTAMP 9 SET name = 'x' WHERE id = 'none-2'",
        "DELETE FROM KS.user WHERE id = 'other-1'",
    ],
)
def test_a_change_of_another_row_that_no_later_write_explains_is_a_failure(users, harm):
    users.execute("INSERT INTO KS.user (id) VALUES ('none-2') USING TIMESTAMP 5")
    users.plan(users.steps[0])
    users.execute(harm)
    proof = users.apply(users.steps[0]).proof
    assert proof.unexplained == 1
    assert "groups of other rows that differ from what they were: 1" in proof.reason


def test_an_older_row_that_shows_the_target_unplanned_is_a_failure(users):
    users.plan(users.steps[0])
    users.execute(f"UPDATE KS.user SET rootorgid = '{NEW}' WHERE id = 'other-1'")
    proof = users.apply(users.steps[0]).proof
    assert (proof.intruders, proof.intruder_samples) == (1, ["other-1"])
    assert "without having been planned" in proof.reason


def test_a_new_row_of_the_target_is_counted_and_no_failure(users):
    users.plan(users.steps[0])
    users.execute(f"INSERT INTO KS.user (id, rootorgid) VALUES ('fresh', '{NEW}')")
    proof = users.apply(users.steps[0]).proof
    assert (proof.new, proof.intruders, proof.reason) == (1, 0, "")


# -- order ---------------------------------------------------------------------------------------


@pytest.fixture
def two_steps(users: Tenants) -> Tenants:
    organisation_of(users)
    return users


def test_a_step_without_its_plan_is_refused(users):
    with pytest.raises(DeclarationError, match="users has no plan yet: run the step with dry_run"):
        users.apply(users.steps[0])


def test_a_step_out_of_order_is_refused_until_the_one_before_is_verified(two_steps):
    first, second = two_steps.steps
    two_steps.plan(second)
    with pytest.raises(DeclarationError, match="comes after users, and users has no plan yet"):
        two_steps.apply(second)
    two_steps.plan(first)
    with pytest.raises(DeclarationError, match="users is planned but not applied"):
        two_steps.apply(second)
    two_steps.execute("UPDATE KS.user SET channel = 'mine' WHERE id = 'old-1'")
    two_steps.apply(first)
    with pytest.raises(DeclarationError, match="users is not as it should be"):
        two_steps.apply(second)
    two_steps.run(first)
    assert two_steps.apply(second).proof.reason == ""
    two_steps.restore(first)
    with pytest.raises(DeclarationError, match="users was rolled back"):
        two_steps.apply(second)


def test_a_plan_of_other_rules_is_refused(users):
    users.plan(users.steps[0])
    users.steps[0] = changed(users.steps[0], changes=(Change("rootorgid", replace="value"),))
    with pytest.raises(DeclarationError, match="the declaration of users has changed since"):
        users.apply(users.steps[0])


def test_a_plan_of_a_table_that_was_made_anew_is_refused(users):
    users.plan(users.steps[0])
    users.execute("DROP TABLE KS.user")
    users.make("user", USER, USERS)
    with pytest.raises(DeclarationError, match="was made anew since the plan"):
        users.apply(users.steps[0])


def test_a_plan_whose_looked_up_value_has_changed_is_refused(tenants):
    tenants.make("user_org", USER_ORG)
    step = user_orgs_of(tenants)
    tenants.plan(step)
    tenants.execute(f"UPDATE KS.organisation SET hashtagid = 'h2' WHERE id = '{NEW}'")
    with pytest.raises(DeclarationError, match="what user_organisations looks up has changed"):
        tenants.apply(step)


def test_two_runs_of_one_step_do_not_work_at_once(users):
    with (
        sole_writer(users.folder, "users"),
        pytest.raises(DeclarationError, match="another run works on the step users"),
        sole_writer(users.folder, "users"),
    ):
        pass


@pytest.mark.parametrize("kind", ["plan", "backup"])
def test_a_file_that_was_changed_is_not_believed(users, kind):
    users.plan(users.steps[0])
    if kind == "backup":
        users.apply(users.steps[0])
    plan = newest_plan(users.folder, "users")
    for path in (plan.path / kind).glob("*.jsonl"):
        path.write_text(path.read_text().replace("old-1", "old-9") + " ")
    before = users.rows("user")
    with pytest.raises(MigrationError, match="is not as it was written"):
        users.restore(users.steps[0]) if kind == "backup" else users.apply(users.steps[0])
    assert users.rows("user") == before


# -- rollback ------------------------------------------------------------------------------------


def test_a_rollback_puts_back_what_the_move_wrote_and_nothing_else(users):
    before = users.rows("user")
    users.run(users.steps[0])
    users.execute("UPDATE KS.user SET channel = 'mine' WHERE id = 'old-2'")
    assert users.restore(users.steps[0], dry_run=True).changed == 3
    assert users.rows("user")["old-1"]["rootorgid"] == NEW
    restored = users.restore(users.steps[0])
    assert (restored.changed, restored.conflicts) == (2, 1)
    assert users.rows("user") == before | {
        "old-2": before["old-2"] | {"rootorgid": NEW, "channel": "mine"}
    }
    # The old writetimes are evidence: what is put back is written now.
    assert users.restore(users.steps[0]).changed == 0


def test_a_rollback_leaves_alone_what_the_move_left_alone(users):
    users.plan(users.steps[0])
    users.execute("UPDATE KS.user SET channel = 'mine' WHERE id = 'old-1'")
    users.apply(users.steps[0])
    users.restore(users.steps[0])
    assert users.rows("user")["old-1"]["channel"] == "mine"


def test_lists_come_back_with_their_order(tenants):
    rows = [{"id": "a", "createdfor": ["x", OLD, "y"]}, {"id": "b", "createdfor": [OLD]}]
    tenants.make("course_batch", BATCH, rows)
    step = batches_of(tenants)
    tenants.run(step)
    tenants.restore(step)
    found = {i: row["createdfor"] for i, row in tenants.rows("course_batch").items()}
    assert found == {"a": ["x", OLD, "y"], "b": [OLD]}


def test_a_backup_names_values_and_writetimes_and_is_checked_by_any_tool(users):
    import hashlib
    import json

    users.execute(
        f"INSERT INTO KS.user (id, rootorgid) VALUES ('old-1', '{OLD}') "
        "USING TIMESTAMP 1700000000000000"
    )
    users.execute("DELETE rootorgid FROM KS.user USING TIMESTAMP 5 WHERE id = 'old-1'")
    users.run(users.steps[0])
    folder = newest_plan(users.folder, "users").path / "backup"
    sums = dict(
        reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines()
    )
    assert sums == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.jsonl")
    }
    lines = [
        json.loads(x) for path in folder.glob("*.jsonl") for x in path.read_text().splitlines()
    ]
    assert {line["id"] for line in lines} == {"old-1", "old-2", "old-3"}
    assert bytes.fromhex(lines[0]["cells"][0]).decode() == OLD
    assert all(isinstance(line["writetimes"][0], int) for line in lines)


# -- what must not happen --------------------------------------------------------------------------


def test_a_planned_row_that_holds_something_else_is_not_counted_as_done(users):
    # A writetime ahead of now wins over the update, which says all the same that it was applied.
    ahead = int(time.time() * 1e6) + 10**12
    users.execute(f"UPDATE KS.user USING TIMESTAMP {ahead} SET channel='x' WHERE id='old-1'")
    done = users.run(users.steps[0])
    assert users.rows("user")["old-1"]["channel"] == "x"
    assert not done.proof.holds


def test_a_second_proof_notices_that_a_planned_row_was_changed_again(users):
    step = users.steps[0]
    users.run(step)
    users.execute("UPDATE KS.user SET rootorgid='third', channel='x' WHERE id='old-1'")
    assert not users.apply(step).proof.holds


def test_a_row_that_has_left_the_origin_since_the_plan_is_left_alone(users):
    users.steps.clear()
    step = users.step("channels", "user", "rootorgid", Change("channel", constant="rj"))
    users.plan(step)
    users.execute("UPDATE KS.user SET rootorgid='third' WHERE id='old-1'")
    assert users.apply(step).changes.conflicts == 1
    assert users.rows("user")["old-1"]["channel"] == "etb"


def test_a_row_of_nulls_only_is_refused_for_it_could_be_made_again_after_its_deletion(users):
    users.execute(f"UPDATE KS.organisation SET status = null WHERE id = '{OLD}'")
    with pytest.raises(PreflightError, match="is null in status, so that no condition"):
        users.plan(organisation_of(users))


@pytest.mark.parametrize("what", ["ranges", "order", "fewer"])
def test_a_rollback_under_another_declaration_is_refused_and_then_possible(users, what):
    step, before = users.steps[0], users.rows("user")
    users.run(step)
    other = {
        "ranges": {"token_ranges": 3},
        "order": {"changes": step.changes[::-1]},
        "fewer": {"changes": step.changes[:1]},
    }[what]
    users.steps[0] = changed(step, **other)
    with pytest.raises(DeclarationError, match="declare the step as it was, roll back"):
        users.restore(users.steps[0])
    users.steps[0] = step
    users.restore(step)
    assert users.rows("user") == before


def test_a_step_whose_rollback_was_cut_short_is_not_verified(users, monkeypatch):
    step = users.steps[0] = changed(users.steps[0], token_ranges=1)
    users.run(step)

    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "count_restored", die)
    with pytest.raises(KeyboardInterrupt):
        users.restore(step)
    assert users.rows("user")["old-1"]["rootorgid"] == OLD
    assert read_progress(users.folder, step).state != "verified"


def test_a_row_that_differed_only_at_the_backup_comes_back_or_is_reported(users):
    step = users.steps[0] = changed(users.steps[0], token_ranges=1)
    users.plan(step)
    users.execute("UPDATE KS.user SET channel='tmp' WHERE id='old-1'")
    plan, shape = (
        newest_plan(users.folder, "users"),
        shape_table(users.connection, users.move, step),
    )
    (whole,) = step.ranges
    apply_table_range(users.connection, users.move, shape, plan, whole, changes=False)
    users.execute("UPDATE KS.user SET channel='etb' WHERE id='old-1'")
    users.apply(step)
    restored = users.restore(step)
    assert users.rows("user")["old-1"]["rootorgid"] == OLD or not restored.complete


def test_a_row_that_expires_is_not_kept_by_a_column_that_was_null(users):
    users.execute(f"INSERT INTO KS.user (id, rootorgid) VALUES ('t', '{OLD}') USING TTL 3000")
    users.steps.clear()
    users.run(users.step("channels", "user", "rootorgid", Change("channel", constant="rj")))
    (row,) = users.reader.execute(
        f"SELECT ttl(channel) AS left FROM \"{users.keyspace}\".user WHERE id='t'"
    )
    assert row["left"]


def test_a_folder_that_cannot_be_written_is_told_in_a_sentence(users):
    step = users.steps[0]
    users.folder.write_text("a file where the folder should be")
    with pytest.raises(MigrationError, match="cannot write"), sole_writer(users.folder, "users"):
        users.plan(step)
