"""What the engine asks of a store: of an origin, which it reads, and of a target, which it writes.

A kind of store derives from `Origin`, `Target` or both, each around an open connection, and says so
in a `Kind`. The engine asks what is declared here, and `declaration.stores.Abilities`, and nothing
else. What has a body here is for the kinds that have nothing to say to it.

Rows travel as CQL cells, whatever the store: a `Page` holds rows one behind the other, each as its
cells with their lengths (`cql.rows`). What is asked once for each range or page may be a call of
any cost; nothing is asked of a store once for each row.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from migration_platform.cql.cell_times import TimesLayout
from migration_platform.cql.conversion import Converter
from migration_platform.cql.rows import Page
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.declaration.stores import StoreDeclaration
from migration_platform.errors import MigrationError, UnreadableError
from migration_platform.pacing.rate import RateBudget
from migration_platform.plan.analysis import Analysis
from migration_platform.plan.fidelity import Fidelity, describe_cells
from migration_platform.plan.model import Layer, Plan, Row, RowReader, Source, Table
from migration_platform.token_ranges import TokenRange

Cells = list[bytes | None]
OnRetry = Callable[[BaseException], None]
OnRejected = Callable[[Cells, MigrationError, bool], None]
"""Is told of a row that the store rejects: its key at the target, why, and whether the row counts
as written already."""
CompileRows = Callable[..., RowReader]
"""Builds what reads rows as a copy writes them; see `copying.transform.compile_rows`."""
NO_TIMES = TimesLayout((), (), ttls=False)


class Settings(Protocol):
    """How to reach a store: a frozen value that can be pickled and shows no secrets."""

    def connect(self) -> Any:
        """Connect once; what it gives has `close`, and is a context manager.

        Raises:
            PreflightError: nobody answers, or the user is refused; one sentence.
        """
        ...


class Resource(Protocol):
    """A store as the project declares it: it connects here, and its settings do elsewhere."""

    def connect(self) -> AbstractContextManager[Any]:
        """Connect once, as `Settings.connect`."""
        ...

    def to_settings(self) -> Settings:
        """Give what any process can connect with."""
        ...


@dataclass(frozen=True)
class Pace:
    """How fast and how patiently a store is asked.

    `on_retry` is told of each request that is tried again. Seconds are those for which a request
    that fails for a passing reason is tried again.
    """

    budget: RateBudget
    retry_seconds: float
    on_retry: OnRetry


@dataclass(frozen=True)
class Uses:
    """What a run is to do: whether it writes rows, and whether it compares them."""

    copying: bool = True
    comparing: bool = True


@dataclass(frozen=True)
class Selection:
    """What is read of a table: cells of `columns` in this order, then those of `times`.

    With `statics` each partition gives one row, of its static cells. `where` is a condition of the
    user's that the store checks. Of a target, `sources` are what fills its columns, in their order,
    and `layer` is what they are of. `by` are the first columns of the primary key, where keys stand
    for all rows that begin with them; at least those of the partition key. With `together` keys
    come in an order in which neighbours may be asked for by one request.
    """

    table: Table
    columns: tuple[str, ...]
    times: TimesLayout = NO_TIMES
    statics: bool = False
    where: str | None = None
    layer: Layer | None = None
    sources: tuple[Source, ...] = ()
    by: tuple[str, ...] = ()
    together: bool = False

    @property
    def cells(self) -> int:
        """How many cells a row has."""
        return len(self.columns) + len(self.times.selections())

    @property
    def partition(self) -> tuple[int, ...]:
        """Where the cells of the partition key are."""
        return tuple(self.columns.index(name) for name in self.table.partition_key)

    @property
    def key_names(self) -> tuple[str, ...]:
        """The columns by which rows are read: the primary key, or of static cells a part."""
        if self.by:
            return self.by
        return self.table.partition_key if self.statics else self.table.primary_key


@dataclass(frozen=True)
class KeyForm:
    """How keys come by which rows are read: as so many cells.

    `positions` say which of them are the cells of `Selection.key_names`, in their order.
    """

    cells: int
    positions: tuple[int, ...]


@dataclass(frozen=True)
class PieceListener:
    """Is told what becomes of a piece that is read.

    `on_split` is told of a piece that is cut, and of those that take its place, `on_piece` of each
    that was read to its end, `on_unreadable` of one that nobody can read; the read then goes on
    with the next.
    """

    on_piece: Callable[[TokenRange], None]
    on_split: Callable[[TokenRange, tuple[TokenRange, ...]], None]
    on_unreadable: Callable[[TokenRange, UnreadableError], None]


class RangeReader(Protocol):
    """Reads a selection range by range; it is prepared once in a process."""

    def pages(
        self,
        piece: TokenRange,
        pace: Pace,
        *,
        fetch_size: int | None = None,
        told: PieceListener | None = None,
    ) -> Iterator[Page]:
        """Give the rows whose token lies in the piece, in pages that fit into memory.

        `fetch_size` overrules the rows of a page that are declared. A piece that proves too large
        may be cut, of which `told` is told.

        Raises:
            PermanentError, TransientError: a page could not be read.
        """
        ...


class KeyReader(Protocol):
    """Reads single rows by their keys; it is prepared once in a process.

    With `Selection.by` a key stands for many rows, and comes once with each page of them.
    """

    def rows(
        self, keys: Iterable[bytes], pace: Pace, *, rejects: bool = False
    ) -> Iterator[tuple[bytes, Page]]:
        """Give each key with a page of its row, in the given order; the page of no row is empty.

        Keys are taken as they are read: there may be as many as a range has.

        A key that no row can have, because the store rejects it, is one without a row; with
        `rejects` it is an error.

        Raises:
            PermanentError, TransientError: a row could not be read.
        """
        ...


class RowsWriter(Protocol):
    """Writes rows of one layer, in whatever requests are best; it counts what is acknowledged."""

    @property
    def rows_written(self) -> int:
        """Acknowledged rows, and rows that expired on their way; static cells count as none."""
        ...

    @property
    def rows_left_alone(self) -> int:
        """Rows of which the target holds something newer."""
        ...

    @property
    def statics_taken(self) -> int:
        """Partitions whose static cells were given to be written."""
        ...

    @property
    def parts_expired(self) -> int:
        """Rows, or parts of them with a time of their own, that expired on their way."""
        ...

    def write(self, rows: Iterable[Row], page: Page) -> None:
        """Take the rows of a page; they are sent by and by.

        Raises:
            PermanentError, TransientError: a row could not be written, an earlier one maybe.
        """
        ...

    def flush(self) -> None:
        """Send what waits, and wait until all rows are acknowledged.

        Raises:
            PermanentError, TransientError: a row could not be written.
        """
        ...


class LayerWrites(Protocol):
    """What is prepared once in a process to write the rows of a layer.

    Its rows come with cells in the order of `sources`. The first `leading` of them are also given
    apart, as one piece, where the writer groups rows by them.
    """

    @property
    def sources(self) -> tuple[Source, ...]:
        """What a row's cells are, in their order."""
        ...

    @property
    def leading(self) -> int:
        """How many of them are given apart."""
        ...

    @property
    def null(self) -> bytes:
        """How a null stands among a row's cells: `NULL` or `UNSET` of `cql.rows`."""
        ...

    def open(self, plan: Plan, pace: Pace, on_rejected: OnRejected, *, again: bool) -> RowsWriter:
        """Begin to write; `again` says that these rows were copied before."""
        ...


