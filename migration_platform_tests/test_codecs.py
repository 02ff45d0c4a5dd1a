"""Codecs change a column's type in both directions, and refuse what cannot be changed."""

import struct
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_platform.cql.types import CqlType
from migration_platform.cql.values import encode_value, show_value
from migration_platform.declaration.columns import CODECS, Columns
from migration_platform.plan.codecs import build_codec, hint_for, is_injective

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WHOLE_FORMAT = "yyyy-MM-dd'T'HH:mm:ss.SSS"


def codec(name, origin, target, **options):
    return build_codec(CqlType(origin), CqlType(target), Columns(codecs=(name,), **options))


def change(name, value, origin, target, **options):
    """Change a value from one type to the other and show it."""
    convert = codec(name, origin, target, **options)
    return show_value(convert(encode_value(value, CqlType(origin))), CqlType(target))


def refusal(name, value, origin, target, **options):
    """The message with which a value is refused."""
    convert = codec(name, origin, target, **options)
    value = value if isinstance(value, bytes) else encode_value(value, CqlType(origin))
    with pytest.raises(ValueError, match=f"^{name}: ") as refused:
        convert(value)
    message = str(refused.value)
    assert "\n" not in message
    assert len(message) < 250
    return message


# -- numbers -----------------------------------------------------------------------------------

