"""Rows that were rejected and rows that differ, written one by one as they are read."""

import multiprocessing
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path

from migration_platform.comparing.listing import (
    UNTOLD,
    Difference,
    NotCompared,
    Showing,
    list_differences,
)
from migration_platform.comparing.rechecks import UNWRITABLE
from migration_platform.copying.collisions import refuse_collisions
from migration_platform.copying.dead_letters import DeadLetter, DeadLetterSummary, summarize
from migration_platform.copying.rehearsal import rehearse
from migration_platform.cql.keys import MASKED, key_condition
from migration_platform.cql.names import quote
from migration_platform.cql.rows import count_cells, split_cells
from migration_platform.cql.samples import show_literal
from migration_platform.cql.types import parse_type
from migration_platform.declaration.migration import Migration
from migration_platform.errors import MigrationError
from migration_platform.pacing.rate import RateBudget
from migration_platform.plan.model import Plan, Table
from migration_platform.reports.folder import DIFFERING, REJECTED, Folder
from migration_platform.runs.control import Watch, find_tables
from migration_platform.runs.run_report import Piece, show_time
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.interface import (
    KeyForm,
    KeyReader,
    Origin,
    Pace,
    Selection,
    Settings,
    Target,
    Uses,
)
from migration_platform.stores.permissions import look_again, refuse_denied
from migration_platform.stores.work import records_at
from migration_platform.token_ranges import TokenRange

LETTERS_AT_ONCE = 50
"""So few, because with their values each row may have some megabytes."""
GONE = "(the row is not there any more)"
REJECTED_HEADER = ("part", "key", "token", "token_range", "column", "cause", "run", "rejected_at")
DIFFERING_HEADER = (
    *("finding", "side", "part", "key", "columns", "cause", "token_range", "compared_at"),
)
SIDES = {"missing": "origin", "extra": "target", "mismatched": "both", "other_form": "both"}
"""Where a row is that differs."""
FINDINGS = tuple(SIDES)


@dataclass(frozen=True)
class Sides:
    """Both open sides, and how workers reach them; `masked` are columns of the origin's table."""

    origin: Origin
    target: Target
    settings: tuple[Settings, Settings]
    showing: Showing


@dataclass
class Differences:
    """What came of comparing some ranges again; `changed` says that the declaration has."""

    ranges: list[TokenRange]
    began: datetime
    ended: datetime
    found: Counter[str] = field(default_factory=Counter)
    not_compared: list[NotCompared] = field(default_factory=list)
    changed: bool = False


# -- rejected rows -------------------------------------------------------------------------------


def write_rejected(
    folder: Folder,
    letters: Iterable[DeadLetter],
    table: Table | None,
    masked: frozenset[str],
    tracked_ids: dict[str, int],
    values: "ReadValues | None" = None,
) -> DeadLetterSummary:
    """Write the dead letters, and give what they come to.

    `table` is the origin's as it is; None where there is no letter. `tracked_ids` are tracked runs
    by Dagster's. With `values` the rows are read again.
    """
    header = REJECTED_HEADER if values is None else (*REJECTED_HEADER, "values")
    with folder.rows(REJECTED, header) as file:

        def write() -> Iterator[DeadLetter]:
            waiting = iter(letters)
            while some := list(islice(waiting, LETTERS_AT_ONCE)):
                more = [()] * len(some) if values is None else [(v,) for v in values(some)]
                for letter, shown in zip(some, more, strict=True):
                    run = tracked_ids.get(letter.run_id, letter.run_id)
                    file.add(
                        "static cells" if letter.layer == "statics" else "row",
                        _key_of(letter, table, masked),
                        letter.token,
                        letter.token_range,
                        letter.column,
                        letter.cause,
                        run,
                        show_time(letter.set_aside_at) or "",
                        *shown,
                    )
                    yield letter

        return summarize(write())


def _key_names(letter: DeadLetter, table: Table) -> tuple[str, ...]:
    return table.partition_key if letter.layer == "statics" else table.primary_key


def _key_of(letter: DeadLetter, table: Table | None, masked: frozenset[str]) -> str:
    """Give the whole key; what was stored as text is cut, and tells nothing of masks."""
    names = _key_names(letter, table) if table else ()
    if table is None or count_cells(letter.key) != len(names):
        # The table has another key by now.
        return MASKED if masked else letter.key_text
    cells = split_cells(letter.key, len(names))
    return key_condition(
        [(name, table.type_of(name), cell) for name, cell in zip(names, cells, strict=True)],
        masked,
    )


ReadValues = Callable[[Sequence[DeadLetter]], list[str]]


