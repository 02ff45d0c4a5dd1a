"""Rows that differ are read again until they agree or time is up; the last look repairs."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from migration_platform.comparing.rechecks import Kind
from migration_platform.comparing.repair import SettleRows
from migration_platform.comparing.row_file import KINDS, RowFile
from migration_platform.comparing.verdicts import Findings, RangeVerdict
from migration_platform.cql.rows import count_cells
from migration_platform.plan.model import Plan
from migration_platform.stores.work import Done, Failed, Pool
from migration_platform.token_ranges import TokenRange

RECHECKED_ROWS = 100_000
"""So many differing rows of a range are read again, and repaired: a range that differs in more is
better copied again. What is beyond counts as the scans found it."""
ROWS_A_TASK = 1_000
LONGEST_WAIT_SECONDS = 5.0
MOST_WAIT_SECONDS = 60.0
"""How long rows may take to reach the second side. Where one side alone is written to, a wait of
an hour brings nothing: what is newer then is left out, and what is older still differs."""
LEAST_WAIT_SECONDS = 3.0
"""How long differences of a table that is written to are waited for at least, where many are."""


@dataclass
class _Doubtful:
    """What of a range is still in doubt, and what is known of it by now."""

    token_range: TokenRange
    keys: list[bytes]
    extra: frozenset[bytes]
    findings: Findings
    error: str = ""

    def to_tasks(self, *, last: bool, newer_than_us: int | None) -> Iterator[SettleRows]:
        """Cut the keys into tasks; neighbours stay together, so that they are written together."""
        keys = sorted(self.keys)
        for at in range(0, len(keys), ROWS_A_TASK):
            some = tuple(keys[at : at + ROWS_A_TASK])
            yield SettleRows(
                self.token_range, some, self.extra.intersection(some), last, newer_than_us
            )


def settle(
    pool: Pool,
    plan: Plan,
    counts: dict[TokenRange, tuple[int, int]],
    rows: RowFile,
    started_us: int,
    on_progress: Callable[[int, int], None],
) -> Iterator[RangeVerdict]:
    """Read what differs again, some ranges at a time, and repair what is to be repaired."""
    patience = min(plan.migration.ignore_newer_than_seconds or 0, MOST_WAIT_SECONDS)
    until = time.monotonic() + patience
    waiting: list[_Doubtful] = []
    for number, token_range in enumerate(counts, 1):
        waiting.append(_doubt(plan, token_range, rows))
        if sum(len(each.keys) for each in waiting) < RECHECKED_ROWS and number < len(counts):
            continue
        _look_again(pool, plan, waiting, started_us, until, on_progress)
        for each in waiting:
            yield _to_verdict(each, counts[each.token_range][0])
        waiting = []


def _doubt(plan: Plan, token_range: TokenRange, rows: RowFile) -> _Doubtful:
    """Choose the rows of a range that are read again: those first that may be repaired."""
    migration = plan.migration
    kinds: list[Kind] = [k for k in KINDS if k != "extra" or migration.diff_mode != "origin_only"]
    found = Findings()
    chosen: dict[Kind, list[bytes]] = {}
    left = RECHECKED_ROWS
    repaired: list[Kind] = [kind for kind in kinds if kind in migration.repair]
    order: list[Kind] = [*repaired, *(kind for kind in kinds if kind not in repaired)]
    for kind in order:
        count, whole_rows = map(int, rows.count(kind, token_range.index))
        chosen[kind] = rows.keys(kind, token_range.index, left) if count and left else []
        left -= len(chosen[kind])
        if beyond := count - len(chosen[kind]):
            key_cells = len(plan.target.primary_key)
            whole_rows -= sum(count_cells(key) == key_cells for key in chosen[kind])
            unchecked = Findings(
                unchecked=beyond,
                statics=beyond - whole_rows if kind != "extra" else 0,
                lacking=whole_rows if kind == "missing" else 0,
                surplus=whole_rows if kind == "extra" else 0,
            )
            if kind != "other_form":
                found += replace(unchecked, **{kind: beyond})
            elif migration.compare_form:
                found += replace(unchecked, other_form=beyond, mismatched=beyond)
            else:
                found += Findings(other_form=beyond)
    keys = [key for some in chosen.values() for key in some]
    return _Doubtful(token_range, keys, frozenset(chosen.get("extra", ())), found)


def _look_again(
    pool: Pool,
    plan: Plan,
    doubtful: list[_Doubtful],
    started_us: int,
    until: float,
    on_progress: Callable[[int, int], None],
) -> None:
    """Look at rows until they agree or time is up; the last look repairs.

    What is written to both sides is there at one a little before it is at the other.
    """
    seconds = plan.migration.ignore_newer_than_seconds
    newer_than_us = None if seconds is None else started_us - seconds * 1_000_000
    patience = 0.0 if seconds is None else min(seconds, LEAST_WAIT_SECONDS)
    until = max(until, time.monotonic() + patience)
    delay = 0.2
    last = False
    while not last and any(each.keys for each in doubtful):
        last = time.monotonic() + delay >= until
        by_range = {each.token_range: each for each in doubtful}
        tasks = [
            task
            for each in doubtful
            for task in each.to_tasks(last=last, newer_than_us=newer_than_us)
        ]
        for each in doubtful:
            each.keys = []
        done = 0
        for event in pool.run(tasks):
            if isinstance(event, Done):
                each = by_range[event.task.token_range]
                each.findings += event.result.findings
                each.keys += event.result.differing
            elif isinstance(event, Failed):
                each = by_range[event.task.token_range]
                told = f"rows that differ could not be read or repaired: {event.reason}"
                each.error = each.error or told
            if isinstance(event, Done | Failed):
                done += 1
                on_progress(done, len(tasks))
        if not last and any(each.keys for each in doubtful):
            time.sleep(delay)
            delay = min(2 * delay, LONGEST_WAIT_SECONDS)


def _to_verdict(each: _Doubtful, origin_rows: int) -> RangeVerdict:
    if each.error:
        return RangeVerdict(token_range=each.token_range, error=each.error)
    found = each.findings
    # Rows that came between the scans are among what was found, not among what was counted.
    judged = found.missing + found.mismatched - found.statics + found.skipped
    origin_rows = max(origin_rows, judged)
    return RangeVerdict(
        token_range=each.token_range,
        origin_rows=origin_rows,
        # Counted from the origin's: scans of a table that is written to count different moments.
        target_rows=origin_rows - found.lacking + found.surplus,
        **vars(found),
    )
