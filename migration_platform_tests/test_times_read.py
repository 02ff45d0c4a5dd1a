"""Times are read from a page's bytes as the server means them, however they are mixed."""

from struct import pack

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from migration_platform.cql.cell_times import (
    NO_TTL,
    RowTimes,
    TimeRules,
    TimesLayout,
    bind_time,
    bind_ttl,
    compile_times_reader,
    read_row_time,
    read_writetimes,
    settle_times,
)
from migration_platform.cql.rows import compile_splitter
from migration_platform.errors import PermanentError

NULL = pack(">i", -1)
ASKED_US = 1_700_000_000_123_456
SECOND = ASKED_US // 1_000_000

# What looks like a length, a null or a count must not be taken for one.
WRITETIMES = [
    0,
    1,
    -1,
    8,
    4,
    0x00000008_00000008,
    0x00000004_00000004,
    0x00000008_FFFFFFFF,
    -0x1_00000000 + 8,
    0x0A0A0A0A_0A0A0A0A,
    1_700_000_000_000_000,
    1_700_000_000_000_001,
    2**63 - 1,
    -(2**63),
]
TTLS = [1, 4, 8, 10, 0x0A0A0A0A, 630_720_000, 2**31 - 1]


@st.composite
def cell_times(draw, writetimes, ttls):
    """The times of a cell that is there."""
    return draw(writetimes), draw(ttls)


@st.composite
def rows_of_times(draw, simple, multi, has_ttls):
    """Times of the cells of a row; few different ones, so that rows with one time are common."""
    some = draw(st.lists(st.sampled_from(WRITETIMES), min_size=1, max_size=3))
    lives = draw(st.lists(st.sampled_from([None, *TTLS]), min_size=1, max_size=2))
    lives = lives if has_ttls else [None]
    # Null or there, and often all of a row alike.
    there = draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))
    is_there = st.floats(0, 1, exclude_max=True).map(lambda n: n < there)
    time = cell_times(st.sampled_from(some), st.sampled_from(lives))
    cell = is_there.flatmap(lambda yes: time if yes else st.none())
    # An element of a set is always there; a field of a user-defined type may be null.
    elements = st.lists(draw(st.sampled_from([time, cell])), min_size=1, max_size=4).filter(any)
    collection = is_there.flatmap(lambda yes: elements if yes else st.none())
    return (
        draw(st.lists(cell, min_size=simple, max_size=simple)),
        draw(st.lists(collection, min_size=multi, max_size=multi)),
    )


@st.composite
def layouts(draw):
    simple, multi = draw(st.integers(0, 5)), draw(st.integers(0, 3))
    if not simple + multi:
        simple = 1
    names = [f"c{n}" for n in range(simple + multi)]
    return TimesLayout(tuple(names[:simple]), tuple(names[simple:]), draw(st.booleans()))


@st.composite
def pages(draw):
    layout = draw(layouts())
    row = rows_of_times(len(layout.simple), len(layout.multi), layout.ttls)
    return layout, draw(st.lists(row, min_size=1, max_size=6))


def write_number(number, size):
    return NULL if number is None else pack(">iq" if size == 8 else ">ii", size, number)


def write_collection(times, part, size):
    if times is None:
        return NULL
    numbers = [write_number(None if time is None else time[part], size) for time in times]
    body = pack(">i", len(times)) + b"".join(numbers)
    return pack(">i", len(body)) + body


def write_times(layout, row):
    """Write a row's times as a server does: all writetimes, all TTLs, then the collections'."""
    simple, multi = row
    out = [write_number(None if time is None else time[0], 8) for time in simple]
    if layout.ttls:
        out += [write_number(None if time is None else time[1], 4) for time in simple]
    for times in multi:
        out.append(write_collection(times, 0, 8))
        if layout.ttls:
            out.append(write_collection(times, 1, 4))
    return b"".join(out)


def cells_that_are_there(row):
    simple, multi = row
    found = [time for time in simple if time is not None]
    return found + [time for times in multi for time in times or () if time is not None]


def means(read, row):
    """Say whether what was read means the times of this row."""
    there = cells_that_are_there(row)
    if read is None:
        return not there
    if isinstance(read, bytes):
        return bool(there) and all(pack(">iq", 8, w) == read and t is None for w, t in there)
    if isinstance(read, tuple):
        writetime, ttl = read
        return bool(there) and all(pack(">iq", 8, w) == writetime and t == ttl for w, t in there)
    return (read.simple, read.multi) == (row[0], row[1]) and bool(there)


ALIKE = TimesLayout(("a", "b"), (), ttls=True)