NUMBERS = {
    "INT_STRING": ("int", st.integers(-(2**31), 2**31 - 1)),
    "BIGINT_STRING": ("bigint", st.integers(-(2**63), 2**63 - 1)),
    "DOUBLE_STRING": ("double", st.floats(allow_nan=False)),
    "DECIMAL_STRING": ("decimal", st.decimals(allow_nan=False, allow_infinity=False)),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text_type", ["text", "ascii"])
@given(data=st.data())
def test_a_number_comes_back_from_its_text(name, text_type, data):
    number_type, numbers = NUMBERS[name]
    value = encode_value(data.draw(numbers), CqlType(number_type))
    text = codec(name, number_type, text_type)(value)
    assert codec(name, text_type, number_type)(text) == value


@pytest.mark.parametrize(
    ("name", "number", "text"),
    [
        ("INT_STRING", -5, "-5"),
        ("BIGINT_STRING", 2**63 - 1, "9223372036854775807"),
        ("DOUBLE_STRING", 0.1, "0.1"),
        ("DOUBLE_STRING", "-Infinity", "-Infinity"),
        ("DOUBLE_STRING", "NaN", "NaN"),
        ("DECIMAL_STRING", Decimal("12.50"), "12.50"),
        ("DECIMAL_STRING", Decimal("1E+3"), "1E+3"),
    ],
)
def test_a_number_is_written_as_people_write_it(name, number, text):
    number_type = NUMBERS[name][0]
    assert change(name, number, number_type, "text") == text
    assert change(name, text, "text", number_type) == text


@pytest.mark.parametrize("name", NUMBERS)
def test_text_that_is_no_number_is_refused(name):
    number_type = NUMBERS[name][0]
    for text in ("", "x", " 1", "1 ", "1_0", "٣", "0x1", "1,5", "x" * 100):
        message = refusal(name, text, "text", number_type)
        shown = text if len(text) < 60 else "x" * 56 + "..."
        assert f"{name}: '{shown}" in message
        assert f"is no {number_type}; write " in message


def test_numbers_beyond_the_type_are_refused_and_fractions_never_cut():
    assert "'2147483648' is no int" in refusal("INT_STRING", str(2**31), "text", "int")
    assert "'1.0' is no int" in refusal("INT_STRING", "1.0", "text", "int")
    assert "is no bigint" in refusal("BIGINT_STRING", str(2**63), "text", "bigint")
    assert "'1e999' is no double" in refusal("DOUBLE_STRING", "1e999", "text", "double")


@pytest.mark.parametrize("name", [*NUMBERS, "TIMESTAMP_STRING_MILLIS", "TIMESTAMP_STRING_FORMAT"])
def test_bytes_that_are_no_value_are_refused(name):
    number_type = NUMBERS.get(name, ("timestamp",))[0]
    assert refusal(name, b"", number_type, "text") == f"{name}: 0x is no {number_type}"
    assert refusal(name, b"\0\1\2", number_type, "text") == f"{name}: 0x000102 is no {number_type}"
    assert "is no text in UTF-8" in refusal(name, b"1\xff", "text", number_type)


# -- blobs -------------------------------------------------------------------------------------


@given(st.binary())
def test_a_blob_becomes_text_if_it_is_utf_8(value):
    assert codec("STRING_BLOB", "text", "blob")(value) == value
    try:
        value.decode()
    except UnicodeDecodeError:
        assert "is no text in UTF-8" in refusal("STRING_BLOB", value, "blob", "text")
    else:
        assert codec("STRING_BLOB", "blob", "text")(value) == value


@given(st.binary())
def test_a_blob_becomes_ascii_if_it_is_ascii(value):
    assert codec("ASCII_BLOB", "ascii", "blob")(value) == value
    if value.isascii():
        assert codec("ASCII_BLOB", "blob", "ascii")(value) == value
    else:
        assert "is no text in ASCII" in refusal("ASCII_BLOB", value, "blob", "ascii")


# -- timestamps --------------------------------------------------------------------------------


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_timestamp_comes_back_from_its_milliseconds(millis):
    value = struct.pack(">q", millis)
    text = codec("TIMESTAMP_STRING_MILLIS", "timestamp", "text")(value)
    assert text == str(millis).encode()
    assert codec("TIMESTAMP_STRING_MILLIS", "text", "timestamp")(text) == value


def test_milliseconds_that_are_no_number_or_too_many_are_refused():
    for text in ("", "1.5", "2024-01-01", str(2**63), "9" * 100):
        message = refusal("TIMESTAMP_STRING_MILLIS", text, "text", "timestamp")
        assert message.endswith("is no number of milliseconds since 1970")


@given(st.datetimes(), st.sampled_from(["UTC", "Asia/Kathmandu", "Etc/GMT+5"]))
def test_a_timestamp_comes_back_from_a_format_that_has_every_part(moment, zone):
    options = {"timestamp_format": WHOLE_FORMAT, "timestamp_zone": zone}
    millis = (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
    value = struct.pack(">q", millis)
    name = "TIMESTAMP_STRING_FORMAT"
    try:
        text = codec(name, "timestamp", "text", **options)(value)
    except ValueError:
        assert moment.year in (1, 9999)
        return
    assert codec(name, "text", "timestamp", **options)(text) == value
    if zone == "UTC":
        assert text.decode() == moment.isoformat(timespec="milliseconds")


@pytest.mark.parametrize(
    ("pattern", "zone", "text"),
    [
        ("yyyyMMddHHmmss", "UTC", "20240704060509"),
        ("yyyyMMddHHmmss", "Europe/Berlin", "20240704080509"),
        ("yyyyMMddHHmmss", "America/New_York", "20240704020509"),
        ("uuuu/MM/dd", "UTC", "2024/07/04"),
        ("dd.MM.yyyy 'um' HH 'o''clock' ''mm''", "UTC", "04.07.2024 um 06 o'clock '05'"),
        ("MM-dd-yyyy'{0}%Y'", "UTC", "07-04-2024{0}%Y"),
        ("yyyyMMddHHmmssSSS", "UTC", "20240704060509007"),
    ],
)
def test_a_timestamp_follows_the_format_and_zone(pattern, zone, text):
    options = {"timestamp_format": pattern, "timestamp_zone": zone}
    name, moment = "TIMESTAMP_STRING_FORMAT", "2024-07-04T06:05:09.007Z"
    assert change(name, moment, "timestamp", "text", **options) == text
    # What the format leaves out is 0.
    expected = moment
    for letters, part, rest in (
        ("SSS", ".007", ""),
        ("ss", ":09", ":00"),
        ("HH", "06:05", "00:00"),
    ):
        if letters not in pattern:
            expected = expected.replace(part, rest)
    assert change(name, text, "text", "timestamp", **options) == expected


def test_text_that_does_not_follow_the_format_is_refused():
    for text in (
        "",
        "2024",
        "20240704",
        "20240704060509x",
        "2024-07-04 06:05:09",
        "٢0240704060509",
    ):
        message = refusal("TIMESTAMP_STRING_FORMAT", text, "text", "timestamp")
        assert message.endswith(f"'{text}' does not follow yyyyMMddHHmmss")
    for text in ("20240230000000", "20240101240000", "00000101000000"):
        message = refusal("TIMESTAMP_STRING_FORMAT", text, "text", "timestamp")
        assert message.endswith(f"'{text}' is no date and time")


def test_the_hour_that_clocks_skip_is_refused_and_of_the_one_they_repeat_the_first_is_taken():
    options = {"timestamp_zone": "Europe/Berlin"}
    name = "TIMESTAMP_STRING_FORMAT"
    message = refusal(name, "20240331023000", "text", "timestamp", **options)
    assert message == f"{name}: '20240331023000' does not exist in Europe/Berlin"
    assert change(name, "20241027023000", "text", "timestamp", **options) == "2024-10-27T00:30:00Z"


def test_a_timestamp_that_the_format_cannot_hold_is_refused():
    options = {"timestamp_format": "yyyyMMddHHmmss"}
    message = refusal("TIMESTAMP_STRING_FORMAT", -(2**63), "timestamp", "text", **options)
    assert f"the timestamp of {-(2**63)} milliseconds is before the year 1" in message
    late = change("TIMESTAMP_STRING_FORMAT", 253_402_300_800_000, "timestamp", "text", **options)
    assert late == "+100000101000000"


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("yyyy-MM-dd hh:mm", "has h without a"),
        ("yyyy-MM-dd B", "has B, which is not supported"),
        ("yyyy-MM-dd'T", 'has "\'"'),
        ("HH:mm", "has no year; a moment needs a year, a month and a day"),
        ("", "has no year; a moment needs a year, a month and a day"),
    ],
)
def test_a_format_that_is_not_supported_is_refused_with_the_reason(pattern, reason):
    for pair in (("text", "timestamp"), ("timestamp", "text")):
        with pytest.raises(ValueError, match="timestamp_format") as refused:
            codec("TIMESTAMP_STRING_FORMAT", *pair, timestamp_format=pattern)
        assert f"timestamp_format {pattern!r} {reason}" in str(refused.value)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("yy-MM-dd", "24-07-04"),
        ("yyyy-MMM-dd", "2024-Jul-04"),
        ("d/M/yyyy h:mm a", "4/7/2024 6:05 AM"),
        ("yyyy-MM-dd HH:mm:ss.SSSXXX", "2024-07-04 08:05:09.007+02:00"),
        ("yyyy-MM-dd-yyyy", "2024-07-04-2024"),
        ("yyyy-MM-dd[ HH]", "2024-07-04 08"),
        ("EEE, d MMM yyyy HH:mm:ss Z", "Thu, 4 Jul 2024 08:05:09 +0200"),
    ],
)
def test_a_timestamp_follows_any_pattern_of_java(pattern, text):
    options = {"timestamp_format": pattern, "timestamp_zone": "Europe/Berlin"}
    name, moment = "TIMESTAMP_STRING_FORMAT", "2024-07-04T06:05:09.007Z"
    written = change(name, moment, "timestamp", "text", **options)
    assert written == text.replace("6:05", "8:05")
    again = change(name, written, "text", "timestamp", **options)
    assert change(name, again, "timestamp", "text", **options) == written


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "Europe"])
def test_a_zone_that_is_not_known_is_refused(zone):
    with pytest.raises(ValueError, match="is not known; write a name such as UTC"):
        codec("TIMESTAMP_STRING_FORMAT", "text", "timestamp", timestamp_zone=zone)


