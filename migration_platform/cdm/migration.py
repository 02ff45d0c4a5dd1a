"""A file's settings as the `Migration` that does what the migrator does with them.

Its row-wise times and its one-way comparison are kept. What cannot be kept and would change what is
copied is wrong; everything else that differs becomes a note.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from migration_platform.cdm.columns import to_columns
from migration_platform.cdm.properties import PREFIX
from migration_platform.cdm.settings import Settings, unquoted
from migration_platform.cdm.ysql import note_ysql, to_ysql_table
from migration_platform.copying.large_cells import declare_check
from migration_platform.cql.names import TableName
from migration_platform.declaration.filters import ColumnFilter, Filter
from migration_platform.declaration.migration import Endpoint, Guardrails, Migration
from migration_platform.declaration.times import RowMax
from migration_platform.errors import DeclarationError
from migration_platform.runs.resume import MAX_SPLIT
from migration_platform.stores.postgres.declaration import PostgresTarget
from migration_platform.token_ranges import MAX_RANGES, MAX_TOKEN, MIN_TOKEN


def to_migration(
    settings: Settings, prefix: str, timestamp_keys: Sequence[str], *, is_ysql: bool = False
) -> Migration | None:
    """Give what Migrate and DiffData do; None where `settings` hold what is wrong.

    With `is_ysql` it is what the fork's YugabyteMigrate and YugabyteValidate do.
    """
    origin = settings.table("schema.origin.keyspaceTable")
    target = to_ysql_table(settings) if is_ysql else _cassandra_table(settings, origin)
    chosen = _filter(settings)
    times = _ysql_times(settings, chosen) if is_ysql else _times(settings, chosen)
    columns = to_columns(settings, timestamp_keys, is_ysql=is_ysql)
    limit = settings.number("feature.guardrail.colSizeInKB") or 0
    if limit > 0:
        settings.note(
            "A large cell is reported (guardrails.action: report), as the code does; its guide "
            "speaks of leaving rows out, which is guardrails.action: skip. --job guardrail makes "
            "the check alone."
        )
    options = {
        **times,
        "columns": columns,
        "filter": chosen,
        "guardrails": Guardrails(limit) if limit > 0 else None,
        "token_ranges": _token_ranges(settings),
        "diff_mode": "origin_only",
        "repair": _repairs(settings, is_ysql=is_ysql),
        "tracking": _is_tracked(settings, at="origin" if is_ysql else "target"),
    }
    settings.note(
        f"diff.mode is origin_only, because {'YugabyteValidate' if is_ysql else 'DiffData'} "
        "compares one way: rows that only the target has are not found. Take the line out to "
        "compare both ways."
    )
    sides = _sides(settings, is_ysql=is_ysql)
    if settings.wrong or origin is None or target is None:
        return None
    try:
        return Migration(
            Endpoint(f"{prefix}_origin", origin, **sides["origin"]),
            Endpoint(f"{prefix}_target", target, **sides["target"]),
            **options,
        )
    except DeclarationError as error:
        settings.wrong.append(str(error))
        return None


def _cassandra_table(settings: Settings, origin: TableName | None) -> TableName | None:
    name = "schema.target.keyspaceTable"
    return settings.table(name) if settings.given(name) else origin


def to_check(settings: Settings, prefix: str) -> Migration | None:
    """Give what GuardrailCheck does: the origin's cells as they are, and no target."""
    origin = settings.table("schema.origin.keyspaceTable")
    limit = settings.number("feature.guardrail.colSizeInKB") or 0
    if limit <= 0:
        settings.wrong.append(
            f"{PREFIX}feature.guardrail.colSizeInKB is missing: it says how large a cell may be"
        )
    settings.note(
        "The origin's cells are measured as they are: what the file says of the target, of "
        "columns, times and repairs does nothing here. The check ends green whatever it finds."
    )
    chosen = _filter(settings)
    if chosen.column or chosen.by_writetime:
        settings.note("filter.java.* is left out: the migrator's GuardrailCheck reads these rows.")
        chosen = replace(chosen, column=None, writetime_from=None, writetime_to=None)
    if settings.number("trackRun.previousRunId") or settings.flag("trackRun.autoRerun"):
        settings.note("trackRun: a check begins anew and reads all ranges; none is carried over.")
    token_ranges, tracking = (
        _token_ranges(settings),
        _is_tracked(settings, at="origin", resumes=False),
    )
    side = _origin_side(settings)
    if settings.wrong or origin is None:
        return None
    try:
        return declare_check(
            Endpoint(f"{prefix}_origin", origin, **side),
            limit,
            token_ranges=token_ranges,
            chosen=chosen,
            tracking=tracking,
        )
    except DeclarationError as error:
        settings.wrong.append(str(error))
        return None


