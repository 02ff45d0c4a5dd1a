"""Tables that hold the same values in other bytes: nothing that the origin has is ever deleted."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from struct import pack
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from migration_platform.comparing.verdicts import RangeVerdict, difference_lines, form_lines
from migration_platform.cql.elements import (
    read_elements,
    read_entries,
    write_elements,
    write_entries,
)
from migration_platform.cql.forms import comparable_element, in_usual_form, usual_form
from migration_platform.cql.names import TableName
from migration_platform.declaration.columns import Columns, ExplodeMap
from migration_platform.errors import PreflightError
from migration_platform_tests.cells import ManyTables, many_tables
from migration_platform_tests.comparing import (
    compare,
    copy_winners,
    found,
    rehearse_all,
)
from migration_platform_tests.forms import CASES, Forms, decimal, integer, raw_rows, run
from migration_platform_tests.tables import copy_table, plan_copy, rows_of

EVERYTHING = ("missing", "mismatched", "extra")
TIME = 1_700_000_000_000_000
SHORT, LONG, TWO = decimal(1, 15), decimal(2, 150), decimal(0, 2)
SEVERAL = tuple(case for case in CASES if any(len(forms) > 1 for forms in case.values))


@pytest.fixture(scope="module")
def tables(connection) -> Iterator[ManyTables]:
    with many_tables(connection) as tables:
        tables.add_type("two", "a int, b int")
        yield tables


def write(connection, name: TableName, columns: str, *rows: tuple, time: int = TIME) -> None:
    marks = ", ".join("?" * len(columns.split(",")))
    insert = connection.prepare(
        f"INSERT INTO {name} ({columns}) VALUES ({marks}) USING TIMESTAMP {time}"
    )
    for row in rows:
        run(connection, insert, row)


# -- one case after the other --------------------------------------------------------------------


@pytest.fixture
def pair(connection, tables):
    """Make two tables of decimals with the same rows in two forms."""
    origin, target = (tables.make(s, "k int, c decimal, v int, PRIMARY KEY (k, c)") for s in "ot")
    write(connection, origin, "k, c, v", *((integer(n), SHORT, integer(n)) for n in range(6)))
    write(connection, target, "k, c, v", *((integer(n), LONG, integer(n)) for n in range(6)))
    return origin, target


def test_the_same_rows_in_another_form_are_no_difference_but_a_finding(connection, reader, pair):
    before = rows_of(reader, pair[1])

    verdict = compare(connection, plan_copy(connection, *pair, repair=EVERYTHING))

    assert found(verdict) == (0, 0, 0)
    assert (verdict.other_form, verdict.status, verdict.matches) == (6, "PASS", True)
    assert (verdict.origin_rows, verdict.target_rows, verdict.counts.valid) == (6, 6, 6)
    assert {row.key for row in verdict.other_form_rows} == {f"k={n}, c=1.5" for n in range(6)}
    assert {row.columns for row in verdict.other_form_rows} == {("c",)}
    assert verdict.other_form_rows[0].changes == (("c", "1.5", "1.50"),)
    assert list(difference_lines(verdict)) == []
    line = next(iter(form_lines(verdict)))
    assert line.startswith("Same values in other bytes found for key: [")
    assert line.endswith("Target column:c-origin[1.5]-target[1.50]; ")
    assert rows_of(reader, pair[1]) == before


def test_forms_are_differences_where_they_are_compared_and_even_then_nothing_is_deleted(
    connection, reader, pair
):
    before = rows_of(reader, pair[1])
    plan = plan_copy(connection, *pair, repair=EVERYTHING, compare_form=True)

    verdict = compare(connection, plan)

    assert found(verdict) == (0, 0, 6)
    assert (verdict.other_form, verdict.status, verdict.corrected) == (6, "DIFF", 0)
    assert rows_of(reader, pair[1]) == before


def test_a_declaration_without_forms_has_the_comparison_that_it_had(connection, pair):
    assert plan_copy(connection, *pair).comparison == "ade309e246181d12"
    assert plan_copy(connection, *pair, compare_form=True).comparison != "ade309e246181d12"


@pytest.mark.parametrize("writetime", ["origin", "now"])
def test_a_value_that_differs_beside_a_key_in_another_form_is_repaired(
    connection, reader, pair, writetime
):
    write(connection, pair[0], "k, c, v", (integer(1), SHORT, integer(77)), time=TIME + 5)
    options = {"repair": EVERYTHING, "repair_writetime": writetime}

    verdict = compare(connection, plan_copy(connection, *pair, **options))

    assert found(verdict) == (0, 0, 1)
    assert (verdict.corrected_mismatched, verdict.defeated, verdict.status) == (
        1,
        0,
        "DIFF_CORRECTED",
    )
    assert verdict.mismatched_rows[0].columns == ("v",)
    (row,) = reader.execute(f"SELECT v FROM {pair[1]} WHERE k = 1")
    assert row["v"] == 77


def test_elements_and_keys_of_maps_in_another_form_stay(connection, reader, tables):
    body = "k int PRIMARY KEY, s set<decimal>, m map<decimal, int>"
    origin, target = (tables.make(start, body) for start in "ot")
    one = write_entries([(SHORT, integer(1))])
    write(connection, origin, "k, s, m", (integer(1), write_elements([SHORT]), one))
    other = write_entries([(LONG, integer(2)), (TWO, integer(2))])
    write(connection, target, "k, s, m", (integer(1), write_elements([LONG, TWO]), other))
    plan = plan_copy(connection, origin, target, repair=EVERYTHING, repair_writetime="now")

    verdict = compare(connection, plan)

    assert found(verdict) == (0, 0, 1)
    assert sorted(verdict.mismatched_rows[0].columns) == ["m", "s"]
    assert (verdict.corrected, verdict.status) == (1, "DIFF_CORRECTED")
    (row,) = reader.execute(f"SELECT * FROM {target}")
    assert (list(row["s"]), list(row["m"].items())) == ([1.5], [(1.5, 1)])


def test_two_partitions_that_become_one_row_are_a_collision(connection, tables, tmp_path):
    origin = tables.make("o", "k decimal PRIMARY KEY, v int")
    target = tables.make("t", "z int, k decimal, v int, PRIMARY KEY (z, k)")
    write(connection, origin, "k, v", (SHORT, integer(1)), (TWO, integer(2)), time=TIME)
    write(connection, origin, "k, v", (LONG, integer(3)), time=TIME + 1)
    options: dict[str, Any] = {"columns": Columns(constants={"z": 1}), "collisions": "newest"}
    plan = plan_copy(connection, origin, target, **options)
    assert plan.lost_keys == ("k",)

    winners = tmp_path / "keys"
    rehearsal = rehearse_all(connection, plan, winners)
    assert rehearsal.collisions is not None
    assert (rehearsal.collisions.target_rows, rehearsal.collisions.origin_rows) == (1, 2)
    assert "k=1.5" in str(rehearsal.collisions)
    copy_winners(connection, plan, winners)

    rows = {usual(cells[0]): cells[1] for cells in raw_rows(connection, target, ["k", "v"])}
    assert rows == {SHORT: integer(3), TWO: integer(2)}
    assert found(compare(connection, plan, winners=winners)) == (0, 0, 0)
    with pytest.raises(PreflightError, match=r"diff\.repair names extra"):
        plan_copy(connection, origin, target, repair=("extra",), **options)


def test_a_text_that_becomes_a_number_of_a_key_may_collide(connection, tables):
    origin = tables.make("o", "z int, k text, PRIMARY KEY (z, k)")
    target = tables.make("t", "z int, k decimal, PRIMARY KEY (z, k)")
    plan = plan_copy(connection, origin, target, columns=Columns(codecs=("DECIMAL_STRING",)))
    assert plan.lost_keys == ("k",)


def test_an_entry_of_a_map_that_became_a_row_is_found_in_any_form(connection, reader, tables):
    origin = tables.make("o", "k int PRIMARY KEY, m map<decimal, int>")
    target = tables.make("t", "k int, c decimal, v int, PRIMARY KEY ((k, c))")
    write(connection, origin, "k, m", (integer(1), write_entries([(SHORT, integer(7))])))
    write(connection, target, "k, c, v", (integer(1), LONG, integer(7)))
    write(connection, target, "k, c, v", (integer(1), TWO, integer(7)))
    columns = Columns(explode_map=ExplodeMap("m", "c", "v"))
    plan = plan_copy(connection, origin, target, columns=columns, repair=("extra",))

    verdict = compare(connection, plan)

    assert found(verdict) == (1, 2, 0)
    assert (verdict.kept, verdict.corrected_extra) == (1, 1)
    assert [row["c"] for row in rows_of(reader, target)] == [Decimal("1.50")]


def test_a_row_of_which_only_the_form_is_left_after_a_repair_counts_once(connection, reader, pair):
    write(connection, pair[0], "k, c, v", (integer(1), SHORT, integer(77)), time=TIME + 5)
    options = {"repair": EVERYTHING, "compare_form": True}

    verdict = compare(connection, plan_copy(connection, *pair, **options))

    assert (verdict.mismatched, verdict.origin_rows, verdict.target_rows) == (6, 6, 6)
    (row,) = reader.execute(f"SELECT v FROM {pair[1]} WHERE k = 1")
    assert row["v"] == 77


def test_other_forms_are_no_reason_to_wait_on_a_table_that_is_written_to(connection, pair):
    plan = plan_copy(connection, *pair, ignore_newer_than_seconds=600, repair=EVERYTHING)

    verdict = compare(connection, plan)

    assert (found(verdict), verdict.other_form, verdict.ignored_newer) == ((0, 0, 0), 6, 0)


def test_a_row_that_the_target_has_twice_is_kept_and_told(connection, reader, tables):
    origin = tables.make("o", "k int, c decimal, v int, PRIMARY KEY (k, c)")
    target = tables.make("t", "k int, c decimal, v int, PRIMARY KEY (c, k)")
    write(connection, origin, "k, c, v", (integer(1), SHORT, integer(1)))
    copy_table(connection, origin, target)
    write(connection, target, "k, c, v", (integer(1), LONG, integer(1)))

    verdict = compare(connection, plan_copy(connection, origin, target, repair=EVERYTHING))

    assert found(verdict) == (0, 1, 0)
    assert (verdict.kept, verdict.corrected, verdict.status) == (1, 0, "DIFF")
    assert len(rows_of(reader, target)) == 2


# -- random tables -------------------------------------------------------------------------------


def usual(cell: bytes | None) -> bytes | None:
    convert = usual_form(SEVERAL[0].cql_type)
    return cell if cell is None or convert is None else convert(cell)


@dataclass(frozen=True)
class Drawn:
    """Two tables with some of the same rows, each in forms of its own.

    A row is the numbers of its key's values, and its cells as bytes by column.
    """

    key: tuple[Forms, ...]
    elements: Forms
    origin: tuple[tuple[tuple[int, ...], dict[str, bytes], int], ...]
    target: tuple[tuple[tuple[int, ...], dict[str, bytes], int], ...]

    def body(self, key: str) -> str:
        columns = ", ".join(f"c{n} {case.name}" for n, case in enumerate(self.key))
        name = self.elements.name
        return (
            f"k int, {columns}, v int, d decimal, s set<{name}>, m map<{name}, int>, "
            f"e set<{name}> static, PRIMARY KEY {key}"
        )


@st.composite
def drawn_tables(draw: st.DrawFn) -> Drawn:
    key = tuple(draw(st.lists(st.sampled_from(SEVERAL), min_size=1, max_size=2)))
    elements = draw(st.sampled_from(SEVERAL))

    def form(case: Forms, number: int) -> bytes:
        return draw(st.sampled_from(case.values[number]))

    def set_of(some: list[int]) -> bytes:
        return write_elements([form(elements, number) for number in some])

    numbers = st.lists(
        st.integers(0, len(elements.values) - 1), min_size=1, max_size=4, unique=True
    )

    def row(place: tuple[int, ...]) -> dict[str, bytes]:
        cells = {"k": integer(place[0])}
        for n, case in enumerate(key):
            cells[f"c{n}"] = form(case, place[1 + n])
        if draw(st.booleans()):
            cells["v"] = integer(draw(st.integers(0, 2)))
        if draw(st.booleans()):
            cells["d"] = draw(st.sampled_from((SHORT, LONG, TWO)))
        for column in ("s", "e"):
            if draw(st.booleans()):
                cells[column] = set_of(draw(numbers))
        if draw(st.booleans()):
            keys = draw(numbers)
            cells["m"] = write_entries([(form(elements, n), integer(n)) for n in keys])
        return cells

    places = st.tuples(st.integers(1, 2), *(st.integers(0, len(case.values) - 1) for case in key))
    times = st.integers(TIME, TIME + 2)
    here = draw(st.lists(places, min_size=2, max_size=8, unique=True))
    kept = draw(st.lists(st.sampled_from(here), unique=True))
    there = [*kept, *draw(st.lists(places, max_size=4, unique=True))]
    return Drawn(
        key,
        elements,
        tuple((place, row(place), draw(times)) for place in here),
        tuple((place, row(place), draw(times)) for place in there),
    )


def fill(connection, name: TableName, drawn: Drawn, rows) -> None:
    """Write rows; elements one by one, because a whole set would delete what was there before."""
    keys = ["k", *(f"c{n}" for n in range(len(drawn.key)))]
    for _, cells, time in rows:
        plain = {column: cells[column] for column in (*keys, "v", "d") if column in cells}
        write(connection, name, ", ".join(plain), tuple(plain.values()), time=time)
        for column in {"s", "m", "e"} & cells.keys():
            at = keys[:1] if column == "e" else keys
            add = connection.prepare(
                f"UPDATE {name} USING TIMESTAMP {time} SET {column} = {column} + ? "
                f"WHERE {' AND '.join(f'{key} = ?' for key in at)}"
            )
            run(connection, add, [cells[column], *(cells[key] for key in at)])


COLUMNS = ("v", "d", "s", "m", "e")


def values_of(connection, drawn: Drawn, name: TableName) -> dict[tuple, Any]:
    """Give what a table holds: each cell and element once, by values and not by bytes."""
    keys = [f"c{n}" for n in range(len(drawn.key))]
    forms = [usual_form(case.cql_type) for case in drawn.key]
    element = comparable_element(drawn.elements.cql_type)
    held: dict[tuple, Any] = {}
    for cells in raw_rows(connection, name, ["k", *keys, *COLUMNS]):
        clustering, values = cells[1 : 1 + len(keys)], cells[1 + len(keys) :]
        place: tuple = (cells[0], *map(in_usual_form, forms, clustering))
        if None not in clustering:
            held[place] = True
        for column, cell in zip(COLUMNS, values, strict=True):
            if cell is None:
                continue
            where = place[:1] if column == "e" else place
            if column in "se":
                elements = [each for each in read_elements(cell) if each is not None]
                held |= {(*where, column, element(each)): True for each in elements}
            elif column == "m":
                held |= {(*where, column, element(key)): v for key, v in read_entries(cell)}
            else:
                held[(*where, column)] = cell
    return held


reproducible = settings(
    derandomize=True,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("moved", [False, True], ids=["the same key", "another key"])
def test_nothing_that_the_origin_has_is_missing_after_a_repair_of_everything(
    connection, tables, moved
):
    seen: Counter[str] = Counter()

    @given(drawn_tables(), st.sampled_from(["origin", "now"]), st.booleans())
    @settings(reproducible, max_examples=12)
    def nothing_is_missing(drawn: Drawn, writetime: str, compare_form: bool) -> None:
        names = [f"c{n}" for n in range(len(drawn.key))]
        key = f"(k, {', '.join(names)})"
        other = f"((k), {', '.join(reversed(names))})" if moved else key
        origin, target = tables.make("o", drawn.body(key)), tables.make("t", drawn.body(other))
        fill(connection, origin, drawn, drawn.origin)
        fill(connection, target, drawn, drawn.target)
        here, before = (values_of(connection, drawn, name) for name in (origin, target))
        options = {"token_ranges": 2, "repair": EVERYTHING, "repair_writetime": writetime}

        verdict = compare(
            connection, plan_copy(connection, origin, target, compare_form=compare_form, **options)
        )

        after = values_of(connection, drawn, target)
        assert verdict.error == ""
        assert here.keys() <= after.keys()
        if writetime == "now":
            # Nothing at the target is so new that it could win.
            assert after == here
            assert found(compare(connection, plan_copy(connection, origin, target))) == (0, 0, 0)
        assert values_of(connection, drawn, origin) == here
        count_seen(seen, verdict, before != here)

    nothing_is_missing()
    assert all(seen[what] > 3 for what in (*EVERYTHING, "other_form", "corrected", "differed"))


def count_seen(seen: Counter[str], verdict: RangeVerdict, differed: bool) -> None:
    seen.update({kind: getattr(verdict, kind) for kind in (*EVERYTHING, "other_form", "corrected")})
    seen["differed"] += differed


def test_a_nan_and_a_zero_below_nothing_are_told_apart_as_the_server_does(connection, tables):
    origin, target = (tables.make(s, "k int, c double, PRIMARY KEY (k, c)") for s in "ot")
    nans = [bytes.fromhex("7ff8000000000000"), bytes.fromhex("fff8000000000000")]
    write(connection, origin, "k, c", (integer(1), nans[0]), (integer(1), pack(">d", 0.0)))
    write(connection, target, "k, c", (integer(1), nans[1]), (integer(1), pack(">d", -0.0)))

    verdict = compare(connection, plan_copy(connection, origin, target))

    assert (found(verdict), verdict.other_form) == ((1, 1, 0), 1)
