"""Runs with a filter of their own, and ranges that count because their rows were compared equal."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg
import pytest

from migration_platform.components.table.ledger import (
    COMPARED_OVER,
    COMPARISON,
    FINGERPRINT,
    RangeState,
    read_newest_copies,
    read_states,
)
from migration_platform.token_ranges import range_of_key, split_ring
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    KEYS,
    RANGES,
    ROWS,
    Move,
)
from migration_platform_tests.servers import REPOSITORY

pytestmark = DAGSTERS_OWN_WARNINGS

CHECKS = ("row_counts_match", "all_ranges_match")
SINCE = "2030-01-01T00:00:00Z"
LATER_US = 1_900_000_000_000_000
"""A moment after `SINCE`, in microseconds."""
ONLY_THERE = "rows that only the target has"
TIMES = "writetimes and TTLs"
OVER = f" Not looked at: {TIMES}."
OF_RUN = f" Filter of this run alone: writetimes {SINCE} to any; declared is: all rows."
EQUAL = f" {RANGES} of {RANGES} ranges were compared equal, not copied, under this declaration."


def write_later(move: Move, number: int) -> None:
    """Write rows into the origin that are newer than `SINCE`, among all ranges."""
    for n in range(number):
        move.execute(
            "INSERT INTO {origin} (userid, courseid, batchid, progress) "
            f"VALUES ('later-{n}', 'c', 'b', {n}) USING TIMESTAMP {LATER_US + n}"
        )


def later(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["userid"].startswith("later-")]


def judged_now(move: Move, name: str = "all_ranges_match") -> tuple[bool, str]:
    """Judge the table under its declaration, with nothing copied or compared."""
    move.project.run(None, only_checks=True).assert_success()
    return move.check(name)[:2]


# -- one run with another filter -----------------------------------------------------------------


def test_an_increment_copies_what_was_written_since_and_the_end_needs_no_second_copy(
    move: Move,
) -> None:
    move.project.run().assert_success()
    write_later(move, 20)
    read = move.step_config(filter={"writetime_from": SINCE})

    run = move.project.run(config=read).assert_success()

    move.assert_same_rows()
    copies = run.materializations(move.target)
    assert sum(found["rows_written"] for found in copies.values()) == 20
    assert {found["filter"] for found in copies.values()} == {f"writetimes {SINCE} to any"}
    assert {found["declared_filter"] for found in copies.values()} == {"all rows"}
    assert move.check("row_counts_match")[:2] == (
        True,
        f"20 rows of the origin are in the target.{OF_RUN} Not looked at: {ONLY_THERE}.",
    )
    assert move.check("all_ranges_match")[:2] == (
        True,
        f"All {RANGES} ranges match: 20 rows.{OF_RUN} Not looked at: {ONLY_THERE}; {TIMES}.",
    )
    assert OF_RUN.strip() in move.project.messages_of(run.run_id)
    # Under the declaration nothing of that counts.
    assert judged_now(move)[1].startswith(f"{RANGES} of {RANGES} ranges are not copied")

    compared = move.project.run(assets=[move.diff]).assert_success()

    assert compared.materializations(move.target) == {}
    total = ROWS + 20
    assert judged_now(move, "row_counts_match") == (True, f"{total} rows on both sides.{EQUAL}")
    assert judged_now(move) == (True, f"All {RANGES} ranges match: {total} rows.{EQUAL}{OVER}")
    assert move.check("all_ranges_match")[2]["ranges_compared_equal"] == RANGES


def test_a_token_window_is_compared_in_both_directions_and_nothing_beyond_it_is_touched(
    move: Move,
) -> None:
    window = range_of_key(KEYS[2])
    chosen = {"token_min": window.start + 1, "token_max": str(window.end)}

    move.project.run(config=move.step_config(filter=chosen)).assert_success()

    assert move.target_rows() == move.origin_rows(KEYS[2])
    passed, sentence, metadata = move.check("all_ranges_match")
    assert passed
    words = f"tokens {window.start + 1} to {window.end}"
    assert sentence.endswith(f" Filter of this run alone: {words}; declared is: all rows.{OVER}")
    assert (metadata["filter"], metadata["declared_filter"]) == (words, "all rows")
    assert judged_now(move)[1].startswith(f"{RANGES} of {RANGES} ranges are not copied")


def test_a_runs_own_filter_takes_the_place_of_the_declared_one_and_none_takes_all(
    move: Move,
) -> None:
    move.declare(filter={"where": "progress < 3"})
    run = move.project.run(KEYS[1], config=move.step_config(filter={})).assert_success()

    assert move.target_rows() == move.origin_rows(KEYS[1])
    found = run.materializations(move.target)[KEYS[1]]
    assert found["declared_filter"] == "where progress < 3"
    assert "filter" not in found
    assert move.check("all_ranges_match")[1] == (
        f"7 of {RANGES} ranges are not copied: {KEYS[0]}, {KEYS[2]}...{KEYS[7]}; materialize them. "
        "Filter of this run alone: all rows; declared is: where progress < 3"
    )


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ("token_min", "filter must be a block with where, token_min, token_max"),
        (
            {"token_mim": 1},
            "there is no attribute filter.token_mim; did you mean filter.token_min?",
        ),
        ({"coverage_percent": 0}, "filter.coverage_percent is 0; valid are 1 to 100"),
        ({"token_min": 5, "token_max": 4}, "filter.token_min is beyond filter.token_max"),
        ({"writetime_from": "yesterday"}, "filter.writetime_from is 'yesterday'; write micro"),
        ({"where": "a = 1; b"}, "filter.where has ';'; it must be conditions joined by AND"),
        ({"column": {"name": "a"}}, "filter.column.value is missing"),
        ({"token_min": "{{ env.LOW }}"}, "filter has a template; an op config has none"),
        ({"where": "nothing = 1"}, "Undefined column name nothing"),
    ],
)
def test_a_runs_own_filter_is_refused_like_a_declared_one_before_anything_is_read(
    move: Move, chosen: Any, sentence: str
) -> None:
    run = move.project.run(config=move.step_config(filter=chosen))

    assert not run.success
    assert sentence in run.error
    assert "Traceback" not in run.error
    assert run.materializations(move.target) == {}
    assert move.target_rows() == []
    step = "__".join([*move.target.path[:-1], f"{move.target_name}_plan"])
    plan = move.project.run(
        None, assets=[plan_of(move)], config={"ops": {step: {"config": {"filter": chosen}}}}
    )
    assert not plan.success
    assert sentence in plan.error


def test_a_plan_with_a_filter_of_its_own_counts_what_such_a_run_would_copy(move: Move) -> None:
    write_later(move, 7)
    step = "__".join([*move.target.path[:-1], f"{move.target_name}_plan"])
    config = {"filter": {"writetime_from": SINCE}, "rehearse": True}

    run = move.project.run(
        None, assets=[plan_of(move)], config={"ops": {step: {"config": config}}}
    ).assert_success()

    (planned,) = run.materializations(plan_of(move)).values()
    assert (planned["rows_to_write"], planned["rows_filtered"]) == (7, ROWS)
    assert planned["filter"] == f"writetimes {SINCE} to any"
    assert planned["declared_filter"] == "all rows"


def test_a_declared_truncation_is_refused_beside_a_filter_of_the_run_alone(move: Move) -> None:
    move.declare(truncate_target=True)
    move.project.run().assert_success()

    chosen = {"writetime_from": SINCE}
    run = move.project.run(config=move.step_config(filter=chosen))

    assert not run.success
    assert "truncate_target is declared, and would take all rows" in run.error
    move.assert_same_rows()
    allowed = move.step_config(filter=chosen, truncate_target=False)
    move.project.run(config=allowed).assert_success()
    move.assert_same_rows()


def test_an_increment_that_chooses_rows_repairs_but_deletes_none(move: Move) -> None:
    move.declare(diff={"repair": ["missing", "extra"], "repair_writetime": "now"})
    move.project.run().assert_success()
    write_later(move, 3)

    run = move.project.run(
        assets=[move.diff], config=move.step_config(filter={"writetime_from": SINCE})
    ).assert_success()

    move.assert_same_rows()
    assert sum(
        found.get("corrected_missing", 0) for found in run.materializations(move.diff).values()
    ) == len(later(move.target_rows()))


def plan_of(move: Move) -> dg.AssetKey:
    return dg.AssetKey([*move.target.path[:-1], f"{move.target_name}_plan"])


# -- the page --------------------------------------------------------------------------------------


def commands_of_the_page(keyspace: str) -> list[list[str]]:
    """Give the commands of docs/increments.md in order, in words, for another target keyspace."""
    text = (REPOSITORY / "docs" / "increments.md").read_text("utf-8")
    blocks = re.findall(r"^```shell\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", "").replace("new_shop", keyspace).splitlines()
    return [shlex.split(line) for line in lines]


def launch(move: Move, words: list[str]) -> None:
    """Do what `dg launch` does with these words, within this process."""
    assert words[:3] == ["dg", "launch", "--assets"]
    options = dict(zip(words[4::2], words[5::2], strict=True))
    move.project.run(
        options.get("--partition-range"),
        assets=[dg.AssetKey.from_user_string(name) for name in words[3].split(",")],
        config=json.loads(options.get("--config-json", "{}")),
    ).assert_success()


def judged_of(move: Move, target: dg.AssetKey) -> tuple[bool, str]:
    key = dg.AssetCheckKey(target, "all_ranges_match")
    with move.project.instance() as instance:
        storage = instance.event_log_storage
        record = storage.get_latest_asset_check_execution_by_key([key])[key]
    assert record.event is not None
    assert record.event.dagster_event is not None
    found = record.event.dagster_event.asset_check_evaluation_data
    return found.passed, found.description or ""


def test_the_commands_of_the_page_lead_from_a_first_copy_to_a_green_table(move: Move) -> None:
    cluster = {"contact_points": ["127.0.0.1"], "port": move.connection.settings.port}
    move.project.declare("stores", "Stores", cassandra={"old": cluster, "new": cluster})
    for name in ("orders_before", "orders"):
        move.execute(f"CREATE TABLE {move.keyspace}.{name} (id int PRIMARY KEY, item text)")
    move.project.declare(
        "enrolments",
        "TableMigration",
        origin={"store": "old", "table": f"{move.keyspace}.orders_before"},
        target={"store": "new", "table": f"{move.keyspace}.orders"},
    )

    def insert(ids: range, day: str) -> None:
        at = int(datetime.fromisoformat(f"{day}Z").timestamp()) * 1_000_000
        for number in ids:
            move.execute(
                f"INSERT INTO {move.keyspace}.orders_before (id, item) VALUES ({number}, 'x') "
                f"USING TIMESTAMP {at}"
            )

    full, *increments, end = commands_of_the_page(move.keyspace)
    assert len(increments) == 4
    insert(range(40), "2026-10-01T12:00:00")
    launch(move, full)
    insert(range(40, 60), "2026-11-01T07:00:00")
    for words in increments:
        launch(move, words)
    move.project.run_dg(*end[1:]).assert_success()

    rows = {row["id"] for row in move.reader.execute(f"SELECT id FROM {move.keyspace}.orders")}
    assert rows == set(range(60))
    target = dg.AssetKey(["new", move.keyspace, "orders"])
    passed, sentence = judged_of(move, target)
    assert passed
    assert sentence == (
        "All 64 ranges match: 60 rows. 64 of 64 ranges were compared equal, not copied, under this "
        f"declaration.{OVER}"
    )


# -- tracked increments --------------------------------------------------------------------------


def test_an_increment_is_resumed_under_its_own_filter_only(move: Move) -> None:
    move.project.run().assert_success()
    write_later(move, 20)
    chosen = {"writetime_from": SINCE}
    move.execute(
        "INSERT INTO {origin} (userid, courseid, batchid) VALUES ('later-0', 'c', '') "
        f"USING TIMESTAMP {LATER_US}"
    )
    run = move.project.run(config=move.step_config(filter=chosen))
    assert not run.success
    (bad,) = {*KEYS} - set(run.materializations(move.target))
    move.execute(
        f"DELETE FROM {{origin}} USING TIMESTAMP {LATER_US} "
        "WHERE userid = 'later-0' AND courseid = 'c' AND batchid = ''"
    )

    resumed = move.project.run(config=move.step_config(filter=chosen, resume="auto"))

    copies = resumed.assert_success().materializations(move.target)
    assert {key for key in KEYS if "carried_over_from" not in copies[key]} == {bad}
    assert move.check("all_ranges_match")[0]
    assert "PARAM -- Coverage Percent: 100" in move.project.messages_of(resumed.run_id)
    # Under the declaration, what the increment touched is no longer what was copied before.
    full = move.project.run(config=move.step_config(resume="auto")).assert_success()
    assert not any("carried_over_from" in m for m in full.materializations(move.target).values())
    assert judged_now(move) == (True, f"All {RANGES} ranges match: {ROWS + 20} rows.{OVER}")


# -- ranges that count because they were compared equal ------------------------------------------


(THE_RANGE,) = split_ring(1)
KEY = THE_RANGE.key
PARTITIONS = dg.StaticPartitionsDefinition([KEY])
TARGET, DIFF = dg.AssetKey(["there", "t"]), dg.AssetKey(["there", "t_diff"])
NOW, OLD = "fingerprint", "another fingerprint"


@dg.asset(key=TARGET, partitions_def=PARTITIONS)
def copy_step() -> None:
    """Stand for the step of a run, which is planned here and never executed."""


@dataclass
class Log:
    """An event log into which a case writes what runs would have written of one range."""

    instance: dg.DagsterInstance
    over: int | None = None

    def copied(self, fingerprint: str = NOW, **more: Any) -> None:
        metadata = {FINGERPRINT: fingerprint, "rows_written": 3, **more}
        self._report(dg.AssetMaterialization(TARGET, partition=KEY, metadata=metadata))

    def noted(self, **more: Any) -> None:
        metadata = {FINGERPRINT: NOW, **more}
        self._report(dg.AssetObservation(TARGET, partition=KEY, metadata=metadata))

    def begins_to_compare(self) -> None:
        self.over = read_newest_copies(self.instance, TARGET, [KEY], PARTITIONS).get(KEY)

    def compared(self, *, equal: bool = True, **more: Any) -> None:
        """Write a verdict, of a comparison that began just before unless it began already."""
        if self.over is None:
            self.begins_to_compare()
        over = {} if self.over is None else {COMPARED_OVER: str(self.over)}
        self.over = None
        metadata = {
            FINGERPRINT: NOW,
            COMPARISON: "two_way",
            "origin_rows": 3,
            "target_rows": 3,
            **over,
            **more,
        }
        metadata = {name: value for name, value in metadata.items() if value is not None}
        kind = dg.AssetMaterialization if equal else dg.AssetObservation
        self._report(kind(DIFF, partition=KEY, metadata=metadata))

    def planned(self) -> dg.DagsterRun:
        """Plan a copy, as every run does before it begins."""
        job = dg.Definitions(assets=[copy_step]).resolve_implicit_global_asset_job_def()
        return self.instance.create_run_for_job(
            job.get_subset(asset_selection={TARGET}),
            status=dg.DagsterRunStatus.STARTED,
            tags={"dagster/partition": KEY},
            asset_selection=frozenset({TARGET}),
        )

    def killed(self) -> None:
        self.instance.report_run_failed(self.planned())

    def state(self) -> RangeState:
        (found,) = read_states(
            self.instance,
            target=TARGET,
            diff=DIFF,
            ranges=[THE_RANGE],
            partitions=PARTITIONS,
            fingerprint=NOW,
            comparison="two_way",
            run_id="a run",
        )
        return found

    def _report(self, event: dg.AssetMaterialization | dg.AssetObservation) -> None:
        self.instance.report_runless_asset_event(event)


def increment(log: Log) -> None:
    log.copied()
    log.copied(OLD)


def overlapping(log: Log) -> None:
    log.copied(OLD)
    log.begins_to_compare()
    log.copied(OLD)
    log.compared()


def emptied_meanwhile(log: Log) -> None:
    log.begins_to_compare()
    log.noted(emptied=True)
    log.compared()


def beside_a_copy(log: Log) -> None:
    run = log.planned()
    log.compared()
    log.instance.report_run_failed(run)


CASES: dict[str, tuple[list[Callable[[Log], Any]], str]] = {
    "nothing": ([], "not copied"),
    "copied and compared": ([Log.copied, Log.compared], "verified"),
    "compared equal and never copied": ([Log.compared], "equal verified"),
    "an increment, then compared equal": ([increment, Log.compared], "equal verified"),
    "an increment after that": ([Log.compared, increment], "not copied"),
    "a copy after that": ([Log.compared, Log.copied], "copied"),
    "emptied before it": ([lambda log: log.noted(emptied=True), Log.compared], "equal verified"),
    "emptied after it": ([Log.compared, lambda log: log.noted(emptied=True)], "failing"),
    "emptied meanwhile": ([emptied_meanwhile], "failing"),
    "a failed copy before it": (
        [lambda log: log.noted(failed="x"), Log.compared],
        "equal verified",
    ),
    "a failed copy after it": ([Log.compared, lambda log: log.noted(failed="x")], "failing"),
    "a copy killed before it": ([Log.copied, Log.killed, Log.compared], "equal verified"),
    "a copy killed after it": ([Log.compared, Log.killed], "failing"),
    "a copy that is under way": ([Log.compared, Log.planned], "running"),
    "compared while a copy was under way": ([beside_a_copy], "failing"),
    "a copy while it was compared": ([overlapping], "not copied"),
    "one way": (
        [lambda log: log.compared(target_rows=None, rows_found_in_the_target=3)],
        "not copied",
    ),
    "another way to compare": ([lambda log: log.compared(comparison="origin_only")], "not copied"),
    "under another declaration": ([lambda log: log.compared(declaration=OLD)], "not copied"),
    "a part of the range": ([lambda log: log.compared(filter="tokens 1 to 2")], "not copied"),
    "rows too new to judge": ([lambda log: log.compared(ignored_newer=1)], "not copied"),
    "a verdict of an earlier version": (
        [lambda log: log.compared(compared_over_event=None)],
        "not copied",
    ),
    "different": ([lambda log: log.compared(equal=False)], "not copied"),
    "different after it": (
        [Log.compared, lambda log: log.compared(equal=False)],
        "equal failing",
    ),
    "equal again": (
        [Log.compared, lambda log: log.compared(equal=False), Log.compared],
        "equal verified",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_range_counts_as_copied_only_while_nothing_happened_since_all_its_rows_were_equal(
    name: str,
) -> None:
    steps, expected = CASES[name]
    with dg.DagsterInstance.ephemeral() as instance:
        log = Log(instance)
        for step in steps:
            step(log)
        state = log.state()

    assert f"{'equal ' if state.equal else ''}{state.state}" == expected
    assert state.copied == (state.equal or expected in ("copied", "verified"))
    assert state.rows == (3 if state.copied else 0)


def test_what_was_compared_equal_counts_no_more_once_the_target_was_emptied(move: Move) -> None:
    move.project.run().assert_success()
    move.project.run(config=move.step_config(filter={"coverage_percent": 50})).assert_success()
    move.project.run(assets=[move.diff]).assert_success()
    assert judged_now(move)[0]
    # A verdict that is carried over stands for the copy as it did before.
    resumed = move.project.run(assets=[move.diff], config=move.step_config(resume="auto"))
    resumed.assert_success()
    assert judged_now(move)[1].startswith(f"All {RANGES} ranges match: {ROWS} rows.{EQUAL}")

    move.add_a_row_that_the_target_refuses(KEYS[2])
    run = move.project.run(config=move.step_config(truncate_target=True), assets=[move.target])

    assert not run.success
    assert judged_now(move)[1].startswith(f"1 of {RANGES} ranges are not copied: {KEYS[2]}")