@given(pages(), st.sampled_from([b"", NULL * 9, pack(">iq", 8, 8) * 5, pack(">ii", 4, 4) * 9]))
# A row of nulls, followed by what looks like its own writetimes.
@example((ALIKE, [([None, None], []), ([(8, None), (8, None)], [])]), b"")
@example((ALIKE, [([None, (8, 4)], []), ([None, None], [])]), pack(">ii", 4, 4) * 9)
@settings(max_examples=250)
def test_every_row_is_read_as_it_was_written_and_ends_where_it_ends(page, behind):
    layout, rows = page
    written = [write_times(layout, row) for row in rows]
    data = b"".join(written) + behind
    read = compile_times_reader(layout)
    at = 0
    for row, row_bytes in zip(rows, written, strict=True):
        at += len(row_bytes)
        end, times = read(data, at - len(row_bytes))
        assert end == at
        assert means(times, row), (times, row)


@given(pages())
def test_rows_with_values_before_their_times_are_found_in_a_page(page):
    layout, rows = page
    value = pack(">iq", 8, 8)
    data = b"".join(value + write_times(layout, row) for row in rows)
    split = compile_splitter(1, 1, read_times=compile_times_reader(layout))
    found = split(data, len(rows))
    assert all(means(times, row) for times, row in zip(found.times, rows, strict=True))
    assert [data[a:b] for a, b in zip(found.starts, found.value_ends, strict=False)] == [
        value
    ] * len(rows)


@given(pages(), st.data())
def test_a_page_that_ends_within_the_times_is_refused(page, data):
    layout, rows = page
    whole = b"".join(NULL + write_times(layout, row) for row in rows)
    length = data.draw(st.integers(0, len(whole) - 1))
    split = compile_splitter(1, 1, read_times=compile_times_reader(layout))
    with pytest.raises(ValueError, match="are not"):
        split(whole[:length], len(rows))


def test_rows_that_share_one_time_stay_bytes():
    # This is what makes a copy with times as fast as one without.
    layout = TimesLayout(("a", "b", "c"), ("l",), ttls=True)
    read = compile_times_reader(layout)
    one, other = (5, None), (6, None)
    for row in (
        ([one, one, one], [None]),
        ([None, one, None], [None]),
        ([one, one, one], [[one, one]]),
    ):
        assert read(write_times(layout, row), 0)[1] == pack(">iq", 8, 5)
    for row in (([one, other, one], [None]), ([one, one, one], [[one, other]])):
        assert isinstance(read(write_times(layout, row), 0)[1], RowTimes)
    expiring = ([(5, 60), None, (5, 60)], [None])
    assert read(write_times(layout, expiring), 0)[1] == (pack(">iq", 8, 5), 60)
    mixed = ([(5, 60), (5, None), (5, 60)], [None])
    assert isinstance(read(write_times(layout, mixed), 0)[1], RowTimes)


def test_nothing_is_read_where_no_times_were_asked_for():
    assert compile_times_reader(TimesLayout((), (), ttls=True)) is None


# -- settling: a reference that knows nothing of the short forms ---------------------------------


def settle(rules, time, newest, latest):
    """Give a cell's time at the target, in the plainest way."""
    writetime, ttl = time
    expires = None if ttl is None else SECOND + ttl
    if rules.writetime == "row_max":
        writetime = newest
    elif rules.writetime == "now":
        writetime = None
    elif rules.writetime != "cell":
        writetime = rules.writetime
    if writetime is not None:
        writetime += rules.increment_by
    if rules.ttl == "row_max":
        return writetime, latest
    return writetime, expires if rules.ttl == "cell" else None


def row_time(row):
    there = cells_that_are_there(row)
    newest = max((w for w, _ in there), default=ASKED_US)
    lives = [ttl for _, ttl in there]
    return newest, None if None in lives or not lives else SECOND + max(lives)


def marker_time(rules, newest, latest):
    if rules.writetime == "now":
        writetime = None
    elif isinstance(rules.writetime, int):
        writetime = rules.writetime + rules.increment_by
    else:
        writetime = newest + rules.increment_by
    return writetime, latest if rules.ttl in ("cell", "row_max") else None


rules = st.builds(
    TimeRules,
    st.sampled_from(["cell", "row_max", "now", 77]),
    st.sampled_from(["cell", "row_max", "none", 90]),
    st.sampled_from([0, 1, 1000]),
)


def read_row(layout, row):
    return compile_times_reader(layout)(write_times(layout, row), 0)[1]