def test_a_format_that_is_not_ascii_does_not_fit_an_ascii_column():
    pattern = "yyyy年MM月dd日"
    options = {"timestamp_format": pattern}
    day = "2024-07-04T00:00:00Z"
    name = "TIMESTAMP_STRING_FORMAT"
    assert change(name, day, "timestamp", "text", **options) == "2024年07月04日"
    assert change(name, "2024年07月04日", "text", "timestamp", **options) == day
    with pytest.raises(ValueError, match="characters that are not ASCII"):
        codec(name, "timestamp", "ascii", **options)


# -- which codec -------------------------------------------------------------------------------


def test_without_a_codec_that_fits_there_is_none():
    every = Columns(codecs=tuple(c for c in CODECS if c != "TIMESTAMP_STRING_FORMAT"))
    for origin, target in (("int", "bigint"), ("text", "uuid"), ("text", "text"), ("int", "blob")):
        assert build_codec(CqlType(origin), CqlType(target), every) is None
    # A blob may hold what is not ASCII.
    assert codec("STRING_BLOB", "blob", "ascii") is None
    assert codec("ASCII_BLOB", "text", "blob") is None
    assert build_codec(CqlType("int"), CqlType("text"), Columns()) is None


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_is_told_as_the_one_that_would_help(name):
    pairs = [("int", "text"), ("double", "text"), ("bigint", "ascii"), ("decimal", "text")]
    pairs += [("text", "blob"), ("ascii", "blob"), ("timestamp", "text")]
    for one, other in pairs:
        for origin, target in ((one, other), (other, one)):
            hint = hint_for(CqlType(origin), CqlType(target)) or ""
            fits = codec(name, origin, target) is not None
            assert (name in hint.split(" or ")) is fits


