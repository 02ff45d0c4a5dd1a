"""A migration as the YAML attributes that declare it; only what is not the default is written."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from migration_platform.declaration.columns import ExplodeMap, ExtractJson
from migration_platform.declaration.filters import ColumnFilter
from migration_platform.declaration.migration import Guardrails, Migration


def to_attributes(migration: Migration) -> dict[str, Any]:
    """Give the YAML attributes of a migration, of those with a default only what differs."""
    flat = _changed(migration, ("origin", "target", "columns", "filter", "row_max"))
    found: dict[str, Any] = {}
    for side in ("origin", "target"):
        endpoint = getattr(migration, side)
        found[side] = {
            "store": endpoint.store,
            "table": str(endpoint.table),
            **_changed(endpoint, ("store", "table", "declared")),
        }
    diff = {
        "diff_mode": "mode",
        "compare_writetime": "compare_writetime",
        "compare_form": "compare_form",
        "ignore_newer_than_seconds": "ignore_newer_than_seconds",
        "repair": "repair",
        "repair_writetime": "repair_writetime",
    }
    blocks = {
        "row_max": _changed(migration.row_max),
        "columns": _changed(migration.columns),
        "filter": _changed(migration.filter),
        "diff": {name: flat.pop(field) for field, name in diff.items() if field in flat},
    }
    letters = {"dead_letters_max_rows": "max_rows", "dead_letters_fail_run": "fail_run"}
    blocks["dead_letters"] = {
        name: flat.pop(field) for field, name in letters.items() if field in flat
    }
    return {**found, **flat, **{name: block for name, block in blocks.items() if block}}


def to_check_attributes(migration: Migration) -> dict[str, Any]:
    """Give the YAML attributes of a check."""
    origin, limits = migration.origin, migration.guardrails
    assert limits is not None
    named = {"store": origin.store, "table": str(origin.table)}
    chosen = _changed(migration.filter)
    return {
        "origin": {**named, **_changed(origin, named)},
        "max_column_kb": limits.max_column_kb,
        **{
            name: value
            for name, value in _changed(migration).items()
            if name in ("token_ranges", "workers", "tracking", "tracking_keyspace", "retry_seconds")
        },
        **({"filter": chosen} if chosen else {}),
    }


def _changed(declared: Any, without: Iterable[str] = ()) -> dict[str, Any]:
    """Give the fields that are not the default, as YAML writes them."""
    blank: dict[str, Any] = {
        f.name: f.default_factory() if callable(f.default_factory) else f.default
        for f in fields(declared)
        if f.init
    }
    return {
        name: _plain(getattr(declared, name))
        for name, default in blank.items()
        if name not in without and getattr(declared, name) != default
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, ExplodeMap | ExtractJson | ColumnFilter | Guardrails):
        return _changed(value)
    return dict(value) if isinstance(value, Mapping) else value