@given(pages(), rules)
@settings(max_examples=150)
def test_each_cell_is_to_have_the_time_that_the_rules_give_it(page, rules):
    layout, rows = page
    simple, multi = len(layout.simple), len(layout.multi)
    time_of = [("simple", n) for n in range(simple)]
    time_of += [("multi", n) for n in range(multi)] * 2 + [("row", 0)]
    per_element = [False] * simple + [True] * multi + [False] * multi + [False]
    for row in rows:
        newest, latest = row_time(row)
        marker = marker_time(rules, newest, latest)
        found = settle_times(read_row(layout, row), rules, time_of, per_element, ASKED_US)
        assert found.marker == marker
        for time, settled in zip(row[0], found.cells[:simple], strict=True):
            # Of a cell that is null nothing is written, whatever its time.
            assert time is None or settled == settle(rules, time, newest, latest)
        for times, settled in zip(row[1], found.cells[simple : simple + multi], strict=True):
            if times is None:
                continue
            if isinstance(settled, tuple):
                settled = [settled if time is not None else None for time in times]
            assert settled == [
                None if time is None else settle(rules, time, newest, latest) for time in times
            ]
        # As a whole, a collection is as new as its newest element and lives as long as the last.
        for times, settled in zip(row[1], found.cells[simple + multi : -1], strict=True):
            if times is not None:
                there = [time for time in times if time is not None]
                lives = [ttl for _, ttl in there]
                whole = max(w for w, _ in there), None if None in lives else max(lives)
                assert settled == settle(rules, whole, newest, latest)
        assert found.cells[-1] == marker


@given(pages(), rules, st.data())
def test_the_fields_of_a_type_may_stand_elsewhere_at_the_target(page, rules, data):
    layout, rows = page
    for row in rows:
        newest, latest = row_time(row)
        read = read_row(layout, row)
        for column, times in enumerate(row[1]):
            if times is None:
                continue
            order = tuple(data.draw(st.permutations(range(-1, len(times)))))
            found = settle_times(read, rules, [("multi", column)], [order], ASKED_US)
            (settled,) = found.cells
            expected = [None if at < 0 else times[at] for at in order]
            if isinstance(settled, tuple):
                settled = [None if time is None else settled for time in expected]
            assert settled == [
                None if time is None else settle(rules, time, newest, latest) for time in expected
            ]


@given(pages(), rules)
def test_the_entry_of_a_map_takes_its_own_time_along(page, rules):
    layout, rows = page
    for row in rows:
        newest, latest = row_time(row)
        read = read_row(layout, row)
        for column, times in enumerate(row[1]):
            for entry, time in enumerate(times or ()):
                if time is None:
                    continue
                found = settle_times(
                    read, rules, [("entry", column)], [True], ASKED_US, entry=entry
                )
                assert found.cells == [settle(rules, time, newest, latest)]


@given(pages())
def test_a_rows_own_time_is_its_newest_and_it_lives_as_long_as_its_last_cell(page):
    layout, rows = page
    for row in rows:
        assert read_row_time(read_row(layout, row), ASKED_US) == row_time(row)


@given(st.lists(st.sampled_from(WRITETIMES), max_size=5))
def test_the_writetimes_of_a_list_are_read_from_its_cell(writetimes):
    cell = write_collection([(w, None) for w in writetimes], 0, 8)[4:]
    assert read_writetimes(cell) == writetimes
    assert read_writetimes(None) == read_writetimes(b"") == []


# -- binding -------------------------------------------------------------------------------------


@given(
    st.none() | st.sampled_from(WRITETIMES),
    st.none() | st.integers(SECOND - 100, SECOND + 100),
    st.floats(SECOND - 50, SECOND + 50),
    st.none() | st.sampled_from(TTLS),
)
def test_a_bound_time_is_the_writetime_and_the_seconds_left(writetime, expires, now, ttl):
    bound = bind_time(writetime, expires, now, NO_TTL if ttl is None else bind_ttl(ttl))
    left = None if expires is None else expires - int(now)
    if left is not None and left <= 0:
        assert bound is None
        return
    expected = b"" if writetime is None else pack(">iq", 8, writetime)
    expected += pack(">ii", 4, left if left is not None else ttl or 0)
    assert bound == expected


def test_without_a_life_of_its_own_a_cell_lives_for_ever():
    # A TTL of 0 overrules what the table gives by default.
    assert pack(">ii", 4, 0) == NO_TTL == bind_ttl(0) == bind_time(None, None, 0.0)


def test_a_writetime_beyond_the_last_one_is_refused_in_a_sentence():
    assert bind_time(2**63 - 1, None, 0.0) is not None
    with pytest.raises(PermanentError, match="lower writetime_increment_by"):
        bind_time(2**63, None, 0.0)
