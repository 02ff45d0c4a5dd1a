"""Which rows are copied, read from YAML or from the op config of one run.

A run's own filter takes the place of the declared one, whole: nothing of the two is mixed. What
such a run records has another fingerprint, so it never counts for the declared filter.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from migration_platform.components.attributes import find_wrong
from migration_platform.components.table.attributes import FilterAttributes
from migration_platform.components.table.reporting import Job
from migration_platform.declaration.filters import ColumnFilter, Filter
from migration_platform.declaration.migration import Migration
from migration_platform.errors import DeclarationError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def with_run_filter(job: Job, given: object) -> Job:
    """Give the job as one run does it; `given` is its op config `filter`, None for the declared.

    Raises:
        DeclarationError: one message with everything that is wrong of it.
    """
    if given is None:
        return job
    wrong = find_wrong(FilterAttributes, given, "filter")
    chosen = Filter()
    if not wrong:
        try:
            chosen = build_filter(FilterAttributes.model_validate(given), wrong)
        except ValidationError:
            # What has braces passes as a template, which only a declaration resolves.
            wrong.append("filter has a template; an op config has none, so write the value itself")
    if not wrong:
        try:
            return replace(job, migration=_filtered(job.migration, chosen))
        except DeclarationError as error:
            wrong.append(str(error))
    raise DeclarationError(f"the run's op config cannot be used: {'; '.join(wrong)}")


def _filtered(migration: Migration, chosen: Filter) -> Migration:
    """Give the migration with a run's own filter.

    Where that chooses rows, the target holds others of the same range, which earlier runs copied:
    they are not extra, so the run compares one way and deletes none.
    """
    if chosen == migration.filter:
        return migration
    if chosen.takes_all_rows:
        return replace(migration, filter=chosen)
    repair = tuple(kind for kind in migration.repair if kind != "extra")
    return replace(
        migration,
        filter=chosen,
        diff_mode="origin_only",
        repair=repair,
        repair_writetime=migration.repair_writetime if repair else "origin",
    )


def build_filter(given: FilterAttributes, wrong: list[str]) -> Filter:
    """Build the filter of the attributes; times that are none are added to `wrong`."""
    column = given.column
    return Filter(
        where=given.where,
        token_min=given.token_min,
        token_max=given.token_max,
        coverage_percent=given.coverage_percent,
        writetime_from=_moment_of("writetime_from", given.writetime_from, wrong.append),
        writetime_to=_moment_of("writetime_to", given.writetime_to, wrong.append),
        column=ColumnFilter(column.name, _shown(column.value)) if column else None,
    )


def whole_or_word(value: str | int) -> str | int:
    """Read digits as a number: a value from the environment is always text."""
    is_whole = isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,40}", value.strip())
    return int(value) if is_whole else value


def _moment_of(name: str, value: Any, refuse: Callable[[str], None]) -> int | None:
    """Read microseconds since 1970, a time or a date; a time without a zone is UTC."""
    if isinstance(value, str):
        value = whole_or_word(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value.strip())
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if isinstance(value, datetime):
            moment = value if value.tzinfo else value.replace(tzinfo=UTC)
            return (moment - _EPOCH) // timedelta(microseconds=1)
    except ValueError:
        pass
    refuse(
        f"filter.{name} is {str(value)[:80]!r}; write microseconds since 1970, or a time such as "
        "2026-01-01T00:00:00Z"
    )
    return None


def _shown(value: str | float | bool) -> str:
    """Write a value as CQL shows it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
