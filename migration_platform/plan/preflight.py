"""What the servers must allow before anything is written; the answer is a frozen `Plan`.

A plan is all that a worker process needs to know, and can be pickled. Every problem is
collected, so that one message names them all and what would have been valid.
"""

from collections.abc import Iterable
from dataclasses import replace

from migration_platform.cql.cell_times import RowMaxCells, TimesLayout
from migration_platform.cql.conversion import TypesDiffer
from migration_platform.cql.names import quote
from migration_platform.cql.types import parse_type
from migration_platform.declaration.migration import Migration
from migration_platform.declaration.times import RowMax
from migration_platform.plan.codecs import build_codec, hint_for, is_injective
from migration_platform.plan.model import Layer, Plan, Source, Table, folds_forms
from migration_platform.plan.sources import find_sources
from migration_platform.plan.uncounted_times import settle_uncounted

_SEES_WRITES = ("LOCAL_QUORUM", "QUORUM", "EACH_QUORUM", "ALL")
"""Consistency levels of which a read sees every write that was acknowledged at the same one."""


def _written(plan: Plan) -> set[str]:
    return {source.target for layer in plan.layers for source in layer.sources}


def plan_tables(
    migration: Migration, origin: Table, target: Table
) -> tuple[Plan | None, list[str]]:
    """Find what fills each column of the target, and everything that keeps rows from fitting."""
    problems = _validate_names(migration, origin, target)
    left_out: list[str] = []
    sources = find_sources(migration.columns, origin, target, problems, left_out)
    problems += _validate_types(migration, sources)
    problems += _validate_keys(migration, origin, target, sources)
    problems += _validate_statics(migration, origin, target, sources)
    problems += _validate_counters(migration, origin, target, sources)
    values = {*(s.origin for s in sources if s.origin), *left_out} - {*origin.primary_key}
    migration, uncounted, uncountable = settle_uncounted(migration, origin, values)
    problems += uncountable
    if problems:
        return None, problems
    filled = {source.target for source in sources}
    plan = Plan(
        migration=migration,
        origin=origin,
        target=target,
        layers=_layers(migration, origin, sources, left_out),
        left_unset=tuple(c.name for c in target.columns if c.name not in filled),
        lost_keys=_lost_keys(migration, origin, target, sources),
        left_out=tuple(left_out),
        uncounted=uncounted,
    )
    problems = _validate_row_max(plan) + _validate_comparison(plan)
    return plan, problems + _validate_repair(plan)


# -- what fills each column ----------------------------------------------------------------------


def _validate_names(migration: Migration, origin: Table, target: Table) -> list[str]:
    """Refuse columns that are named in the declaration and do not exist."""
    columns, chosen = migration.columns, migration.filter
    explode, extract = columns.explode_map, columns.extract_json
    also = migration.target.declared.renames_in
    also = f" or {also}" if also else ""
    named = [
        (f"columns.skip{also}", columns.skip, origin),
        (f"columns.rename{also}", columns.rename, origin),
        ("columns.rename", columns.rename.values(), target),
        ("columns.constants", columns.constants, target),
        ("columns.key_defaults", columns.key_defaults, target),
        ("columns.explode_map.column", [explode.column] if explode else (), origin),
        ("columns.explode_map", [explode.key, explode.value] if explode else (), target),
        ("columns.extract_json.column", [extract.column] if extract else (), origin),
        ("columns.extract_json", extract.properties.values() if extract else (), target),
        ("filter.column", [chosen.column.name] if chosen.column else (), origin),
        ("row_max.writetime_columns", migration.row_max.writetime_columns, origin),
        ("row_max.ttl_columns", migration.row_max.ttl_columns, origin),
        ("group_writes_by", migration.group_writes_by or (), target),
    ]
    problems = []
    for attribute, names, table in named:
        known = [column.name for column in table.columns]
        unknown = [name for name in names if name not in known]
        if unknown:
            problems.append(
                f"{attribute} names {', '.join(map(quote, unknown))}, which {table.name} does "
                f"not have; valid are {', '.join(map(quote, known))}"
            )
    for name in columns.key_defaults:
        if name in {c.name for c in target.columns} and name not in target.primary_key:
            problems.append(
                f"columns.key_defaults names {quote(name)}, which is no key column of "
                f"{target.name}; valid are {', '.join(map(quote, target.primary_key))}"
            )
    kafka = migration.sync.kafka if migration.sync else None
    strange = [name for name in kafka.key if name not in origin.primary_key] if kafka else []
    if strange:
        problems.append(
            f"sync.kafka.key names {', '.join(map(quote, strange))}, which is no key column of "
            f"{origin.name}; valid are {', '.join(map(quote, origin.primary_key))}"
        )
    return problems


