"""Rows of dead letters, read again by their key and copied under the present declaration.

A dead letter is removed only after its row was acknowledged, so a replay that is killed begins
again where it was: a row that is written twice is the same row, and a counter is added by
difference.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from migration_platform.copying.copy import copy_single_rows
from migration_platform.copying.dead_letters import (
    COLUMNS,
    KEY,
    TABLE,
    DeadLetter,
    DeadLetterStore,
    DeadLetterSummary,
    open_dead_letters,
    summarize,
    with_cause,
)
from migration_platform.copying.rejected import RejectedRows
from migration_platform.counts import BadRow
from migration_platform.cql.names import quote
from migration_platform.cql.rows import Page, count_cells
from migration_platform.declaration.migration import MAX_DEAD_LETTERS, Migration
from migration_platform.errors import MigrationError, PermanentError, PreflightError, explain
from migration_platform.plan.model import Layer, Plan
from migration_platform.stores.interface import KeyForm, KeyReader, Selection
from migration_platform.stores.records import Records, TableForm, ensure_tables
from migration_platform.stores.work import Done, Failed, OpenStores, Pool, Report, Reported
from migration_platform.token_ranges import index_of_token

DEAD_LETTERS_AT_ONCE = 500
"""So many dead letters are replayed and then removed together; after a kill they are repeated."""


def ensure_dead_letters(connection: Records | None, migration: Migration) -> None:
    """Where rows may be rejected, make sure that there is a table for dead letters.

    Raises:
        PreflightError: it cannot be made; one sentence with the way out.
    """
    if connection is None or not migration.dead_letters_max_rows:
        return
    try:
        ensure_tables(
            connection,
            migration.tracking_keyspace,
            {TABLE: TableForm(COLUMNS, KEY)},
            like=migration.tracked_at.table.keyspace,
            retry_seconds=migration.retry_seconds,
        )
    except PreflightError as error:
        raise PreflightError(
            "dead letters cannot be stored in the keyspace "
            f"{quote(migration.tracking_keyspace)} of the cluster of "
            f"{migration.tracked_at.store}: {explain(error.__cause__ or error)}; grant its user "
            "CREATE, ALTER, SELECT and MODIFY there, name another one in tracking_keyspace, "
            " or leave out dead_letters"
        ) from error


@dataclass(frozen=True)
class ReplayCounts:
    """Counts of dead letters: `replayed` rows arrived, `gone` ones need no copy any more."""

    replayed: int = 0
    gone: int = 0
    failed: int = 0

    def __add__(self, other: "ReplayCounts") -> "ReplayCounts":
        return ReplayCounts(
            self.replayed + other.replayed, self.gone + other.gone, self.failed + other.failed
        )

    @property
    def done(self) -> int:
        """How many dead letters were looked at."""
        return self.replayed + self.gone + self.failed


@dataclass(frozen=True)
class ReplaySlice:
    """The task of replaying the dead letters in one slice; it reports `ReplayCounts`."""

    slice_number: int
    run_id: str = ""
    winners: str | None = None

    def run(self, stores: OpenStores, report: Report) -> ReplayCounts:
        """Replay the dead letters, some hundreds at a time.

        Raises:
            MigrationError: a row could not be read or written, or its dead letter not be removed.
        """
        store = open_dead_letters(stores.records, stores.plan.migration)
        if store is None:
            return ReplayCounts()
        # Rows that are rejected again never stop the others.
        lenient = replace(stores.plan.migration, dead_letters_max_rows=DEAD_LETTERS_AT_ONCE)
        stores = replace(stores, plan=replace(stores.plan, migration=lenient))
        letters = store.read(self.slice_number)
        total = ReplayCounts()
        while some := list(islice(letters, DEAD_LETTERS_AT_ONCE)):
            found = _replay(stores, store, some, self.run_id, self.winners)
            total += found
            report(found)
        return total


def _replay(
    stores: OpenStores,
    store: DeadLetterStore,
    letters: Sequence[DeadLetter],
    run_id: str,
    winners: str | None,
) -> ReplayCounts:
    bad: list[BadRow] = []
    layers = {layer.name for layer in stores.plan.layers}
    gone = [letter for letter in letters if letter.layer not in layers]
    for layer in reversed(stores.plan.layers):
        mine = [letter for letter in letters if letter.layer == layer.name]
        wanted = [letter for letter in mine if _is_wanted(stores.plan, layer, letter)]
        gone += [letter for letter in mine if not _is_wanted(stores.plan, layer, letter)]
        if not wanted:
            continue

        missing: list[DeadLetter] = []
        read = partial(_read_origin, stores, layer, wanted, missing)
        # One row may become many, each of which may be rejected.
        rejected = RejectedRows(MAX_DEAD_LETTERS * DEAD_LETTERS_AT_ONCE, bad.extend)
        copy_single_rows(stores, layer, read, lambda _: None, winners=winners, rejected=rejected)
        gone += missing
    known = {(letter.layer, letter.key): letter for letter in letters}
    failed = {(b.layer, b.key): with_cause(known[b.layer, b.key], b, run_id) for b in bad}
    store.add(list(failed.values()))
    gone_keys = {(letter.layer, letter.key) for letter in gone}
    arrived = [letter for place, letter in known.items() if place not in failed.keys() | gone_keys]
    store.remove([*arrived, *gone])
    return ReplayCounts(len(arrived), len(gone), len(failed))


def _is_wanted(plan: Plan, layer: Layer, letter: DeadLetter) -> bool:
    """Say whether a copy would read the row today."""
    ranges = plan.migration.ranges
    token_range = ranges[index_of_token([each.end for each in ranges], letter.token)]
    window = plan.migration.filter.window(token_range)
    # A table that was dropped and created again may have another key.
    return (
        window is not None
        and letter.token in window
        and count_cells(letter.key) == len(layer.origin_key)
    )


def _read_origin(
    stores: OpenStores,
    layer: Layer,
    letters: Sequence[DeadLetter],
    missing: list[DeadLetter],
    selection: Selection,
) -> Iterator[Page]:
    """Read the rows of dead letters; those that are not there any more are `missing`."""
    name = f"replay {layer.name}"
    if name not in stores.cache:
        width = len(layer.origin_key)
        prepare = partial(
            stores.origin.prepare_keys, stores.plan, keys=KeyForm(width, tuple(range(width)))
        )
        try:
            stores.cache[name] = prepare(selection)
        except PermanentError:
            # CQL allows no further condition on the key; the row met it when it was first read.
            if not selection.where:
                raise
            stores.cache[name] = prepare(replace(selection, where=None))
    read: KeyReader = stores.cache[name]
    pace = stores.reading("origin", lambda _: None)
    rows = read.rows((letter.key for letter in letters), pace, rejects=True)
    for letter, (_, page) in zip(letters, rows, strict=True):
        if page.row_count:
            yield page
        else:
            missing.append(letter)


@dataclass(frozen=True)
class Replay:
    """The result of a replay, and what is left; `error` is the first reason why it stopped."""

    counts: ReplayCounts
    remaining: DeadLetterSummary
    error: str = ""


def replay(
    pool: Pool,
    connection: Records | None,
    migration: Migration,
    *,
    run_id: str = "",
    winners: str | None = None,
    on_progress: Callable[[ReplayCounts], None] = lambda counts: None,
) -> Replay:
    """Replay all dead letters of a migration.

    Raises:
        MigrationError: the dead letters could not be read.
    """
    store = open_dead_letters(connection, migration)
    counts, error = ReplayCounts(), ""
    if store is None:
        return Replay(counts, DeadLetterSummary())
    tasks = [ReplaySlice(number, run_id, winners) for number in store.slices()]
    for event in pool.run(tasks):
        if isinstance(event, Reported) and isinstance(event.value, ReplayCounts):
            counts += event.value
            on_progress(counts)
        elif isinstance(event, Failed):
            error = error or event.reason
        elif isinstance(event, Done):
            on_progress(counts)
    try:
        remaining = summarize(store.read_all())
    except MigrationError as failure:
        raise type(failure)(f"{error}; {failure}" if error else str(failure)) from failure
    return Replay(counts, remaining, error)
