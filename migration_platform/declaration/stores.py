"""What a declaration says of one kind of store alone, and what a kind of store can do."""

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Abilities:
    """What the engine may ask of a kind of store; the defaults are those of Cassandra.

    The engine never asks which kind a store is: it asks for one of these.
    """

    cell_times: bool = True
    """Each cell has a writetime and an expiry of its own, which can be written and read."""
    reads_ranges: bool = True
    """The rows of one token range can be read without the others."""
    keeps_records: bool = True
    """It can hold the tables that track runs, and the dead letters."""
    writes_whole_rows: bool = False
    """A write replaces the whole row: what it does not name is gone."""
    folds_equal_values: bool = True
    """It takes some values for one that have different bytes, such as 1.5 and 1.50 in a key."""
    counters: bool = True
    """A counter is added to, and never set."""
    read_budget: bool = False
    """Reads of the target have a limit of their own, beside that of writes."""


@dataclass(frozen=True)
class StoreDeclaration:
    """What only one kind of store has declared of its table: by default nothing, for Cassandra.

    A kind of store with attributes of its own, or with other abilities, has a subclass; it is
    frozen, and can be pickled.
    """

    kind: ClassVar[str] = "cassandra"
    abilities: ClassVar[Abilities] = Abilities()
    size_unit: ClassVar[str] = "bytes"
    """What limits of size count, in words."""
    renames_in: ClassVar[str] = ""
    """The attribute that renames and drops columns beside `columns.rename` and `columns.skip`."""
    passed_over: ClassVar[tuple[str, ...]] = ()
    """What no comparison looks at, in words."""

    @property
    def write_size_per_second(self) -> int | None:
        """The declared limit of what is written, where it is not one of bytes."""
        return None

    @property
    def read_size_per_second(self) -> int | None:
        """The declared limit of what is read of the target, where it is one of its own."""
        return None

    @property
    def repeats_statics(self) -> bool:
        """Whether static cells stand in each row of their partition, and not once for it."""
        return False

    @property
    def fingerprinted(self) -> dict[str, object]:
        """What the form of every row depends on: where it changes, all are to be copied anew."""
        return {}

    def validate_origin(self, migration: Any) -> list[str]:
        """Give what an origin of this kind cannot do of a migration, one sentence each."""
        del migration
        return []

    def validate_target(self, migration: Any) -> list[str]:
        """Give what a target of this kind cannot do of a migration, one sentence each."""
        del migration
        return []

    def describe(self, migration: Any) -> list[str]:
        """Describe the target in lines of Markdown: its own attributes, and what becomes of times.

        `migration` is the `Migration` that declares it.
        """
        return [f"- **Writetime and TTL**: `{migration.writetime}`, `{migration.ttl}`"]
