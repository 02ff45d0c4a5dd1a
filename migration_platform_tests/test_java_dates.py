"""Patterns of timestamps mean what real Java means by them; `java/JavaDates.java` asked it."""

import re
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration_platform.cql.names import TableName
from migration_platform.declaration.columns import Columns
from migration_platform.errors import DeclarationError
from migration_platform.java_time.calendar import NotDateError
from migration_platform.java_time.dates import DatePattern
from migration_platform.java_time.patterns import (
    Fraction,
    Maybe,
    Number,
    Padded,
    Plain,
    parse_pattern,
)
from migration_platform_tests.tables import declare

TABLE = Path(__file__).parent / "java" / "java_dates.tsv"
ROWS = [
    line.split("\t")
    for line in TABLE.read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]
REFUSED = {
    "is before the year 1, which needs G or uuuu": 65,
    "has an offset with seconds, which": 2,
    "has no English name for its zone": 1,
    "has no name in English": 10,
    "contradicts itself in its": 4,
    "is no date and time": 8,
    "does not exist in": 1,
    "cannot be read: one letter stands for several names": 12,
    "has no minute": 6,
    r"does not follow .*\bz+\b": 10,
}
"""What Java bends, guesses or loses in silence is refused: the reasons, with the rows of each."""
NAMED = {
    ("yyyy-MM-dd HH:mm:ss zzz", "2024-10-27 02:30:00 CET"): "1729992600000",
    ("yyyy-MM-dd HH:mm:ss zzz", "0001-01-01 00:53:28 CET"): "-62135597192000",
    ("yyyy-MM-dd HH:mm:ss zzzz", "0002-12-30 19:03:58 Eastern Standard Time"): "-62072610962000",
    ("MMM d, yyyy, h:mm a z", "Dec 31, 0001, 7:03 PM EST"): "-62104060620000",
}
"""A name means its own distance to UTC; Java takes the one that its zone has at that time."""


@cache
def built(way, pattern, zone):
    """The function of one direction, or the sentence with which the pattern is refused."""
    try:
        date_pattern = DatePattern(pattern, ZoneInfo(zone))
        return date_pattern.build_writer() if way == "write" else date_pattern.build_reader()
    except ValueError as refusal:
        return str(refusal)


def ours(way, pattern, zone, value):
    """What becomes of a value, or ! with the reason."""
    function = built(way, pattern, zone)
    if isinstance(function, str):
        return "!", function
    try:
        return str(function(int(value) if way == "write" else value)), ""
    except NotDateError as refusal:
        return "!", str(refusal)


@pytest.mark.parametrize("pattern", sorted({row[1] for row in ROWS}))
def test_a_pattern_means_what_java_means_by_it_or_is_refused_where_java_bends(pattern):
    for way, _, zone, value, java in (row for row in ROWS if row[1] == pattern):
        result, reason = ours(way, pattern, zone, value)
        if result == java:
            continue
        if way == "read" and (pattern, value) in NAMED:
            assert result == NAMED[pattern, value]
            continue
        assert result == "!", (way, zone, value, java, result)
        assert any(re.search(allowed, reason) for allowed in REFUSED), (value, java, reason)


def test_the_table_shows_every_letter():
    letters = {
        letter
        for pattern in {row[1] for row in ROWS}
        for letter in re.sub("'[^']*'", "", pattern)
        if letter.isascii() and letter.isalpha()
    }
    assert letters >= set("GyuDMLdQqYwWEecahKkHmsSAnNgVzOXxZp")


def test_so_many_rows_are_refused_for_each_reason_and_all_others_are_the_same():
    refused, named = Counter(), []
    for row in ROWS:
        result, reason = ours(*row[:4])
        if result == "!" and row[4] != "!":
            refused[next((each for each in REFUSED if re.search(each, reason)), reason)] += 1
        elif result != row[4]:
            named.append((row[1], row[3]))
    assert refused == REFUSED
    assert sorted(named) == sorted(NAMED)


