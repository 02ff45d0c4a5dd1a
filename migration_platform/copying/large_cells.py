"""Cells of a table that are too large: every row is read and measured, and none is written.

There is no target. The plan's target is the origin itself, so that each column is filled by
itself, and a rehearsal of that plan reads every cell as it is.
"""

from migration_platform.declaration.filters import Filter
from migration_platform.declaration.migration import Endpoint, Guardrails, Migration


def declare_check(
    origin: Endpoint,
    max_column_kb: int,
    *,
    token_ranges: int = Migration.token_ranges,
    workers: int | None = None,
    chosen: Filter = Filter(),  # noqa: B008, it is frozen
    tracking: bool = True,
    tracking_keyspace: str = Migration.tracking_keyspace,
    retry_seconds: float = Migration.retry_seconds,
) -> Migration:
    """Declare that rows with a cell of more than so many kB (1000 bytes) are counted.

    Raises:
        DeclarationError: one message with everything that is wrong.
    """
    return Migration(
        origin,
        # At the consistency that every table allows: nothing is written at it.
        Endpoint(origin.store, origin.table),
        token_ranges=token_ranges,
        workers=workers,
        writetime="now",
        ttl="none",
        filter=chosen,
        # Rows that are skipped for a large cell are counted once, however many of them they have.
        guardrails=Guardrails(max_column_kb, "skip"),
        tracking=tracking,
        tracking_keyspace=tracking_keyspace,
        retry_seconds=retry_seconds,
        reads_only=True,
    )