def value_reader(plan: Plan, origin: Origin, masked: frozenset[str]) -> ReadValues:
    """Build what reads the rows of dead letters, as they are at the origin now."""
    table, readers = plan.origin, {}
    endpoint = plan.migration.origin
    budget = RateBudget(
        multiprocessing.get_context("spawn"),
        rows_per_second=endpoint.rows_per_second,
        size_per_second=endpoint.size_per_second,
    )
    pace = Pace(budget, plan.migration.retry_seconds, lambda error: None)

    def prepare(layer: str) -> tuple[KeyReader, tuple[str, ...]]:
        statics = layer == "statics"
        names = tuple(
            column.name
            for column in table.columns
            if column.name not in table.primary_key and column.is_static == statics
        )
        selection = Selection(table, names or table.primary_key, statics=statics)
        width = len(selection.key_names)
        reader = origin.prepare_keys(plan, selection, KeyForm(width, tuple(range(width))))
        return reader, names

    def show(data: bytes, names: tuple[str, ...]) -> str:
        return ", ".join(
            f"{quote(name)}={MASKED if name in masked else _literal(cell, table.type_of(name))}"
            for name, cell in zip(names, split_cells(data, len(names)), strict=True)
        )

    def read(letters: Sequence[DeadLetter]) -> list[str]:
        shown = [GONE] * len(letters)
        for layer in {letter.layer for letter in letters}:
            mine = [
                at
                for at, letter in enumerate(letters)
                if letter.layer == layer
                and count_cells(letter.key) == len(_key_names(letter, table))
            ]
            if layer not in readers:
                readers[layer] = prepare(layer)
            reader, names = readers[layer]
            found = reader.rows([letters[at].key for at in mine], pace)
            for at, (_, page) in zip(mine, found, strict=True):
                if page.row_count:
                    shown[at] = show(page.data, names)
        return shown

    return read


def _literal(cell: bytes | None, cql_type: str) -> str:
    return "null" if cell is None else show_literal(cell, parse_type(cql_type))


# -- rows that differ ----------------------------------------------------------------------------


def write_differing(
    folder: Folder,
    plan: Plan | None,
    sides: Sides | None,
    ranges: list[TokenRange],
    say: Callable[[str], None],
) -> Differences:
    """Compare the ranges again and write every row that differs; without ranges none does.

    Raises:
        MigrationError: the stores do not allow it.
    """
    values = sides is not None and sides.showing.values
    header = (*DIFFERING_HEADER, "origin_values", "target_values")
    told = Differences(ranges, began=_now(), ended=_now())
    with (
        folder.rows(DIFFERING, header if values else DIFFERING_HEADER) as file,
        ExitStack() as stack,
    ):
        for found in _compare(stack, plan, sides, ranges, say):
            if isinstance(found, NotCompared):
                told.not_compared.append(found)
                continue
            told.found[found.kind] += 1
            file.add(
                found.kind,
                SIDES[found.kind],
                "static cells" if found.statics else "row",
                found.key,
                ", ".join(name for name in found.columns if name not in (UNWRITABLE, UNTOLD)),
                tell_cause(found),
                found.token_range.key,
                show_time(_now()) or "",
                *((found.origin, found.target) if values else ()),
            )
    told.ended = _now()
    return told


def _compare(
    stack: ExitStack,
    plan: Plan | None,
    sides: Sides | None,
    ranges: list[TokenRange],
    say: Callable[[str], None],
) -> Iterator[Difference | NotCompared]:
    if not ranges or plan is None or sides is None:
        return
    migration, uses = plan.migration, Uses(copying=False, comparing=True)
    refuse_denied(plan, sides.origin, sides.target, uses)
    pool = stack.enter_context(
        WorkerPool(
            plan,
            *sides.settings,
            workers=min(len(ranges), migration.workers or os.cpu_count() or 1),
            look_again=partial(look_again, plan, sides.origin, sides.target, uses),
        )
    )
    records = records_at(migration, sides.origin.connection, sides.target.connection)
    tables = find_tables(records, migration)
    if tables is not None:
        stack.enter_context(Watch(tables, migration, pool.budgets, say))
    winners = _find_winners(stack, plan, pool) if plan.lost_keys else None
    yield from list_differences(pool, plan, ranges, sides.showing, winners=winners, on_retry=say)


def _find_winners(stack: ExitStack, plan: Plan, pool: WorkerPool) -> str | None:
    """Where rows land on one another, say which of them was to be written."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="migration-platform-"))
    path = Path(folder) / "keys.sqlite"
    found = rehearse(pool, plan, plan.migration.ranges, path)
    if found.failed:
        token_range, reason = found.failed[0]
        raise MigrationError(f"collisions could not be looked for in {token_range.key}: {reason}")
    refuse_collisions(plan, found.collisions)
    return str(path) if found.collisions.target_rows else None


def tell_cause(found: Difference) -> str:
    """Say in some words why a row is among those that differ."""
    if found.columns == (UNWRITABLE,):
        return "it cannot be written as declared"
    if found.kind == "missing":
        return "the target lacks it"
    if found.kind == "extra":
        return "the origin lacks it, or a filter leaves it out"
    if found.columns == (UNTOLD,):
        return "its values differ; its key does not tell the origin's row"
    what = "the same values in other bytes" if found.kind == "other_form" else "values differ"
    return f"{what}: {', '.join(found.columns)}" if found.columns else what


def ranges_of(migration: Migration, pieces: Iterable[Piece]) -> list[TokenRange]:
    """Give the declared ranges that hold tokens of some pieces, which may be cut otherwise."""
    tokens = [(piece.token_min, piece.token_max) for piece in pieces]
    return [
        token_range
        for token_range in migration.ranges
        if any(low <= token_range.end and high > token_range.start for low, high in tokens)
    ]


def _now() -> datetime:
    return datetime.now(UTC)