# -- there and back --------------------------------------------------------------------------------

DATES = [
    *(
        "yyyy-MM-dd",
        "uuuu/M/d",
        "yyyyMMdd",
        "d MMM yyyy",
        "EEEE, dd MMMM y",
        "G y-MM-dd",
        "yyyy-DDD",
    ),
    *("YYYY-'W'ww-e", "YYYY w E", "g", "QQQ yyyy-MM-dd", "[EEE ]dd/MM/yyyy", "ppd.ppM.yyyy"),
]
TIMES = [
    *("HH:mm:ss.SSS", "HHmmssSSS", "h:mm:ss.SSS a", "KK:mm:ss,SSSSSS a", "k:m:s.SSSSSSSSS"),
    *("HH:mm:ss n", "A", "N", "[HH:mm][:ss.SSS]"),
]
OFFSETS = ["XXXXX", "xxxxx", "XXXX", "' 'ZZZZZ", "' 'OOOO", "' 'O"]
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)) | st.datetimes(
    datetime(1960, 1, 1), datetime(2060, 1, 1)
)


def to_millis(moment):
    return (moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        milliseconds=1
    )


@given(
    st.sampled_from(DATES),
    st.sampled_from(TIMES),
    st.sampled_from(OFFSETS),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu"]),
    MOMENTS,
)
def test_what_is_written_with_all_fields_and_the_offset_is_read_as_the_same_moment(
    days, times, offset, zone, moment
):
    pattern = f"{days} {times}{offset}"
    millis = to_millis(moment)
    text, _ = ours("write", pattern, zone, millis)
    assert ours("read", pattern, zone, text) == (str(millis), ""), (pattern, text)
    # The text's own offset wins over the zone that is declared.
    assert ours("read", pattern, "Asia/Tokyo", text) == (str(millis), "")


@given(st.sampled_from(DATES), st.sampled_from(TIMES), MOMENTS)
def test_without_an_offset_a_zone_whose_clocks_never_change_gives_the_same_moment(
    days, times, moment
):
    pattern, millis = f"{days} {times}", to_millis(moment)
    for zone in ("UTC", "Etc/GMT+5"):
        text, _ = ours("write", pattern, zone, millis)
        assert ours("read", pattern, zone, text) == (str(millis), "")
        if "p" not in pattern:
            assert DatePattern(pattern, ZoneInfo(zone)).is_exact


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_timestamp_that_cassandra_holds_can_be_written_and_read(millis):
    for pattern in ("uuuu-MM-dd HH:mm:ss.SSS", "G yyyy-MM-dd HH:mm:ss.SSSXXXXX", "g A"):
        text, reason = ours("write", pattern, "UTC", millis)
        assert reason == ""
        assert ours("read", pattern, "UTC", text) == (str(millis), "")


@given(
    st.sampled_from([row[1] for row in ROWS]),
    st.text("0123456789-+:/. TZJanuryFebMPQ年'", max_size=30)
    | st.sampled_from([r[3] for r in ROWS]),
)
def test_any_text_is_read_or_refused_in_one_sentence(pattern, text):
    result, reason = ours("read", pattern, "UTC", text)
    assert (result == "!") is bool(reason)
    assert "\n" not in reason


LETTERS = [
    *"GyuDMLdQqYwWEecahKkHmsSAnNgzOXxZ",
    *("yy", "yyyy", "uuuu", "YYYY", "ww", "MM", "MMM", "LLLL", "MMMMM", "dd", "DDD", "EEEE", "QQQ"),
    *("HH", "hh", "mm", "ss", "SSS", "SSSSSS", "GGGG", "zzzz", "VV", "OOOO", "XXX", "ZZZZZ", "ee"),
]
PIECES = st.one_of(
    st.sampled_from(LETTERS),
    st.builds(lambda letter, count: letter * count, st.sampled_from(LETTERS), st.integers(1, 7)),
    st.builds(
        lambda width, letters: "p" * width + letters, st.integers(1, 6), st.sampled_from(LETTERS)
    ),
    st.sampled_from(["-", "/", ":", " ", "'W'", "'0'", "''", "年"]),
    st.sampled_from(DATES),
    st.sampled_from(TIMES),
)


