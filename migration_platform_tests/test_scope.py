"""What a verdict says that it is true of: every attribute that narrows it is named, none is not."""

from dataclasses import fields, replace

import pytest

from migration_platform.comparing.scope import MAX_SHOWN, Scope, describe_filter, describe_scope
from migration_platform.declaration.columns import Columns, ExplodeMap, ExtractJson
from migration_platform.declaration.filters import ColumnFilter, Filter
from migration_platform.declaration.migration import Guardrails
from migration_platform.token_ranges import MAX_TOKEN, MIN_TOKEN
from migration_platform_tests.tables import create_table, declare, plan_copy

TIMES = "writetimes and TTLs"
PLAIN = "k int PRIMARY KEY, v int, w text"
NARROWER = {
    "where": ("v > 3  AND\n w = 'a'", "where v > 3 AND w = 'a'"),
    "token_min": (-5, f"tokens -5 to {MAX_TOKEN}"),
    "token_max": (5, f"tokens {MIN_TOKEN} to 5"),
    "coverage_percent": (10, "the low 10 % of each range"),
    "writetime_from": (
        1_767_225_600_000_000,
        "writetimes 2026-01-01T00:00:00Z to any",
    ),
    "writetime_to": (
        1_767_225_600_000_001,
        "writetimes any to 2026-01-01T00:00:00.000001Z",
    ),
    "column": (ColumnFilter("w", "test"), "without rows whose w is 'test'"),
}


def test_every_part_of_a_filter_has_its_words() -> None:
    assert NARROWER.keys() == {field.name for field in fields(Filter)}


@pytest.mark.parametrize("name", NARROWER)
def test_each_part_of_a_filter_is_named(name, connection, keyspace) -> None:
    value, words = NARROWER[name]
    origin = create_table(connection, keyspace, "a", PLAIN)
    target = create_table(connection, keyspace, "b", PLAIN)

    plan = plan_copy(connection, origin, target, filter=replace(Filter(), **{name: value}))

    scope = describe_scope(plan)
    assert scope.chosen == describe_filter(plan.migration) == (words,)
    assert scope.ending() == f" Filter: {words}. Not looked at: {TIMES}."
    assert scope.of_counts.ending() == f" Filter: {words}."
    assert scope.metadata == {"filter": words, "not_looked_at": TIMES}


def test_what_takes_every_row_has_no_filter(connection, keyspace) -> None:
    origin = create_table(connection, keyspace, "a", PLAIN)
    plan = plan_copy(connection, origin, create_table(connection, keyspace, "b", PLAIN))
    assert describe_scope(plan) == Scope(passed_over=(TIMES,))


def test_long_conditions_and_times_beyond_every_calendar_are_shown_in_short() -> None:
    from migration_platform.cql.names import TableName

    long = Filter(where=f"w = '{'x' * 1_000}'", writetime_to=MAX_TOKEN)
    where, times = describe_filter(declare(TableName("a", "b"), TableName("a", "c"), filter=long))
    assert len(where) == MAX_SHOWN + len("where ")
    assert times == f"writetimes any to {MAX_TOKEN} µs"


WIDE = "k int PRIMARY KEY, " + ", ".join(f"c{n} int" for n in range(8))
STATIC = "k int, c int, s text static, v int, PRIMARY KEY (k, c)"
MODES = {
    "one way": (PLAIN, PLAIN, {"diff_mode": "origin_only"}, Scope(
        one_way=True, passed_over=(TIMES,))),
    "large cells are skipped": (
        PLAIN, PLAIN, {"guardrails": Guardrails(1000, "skip")},
        Scope(("without rows that have a cell of more than 1,000 kB",), passed_over=(TIMES,))),
    "large cells are reported": (
        PLAIN, PLAIN, {"guardrails": Guardrails(1000)}, Scope(passed_over=(TIMES,))),
    "a column is skipped": (
        PLAIN, "k int PRIMARY KEY, w text", {"columns": Columns(skip=("v",))},
        Scope(passed_over=("the origin's column v, which is not copied", TIMES))),
    "many columns are skipped": (
        WIDE, "k int PRIMARY KEY, c7 int",
        {"columns": Columns(skip=tuple(f"c{n}" for n in range(7)))},
        Scope(passed_over=(
            "the origin's columns c0, c1, c2, c3, c4 and 2 more, which are not copied", TIMES))),
    "the target has a column more": (
        "k int PRIMARY KEY, v int", PLAIN, {},
        Scope(passed_over=("the target's column w, which nothing fills", TIMES))),
    "nothing is kept": (PLAIN, PLAIN, {"writetime": "now", "ttl": "none"}, Scope()),
    "times are compared": (PLAIN, PLAIN, {"compare_writetime": True}, Scope(with_times=True)),
    "times are compared, but not of lists": (
        "k int PRIMARY KEY, l list<int>, v int", "k int PRIMARY KEY, l list<int>, v int",
        {"compare_writetime": True},
        Scope(with_times=True, passed_over=("writetimes and TTLs of l",))),
    "counters": (
        "k int PRIMARY KEY, n counter", "k int PRIMARY KEY, n counter",
        {"compare_writetime": True}, Scope()),
    "static cells": (
        STATIC, STATIC, {},
        Scope(beside=" and the static cells of their partitions", passed_over=(TIMES,))),
    "entries of a map": (
        "k int PRIMARY KEY, m map<text, int>", "k int, e text, n int, PRIMARY KEY (k, e)",
        {"columns": Columns(explode_map=ExplodeMap("m", "e", "n"))},
        Scope(made_of=", one for each entry of m", passed_over=(TIMES,))),
    "properties of a JSON, and nothing else": (
        "k int PRIMARY KEY, v int, j text", "k int PRIMARY KEY, mail text",
        {"columns": Columns(
            extract_json=ExtractJson("j", {"mail": "mail"}, exclusive=True, overwrite=True))},
        Scope(passed_over=(
            "the origin's column v, which is not copied", "other properties of j than mail",
            TIMES))),
    "properties that do not overwrite": (
        "k int PRIMARY KEY, j text", "k int PRIMARY KEY, j text, mail text",
        {"columns": Columns(extract_json=ExtractJson("j", {"mail": "mail"}))},
        Scope(passed_over=("what the target held already in mail", TIMES))),
    "rows that become one": (
        "k int, c int, v int, PRIMARY KEY (k, c)", "k int PRIMARY KEY, v int",
        {"collisions": "newest", "columns": Columns(skip=("c",))},
        Scope(("of rows that become one the newest",),
              passed_over=("the origin's column c, which is not copied", TIMES))),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_says_what_it_compares_and_what_it_passes_over(
    mode, connection, keyspace
) -> None:
    here, there, options, expected = MODES[mode]
    origin = create_table(connection, keyspace, "a", here)
    target = create_table(connection, keyspace, "b", there)
    assert describe_scope(plan_copy(connection, origin, target, **options)) == expected
