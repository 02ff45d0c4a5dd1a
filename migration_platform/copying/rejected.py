"""Rows that cannot be written: counted, limited, and kept as dead letters."""

from collections.abc import Callable
from dataclasses import dataclass, field

from migration_platform.copying.dead_letters import (
    DeadLetter,
    DeadLetterStore,
    open_dead_letters,
    remove_settled,
    to_dead_letter,
)
from migration_platform.counts import MAX_SAMPLES, BadRow, reject_row
from migration_platform.errors import PermanentError
from migration_platform.stores.work import OpenStores
from migration_platform.token_ranges import TokenRange

DEAD_LETTERS_AT_ONCE = 100


@dataclass
class RejectedRows:
    """The rows that cannot be written: counted, limited, and kept as dead letters.

    Past `limit` they fail the range; with 0 the first one does. `keep` takes them to where they
    outlive the run. `partly` are rows of which a part was rejected, and whether that
    part is the one that counts.
    """

    limit: int
    keep: Callable[[list[BadRow]], None]
    rows: int = 0
    statics: int = 0
    uncounted: int = 0
    first: str = ""
    samples: list[str] = field(default_factory=list)
    keys: set[tuple[str, bytes]] = field(default_factory=set)
    waiting: list[BadRow] = field(default_factory=list)
    partly: dict[tuple[str, bytes], bool] = field(default_factory=dict)

    def reject(self, bad: BadRow) -> None:
        """Count a row, and store it as a dead letter.

        Raises:
            PermanentError: there are too many.
            MigrationError: it could not be stored.
        """
        if not self.limit:
            reject_row(bad)
        self.first = self.first or f"the row {bad.shown} {bad.cause}"
        if self.rows + self.statics >= self.limit:
            self.store()
            raise PermanentError(
                f"more than {self.limit:,} rows of the range cannot be written, which "
                f"dead_letters.max_rows allows; the first: {self.first}. The check no_dead_letters "
                "names those that are stored: repair them or correct the declaration, or raise "
                "dead_letters.max_rows"
            )
        is_rows = bad.layer == "rows"
        self.rows += is_rows
        self.statics += not is_rows
        if len(self.samples) < MAX_SAMPLES:
            self.samples.append(f"{bad.shown}: {bad.cause}")
        self.keys.add((bad.layer, bad.key))
        self.waiting.append(bad)
        if len(self.waiting) >= DEAD_LETTERS_AT_ONCE:
            self.store()

    def store(self) -> None:
        """Keep what is not kept yet.

        Raises:
            MigrationError: it could not be stored.
        """
        waiting, self.waiting = self.waiting, []
        if waiting:
            self.keep(waiting)


def open_rejected(stores: OpenStores, token_range: TokenRange | None, run_id: str) -> RejectedRows:
    """Begin to store rows that cannot be written, as far as that is declared."""

    def keep(rows: list[BadRow]) -> None:
        letters: list[DeadLetter] = [
            to_dead_letter(stores.plan, b, token_range, run_id) for b in rows
        ]
        store = _dead_letters(stores)
        if store is None:
            keyspace = stores.plan.migration.tracking_keyspace
            raise PermanentError(
                f"there is no table {keyspace}.dead_letters to store rejected rows in"
            )
        store.add(letters)

    return RejectedRows(stores.plan.migration.dead_letters_max_rows, keep)


def _dead_letters(stores: OpenStores) -> DeadLetterStore | None:
    store = stores.cache.get("dead letters")
    if store is None:
        store = open_dead_letters(stores.records, stores.plan.migration)
        stores.cache["dead letters"] = store
    return store


def remove_dead_letters(stores: OpenStores, piece: TokenRange, rejected: RejectedRows) -> None:
    """Remove the dead letters of a piece that was copied whole, except rows that failed again.

    Raises:
        MigrationError: they could not be removed.
    """
    store = _dead_letters(stores)
    if store is None:
        return
    # Read once: what this run rejects, it knows.
    slices = stores.cache.get("slices with letters")
    if slices is None:
        slices = stores.cache["slices with letters"] = store.slices()
    remove_settled(store, slices, piece, rejected.keys)