def with_optional_parts(pieces):
    """Pairs: pieces of a pattern, and those of a text that leaves some optional parts out."""
    inside = st.lists(pieces, max_size=3).map(
        lambda pairs: ("".join(pair[0] for pair in pairs), "".join(pair[1] for pair in pairs))
    )
    return st.builds(
        lambda pair, is_kept: (f"[{pair[0]}]", pair[1] if is_kept else ""), inside, st.booleans()
    )


# Dates that are told in two ways, or in one and a half; each part may be one to leave out.
DATE_FIELDS = [
    "YYYY ww E",
    "YYYY-'W'ww-e",
    *("yyyy", "uuuu", "MM", "MMM", "W", "e", "D", "dd", "g"),
]
DATE_PATTERNS = st.lists(
    st.tuples(st.sampled_from(DATE_FIELDS), st.sampled_from(["always", "always", "kept", "left"])),
    min_size=2,
    max_size=6,
    unique_by=lambda pair: pair[0],
).map(
    lambda pairs: (
        "".join(f"{piece} " if way == "always" else f"[{piece} ]" for piece, way in pairs),
        "".join(f"{piece} " for piece, way in pairs if way != "left"),
    )
)


def patterns_of(pieces, gaps):
    pairs = pieces.map(lambda piece: (piece, piece))
    return st.builds(
        lambda pairs, gap: tuple(gap.join(each) for each in zip(*pairs, strict=True)),
        st.lists(st.recursive(pairs, with_optional_parts, max_leaves=4), min_size=1, max_size=8),
        st.sampled_from(gaps),
    )


PATTERNS = DATE_PATTERNS | patterns_of(PIECES, [" ", "", "-"])
SPOILS = st.lists(st.tuples(st.integers(0, 60), st.sampled_from([*"0129-+ Z'", ""])), max_size=4)


@given(
    PATTERNS,
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns"]),
    st.integers(-(2**63), 2**63 - 1) | MOMENTS.map(to_millis),
    SPOILS,
)
@settings(max_examples=500)
def test_whatever_pattern_and_text_meet_the_end_is_a_value_or_one_sentence(
    parts, zone, millis, spoils
):
    pattern, shown = parts
    texts = ["2024-01-01", ""]
    for each in {pattern, shown}:
        text, reason = ours("write", each, zone, millis)
        assert (text == "!") is bool(reason)
        texts.append(text)
    for text in list(texts):
        for at, spoil in spoils:
            text = text[:at] + spoil + text[at + 1 :]
        texts.append(text)
    for text in texts:
        result, reason = ours("read", pattern, zone, text)
        assert (result == "!") is bool(reason)
        assert "\n" not in reason


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("MM yyyy YYYY-'W'ww-e", "01 2024 2024-W01-2", "2024-01-01"),
        ("MM yyyy YYYY-'W'ww-e", "01 2024 2024-W01-1", "contradicts itself in its month"),
        ("yyyy[-MM] YYYY-'W'ww-e", "2024-01 2024-W01-2", "2024-01-01"),
        ("yyyy[-MM] YYYY-'W'ww-e", "2024 2024-W01-2", "2024-01-01"),
        ("yyyy[-MM] YYYY-'W'ww-e", "2024-01 2024-W01-1", "contradicts itself in its year"),
        ("MM yyyy YYYY-'W'ww-e W", "01 2024 2024-W01-2 1", "2024-01-01"),
        ("yyyy MM W YYYY ww EEE", "2024 01 1 2024 01 Mon", "2024-01-01"),
        ("yyyy MM[-W] g", "2024 01 60310", "2024-01-01"),
        ("yyyy[ W] DDD", "2024 1 001", "2024-01-01"),
        # Days beyond their year reach the end of Python's calendar.
        ("YYYY yyyy D", "9999 9998 730", "is no date and time"),
        ("yyyy DXXX", "9998 730-18:00", "contradicts itself"),
    ],
)
def test_a_date_is_made_of_the_fields_that_suffice_and_the_others_must_fit(pattern, text, expected):
    result, reason = ours("read", pattern, "UTC", text)
    if result != "!":
        day = datetime(1970, 1, 1) + timedelta(milliseconds=int(result))
        assert f"{day:%Y-%m-%d}" == expected
    else:
        assert expected in reason