class Deletes(Protocol):
    """What is prepared once in a process to delete what only a target has."""

    def delete_rows(self, keys: Iterable[bytes], before_us: int, pace: Pace) -> None:
        """Delete rows as of a moment: what was written later stays, where the store can tell.

        Raises:
            PermanentError, TransientError: a row could not be deleted.
        """
        ...

    def delete_surplus(
        self,
        keys: Sequence[bytes],
        read_origin: Callable[[Sequence[bytes]], Iterator[Cells | None]],
        pace: Pace,
    ) -> None:
        """Delete the cells and elements of rows that the origin's do not have.

        `read_origin` gives for each key the row's cells at the origin, or None. It is asked after
        the target: what the target has by then, and the origin still lacks, was not written in
        between. A store that writes whole rows has nothing to do.

        Raises:
            PermanentError, TransientError: a cell could not be read or deleted.
        """


class Origin(Protocol):
    """A store that is read, around its open connection."""

    connection: Any
    """The open connection, as `Settings.connect` gave it."""

    def find_table(self, endpoint: Endpoint) -> tuple[Table, list[str]]:
        """Give a table as it is, and what speaks against reading it at all.

        Raises:
            PreflightError: there is no such table, or it cannot be described.
        """
        ...

    def validate(self, plan: Plan) -> list[str]:
        """Give what the store would not do of a plan, such as a condition; nothing is read."""
        del plan
        return []

    def validate_use(self, plan: Plan, uses: Uses) -> Iterator[str]:
        """Give what the store would refuse of every row, for the user or by its settings."""
        del plan, uses
        return iter(())

    def analyse(self, table: Table, endpoint: Endpoint, pace: Pace) -> Analysis | None:
        """Tell how a table lies on the ring, by a bounded read; None if that cannot be told.

        Raises:
            PermanentError, TransientError: it could not be read.
        """
        del table, endpoint, pace
        return None

    def begin_range(self, plan: Plan, piece: TokenRange, pace: Pace) -> None:
        """Do what has to be done before a piece is read.

        Raises:
            PermanentError, TransientError: it could not be done.
        """

    def prepare_ranges(self, plan: Plan, selection: Selection) -> RangeReader:
        """Prepare the read of ranges.

        Raises:
            PermanentError, TransientError: the store refused or did not answer.
        """
        ...

    def prepare_keys(self, plan: Plan, selection: Selection, keys: KeyForm) -> KeyReader:
        """Prepare the read of single rows.

        Raises:
            PermanentError, TransientError: the store refused, its condition maybe, or did not
                answer.
        """
        ...