def _layers(
    migration: Migration, origin: Table, sources: tuple[Source, ...], left_out: Iterable[str]
) -> tuple[Layer, ...]:
    statics = {column.name for column in origin.columns if column.is_static}
    layers = []
    for name in ("rows", "statics"):
        chosen = tuple(
            source
            if source.is_key or source.is_static == (name == "statics")
            else replace(source, target="")
            for source in sources
        )
        chosen = tuple(source for source in chosen if source.target)
        if name == "statics":
            partition = set(origin.partition_key)
            chosen = tuple(
                s for s in chosen if not s.is_key or s.kind == "constant" or s.origin in partition
            )
            if not any(source.is_static for source in chosen):
                continue
        values = {s.origin for s in chosen if s.origin}
        if "row_max" in (migration.writetime, migration.ttl) or migration.filter.by_writetime:
            # The newest of a row is that of all its columns, of those that stay behind, too.
            values |= {c for c in left_out if (c in statics) == (name == "statics")}
        values -= set(origin.primary_key)
        layers.append(
            Layer(
                name=name,
                origin_key=origin.primary_key if name == "rows" else origin.partition_key,
                sources=chosen,
                times=_times_layout(migration, origin, values),
                has_counters=any(s.target_type == "counter" for s in chosen),
            )
        )
    return tuple(layers)


def _times_layout(migration: Migration, table: Table, values: set[str]) -> TimesLayout:
    """Say which columns' times a copy has to read."""
    needed = (
        migration.writetime in ("cell", "row_max")
        or migration.ttl in ("cell", "row_max")
        or migration.filter.by_writetime
        or migration.collisions in ("newest", "oldest")
    )
    layout = times_layout(
        table,
        [c.name for c in table.columns if needed and c.name in values],
        ttls=migration.ttl in ("cell", "row_max"),
    )
    if migration.row_max == RowMax():
        return layout
    return replace(layout, row_max=_row_max_cells(migration.row_max, layout))


def _row_max_cells(chosen: RowMax, layout: TimesLayout) -> RowMaxCells:
    """Say which columns of a layout count for a row's one time."""
    automatic = layout.simple + (layout.multi if chosen.collections else ())

    def positions(named: tuple[str, ...]) -> tuple[int, ...]:
        wanted = named or automatic
        return tuple(i for i, n in enumerate(layout.simple + layout.multi) if n in wanted)

    return RowMaxCells(
        positions(chosen.writetime_columns),
        positions(chosen.ttl_columns),
        chosen.expiring_cells_only,
    )


def times_layout(table: Table, names: Iterable[str], *, ttls: bool) -> TimesLayout:
    """Sort columns by whether they have one time or one for each element."""
    simple, multi = [], []
    for name in names:
        cql_type = parse_type(table.type_of(name))
        if cql_type.name == "counter":
            continue
        if not cql_type.is_multicell:
            simple.append(name)
        elif table.tells_elements:
            multi.append(name)
    return TimesLayout(tuple(simple), tuple(multi), ttls)


# -- what does not fit ---------------------------------------------------------------------------


def _validate_types(migration: Migration, sources: tuple[Source, ...]) -> list[str]:
    problems = []
    for source in sources:
        try:
            source.converter(migration.columns)
        except TypesDiffer as error:
            origin, target = parse_type(source.origin_type), parse_type(source.target_type)
            codec = hint_for(origin, target)
            way_out = f" or name {codec} in columns.codecs" if codec else ""
            problems.append(
                f"column {quote(source.origin)} is {source.origin_type} at the origin and "
                f"{source.target_type} at the target ({error}); make the target's "
                f"{source.origin_type}{way_out}"
            )
        except ValueError as error:
            problems.append(f"column {quote(source.origin)}: {error}")
    return problems


def _validate_keys(
    migration: Migration, origin: Table, target: Table, sources: tuple[Source, ...]
) -> list[str]:
    filled = {source.target for source in sources}
    missing = [name for name in target.primary_key if name not in filled]
    if not missing:
        return []
    return [
        f"nothing fills {', '.join(map(quote, missing))} of the primary key of {target.name}, "
        f"which {origin.name} does not have: name it in columns.rename, columns.constants, "
        "columns.explode_map or columns.extract_json"
    ]


def _lost_keys(
    migration: Migration, origin: Table, target: Table, sources: tuple[Source, ...]
) -> tuple[str, ...]:
    kept = {
        source.origin
        for source in sources
        if source.is_key
        and source.kind == "column"
        and _keeps_apart(migration, origin, target, source)
    }
    lost = [name for name in origin.primary_key if name not in kept]
    lost += [
        source.origin
        for source in sources
        if source.kind == "map_key" and not _keeps_apart(migration, origin, target, source)
    ]
    return tuple(lost)


def _keeps_apart(migration: Migration, origin: Table, target: Table, source: Source) -> bool:
    """Say whether different values stay different."""
    if folds_forms(migration, origin, target, source):
        return False
    here, there, columns = (
        parse_type(source.origin_type),
        parse_type(source.target_type),
        migration.columns,
    )
    if build_codec(here, there, columns) is None:
        return True
    return all(is_injective(name, here, there, columns) for name in columns.codecs)