@pytest.mark.parametrize("letters", ["VV", "z", "zzzz", "VV[ z]", "[VV]XXX"])
@pytest.mark.parametrize("character", ["A", "1", "/", "+", "-", " "])
def test_a_long_text_in_place_of_a_zone_is_refused_at_once(letters, character):
    text = "2024-01-01 E" + character * 300_000
    began = time.process_time()
    assert "does not follow" in ours("read", f"yyyy-MM-dd {letters}", "UTC", text)[1]
    assert time.process_time() - began < 1


@pytest.mark.parametrize("name", ["localtime", "Factory", "posixrules", "leapseconds", "zone.tab"])
def test_a_file_of_the_zones_that_is_no_zone_is_no_name_of_one(name):
    for letters in ("VV", "z"):
        reason = ours("read", f"yyyy-MM-dd {letters}", "UTC", f"2024-07-04 {name}")[1]
        assert "does not follow" in reason


def test_every_name_of_a_zone_is_shorter_than_the_longest_that_is_looked_up():
    names = available_timezones()
    assert max(map(len, names)) <= 63
    for name in sorted(names - {"localtime", "Factory"}):
        assert ours("read", "yyyy-MM-dd VV", "UTC", f"2024-07-04 {name}")[1] == ""


@pytest.mark.parametrize(
    ("pattern", "zone", "expected"),
    [
        ("yyyy-MM-dd HH:mm:ss.SSS", "UTC", (True, True)),
        ("yyyy-MM-dd HH:mm:ss.SSS", "Europe/Berlin", (False, True)),
        ("yyyy-MM-dd HH:mm:ss.SSSXXX", "Europe/Berlin", (True, False)),
        ("yy-MM-dd HH:mm:ss.SSS", "UTC", (False, True)),
        ("yyyy-MM-dd HH:mm:ss.SS", "UTC", (False, True)),
        ("yyyy-MMMMM-dd HH:mm:ss.SSS", "UTC", (False, True)),
        ("yyyy-M-d HH:mm:ss.SSS", "UTC", (True, False)),
        ("yyyyMd HH:mm:ss.SSS", "UTC", (False, False)),
        ("M'1'd yyyy A", "UTC", (False, False)),
        ("yyyy-MM-dd hh:mm:ss.SSS a", "UTC", (True, False)),
        ("yyyy-MM-dd[ HH:mm:ss.SSS]", "UTC", (True, False)),
        ("yyyy-MM-dd A", "UTC", (True, False)),
        ("yyyy-MM-dd AAAAAAAA", "UTC", (True, False)),
    ],
)
def test_it_is_known_when_two_timestamps_or_two_texts_could_become_one(pattern, zone, expected):
    found = DatePattern(pattern, ZoneInfo(zone))
    assert (found.is_exact, found.reads_one_text) == expected


# -- patterns --------------------------------------------------------------------------------------