def _origin_side(settings: Settings) -> dict[str, Any]:
    size = settings.number("perfops.fetchSizeInRows")
    settings.note(
        "Rates: those of the migrator are for each worker, rows_per_second is for the whole run, "
        "however many workers it has; raise it by their number to go as fast."
    )
    return {
        "consistency": settings.text("perfops.consistency.read").upper() or "LOCAL_QUORUM",
        "rows_per_second": settings.number("perfops.ratelimit.origin"),
        "fetch_size": size if settings.given("perfops.fetchSizeInRows") else None,
    }


def _sides(settings: Settings, *, is_ysql: bool) -> dict[str, dict[str, Any]]:
    rate = settings.number("perfops.ratelimit.target")
    if is_ysql:
        target = {"rows_per_second": rate, "declared": PostgresTarget()}
        return {"origin": _origin_side(settings), "target": target}
    read, write = (settings.text(f"perfops.consistency.{way}").upper() for way in ("read", "write"))
    if read != write:
        settings.note(
            f"perfops.consistency.read was for the target's rows in a comparison, too; here the "
            f"target is read at target.consistency, {write}."
        )
    return {
        "origin": _origin_side(settings),
        "target": {
            "consistency": write or "LOCAL_QUORUM",
            "rows_per_second": rate,
        },
    }


def _times(settings: Settings, chosen: Filter) -> dict[str, Any]:
    """Say how writetimes and TTLs are kept: one of each for a row, as the migrator does."""
    at = "schema.origin.column."
    names = {of: settings.names(f"{at}{of}.names") for of in ("writetime", "ttl")}
    kept = {of: bool(names[of]) or settings.flag(f"{at}{of}.automatic") for of in names}
    custom = settings.number("transform.custom.writetime") or 0
    custom_ttl = settings.number("transform.custom.ttl") or 0
    increment = settings.number("transform.custom.writetime.incrementBy") or 0
    writetime = custom if custom > 0 else "row_max" if kept["writetime"] else "now"
    ttl = custom_ttl if custom_ttl > 0 else "row_max" if kept["ttl"] else "none"
    if increment and writetime != "row_max":
        settings.note(
            "transform.custom.writetime.incrementBy is left out: it is added to writetimes that "
            "are kept only."
        )
        increment = 0
    if ttl == "none":
        settings.note(
            "ttl is none: rows live for ever. The migrator leaves a TTL to the target table's "
            "default_time_to_live; where it has one, set ttl to its seconds."
        )
    _refuse_filter_without_times(settings, chosen, reads_times=kept["writetime"])
    if chosen.by_writetime and custom > 0:
        settings.note(
            "filter.writetime_from and _to look at each row's own newest writetime, where the "
            "migrator compares the custom writetime, so that all rows pass or none do."
        )
    counts = writetime == "row_max" or chosen.by_writetime
    collections = settings.flag("schema.ttlwritetime.calc.useCollections")
    row_max = RowMax(
        writetime_columns=names["writetime"] if counts else (),
        ttl_columns=names["ttl"] if ttl == "row_max" else (),
        collections=collections or not (counts or ttl == "row_max"),
        expiring_cells_only=ttl == "row_max",
        if_none_counts="now" if "row_max" in (writetime, ttl) else RowMax.if_none_counts,
    )
    _note_row_max(settings, writetime, ttl)
    return {
        "writetime": writetime,
        "ttl": ttl,
        "writetime_increment_by": increment,
        "row_max": row_max,
    }


def _ysql_times(settings: Settings, chosen: Filter) -> dict[str, Any]:
    """Say which cells a filter by writetime looks at: YSQL itself keeps no times."""
    at = "schema.origin.column.writetime."
    names, is_automatic = settings.names(f"{at}names"), settings.flag(f"{at}automatic")
    collections = settings.flag("schema.ttlwritetime.calc.useCollections")
    _refuse_filter_without_times(settings, chosen, reads_times=bool(names) or is_automatic)
    row_max = RowMax()
    if chosen.by_writetime:
        row_max = RowMax(writetime_columns=names, collections=collections)
    note_ysql(settings, filters_by_writetime=chosen.by_writetime)
    return {"writetime": "now", "ttl": "none", "row_max": row_max}


def _refuse_filter_without_times(settings: Settings, chosen: Filter, *, reads_times: bool) -> None:
    if chosen.by_writetime and not reads_times:
        settings.wrong.append(
            f"{PREFIX}filter.java.writetime needs writetimes that are read; set {PREFIX}"
            "schema.origin.column.writetime.automatic to true"
        )


def _note_row_max(settings: Settings, writetime: int | str, ttl: int | str) -> None:
    if "row_max" in (writetime, ttl):
        settings.note(
            "Every cell of a row gets the row's one writetime and TTL. Take writetime, ttl and "
            "row_max out, and each cell keeps its own."
        )
        settings.note(
            "A row of which no cell that counts has a value gets the newest and longest of its "
            "other cells; the migrator writes it at 1970 and for ever."
        )
        settings.note(
            "row_max.if_none_counts is now: a table of which no column counts is written with the "
            "present time and without a TTL, as the migrator does; the plan says whether it is one."
        )
    if ttl == "row_max":
        settings.note(
            "row_max.expiring_cells_only: the longest TTL is that of all cells, also of those "
            "that live for ever; set it to false to let such rows live for ever."
        )