class Target(Protocol):
    """A store that is written, and read to compare, around its open connection."""

    connection: Any
    """The open connection, as `Settings.connect` gave it."""

    def find_table(self, migration: Migration) -> tuple[Any, list[str]]:
        """Give what is there of the table, in the store's own form, and what speaks against it.

        Raises:
            MigrationError: it cannot be described, or is missing and not to be created.
        """
        ...

    def shape(self, migration: Migration, origin: Table, found: Any) -> Table | None:
        """Give the table as the engine sees it; without an id if it is still to be created.

        `origin` is the origin's table, `found` what `find_table` gave, or None if it gave nothing:
        then there may be nothing to say.

        Raises:
            DeclarationError: what is declared makes no table.
        """
        ...

    def validate(self, plan: Plan, origin: Origin, found: Any) -> list[str]:
        """Give what speaks against a plan at this target."""
        del plan, origin, found
        return []

    def validate_use(self, plan: Plan, uses: Uses) -> Iterator[str]:
        """Give what the store would refuse of every row, for the user or by its settings."""
        del plan, uses
        return iter(())

    def create(self, plan: Plan, report: Callable[[str], None]) -> None:
        """Create the table of a plan; `report` is told what is waited for.

        Raises:
            MigrationError: it cannot be created.
        """
        ...

    def empty(self, plan: Plan, pace: Pace) -> int | None:
        """Delete all rows; give how many there were, where each had to be deleted by itself.

        Raises:
            MigrationError: it was refused, or could not be finished; what is gone stays gone.
        """
        ...

    def finish(self, plan: Plan, report: Callable[[str], None]) -> None:
        """Do what belongs behind the copy of all ranges; `report` is told what is waited for.

        It is called again after each copy that leaves all ranges copied.

        Raises:
            MigrationError: it was refused, or could not be finished.
        """

    def describe_cost(
        self, plan: Plan, origin: Origin, compile_rows: CompileRows
    ) -> dict[str, Any]:
        """Tell what a copy will consume, and how the table differs, by name; empty if nothing.

        A `Markdown` is a text to show; a list is a list of texts; others are numbers and words.

        Raises:
            PermanentError, TransientError: a sample could not be read.
        """
        del plan, origin, compile_rows
        return {}

    def prepare_writes(self, plan: Plan, layer: Layer) -> LayerWrites:
        """Prepare the writes of a layer's rows.

        Raises:
            MigrationError: the store refused or did not answer.
        """
        ...

    def prepare_ranges(self, plan: Plan, selection: Selection) -> RangeReader:
        """Prepare the read of what the table holds.

        A store that cannot read the rows of a token range cuts its table otherwise: into as many
        pieces, of which it gives the one with the range's number.

        Raises:
            MigrationError: the store refused or did not answer.
        """
        ...

    def prepare_keys(self, plan: Plan, selection: Selection, keys: KeyForm) -> KeyReader:
        """Prepare the read of single rows.

        Raises:
            MigrationError: the store refused or did not answer.
        """
        ...

    def prepare_deletes(
        self,
        plan: Plan,
        selection: Selection,
        keys: KeyForm,
        values: Sequence[tuple[int, Source]],
    ) -> Deletes:
        """Prepare deletions; `values` are the cells that surplus is looked for in."""
        ...


class Markdown(str):
    """A text in Markdown."""


def _keep_cells(plan: Plan, layer: Layer, sources: Sequence[Source]) -> dict[int, Converter]:
    del plan, layer, sources
    return {}


def _take_all(plan: Plan, layer: Layer, sources: Sequence[Source]) -> Callable[[Cells], str] | None:
    del plan, layer, sources
    return None


@dataclass(frozen=True)
class Kind:
    """A row of the table of kinds: what a kind of store is to the engine.

    `declaration` names the kind, and holds what only a table of it has declared.
    `open_origin` and `open_target` are given the open connection; None where the kind is no origin
    or no target. The others ask no server. `describe_fidelity` says of each column how it arrives.
    `canonical_cells` gives, by position, what turns a cell of the origin's into the one form in
    which the target gives that value back; with `gives_canonical` it gives all of them so, whoever
    wrote them. `compile_rejection` builds what says why no row of the
    target can hold some cells; empty if one can.
    """

    declaration: type[StoreDeclaration]
    open_origin: Callable[[Any], Origin] | None = None
    open_target: Callable[[Any], Target] | None = None
    describe_fidelity: Callable[[Plan], tuple[Fidelity, ...]] = describe_cells
    canonical_cells: Callable[[Plan, Layer, Sequence[Source]], dict[int, Converter]] = _keep_cells
    gives_canonical: bool = False
    compile_rejection: Callable[[Plan, Layer, Sequence[Source]], Callable[[Cells], str] | None] = (
        _take_all
    )

    @property
    def name(self) -> str:
        """What the kind is called in YAML."""
        return self.declaration.kind