def test_a_pattern_is_a_tuple_of_frozen_elements():
    assert parse_pattern("yyyyMMdd['T'HH[.SSS]]ppd") == (
        Number("yyyy", "year_of_era", 4, 19, "exceeds", after=4),
        Number("MM", "month", 2, 2),
        Number("dd", "day", 2, 2),
        Maybe(
            (
                Plain("T"),
                Number("HH", "hour", 2, 2),
                Maybe((Plain("."), Fraction("SSS", 3))),
            )
        ),
        Padded(Number("d", "day", 1, 19, "minus"), 2),
    )


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("yyyy-MM-dd B", "has B, which is not supported: it names a part of the day"),
        ("F yyyy-MM-dd", "has F, which is not supported: its meaning is not the same"),
        ("yyyy-MM-dd v", "has v, which is not supported: a zone's name without summer or winter"),
        ("yyyy-MM-ddTHH", "has T, which is no part of a date; valid are the letters Aac"),
        ("yyyy-MM-dd bb", "has b, which is no part of a date"),
        ("yyyy-MM-dd HH:mm:ss.SSSSSSSSSS", "has SSSSSSSSSS, in which S stands too often"),
        ("yyyy-MMMMMM-dd", "has MMMMMM, in which M stands too often"),
        ("yyyy-MM-ddd", "has ddd, in which d stands too often"),
        ("yyyy-MM-dd hh aa", "has aa, in which a stands too often"),
        ("yyyy-MM-dd V", "has V, in which V stands too often or too seldom"),
        ("yyyy-MM-dd cc", "has cc, in which c stands too often or too seldom"),
        ("yyyy-MM-dd'T", 'has "\'" without an end'),
        ("yyyy-MM-dd]", "has ] without a [ before it"),
        ("yyyy-MM-dd {HH}", "has '{', which Java keeps for itself"),
        ("yyyy-MM-dd #", "has '#', which Java keeps for itself"),
        ("yyyy-MM-dd pp", "ends with pp; a letter must follow it"),
        ("yyyy-MM-dd pp[H]", "has pp before '['; a letter must follow it"),
        ("yyyy-MM-dd ppHmm", "has mm directly behind the padded H"),
        ("HH:mm", "has no year; a moment needs"),
        ("", "has no year; a moment needs"),
        ("YYYY-MM-dd", "has no year, as YYYY is that of its weeks; yyyy is meant"),
        ("yyyy-dd", "has no month; a moment needs"),
        ("yyyy-MM", "has no day; a moment needs"),
        ("yyyy-MM-dd hh:mm", "has h without a, so that morning and evening are one"),
        ("yyyy-MM-dd a", "has no hour; a moment needs"),
        ("yyyy-MM-dd mm:ss", "has no hour; a moment needs"),
        ("yyyy-MM-dd HH ss", "has no minute; a moment needs"),
        ("[" * 21 + "yyyy-MM-dd", "has more than 20 [ inside each other"),
        ("yyyy-MM-dd" + "[-" * 21 + "]" * 21, "has more than 20 [ inside each other"),
        ("yyyy-MM-" + "p" * 101 + "d", "has 101 p in a row; at most 100 are taken"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused_with_its_letters_and_the_reason(pattern, reason):
    for way in ("read", "write"):
        sentence = built(way, pattern, "UTC")
        assert isinstance(sentence, str)
        assert f"timestamp_format {pattern!r} {reason}" in sentence
        assert "\n" not in sentence


@pytest.mark.parametrize("part", ["[", "]", "[-", "p", "y", "yM", "'", "''", "'x'", "-", "[p", "B"])
@pytest.mark.parametrize("size", [501, 900_000])
def test_a_pattern_of_any_length_is_refused_in_one_short_sentence(part, size):
    pattern = f"yyyy-MM-dd{part * size}"
    with pytest.raises(ValueError, match=r"has [0-9]+ characters; at most 500 are taken"):
        parse_pattern(pattern)
    for way in ("read", "write"):
        sentence = built.__wrapped__(way, pattern, "UTC")
        assert isinstance(sentence, str)
        assert len(sentence) < 500
    columns = Columns(codecs=("TIMESTAMP_STRING_FORMAT",), timestamp_format=pattern)
    with pytest.raises(DeclarationError, match="characters; at most 500 are taken") as refusal:
        declare(TableName("k", "a"), TableName("k", "b"), columns=columns)
    assert len(str(refusal.value)) < 500


def test_patterns_up_to_the_limits_are_taken():
    for pattern, text in (
        ("[" * 20 + "yyyy-MM-dd" + "]" * 20, "2024-01-01"),
        ("[-]" * 30 + "yyyy-MM-dd", "2024-01-01"),
        ("yyyy-MM-" + "p" * 100 + "d", f"2024-01-{1:100}"),
        ("yyyy-MM-dd'" + "x" * 488 + "'", "2024-01-01" + "x" * 488),
    ):
        assert ours("read", pattern, "UTC", text) == ("1704067200000", "")
        assert ours("write", pattern, "UTC", 1704067200000)[1] == ""


@given(st.text("yuMdHhmsaSEGzXVOxZQqDpnAN[]'{}# -:T年", max_size=12))
def test_any_pattern_is_built_or_refused_in_one_sentence(pattern):
    for way in ("read", "write"):
        found = built(way, pattern, "UTC")
        if isinstance(found, str):
            assert found.startswith(f"timestamp_format {pattern!r} has ") or " ends with " in found
            assert "\n" not in found


@pytest.mark.parametrize(
    ("pattern", "text", "reason"),
    [
        ("yyyy-MM-dd HH:mm:ss.SSSSSS", "2024-07-04 06:05:09.123456", "is finer than a timestamp"),
        ("yyyy-MM-dd HH:mm:ss n", "2024-07-04 06:05:09 1", "is finer than a timestamp"),
        ("yyyy-MM-dd HH:mm", "2024-02-30 00:00", "is no date and time"),
        ("yyyy-MM-dd HH:mm", "2024-01-01 24:00", "is no date and time"),
        ("yyyy-MM-dd[ HH:mm]", "2024-01-01", "has no hour"),
        ("EEE yyyy-MM-dd", "Mon 2024-07-04", "contradicts itself in its day of week"),
        ("yyyy-MM-dd VV", "2024-07-04 Mars/Olympus", "does not follow"),
        ("uuuuuu-MM-dd", "+999999999-07-04", "is beyond what a timestamp holds"),
    ],
)
def test_a_text_that_would_be_bent_or_cut_is_refused(pattern, text, reason):
    assert reason in ours("read", pattern, "UTC", text)[1]


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("yyyyMMdd'0'HHmmss", "202407040060509"),
        ("yyyy-M'0'-dd", "2024-70-04"),
        ("d'0'MM yyyy", "4007 2024"),
    ],
)
def test_a_digit_in_quotes_belongs_to_the_number_before_it_if_that_takes_any_width(pattern, text):
    assert "does not follow" in ours("read", pattern, "UTC", text)[1]


def test_a_digit_in_quotes_is_read_behind_a_number_of_fixed_width():
    text = "2024-07-040060509"
    assert ours("read", "yyyy-MM-dd'0'HHmmss", "UTC", text) == ("1720073109000", "")


def test_a_pattern_without_a_time_means_midnight_of_the_zone():
    assert ours("read", "d MMM yy", "Europe/Berlin", "4 Jul 24") == ("1720044000000", "")


def test_an_hour_that_clocks_repeat_is_told_by_the_name_of_its_zone():
    for name, millis in (("CEST", 1729989000000), ("CET", 1729992600000)):
        text = f"2024-10-27 02:30 {name}"
        assert ours("read", "yyyy-MM-dd HH:mm z", "Europe/Berlin", text) == (str(millis), "")
        assert ours("write", "yyyy-MM-dd HH:mm z", "Europe/Berlin", millis) == (text, "")


def test_a_name_that_several_zones_have_is_that_of_the_declared_zone_or_refused():
    text = "2024-07-04 11:30 IST"
    assert ours("read", "yyyy-MM-dd HH:mm z", "Asia/Kolkata", text) == ("1720072800000", "")
    assert "does not follow" in ours("read", "yyyy-MM-dd HH:mm z", "UTC", text)[1]