def test_the_hint_names_all_that_would_help_or_is_none():
    assert hint_for(CqlType("timestamp"), CqlType("text")) == (
        "TIMESTAMP_STRING_MILLIS or TIMESTAMP_STRING_FORMAT"
    )
    assert hint_for(CqlType("int"), CqlType("uuid")) is None


@pytest.mark.parametrize(
    ("name", "origin", "target", "expected"),
    [
        ("INT_STRING", "int", "text", True),
        ("INT_STRING", "text", "int", False),
        ("DECIMAL_STRING", "decimal", "text", True),
        ("DOUBLE_STRING", "ascii", "double", False),
        ("STRING_BLOB", "text", "blob", True),
        ("ASCII_BLOB", "blob", "ascii", True),
        ("TIMESTAMP_STRING_MILLIS", "timestamp", "text", True),
        ("TIMESTAMP_STRING_MILLIS", "text", "timestamp", False),
        ("TIMESTAMP_STRING_FORMAT", "timestamp", "text", False),
        ("TIMESTAMP_STRING_FORMAT", "text", "timestamp", True),
    ],
)
def test_some_codecs_keep_different_values_apart(name, origin, target, expected):
    assert is_injective(name, CqlType(origin), CqlType(target)) is expected


def test_a_format_keeps_timestamps_apart_if_it_has_every_part_and_clocks_never_go_back():
    def keeps_apart(pattern, zone):
        columns = Columns(timestamp_format=pattern, timestamp_zone=zone)
        pair = CqlType("timestamp"), CqlType("text")
        return is_injective("TIMESTAMP_STRING_FORMAT", *pair, columns)

    assert keeps_apart(WHOLE_FORMAT, "UTC")
    assert keeps_apart(WHOLE_FORMAT, "Etc/GMT+5")
    assert not keeps_apart("yyyyMMddHHmmss", "UTC")
    assert not keeps_apart(WHOLE_FORMAT, "Europe/Berlin")