def _validate_statics(
    migration: Migration, origin: Table, target: Table, sources: tuple[Source, ...]
) -> list[str]:
    statics = {column.name for column in origin.columns if column.is_static}
    problems = []
    repeats = migration.target.declared.repeats_statics
    for source in sources:
        if source.kind == "constant" or source.is_key or repeats:
            continue
        if (source.origin in statics) != source.is_static:
            here, there = (
                ("static", "regular")
                if source.origin in statics
                else (
                    "regular",
                    "static",
                )
            )
            problems.append(
                f"column {quote(source.origin)} is {here} at the origin, but {quote(source.target)}"
                f" is {there} at the target; make both alike, or skip it with columns.skip"
            )
    if any(source.is_static for source in sources):
        by_target = {s.target: s for s in sources}
        kept = {by_target[n].origin for n in target.partition_key if n in by_target} - {""}
        lost = set(_lost_keys(migration, origin, target, sources))
        if kept != set(origin.partition_key) or lost & set(origin.partition_key):
            problems.append(
                f"{target.name} has static columns, but its partition key is not the origin's "
                f"({', '.join(map(quote, origin.partition_key))}): the static cells of several "
                "partitions would land on one; keep the partition key, or skip "
                + ", ".join(quote(s.origin or s.target) for s in sources if s.is_static)
            )
    return problems


def _one_of(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _validate_counters(
    migration: Migration, origin: Table, target: Table, sources: tuple[Source, ...]
) -> list[str]:
    counters = [s for s in sources if "counter" in (s.origin_type, s.target_type)]
    if not counters:
        return []
    problems = []
    if migration.target.consistency not in _SEES_WRITES:
        problems.append(
            f"{target.name} has counters, to which only what they lack is added, and a read at "
            f"target.consistency {migration.target.consistency} may miss what was added before; "
            f"set it to {_one_of(_SEES_WRITES)}"
        )
    if any(s.kind != "column" and not s.is_key for s in sources):
        problems.append(
            f"{target.name} has counters, which only counters can fill; leave columns.constants, "
            "columns.explode_map and columns.extract_json out"
        )
    if _lost_keys(migration, origin, target, sources):
        problems.append(
            f"{target.name} has counters, and several rows of {origin.name} would land on one: "
            "keep the whole primary key"
        )
    if (
        migration.filter.by_writetime
        or isinstance(migration.writetime, int)
        or isinstance(migration.ttl, int)
    ):
        problems.append(
            f"{target.name} has counters, whose writetimes and TTLs cannot be chosen; leave "
            "writetime, ttl and filter.writetime_from and _to out"
        )
    return problems


def _validate_row_max(plan: Plan) -> list[str]:
    """Refuse columns that are to count for a row's time and have none that is read."""
    told = [name for layer in plan.layers for name in (*layer.times.simple, *layer.times.multi)]
    chosen = plan.migration.row_max
    return [
        f"row_max.{attribute} names {quote(name)}, of which no time is read: it is a key, is not "
        "copied, or is a collection of a server that tells no times of elements; valid are "
        f"{', '.join(map(quote, told))}"
        for attribute in ("writetime_columns", "ttl_columns")
        for name in getattr(chosen, attribute)
        if name not in told
    ]


def _validate_comparison(plan: Plan) -> list[str]:
    """Refuse what could be copied, but of which no comparison could say that it is right."""
    chosen = plan.migration.filter
    windowed = any(chosen.window(r) != r for r in plan.migration.ranges)
    if windowed and not plan.tells_origin_token and plan.migration.diff_mode == "two_way":
        return [
            f"the key of {plan.target.name} does not tell the origin's token, so rows beyond "
            "filter.token_min, token_max and coverage_percent cannot be told from extra ones; "
            "set diff.mode to origin_only"
        ]
    return []


def _validate_repair(plan: Plan) -> list[str]:
    """Refuse repairs that could not be done row by row, or never be found right afterwards."""
    migration, problems = plan.migration, []
    by_key = [kind for kind in migration.repair if kind != "counters"]
    if by_key and not plan.tells_origin_row:
        known = {} if plan.lost_keys else plan.origin_names
        untold = [name for name in plan.origin.primary_key if name not in known]
        problems.append(
            f"diff.repair names {', '.join(by_key)}, but the key of {plan.target.name} does not "
            f"tell the origin's row, because it does not hold {', '.join(map(quote, untold))} as "
            "it is at the origin; leave diff.repair out, and copy ranges that differ again"
        )
    if "extra" in migration.repair and migration.origin.consistency not in _SEES_WRITES:
        problems.append(
            "diff.repair names extra, and a read at origin.consistency "
            f"{migration.origin.consistency} may miss a row that the origin has, which would then "
            f"be deleted at the target; set it to {_one_of(_SEES_WRITES)}, or leave extra out"
        )
    if "extra" in migration.repair and plan.has_counters:
        problems.append(
            f"diff.repair names extra, but {plan.target.name} has counters, and a counter that "
            "was deleted must not be written again; leave extra out"
        )
    if migration.repair_writetime == "now" and migration.compare_writetime:
        problems.append(
            "diff.repair_writetime is now, but diff.compare_writetime would find every repaired "
            "row again; leave one of them out"
        )
    return problems
