"""Which bytes are one value: found out on a real server, for every type and place."""

import re
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_platform.cql.elements import read_elements, write_elements, write_entries
from migration_platform.cql.forms import (
    comparable_element,
    order_is_known,
    usual_elements,
    usual_form,
)
from migration_platform.cql.order import sort_key
from migration_platform.cql.types import parse_type
from migration_platform_tests.cells import many_tables
from migration_platform_tests.forms import CASES, Forms, decimal, integer, raw_rows, run

CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def tables(connection):
    with many_tables(connection) as tables:
        tables.add_type("two", "a int, b int")
        yield tables


def groups(case: Forms) -> set[frozenset[bytes]]:
    return {frozenset(forms) for forms in case.values}


def group(forms, is_one) -> set[frozenset[bytes]]:
    """Put forms together of which the server makes one."""
    found = {form: {form} for form in forms}
    for a, b in combinations(forms, 2):
        if is_one(a, b):
            found[a].add(b)
            found[b].add(a)
    return {frozenset(each) for each in found.values()}


@CASE
def test_a_server_takes_for_one_what_has_one_usual_form(connection, tables, case):
    name = tables.make("f", f"k int, c {case.name}, s set<{case.name}> static, PRIMARY KEY (k, c)")
    add_row = connection.prepare(f"INSERT INTO {name} (k, c) VALUES (?, ?)")
    count_rows = connection.prepare(f"SELECT c FROM {name} WHERE k = ?")
    add_element = connection.prepare(f"UPDATE {name} SET s = s + ? WHERE k = ?")
    read_set = connection.prepare(f"SELECT DISTINCT s, k FROM {name} WHERE k = ?")
    forms = [form for value in case.values for form in value]
    keys = iter(range(10_000))

    def is_one_row(a: bytes, b: bytes) -> bool:
        key = integer(next(keys))
        for form in (a, b):
            run(connection, add_row, [key, form])
        return run(connection, count_rows, [key]).row_count == 1

    def is_one_element(a: bytes, b: bytes) -> bool:
        key = integer(next(keys))
        for form in (a, b):
            run(connection, add_element, [write_elements([form]), key])
        page = run(connection, read_set, [key])
        (size,) = (int.from_bytes(page.data[:4], "big"),)
        return len(read_elements(page.data[4 : 4 + size])) == 1

    usual = usual_form(case.cql_type) or (lambda form: form)
    assert group(forms, is_one_row) == groups(case)
    assert group(forms, lambda a, b: usual(a) == usual(b)) == groups(case)
    comparable = comparable_element(case.cql_type)
    in_sets = group(forms, is_one_element)
    assert group(forms, lambda a, b: comparable(a) == comparable(b)) == in_sets
    if case.name != "inet":
        # Of an IPv4 address in sixteen bytes a collection makes one in four.
        assert in_sets == groups(case)


@CASE
def test_partition_keys_go_by_their_bytes(connection, tables, case):
    name = tables.make("p", f"k int, c {case.name}, PRIMARY KEY ((k, c))")
    add_row = connection.prepare(f"INSERT INTO {name} (k, c) VALUES (?, ?)")
    forms = [form for value in case.values for form in value]
    for form in forms:
        run(connection, add_row, [integer(1), form])

    assert {cell for (cell,) in raw_rows(connection, name, ["c"])} == set(forms)


@CASE
def test_the_usual_form_is_one_of_the_forms_and_stays_as_it_is(connection, tables, case):
    name = tables.make("u", f"k int, c {case.name}, PRIMARY KEY (k, c)")
    add_row = connection.prepare(f"INSERT INTO {name} (k, c) VALUES (?, ?)")
    find_row = connection.prepare(f"SELECT k FROM {name} WHERE k = ? AND c = ?")
    usual = usual_form(case.cql_type) or (lambda form: form)
    for number, forms in enumerate(case.values):
        for form in forms:
            run(connection, add_row, [integer(number), form])
            assert usual(usual(form)) == usual(form)
            assert run(connection, find_row, [integer(number), usual(form)]).row_count == 1


DECIMALS = parse_type("decimal")


@given(st.integers(-(10**40), 10**40), st.integers(-(2**31), 2**31 - 1), st.integers(0, 50))
def test_a_decimal_has_one_usual_form_however_many_zeros_are_written(number, scale, zeros):
    usual = usual_form(DECIMALS)
    assert usual is not None
    short = decimal(scale, number)
    if scale + zeros < 2**31:
        assert usual(decimal(scale + zeros, number * 10**zeros)) == usual(short)
    assert usual(usual(short)) == usual(short)


@given(st.lists(st.tuples(st.integers(-3000, 3000), st.integers(-2, 3)), min_size=2, max_size=2))
def test_forms_are_one_exactly_where_the_order_of_the_type_says_so(pair):
    here, there = (decimal(scale, number) for number, scale in pair)
    usual, order = usual_form(DECIMALS), sort_key(DECIMALS)
    assert usual is not None
    assert (usual(here) == usual(there)) == (order(here) == order(there))


@given(st.binary(max_size=40), st.sampled_from(CASES))
def test_bytes_that_are_no_value_end_nothing(cell, case):
    for build in (usual_form, usual_elements):
        usual = build(case.cql_type)
        assert usual is None or isinstance(usual(cell), bytes)


def test_of_a_map_only_the_keys_have_a_usual_form():
    usual = usual_elements(parse_type("map<decimal, decimal>"))
    assert usual is not None
    long, short = decimal(2, 150), decimal(1, 15)
    assert usual(write_entries([(long, long)])) == write_entries([(short, long)])
    assert usual_elements(parse_type("map<int, decimal>")) is None
    assert usual_elements(parse_type("list<decimal>")) is None
    assert usual_form(parse_type("map<int, text>")) is None


def test_the_order_of_a_class_that_cql_has_no_name_for_is_not_known():
    assert order_is_known(parse_type("map<text, frozen<tuple<int, decimal>>>"))
    for text in ("'org.example.Type'", "set<'org.example.Type'>", "frozen<{a 'org.example.Type'}>"):
        assert not order_is_known(parse_type(text))


def test_the_page_about_equality_names_every_type_of_which_a_value_has_several_forms():
    page = (Path(__file__).parent.parent / "docs" / "equality.md").read_text()
    table = page.split("## ")[0].split("\n\n")[2]
    first_cells = [line.split("|")[1] for line in table.splitlines()]
    named = {name for cell in first_cells for name in re.findall("`([a-z]+)`", cell)}
    several = {case.cql_type.name for case in CASES if any(len(v) > 1 for v in case.values)}
    assert named == several
