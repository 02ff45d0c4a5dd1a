"""Tables of which no column counts for a row's one time: what the schema alone decides.

With `row_max.if_none_counts: now` such a table is written with the present time and without a
TTL, as the Cassandra Data Migrator does. The plan then holds that migration, so that a copy, a
comparison and a repair all follow it.
"""

from collections.abc import Iterable
from dataclasses import replace

from migration_platform.cql.types import parse_type
from migration_platform.declaration.migration import Migration
from migration_platform.declaration.times import RowMax
from migration_platform.plan.model import Table


def settle_uncounted(
    migration: Migration, origin: Table, names: Iterable[str]
) -> tuple[Migration, tuple[str, ...], list[str]]:
    """Give the migration as it is done, and of `writetime` and `ttl` those no column counts for.

    `names` are the origin's columns whose times could be read. The last are problems; where
    there are some, the migration is as it was declared.
    """
    chosen = migration.row_max
    kinds = {name: parse_type(origin.type_of(name)) for name in names}
    # A counter has no time that could be chosen, whatever counts.
    if chosen.if_none_counts != "now" or any(kind.name == "counter" for kind in kinds.values()):
        return migration, (), []
    told = chosen.collections and origin.tells_elements
    counts = any(told or not kind.is_multicell for kind in kinds.values())
    uncounted = tuple(
        of
        for of, mode, named in (
            ("writetime", migration.writetime, chosen.writetime_columns),
            ("ttl", migration.ttl, chosen.ttl_columns),
        )
        if mode == "row_max" and not named and not counts
    )
    problems = []
    if "writetime" in uncounted:
        why = f"but no column of {origin.name} counts for one (row_max.if_none_counts is now)"
        if migration.compare_writetime:
            problems.append(
                f"diff.compare_writetime needs writetimes that are kept, {why}; leave it out"
            )
        if migration.filter.by_writetime:
            problems.append(
                f"filter.writetime_from and _to need writetimes of rows, {why}; leave them out, or "
                "set row_max.collections to true"
            )
    if problems:
        return migration, (), problems
    return without_times(migration, uncounted), uncounted, []


def without_times(migration: Migration, which: Iterable[str]) -> Migration:
    """Give the migration that makes new writetimes or leaves TTLs out, whatever it declared.

    `which` are `writetime` or `ttl`, or both; what `row_max` says of them goes with them.
    """
    which = set(which)
    is_new, lives = "writetime" in which, "ttl" in which
    writetime, ttl = "now" if is_new else migration.writetime, "none" if lives else migration.ttl
    by_newest = migration.collisions != "refuse" or migration.filter.by_writetime
    of_writetimes, of_ttls = writetime == "row_max" or by_newest, ttl == "row_max"
    declared = migration.row_max
    row_max = RowMax(
        writetime_columns=declared.writetime_columns if of_writetimes else (),
        ttl_columns=declared.ttl_columns if of_ttls else (),
        collections=declared.collections or not (of_writetimes or of_ttls),
        expiring_cells_only=declared.expiring_cells_only and of_ttls,
        if_none_counts=declared.if_none_counts if not which else RowMax.if_none_counts,
    )
    return replace(
        migration,
        writetime=writetime,
        ttl=ttl,
        writetime_increment_by=0 if is_new else migration.writetime_increment_by,
        compare_writetime=migration.compare_writetime and not is_new,
        row_max=row_max,
    )
