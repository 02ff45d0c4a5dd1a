"""Tables that were damaged at random: all of it is found, repaired as far as it can be, no more."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from migration_platform.errors import PreflightError
from migration_platform.migration import Filter, TableName
from migration_platform.verdicts import RangeVerdict, difference_lines
from migration_platform_tests.cells import (
    Cells,
    ManyTables,
    Place,
    RandomTable,
    many_tables,
    random_tables,
    read_cells,
)
from migration_platform_tests.comparing import compare
from migration_platform_tests.tables import (
    copy_ranges,
    copy_table,
    fill,
    in_process,
    insert_rows,
    plan_copy,
    rows_of,
)

EVERYTHING = ("missing", "mismatched", "extra")
BEYOND_NOW = 2**61
reproducible = settings(
    derandomize=True,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def tables(connection) -> Iterator[ManyTables]:
    with many_tables(connection) as tables:
        yield tables


# -- damage at random ----------------------------------------------------------------------------


def damaged(draw_table: RandomTable) -> tuple[RandomTable, RandomTable]:
    """Give a table as it was copied, and what was written to the target alone afterwards."""
    table = replace(draw_table, same_key=True, frozen_at_target=frozenset())
    half = len(table.writes) // 2
    damage = tuple(w for w in table.writes[half:] if BEYOND_NOW not in w.values)
    return replace(table, writes=table.writes[:half]), replace(table, writes=damage)


Values = dict[tuple, dict[Place, object]]


def by_row(cells: Cells) -> Values:
    """Give the values of every row, and of every partition's static cells."""
    found: Values = {}
    for place, cell in cells.items():
        found.setdefault(place.row, {})[place] = cell.value
    return found


def count_damage(origin: Cells, target: Cells) -> dict[str, int]:
    here, there = by_row(origin), by_row(target)
    return {
        "missing": len(here.keys() - there.keys()),
        "extra": len(there.keys() - here.keys()),
        "mismatched": sum(here[row] != there[row] for row in here.keys() & there.keys()),
    }


def counts_of(verdict: RangeVerdict) -> dict[str, int]:
    assert verdict.error == ""
    return {kind: getattr(verdict, kind) for kind in EVERYTHING}


def assert_what_can_be_repaired_is(origin: Cells, broken: Cells, repaired: Cells) -> None:
    """What is at the target alone must go; what is older there must become the origin's."""
    columns = {(place.row, place.column) for place in origin}
    for place in repaired:
        a_list_stays_newer = place.kind == "position" and (place.row, place.column) in columns
        assert place in origin or a_list_stays_newer, f"{place} is still at the target alone"
    for place, cell in origin.items():
        there = broken.get(place)
        if there and place.column and place.kind != "position":
            if (there.writetime_us or 0) < (cell.writetime_us or 0):
                assert repaired[place] == cell


def test_random_damage_is_found_and_repaired_and_nothing_else_is_touched(
    connection, reader, tables
):
    seen: Counter[str] = Counter()

    @given(random_tables(max_writes=70))
    @settings(reproducible, max_examples=5)
    def is_repaired(drawn: RandomTable) -> None:
        table, damage = damaged(drawn)
        origin, target = tables.name(), tables.name()
        table.create(connection.session, origin)
        table.create(connection.session, target)
        table.fill(connection.session, origin)
        copied = plan_copy(connection, origin, target, token_ranges=3)
        copy_ranges(in_process(copied, connection), copied.migration.ranges[1:])
        damage.fill(connection.session, target)
        cells, broken = read_cells(reader, origin), read_cells(reader, target)
        planted = count_damage(cells, broken)

        found = compare(connection, plan_copy(connection, origin, target, token_ranges=2))

        assert counts_of(found) == planted
        assert found.corrected == found.defeated == 0
        assert read_cells(reader, target).keys() == broken.keys()

        plan = plan_copy(connection, origin, target, token_ranges=2, repair=EVERYTHING)
        repaired = compare(connection, plan)

        after = read_cells(reader, target)
        left = count_damage(cells, after)
        assert counts_of(repaired) == planted
        assert repaired.corrected == sum(planted.values()) - sum(left.values())
        assert repaired.defeated == sum(left.values())
        assert repaired.corrected_extra == planted["extra"]
        assert repaired.target_rows == sum(not place.column for place in after)
        assert_what_can_be_repaired_is(cells, broken, after)

        wins = plan_copy(
            connection, origin, target, token_ranges=2, repair=EVERYTHING, repair_writetime="now"
        )
        won = compare(connection, wins)

        assert counts_of(won) == left
        assert by_row(read_cells(reader, target)) == by_row(cells)
        assert won.corrected == sum(left.values())
        assert won.status == ("DIFF_CORRECTED" if any(left.values()) else "PASS")
        seen.update(planted, corrected=repaired.corrected, defeated=repaired.defeated)

    is_repaired()
    print(seen)
    assert all(seen[what] > 5 for what in (*EVERYTHING, "corrected", "defeated"))
