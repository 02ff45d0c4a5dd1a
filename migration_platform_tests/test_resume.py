"""What is left to do after earlier runs is decided token by token."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_platform.errors import DeclarationError
from migration_platform.runs.resume import Detail, Division, Resume, divide, read_resume, to_detail
from migration_platform.runs.tracking import DIFF_CORRECTED, PASS
from migration_platform.token_ranges import MAX_TOKEN, MIN_TOKEN, TokenRange, split_ring

STATES = ("PASS", "FAIL", "DIFF", "DIFF_CORRECTED", "STARTED", "NOT_STARTED")
TOKENS = 40

bounds = st.lists(st.integers(0, TOKENS), min_size=2, max_size=8, unique=True).map(sorted)


@st.composite
def window_lists(draw: Any) -> list[TokenRange]:
    edges = draw(bounds)
    pairs = list(enumerate(pairwise(edges)))
    kept = draw(st.lists(st.sampled_from(pairs), min_size=1, unique=True))
    return [TokenRange(index, len(pairs), start, end) for index, (start, end) in kept]


@st.composite
def run_lists(draw: Any) -> list[list[Detail]]:
    """Runs, the newest first; their rows may overlap, and need not cover anything."""
    runs = []
    for run_id in range(draw(st.integers(0, 4)), 0, -1):
        pairs = draw(st.lists(st.tuples(st.integers(0, TOKENS), st.integers(1, 12)), max_size=6))
        states = draw(st.lists(st.sampled_from(STATES), min_size=len(pairs), max_size=len(pairs)))
        runs.append([Detail(run_id, a, a + n, s) for (a, n), s in zip(pairs, states, strict=True)])
    return runs


def is_done(token: int, runs: list[list[Detail]]) -> bool:
    """Say of one token what the newest run says of it."""
    for rows in runs:
        states = [row.status for row in rows if row.start < token <= row.end]
        if states:
            return all(state in (PASS, DIFF_CORRECTED) for state in states)
    return False


@given(window_lists(), run_lists())
def test_each_token_is_pending_unless_the_newest_run_that_tells_of_it_has_passed(
    windows: list[TokenRange], runs: list[list[Detail]]
) -> None:
    divisions = divide(windows, runs)

    assert set(divisions) == {window.index for window in windows}
    for window in windows:
        division = divisions[window.index]
        for token in range(window.start + 1, window.end + 1):
            pending = [piece for piece in division.pending if token in piece]
            assert len(pending) == (0 if is_done(token, runs) else 1)
        for piece in division.pending:
            assert window.start <= piece.start < piece.end <= window.end
            assert (piece.index, piece.count) == (window.index, window.count)
        all_done = all(is_done(t, runs) for t in range(window.start + 1, window.end + 1))
        assert (not division.pending) == all_done


@given(window_lists(), run_lists())
def test_no_row_is_counted_twice(windows: list[TokenRange], runs: list[list[Detail]]) -> None:
    numbered = [
        [Detail(r.run_id, r.start, r.end, r.status, {"Read": 2**n}) for n, r in enumerate(rows)]
        for rows in runs[:1]
    ]
    divisions = divide(windows, numbered)
    total = sum(d.counts.get("Read", 0) for v in divisions.values() for d in v.done)
    distinct = {d.counts.get("Read", 0) for v in divisions.values() for d in v.done}
    assert total == sum(distinct)


def test_a_run_that_was_cut_into_other_ranges_is_taken_over() -> None:
    whole = Detail(7, MIN_TOKEN, 0, PASS, {"Read": 5, "Write": 5})
    first, second, third = split_ring(3)
    divisions = divide([first, second, third], [[whole]])

    assert divisions[0].pending == ()
    assert [(p.start, p.end) for p in divisions[1].pending] == [(0, second.end)]
    assert divisions[2] == Division((third,))
    # The row is counted once, in the range of its last token.
    assert [d.counts.get("Read", 0) for i in range(3) for d in divisions[i].done] == [0, 5]
    assert divisions[1].run_ids == [7]


def test_a_row_of_the_details_is_inclusive_at_both_ends() -> None:
    row = {"run_id": 1, "status": "FAIL", "run_info": "Read: 3; Write: 2", "token_max": 9}
    assert to_detail({**row, "token_min": 5}) == Detail(1, 4, 9, "FAIL", {"Read": 3, "Write": 2})
    assert to_detail({**row, "token_min": MIN_TOKEN}).start == MIN_TOKEN
    # Rows without a state or an end were never finished: nothing of them counts as done.
    broken = to_detail({**row, "token_min": 5, "token_max": None, "status": None, "run_info": None})
    assert broken == Detail(1, 4, 5, "", {})


def test_resume_is_auto_or_the_id_of_a_run() -> None:
    assert read_resume(None, 1) is None
    assert read_resume("", 1) is None
    assert read_resume("auto", 4) == Resume(None, 4)
    assert read_resume("1704067200000000000", 1) == Resume(1704067200000000000, 1)


@pytest.mark.parametrize(
    ("resume", "split", "sentence"),
    [
        ("yes", 1, "resume is 'yes'; valid are auto, or the id of a tracked run"),
        ("0", 1, "resume is '0'; valid are auto, or the id of a tracked run"),
        (str(MAX_TOKEN + 1), 1, f"resume is '{MAX_TOKEN + 1}'; valid are auto, or the id"),
        ("auto", 0, "split_pending is 0; valid are 1 to 1000"),
        (None, 2, "split_pending does nothing without resume; leave it out"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(
    resume: str | None, split: int, sentence: str
) -> None:
    with pytest.raises(DeclarationError) as refused:
        read_resume(resume, split)
    assert str(refused.value).startswith(sentence)
