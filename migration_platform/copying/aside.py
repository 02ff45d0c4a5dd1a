"""Rows that cannot be written: counted, limited, and kept as dead letters."""

from collections.abc import Callable
from dataclasses import dataclass, field

from migration_platform.copying.dead_letters import (
    Letter,
    LetterStore,
    open_letters,
    remove_settled,
    to_letter,
)
from migration_platform.counts import MAX_SAMPLES, BadRow, refuse_row
from migration_platform.errors import PermanentError
from migration_platform.stores.work import OpenStores
from migration_platform.token_ranges import TokenRange

LETTERS_AT_ONCE = 100


@dataclass
class Aside:
    """The rows that cannot be written: counted, limited, and kept as letters.

    Past `limit` they fail the range; with 0 the first one does. `keep` takes them to where they
    outlive the run. `partly` are rows of which a part was refused, and whether it was the part that
    counts.
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

    def refuse(self, bad: BadRow) -> None:
        """Set a row aside.

        Raises:
            PermanentError: there are too many.
            MigrationError: it could not be stored.
        """
        if not self.limit:
            refuse_row(bad)
        self.first = self.first or f"the row {bad.shown} {bad.cause}"
        if self.rows + self.statics >= self.limit:
            self.store()
            raise PermanentError(
                f"more than {self.limit:,} rows of the range cannot be written, which "
                f"dead_letters.max_rows allows; the first: {self.first}. The check no_dead_letters "
                "names those that were set aside: mend them or the declaration, or raise "
                "dead_letters.max_rows"
            )
        is_rows = bad.layer == "rows"
        self.rows += is_rows
        self.statics += not is_rows
        if len(self.samples) < MAX_SAMPLES:
            self.samples.append(f"{bad.shown}: {bad.cause}")
        self.keys.add((bad.layer, bad.key))
        self.waiting.append(bad)
        if len(self.waiting) >= LETTERS_AT_ONCE:
            self.store()

    def store(self) -> None:
        """Keep what is not kept yet.

        Raises:
            MigrationError: it could not be stored.
        """
        waiting, self.waiting = self.waiting, []
        if waiting:
            self.keep(waiting)


def open_aside(stores: OpenStores, token_range: TokenRange | None, run_id: str) -> Aside:
    """Begin to set rows aside that cannot be written, as far as that is declared."""

    def keep(rows: list[BadRow]) -> None:
        letters: list[Letter] = [to_letter(stores.plan, b, token_range, run_id) for b in rows]
        store = _letters(stores)
        if store is None:
            keyspace = stores.plan.migration.tracking_keyspace
            raise PermanentError(f"there is no table {keyspace}.dead_letters to set rows aside in")
        store.add(letters)

    return Aside(stores.plan.migration.dead_letters_max_rows, keep)


def _letters(stores: OpenStores) -> LetterStore | None:
    store = stores.cache.get("dead letters")
    if store is None:
        store = open_letters(stores.records, stores.plan.migration)
        stores.cache["dead letters"] = store
    return store


def remove_letters(stores: OpenStores, piece: TokenRange, aside: Aside) -> None:
    """Remove the letters of a piece that was copied to its end, but for rows that came up again.

    Raises:
        MigrationError: they could not be removed.
    """
    store = _letters(stores)
    if store is None:
        return
    # Read once: what this run sets aside, it knows.
    slices = stores.cache.get("slices with letters")
    if slices is None:
        slices = stores.cache["slices with letters"] = store.slices()
    remove_settled(store, slices, piece, aside.keys)
