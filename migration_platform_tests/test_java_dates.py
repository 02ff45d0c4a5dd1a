"""Patterns of timestamps mean what real Java means by them; `java/JavaDates.java` asked it."""

import re
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_platform.java_calendar import NotDateError
from migration_platform.java_dates import DatePattern
from migration_platform.java_patterns import Fraction, Maybe, Number, Padded, Plain, parse_pattern

TABLE = Path(__file__).parent / "java" / "java_dates.tsv"
ROWS = [
    line.split("\t")
    for line in TABLE.read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]
REFUSED = [
    "is before the year 1, which needs G or uuuu",
    "has an offset with seconds, which",
    "has no English name for its zone",
    "has no name in English",
    "names a zone and an offset that do not fit",
    "contradicts itself in its",
    "is no date and time",
    "does not exist in",
    "cannot be read: one letter stands for several names",
    "has no minute",
    "has no month",
    "has no year",
    "has h without a",
    r"does not follow .*\bz+\b",
]
"""What Java bends, guesses or loses in silence is refused; the reasons, and no others."""


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
        named = re.search("z+", re.sub("'[^']*'", "", pattern)) and way == "read"
        if result != "!" and named:
            # A name means its own distance to UTC, also where the zone had another one then.
            assert re.search("CET|EST|Standard Time", value)
            continue
        assert result == "!", (way, zone, value, java, result)
        assert any(re.search(allowed, reason) for allowed in REFUSED), (value, java, reason)


def test_the_table_shows_every_letter_and_nearly_all_of_it_is_the_same():
    letters = {
        letter
        for pattern in {row[1] for row in ROWS}
        for letter in re.sub("'[^']*'", "", pattern)
        if letter.isascii() and letter.isalpha()
    }
    assert letters >= set("GyuDMLdQqYwWEecahKkHmsSAnNgVzOXxZp")
    same = sum(ours(*row[:4])[0] == row[4] for row in ROWS)
    assert same > 0.9 * len(ROWS)


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
    ],
)
def test_a_pattern_that_cannot_be_is_refused_with_its_letters_and_the_reason(pattern, reason):
    for way in ("read", "write"):
        sentence = built(way, pattern, "UTC")
        assert isinstance(sentence, str)
        assert f"timestamp_format {pattern!r} {reason}" in sentence
        assert "\n" not in sentence


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