def _filter(settings: Settings) -> Filter:
    low, high = (settings.number(f"filter.java.writetime.{end}") or 0 for end in ("min", "max"))
    active = 0 < low < high
    if (low or high) and not active:
        settings.note(
            "filter.java.writetime is left out: the migrator filters only where min and max are "
            "both above 0 and max is the larger one."
        )
    name = unquoted(settings.text("filter.java.column.name"))
    value = settings.text("filter.java.column.value")
    if bool(name) != bool(value):
        settings.note("filter.java.column is left out: it needs a name and a value.")
    where = re.sub(
        r"\A\s*and\b\s*", "", settings.text("filter.cassandra.whereCondition"), flags=re.I
    )
    least, most = (settings.number(f"filter.cassandra.partition.{end}") for end in ("min", "max"))
    percent = settings.number("filter.java.token.percent")
    if percent is not None and not 1 <= percent <= 100:
        settings.note(
            f"filter.java.token.percent is taken as 100, as the migrator does with {percent}."
        )
        percent = 100
    return Filter(
        where=where or None,
        token_min=MIN_TOKEN if least is None else least,
        token_max=MAX_TOKEN if most is None else most,
        coverage_percent=100 if percent is None else percent,
        writetime_from=low if active else None,
        writetime_to=high if active else None,
        column=ColumnFilter(name, value) if name and value else None,
    )


def _token_ranges(settings: Settings) -> int:
    parts = settings.number("perfops.numParts")
    if not settings.given("perfops.numParts") or parts is None:
        settings.note(
            "token_ranges is 64, where the migrator cuts a ring into 5000; set it where a range "
            "would have more than a few gigabytes."
        )
        return Migration.token_ranges
    if parts > MAX_RANGES:
        settings.note(
            f"token_ranges is {MAX_RANGES}, the most that there can be, not the {parts:,} of "
            "perfops.numParts; a range that is too large is cut while it runs."
        )
    settings.note(
        "token_ranges cut the whole ring; filter.token_min and token_max then say what is read."
    )
    return min(parts, MAX_RANGES)


def _repairs(settings: Settings, *, is_ysql: bool) -> tuple[str, ...]:
    chosen = {
        "missing": settings.flag("autocorrect.missing"),
        "mismatched": settings.flag("autocorrect.mismatch"),
    }
    if settings.flag("autocorrect.missing.counter"):
        if is_ysql:
            settings.note(
                "autocorrect.missing.counter is left out: in YSQL a counter is a number like any "
                "other, which is repaired with its row."
            )
        elif chosen["missing"]:
            chosen["counters"] = True
        else:
            settings.note("autocorrect.missing.counter does nothing without autocorrect.missing.")
    repairs = tuple(name for name, wanted in chosen.items() if wanted)
    if repairs and is_ysql:
        settings.note(
            "diff.repair repairs what a comparison finds, as autocorrect says; the fork's "
            "YugabyteValidate repairs nothing, whatever the file says."
        )
    elif repairs:
        settings.note(
            "diff.repair: null at the origin is repaired as well, where the migrator counts it as "
            "corrected and leaves the target's value. Rows that only the target has are never "
            "deleted, unless extra is listed and diff.mode is two_way."
        )
    return repairs


def _is_tracked(settings: Settings, *, at: str, resumes: bool = True) -> bool:
    """Say whether runs are tracked; `at` is the side whose cluster keeps them."""
    ids = {name: settings.number(f"trackRun.{name}") or 0 for name in ("previousRunId", "runId")}
    for name, run_id in ids.items():
        if not 0 <= run_id <= MAX_TOKEN:
            settings.wrong.append(
                f"{PREFIX}trackRun.{name} must be the id of a run, 1 to {MAX_TOKEN}, or 0 for none"
            )
    # Both flags are read, so that whatever is wrong with them is told.
    chosen = [settings.flag("trackRun"), settings.flag("trackRun.autoRerun")]
    if resumes and (settings.number("trackRun.rerunMultiplier") or 0) > MAX_SPLIT:
        settings.wrong.append(
            f"{PREFIX}trackRun.rerunMultiplier must be at most {MAX_SPLIT:,}: into so many pieces "
            "a range is cut"
        )
    tracked = any(chosen) or any(ids.values())
    if tracked:
        settings.note(
            f"cdm_run_info and cdm_run_details live in the keyspace {Migration.tracking_keyspace} "
            f"of the {at}'s cluster; tracking_keyspace names another one."
        )
    return tracked
