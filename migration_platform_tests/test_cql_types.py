"""Types are read from their text, and values are made, rebuilt and shown as the types demand."""

import io
import json
import random
import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from uuid import UUID

import pytest
from cassandra import cqltypes, util
from cassandra.protocol import ExecuteMessage
from hypothesis import given
from hypothesis import strategies as st

from migration_platform.cql.conversion import (
    TypesDiffer,
    build_converter,
    needs_sorting,
    sort_elements,
)
from migration_platform.cql.elements import (
    read_elements,
    read_entries,
    read_fields,
    write_elements,
    write_entries,
    write_fields,
)
from migration_platform.cql.order import sort_key
from migration_platform.cql.types import CqlType, parse_type
from migration_platform.cql.values import encode_value, show_value
from migration_platform.stores.cassandra.connection import page_of
from migration_platform_tests.tables import create_table

# -- types and values of any depth -------------------------------------------------------------

INT = CqlType("int")
SCALARS = ("int", "bigint", "text", "boolean", "blob")
VALUES = {
    "int": st.integers(-(2**31), 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "text": st.text(max_size=5),
    "boolean": st.booleans(),
    "blob": st.binary(max_size=5).map(lambda value: "0x" + value.hex()),
}
names = st.one_of(
    st.sampled_from(["a", "b", "int", "frozen", "select", "A b", 'q"', "ü,}"]), st.text(min_size=1)
)


@st.composite
def inner_types(draw, depth=2):
    kinds = [*SCALARS, *(["list", "set", "map", "tuple", "vector", "udt"] if depth else [])]
    name = draw(st.sampled_from(kinds))
    if name in SCALARS:
        return CqlType(name)
    inner = inner_types(depth - 1)
    if name == "udt":
        fields = draw(st.lists(names, min_size=1, max_size=4, unique=True))
        return CqlType("udt", fields=tuple((f, draw(inner)) for f in fields), is_frozen=True)
    if name == "vector":
        size = draw(st.integers(1, 3))
        return CqlType("vector", (draw(inner),), is_frozen=True, dimensions=size)
    count = {"list": 1, "set": 1, "map": 2, "tuple": draw(st.integers(1, 3))}[name]
    return CqlType(name, tuple(draw(inner) for _ in range(count)), is_frozen=True)


def values_of(cql_type):
    """Values as JSON knows them; maps as pairs, because their keys may be anything."""
    name, inner = cql_type.name, cql_type.parameters
    if name in VALUES:
        return VALUES[name]
    if name in ("list", "set"):
        return st.lists(values_of(inner[0]), max_size=3)
    if name == "map":
        pair = st.tuples(values_of(inner[0]), values_of(inner[1])).map(list)
        return st.lists(pair, max_size=3)
    if name == "tuple":
        return st.tuples(*(st.none() | values_of(kind) for kind in inner)).map(list)
    if name == "vector":
        size = cql_type.dimensions
        return st.lists(values_of(inner[0]), min_size=size, max_size=size)
    return st.fixed_dictionaries({}, optional={f: values_of(kind) for f, kind in cql_type.fields})


typed_values = inner_types().flatmap(lambda kind: st.tuples(st.just(kind), values_of(kind)))


def decode(value, cql_type):
    """Read a value the slow way, with nothing of the code under test."""
    if value is None:
        return None
    source, name = io.BytesIO(value), cql_type.name

    def number(form=">i"):
        return struct.unpack(form, source.read(struct.calcsize(form)))[0]

    def cell(kind):
        size = number()
        return None if size == -1 else decode(source.read(size), kind)

    if name in ("list", "set"):
        found = [cell(cql_type.parameters[0]) for _ in range(number())]
    elif name == "map":
        found = [[cell(kind) for kind in cql_type.parameters] for _ in range(number())]
    elif name == "tuple":
        found = [cell(kind) for kind in cql_type.parameters]
    elif name == "udt":
        found = {}
        for field, kind in cql_type.fields:
            item = cell(kind) if source.tell() < len(value) else None
            if item is not None:
                found[field] = item
    elif name == "vector":
        element = cql_type.parameters[0]
        found = [vector_cell(source, element) for _ in range(cql_type.dimensions)]
    else:
        found = {
            "int": lambda: number(),
            "bigint": lambda: number(">q"),
            "boolean": lambda: number(">?"),
            "text": lambda: source.read().decode(),
            "blob": lambda: "0x" + source.read().hex(),
        }[name]()
    assert source.read() == b""
    return found


def vector_cell(source, kind):
    size = fixed_size(kind)
    if size is None:
        # No element of these tests has 2**14 bytes.
        size = source.read(1)[0]
        if size >= 128:
            size = (size & 0x3F) << 8 | source.read(1)[0]
    return decode(source.read(size), kind)


def fixed_size(kind):
    if kind.name == "vector":
        size = fixed_size(kind.parameters[0])
        return None if size is None else size * kind.dimensions
    return {"int": 4, "bigint": 8, "boolean": 1}.get(kind.name)


def place(value, cql_type):
    """Where a value stands among others, told from the value and not from its bytes."""
    name, inner = cql_type.name, cql_type.parameters
    if value is None:
        return ()
    if name in SCALARS:
        forms = {"text": str.encode, "blob": lambda text: bytes.fromhex(text[2:])}
        return (forms.get(name, int)(value),)
    if name == "map":
        return (tuple((place(k, inner[0]), place(v, inner[1])) for k, v in value),)
    if name == "udt":
        return (tuple(place(value.get(field), kind) for field, kind in cql_type.fields),)
    kinds = inner if name == "tuple" else inner * len(value)
    return (tuple(map(place, value, kinds)),)


def kept(value, cql_type):
    """The value as a server keeps it: sets and maps in their order, each element once."""
    name, inner = cql_type.name, cql_type.parameters
    if value is None or name in SCALARS:
        return value
    if name == "udt":
        kinds = dict(cql_type.fields)
        return {field: kept(item, kinds[field]) for field, item in value.items()}
    found = {}
    if name == "map":
        for key, item in value:
            key = kept(key, inner[0])
            found[place(key, inner[0])] = [key, kept(item, inner[1])]
        return [found[at] for at in sorted(found)]
    kinds = inner if name == "tuple" else inner * len(value)
    items = [kept(item, kind) for item, kind in zip(value, kinds, strict=True)]
    if name != "set":
        return items
    found = {place(item, inner[0]): item for item in items}
    return [found[at] for at in sorted(found)]


# -- types -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "int",
        "frozen<map<text, int>>",
        "map<text, frozen<list<int>>>",
        "vector<float, 3>",
        "vector<vector<float, 2>, 3>",
        "frozen<tuple<int, text>>",
        '{a int, "B c" frozen<list<int>>}',
        "frozen<{a int, int frozen<{frozen boolean}>}>",
        "'org.example.MyType(X)'",
    ],
)
def test_a_type_reads_as_it_is_written(text):
    assert str(parse_type(text)) == text


@given(inner_types())
def test_a_type_that_was_written_is_read_again(cql_type):
    assert parse_type(str(cql_type)) == cql_type


def test_varchar_is_text_and_case_does_not_matter():
    assert parse_type("VARCHAR") == parse_type("text")


def test_what_is_in_a_type_is_frozen_whether_its_text_says_so_or_not():
    assert parse_type("{a list<int>}") == parse_type("{a frozen<list<int>>}")
    assert parse_type("frozen<list<list<int>>>") == parse_type("frozen<list<frozen<list<int>>>>")
    assert parse_type("tuple<int>") == parse_type("frozen<tuple<int>>")


@pytest.mark.parametrize("text", ["list<int>", "set<int>", "map<int, int>", "{a int}"])
def test_only_what_holds_elements_and_is_not_frozen_has_many_cells(text):
    assert parse_type(text).is_multicell
    assert not parse_type(f"frozen<{text}>").is_multicell
    assert not parse_type(f"tuple<{text}>").is_multicell
    assert not parse_type("int").is_multicell


@pytest.mark.parametrize(
    "text",
    [
        *("", "list<int", "list<>", "map<int>", "int int", "{a}", "{}", "list<int>>", "a;b"),
        *("frozen<>", "vector<int, x>", "vector<int>", "int>", "<int>", "{a int", "'x"),
        "tuple<int int>",
    ],
)
def test_what_is_no_type_is_refused(text):
    with pytest.raises(ValueError, match="is no CQL type: "):
        parse_type(text)


# -- elements ----------------------------------------------------------------------------------

cells = st.none() | st.binary(max_size=6)


@given(st.lists(cells), st.lists(st.tuples(st.binary(max_size=6), cells)))
def test_elements_entries_and_fields_are_cut_as_they_were_put_together(elements, entries):
    assert read_elements(write_elements(elements)) == elements
    assert read_entries(write_entries(entries)) == entries
    assert read_fields(write_fields(elements), len(elements)) == elements
    # A type that got fields later: the bytes of before lack them.
    assert read_fields(write_fields(elements), len(elements) + 2) == [*elements, None, None]


@given(st.lists(cells, min_size=1), st.data())
def test_bytes_that_were_cut_off_or_go_on_are_refused(elements, data):
    whole = write_elements(elements)
    cut = data.draw(st.integers(0, len(whole) - 1))
    for wrong in (whole[:cut], whole + b"\0"):
        with pytest.raises(ValueError, match="bytes are no list or set"):
            read_elements(wrong)
    a_map = write_entries([(b"key", b"value"), (b"", None)])
    cut = data.draw(st.integers(0, len(a_map) - 1))
    for wrong in (a_map[:cut], a_map + b"\0", write_fields([None]) * 3):
        with pytest.raises(ValueError, match="bytes are no map"):
            read_entries(wrong)
    with pytest.raises(ValueError, match="bytes are no 0 fields"):
        read_fields(write_fields(elements), 0)


# -- conversion --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "target"),
    [
        ("int", "int"),
        ("ascii", "text"),
        ("timeuuid", "uuid"),
        ("list<int>", "frozen<list<int>>"),
        ("{a int}", "frozen<{a int}>"),
        ("frozen<map<ascii, int>>", "frozen<map<text, int>>"),
        ("tuple<int, timeuuid>", "tuple<int, uuid>"),
        ("{a ascii, b int}", "{a text, b int}"),
    ],
)
def test_values_that_fit_as_they_are_need_no_converter(origin, target):
    assert build_converter(parse_type(origin), parse_type(target)) is None


@pytest.mark.parametrize(
    ("origin", "target", "reason"),
    [
        ("text", "ascii", "text does not fit into ascii"),
        ("int", "bigint", "int does not fit into bigint"),
        ("list<int>", "set<int>", "list<int> does not fit into set<int>"),
        ("tuple<int>", "tuple<int, int>", "does not fit into frozen<tuple<int, int>>"),
        ("vector<float, 2>", "vector<float, 3>", "does not fit into vector<float, 3>"),
        ("'org.A'", "'org.B'", "'org.A' does not fit into 'org.B'"),
        ("{a int, b int, c int}", "{b int}", "the target's type has no field a, c"),
        ("list<{a int}>", "list<{b int}>", "the target's type has no field a"),
        ("{a {b text}}", "{a {b int}}", "field a: field b: text does not fit into int"),
        ("frozen<list<int>>", "list<int>", "an empty list would become null"),
        ("frozen<map<int, int>>", "map<int, int>", "an empty map would become null"),
        ("frozen<{a int}>", "{a int}", "a value of nulls only would become null"),
    ],
)
def test_values_that_would_not_fit_are_refused_with_the_reason(origin, target, reason):
    with pytest.raises(TypesDiffer) as refused:
        build_converter(parse_type(origin), parse_type(target))
    assert reason in str(refused.value)


@st.composite
def reordered(draw, origin):
    """The same type with the fields of user-defined types in another order, and more of them."""
    inner = tuple(draw(reordered(kind)) for kind in origin.parameters)
    fields = [(name, draw(reordered(kind))) for name, kind in origin.fields]
    if fields:
        known = [name for name, _ in fields]
        more = draw(st.lists(names.filter(lambda n: n not in known), max_size=2, unique=True))
        fields = draw(st.permutations(fields + [(name, CqlType("int")) for name in more]))
    return CqlType(origin.name, inner, tuple(fields), origin.is_frozen, origin.dimensions)


@given(typed_values, st.data())
def test_user_defined_types_fit_by_the_names_of_their_fields(typed, data):
    origin, value = typed
    target = data.draw(reordered(origin))
    encoded = encode_value(value, origin)
    assert decode(encoded, origin) == kept(value, origin)
    convert = build_converter(origin, target)
    converted = convert(encoded) if convert else encoded
    assert (convert is None) == (origin == target)
    # Fields that only the target has are null, which `decode` leaves out.
    assert decode(converted, target) == kept(value, target)
    assert converted == encode_value(value, target)


def write_uuids(*values):
    return write_elements([UUID(value).bytes for value in values])


def test_converted_sets_are_in_order_but_elements_with_times_of_their_own_keep_their_places():
    # A timeuuid's last bytes have a sign, a uuid's have none.
    low, high = "50554d6e-29bb-11e5-8345-feff819cdc9f", "50554d6e-29bb-11e5-8345-01ff819cdc9f"
    as_timeuuids, as_uuids = write_uuids(low, high), write_uuids(high, low)
    for text in ("frozen<set<{}>>", "list<frozen<set<{}>>>"):
        types = [parse_type(text.format(name)) for name in ("timeuuid", "uuid")]
        value, expected = as_timeuuids, as_uuids
        if text.startswith("list"):
            value, expected = write_elements([value]), write_elements([expected])
        assert build_converter(*types)(value) == expected
    assert build_converter(parse_type("set<timeuuid>"), parse_type("set<uuid>")) is None
    thawed = build_converter(parse_type("set<timeuuid>"), parse_type("frozen<set<uuid>>"))
    assert thawed(as_timeuuids) == as_uuids
    pairs = [{"a": 1, "b": 2}, {"a": 2, "b": 1}]
    fields = ("{a int, b int}", "{b int, a int}")
    for text, in_order in (("set<{}>", False), ("frozen<set<{}>>", True)):
        origin, target = (parse_type(text.format(fields)) for fields in fields)
        converted = build_converter(origin, target)(encode_value(pairs, origin))
        assert decode(converted, target) == (pairs[::-1] if in_order else pairs)
    # A server keeps in a nested set what a driver sends, also 1.0 beside 1.00.
    origin, target = (parse_type(f"list<set<{{{f}}}>>") for f in ("d decimal", "x int, d decimal"))
    numbers = [encode_value(number, CqlType("decimal")) for number in ("2", "1.0", "1.00")]
    twice = write_elements([write_elements([write_fields([number]) for number in numbers])])
    (a_set,) = read_elements(build_converter(origin, target)(twice))
    assert read_elements(a_set) == [write_fields([None, numbers[i]]) for i in (1, 2, 0)]
    # Null at the end changes no order, so nothing is sorted.
    longer = [parse_type(f"frozen<map<{{a int{more}}}, int>>") for more in ("", ", b int")]
    unordered = write_entries([(write_fields([encode_value(a, INT)]), b"\0") for a in (2, 1)])
    keys = [key for key, _ in read_entries(build_converter(*longer)(unordered))]
    assert keys == [write_fields([encode_value(a, INT), None]) for a in (2, 1)]


def test_fields_that_old_bytes_lack_become_null():
    target = parse_type("{c int, b int, a int}")
    convert = build_converter(parse_type("{a int, b int, c int}"), target)
    assert decode(convert(write_fields([b"\0\0\0\1"])), target) == {"a": 1}
    with pytest.raises(ValueError, match="bytes are no 3 fields"):
        convert(write_fields([None] * 4))


def test_an_empty_value_stays_empty():
    convert = build_converter(parse_type("{a int, b int}"), parse_type("{b int, a int}"))
    assert convert(b"") == b""


def shuffled(value, cql_type, draw):
    """The same value with the elements of sets and maps in another order."""
    name, inner = cql_type.name, cql_type.parameters
    if value is None or name in SCALARS:
        return value
    if name == "map":
        pairs = [[shuffled(k, inner[0], draw), shuffled(v, inner[1], draw)] for k, v in value]
        return list(draw(st.permutations(pairs)))
    if name == "udt":
        kinds = dict(cql_type.fields)
        return {field: shuffled(item, kinds[field], draw) for field, item in value.items()}
    kinds = inner if name == "tuple" else inner * len(value)
    items = [shuffled(item, kind, draw) for item, kind in zip(value, kinds, strict=True)]
    return list(draw(st.permutations(items))) if name == "set" else items


@given(typed_values, st.data())
def test_sorted_bytes_do_not_depend_on_the_order_of_sets_and_maps(typed, data):
    cql_type, value = typed
    keys_differ = "map" not in str(cql_type)
    other = shuffled(value, cql_type, data.draw) if keys_differ else value
    ordered = sort_elements(encode_value(value, cql_type), cql_type)
    assert sort_elements(encode_value(other, cql_type), cql_type) == ordered
    assert sort_elements(ordered, cql_type) == ordered
    assert len(ordered) == len(encode_value(value, cql_type))


@pytest.mark.parametrize(
    ("origin", "target", "needed"),
    [
        ("set<int>", "set<int>", False),
        ("list<{a int, b int}>", "list<{b int, a int}>", False),
        ("map<int, {a int, b int}>", "map<int, {b int, a int}>", False),
        ("set<{a int, b int}>", "set<{b int, a int}>", True),
        ("map<{a int, b int}, int>", "map<{b int, a int}, int>", True),
        ("{x int, s set<{a int, b int}>}", "{s set<{b int, a int}>, x int}", True),
        ("set<timeuuid>", "set<uuid>", True),
    ],
)
def test_converted_sets_and_keys_may_stand_in_another_order(origin, target, needed):
    assert needs_sorting(parse_type(origin), parse_type(target)) is needed


# -- order -------------------------------------------------------------------------------------


@given(inner_types(), st.data())
def test_sets_and_maps_of_any_type_come_in_order_and_without_duplicates(cql_type, data):
    values = data.draw(st.lists(values_of(cql_type), max_size=6))
    again = data.draw(st.permutations(values + values[:2]))
    a_set = CqlType("set", (cql_type,))
    encoded = encode_value(again, a_set)
    assert decode(encoded, a_set) == kept(values, a_set)
    keys = [sort_key(cql_type)(element) for element in read_elements(encoded)]
    assert all(a < b for a, b in pairwise(keys))
    a_map = CqlType("map", (cql_type, INT))
    entries = [[value, number] for number, value in enumerate(again)]
    assert decode(encode_value(entries, a_map), a_map) == kept(entries, a_map)


def test_what_is_one_value_to_a_server_is_kept_once():
    def encode(value, text):
        return encode_value(value, parse_type(text))

    # The first form of a key stays, and the last value.
    assert encode(["1.0", "1", "1.00"], "set<decimal>") == encode(["1.0"], "set<decimal>")
    entries = [["1.0", 1], ["1", 2], ["1.00", 3]]
    assert encode(entries, "map<decimal, int>") == encode([["1.0", 3]], "map<decimal, int>")
    assert encode(["nan", "-nan"], "set<float>") == encode(["NaN"], "set<float>")
    assert len(read_elements(encode([0.0, -0.0], "set<double>"))) == 2


@given(st.lists(st.integers() | st.decimals(allow_nan=False, allow_infinity=False)))
def test_decimals_stand_in_the_order_of_their_values(numbers):
    key = sort_key(CqlType("decimal"))
    numbers = [Decimal(number) for number in numbers]
    encoded = [(encode_value(number, CqlType("decimal")), number) for number in numbers]
    for a, number in encoded:
        for b, other in encoded:
            assert (key(a) < key(b)) is (number < other)
            assert (key(a) == key(b)) is (number == other)


def test_a_decimal_of_any_length_can_be_ordered():
    long = struct.pack(">i", -(2**31)) + b"\x7f" + b"\xff" * 5000
    longer = struct.pack(">i", -(2**31)) + b"\x7f" + b"\xff" * 5001
    tiny = struct.pack(">i", 2**31 - 1) + b"\1"
    values = [longer, tiny, b"", long]
    assert sorted(values, key=sort_key(CqlType("decimal"))) == [b"", tiny, long, longer]


# -- values ------------------------------------------------------------------------------------

INT_BITS = {"tinyint": 8, "smallint": 16, "int": 32, "bigint": 64, "counter": 64}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.sampled_from(sorted(INT_BITS)), st.integers(-(2**64), 2**64), st.booleans())
def test_a_whole_number_is_taken_in_its_bounds_and_refused_beyond(name, number, as_text):
    number >>= 64 - INT_BITS[name]
    bound = 2 ** (INT_BITS[name] - 1)
    value = str(number) if as_text else number
    if -bound <= number < bound:
        encoded = encode_value(value, CqlType(name))
        assert encoded == number.to_bytes(INT_BITS[name] // 8, "big", signed=True)
        assert show_value(encoded, CqlType(name)) == str(number)
    else:
        with pytest.raises(ValueError, match=f"is no {name}; write a whole number from {-bound}"):
            encode_value(value, CqlType(name))


def round_trip(value, name):
    """Encode a value, and let the driver decode it; what is shown is read as the same."""
    cql_type = CqlType(name)
    encoded = encode_value(value, cql_type)
    assert encode_value(show_value(encoded, cql_type), cql_type) == encoded
    return cqltypes._cqltypes[name].from_binary(encoded, 5)


@given(st.integers())
def test_a_varint_comes_back(number):
    assert round_trip(number, "varint") == number


@given(st.decimals(allow_nan=False, allow_infinity=False, places=None))
def test_a_decimal_comes_back_with_its_scale(number):
    found = round_trip(number, "decimal")
    assert found == number
    assert found.as_tuple().exponent == number.as_tuple().exponent


@given(st.floats(allow_nan=False))
def test_a_double_comes_back(number):
    assert repr(round_trip(number, "double")) == repr(number)


@given(st.floats(width=32, allow_nan=False))
def test_a_float_comes_back_and_is_shown_short(number):
    assert repr(round_trip(number, "float")) == repr(number)


def test_a_float_is_shown_as_it_was_written():
    for text in ("0.1", "16777216.0", "3.4028235e+38", "1e-45", "NaN", "-Infinity"):
        assert show_value(encode_value(text, CqlType("float")), CqlType("float")) == text


@given(st.uuids())
def test_a_uuid_comes_back(value):
    assert round_trip(str(value), "uuid") == value
    assert encode_value(value, CqlType("uuid")) == value.bytes


@given(st.datetimes(), st.integers(-1439, 1439))
def test_a_timestamp_comes_back_to_the_millisecond(moment, minutes):
    zone = timezone(timedelta(minutes=minutes))
    aware = moment.replace(tzinfo=zone)
    expected = (aware - EPOCH) // timedelta(milliseconds=1)
    for value in (aware, aware.isoformat(), expected, str(expected)):
        encoded = encode_value(value, CqlType("timestamp"))
        assert encoded == struct.pack(">q", expected)
    assert round_trip(moment, "timestamp") is not None


def test_a_timestamp_without_a_zone_is_utc():
    expected = struct.pack(">q", 1_704_067_200_000)
    for value in (
        datetime(2024, 1, 1),
        date(2024, 1, 1),
        "2024-01-01",
        "2024-01-01 00:00",
        "2024-01-01T00:00:00.000999Z",
        "2024-01-01T01:00:00+01:00",
    ):
        assert encode_value(value, CqlType("timestamp")) == expected


@pytest.mark.parametrize(
    ("millis", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (253_402_300_800_000, "253402300800000"),
        (-(2**63), "-9223372036854775808"),
    ],
)
def test_a_timestamp_is_shown_in_utc_or_beyond_the_calendar_as_milliseconds(millis, text):
    assert show_value(struct.pack(">q", millis), CqlType("timestamp")) == text


@given(st.dates())
def test_a_date_comes_back(day):
    assert round_trip(day, "date").date() == day
    assert encode_value(day.isoformat(), CqlType("date")) == encode_value(day, CqlType("date"))


@given(st.times())
def test_a_time_of_day_comes_back(clock):
    assert round_trip(clock, "time").time() == clock
    assert encode_value(clock.isoformat(), CqlType("time")) == encode_value(clock, CqlType("time"))


@given(
    st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1), st.booleans()
)
def test_a_duration_comes_back(months, days, nanoseconds, negative):
    text = f"{'-' if negative else ''}{months}mo{days}d{nanoseconds}ns"
    sign = -1 if negative else 1
    expected = util.Duration(sign * months, sign * days, sign * nanoseconds)
    assert round_trip(text, "duration") == expected


@pytest.mark.parametrize(
    ("text", "months", "days", "nanoseconds"),
    [
        ("1y2mo", 14, 0, 0),
        ("1w1d", 0, 8, 0),
        ("5m6ms", 0, 0, 300_006_000_000),
        ("-1h", 0, 0, -3_600_000_000_000),
        ("1us2µs", None, None, None),
        ("1h2m3s4ms5us6ns", 0, 0, 3_723_004_005_006),
        ("P1Y2M3DT4H5M6S", 14, 3, 14_706_000_000_000),
        ("P2W", 0, 14, 0),
        ("PT", None, None, None),
        ("P", None, None, None),
        ("", None, None, None),
        ("2147483648d", None, None, None),
        ("1d1y", None, None, None),
    ],
)
def test_a_duration_is_read_in_both_forms_of_cql(text, months, days, nanoseconds):
    if months is None:
        with pytest.raises(ValueError, match="is no duration; write a duration such as 1y2mo"):
            encode_value(text, CqlType("duration"))
    else:
        found = round_trip(text, "duration")
        assert found == util.Duration(months, days, nanoseconds)


@given(st.ip_addresses())
def test_an_address_comes_back(address):
    assert encode_value(str(address), CqlType("inet")) == address.packed
    assert encode_value(round_trip(str(address), "inet"), CqlType("inet")) == address.packed


@given(st.binary())
def test_a_blob_comes_back(value):
    assert round_trip("0x" + value.hex(), "blob") == value
    assert encode_value(value, CqlType("blob")) == value
    custom = parse_type("'org.example.MyType'")
    assert encode_value(show_value(value, custom), custom) == value


@given(st.text())
def test_text_comes_back(value):
    assert round_trip(value, "text") == value
    if value.isascii():
        assert round_trip(value, "ascii") == value


def test_a_boolean_is_a_word_or_a_boolean():
    assert round_trip(True, "boolean") is round_trip("TRUE", "boolean") is True
    assert round_trip(False, "boolean") is round_trip("false", "boolean") is False


WRONG = [
    ("int", 1.0),
    ("int", True),
    ("int", "1_000"),
    ("int", "٣"),
    ("int", [1]),
    ("bigint", "1.5"),
    ("varint", 1.5),
    ("float", 1e39),
    ("float", "1e39"),
    ("double", "1e999"),
    ("double", 10**400),
    ("double", Decimal("1e999")),
    ("double", False),
    ("double", "ten"),
    ("decimal", "NaN"),
    ("decimal", float("inf")),
    ("decimal", "1e99999999999"),
    ("boolean", 1),
    ("boolean", "yes"),
    ("boolean", [True]),
    ("ascii", "é"),
    ("text", 5),
    ("text", date(2024, 1, 1)),
    ("text", "\ud800"),
    ("blob", "00"),
    ("blob", "0x0"),
    ("blob", 5),
    ("uuid", "123"),
    ("uuid", 5),
    ("timeuuid", "123e4567-e89b-42d3-a456-426614174000"),
    ("timestamp", "yesterday"),
    ("timestamp", 1.5),
    ("timestamp", 2**63),
    ("date", "2024-02-30"),
    ("date", "20240101"),
    ("date", datetime(2024, 1, 1)),
    ("date", 5),
    ("time", "24:00:00"),
    ("time", 30_600),
    ("time", time(1, tzinfo=UTC)),
    ("duration", 5),
    ("inet", "fe80::1%eth0"),
    ("inet", "10.1"),
    ("inet", 1),
    ("'org.example.MyType'", "hello"),
    ("list<int>", "1, 2"),
    ("list<int>", [None]),
    ("map<int, int>", [1]),
    ("tuple<int, int>", [1]),
    ("vector<float, 2>", [1.0]),
    ("{a int, b int}", {"c": 1}),
    ("{a int}", [1]),
    ("int", None),
]


@pytest.mark.parametrize(("text", "value"), WRONG)
def test_a_value_of_another_kind_is_refused_with_what_would_be_valid(text, value):
    with pytest.raises(ValueError, match=r"is no .*; (write|leave) ") as refused:
        encode_value(value, parse_type(text))
    message = str(refused.value)
    assert "\n" not in message
    assert len(message) < 250


def test_a_wrong_field_is_named():
    with pytest.raises(ValueError, match="field a: field \"B\": 'x' is no int; write a whole"):
        encode_value({"a": {"B": "x"}}, parse_type('{a {"B" int}}'))


def test_a_long_value_is_cut_in_a_message():
    with pytest.raises(ValueError, match=r"'x{56}\.\.\. is no int"):
        encode_value("x" * 1000, CqlType("int"))


def test_a_mapping_may_have_keys_that_are_text_as_in_json():
    value = json.loads('{"1": [1.5, 2], "2": []}')
    cql_type = parse_type("map<int, frozen<list<double>>>")
    assert show_value(encode_value(value, cql_type), cql_type) == "{1: [1.5, 2.0], 2: []}"


def test_nested_values_are_shown_as_cql_would_write_them():
    cql_type = parse_type('{t text, "L" list<tuple<int, text>>, s set<uuid>, v vector<float, 2>}')
    key = UUID(int=1)
    value = {"t": "it's", "L": [[1, None]], "s": {key}, "v": [1, 2]}
    assert show_value(encode_value(value, cql_type), cql_type) == (
        f"{{t: 'it''s', \"L\": [(1, null)], s: {{{key}}}, v: [1.0, 2.0]}}"
    )
    assert show_value(encode_value({}, cql_type), cql_type) == (
        '{t: null, "L": null, s: null, v: null}'
    )


@given(st.binary(max_size=20), inner_types(1))
def test_any_bytes_can_be_shown(value, cql_type):
    assert isinstance(show_value(value, cql_type), str)


def test_bytes_that_are_no_value_are_shown_in_hex():
    assert show_value(b"\xff\xfe", CqlType("text")) == "0xfffe"
    assert show_value(b"\x01", CqlType("int")) == "0x01"
    assert show_value(b"\x01", CqlType("inet")) == "0x01"
    assert show_value(b"", CqlType("int")) == ""


# -- on a server -------------------------------------------------------------------------------

LITERALS = {
    "ascii": ("hello", "hello"),
    "text": ("Grüße", "Grüße"),
    "tinyint": (-128, -128),
    "smallint": ("32767", 32767),
    "int": (-(2**31), -(2**31)),
    "bigint": (2**63 - 1, 2**63 - 1),
    "varint": (-(10**30), -(10**30)),
    "float": (1.5, 1.5),
    "double": ("-2.5e-300", -2.5e-300),
    "decimal": ("-12.50", Decimal("-12.50")),
    "boolean": ("true", True),
    "uuid": ("123e4567-e89b-42d3-a456-426614174000",) * 2,
    "timeuuid": ("50554d6e-29bb-11e5-b345-feff819cdc9f",) * 2,
    "timestamp": ("1969-12-31T23:59:59.999Z", datetime(1969, 12, 31, 23, 59, 59, 999_000)),
    "date": ("2024-02-29", date(2024, 2, 29)),
    "time": ("10:20:30.000000001", util.Time(37_230_000_000_001)),
    "duration": ("-1y2d3h", util.Duration(-12, -2, -10_800_000_000_000)),
    "inet": ("2001:db8::1", "2001:db8::1"),
    "blob": ("0x00ff", b"\x00\xff"),
    "list<int>": ([3, 1, 1], [3, 1, 1]),
    "set<text>": (["b", "a"], {"a", "b"}),
    "map<text, frozen<list<date>>>": ({"k": ["2024-01-01"]}, {"k": [date(2024, 1, 1)]}),
    "tuple<int, text>": ([1, None], (1, None)),
    "vector<float, 3>": ([1, 2.5, -3], [1.0, 2.5, -3.0]),
    "vector<text, 2>": (["a", "x" * 200], ["a", "x" * 200]),
    "vector<smallint, 2>": ([1, 2], [1, 2]),
    "vector<frozen<vector<timestamp, 1>>, 2>": ([[0], [1]], None),
}


def write_bytes(connection, table, column, value):
    write_cells(connection, table, [column], [value])


def write_cells(connection, table, columns, values):
    marks = ", ?" * len(columns)
    run(
        connection,
        f"INSERT INTO {table} (k, {', '.join(columns)}) VALUES (?{marks})",
        [struct.pack(">i", 1), *values],
    )


def read_bytes(connection, table, column):
    return read_cells(connection, table, [column])[0]


def read_cells(connection, table, columns):
    page = page_of(run(connection, f"SELECT {', '.join(columns)} FROM {table} WHERE k = 1", []))
    return read_fields(page.data, len(columns))


def run(connection, text, values):
    statement = connection.prepare(text)
    message = ExecuteMessage(
        statement.query_id,
        values,
        consistency_level=1,
        skip_meta=True,
        result_metadata_id=statement.result_metadata_id,
    )
    future = connection.send(message, statement=statement)
    future.send_request()
    future.result()
    return future


def test_a_server_takes_the_bytes_of_every_type_and_gives_the_same_value(
    connection, reader, keyspace
):
    columns = [f"c{number} {text}" for number, text in enumerate(LITERALS)]
    table = create_table(connection, keyspace, "t", ", ".join(["k int PRIMARY KEY", *columns]))
    for number, (text, (literal, _)) in enumerate(LITERALS.items()):
        write_bytes(connection, table, f"c{number}", encode_value(literal, parse_type(text)))
    row = reader.execute(f"SELECT * FROM {table}").one()
    for number, (text, (literal, expected)) in enumerate(LITERALS.items()):
        found = row[f"c{number}"]
        if expected is not None:
            assert str(found) == expected if isinstance(found, UUID) else found == expected, text
        stored = read_bytes(connection, table, f"c{number}")
        assert stored == encode_value(literal, parse_type(text)), text


def test_a_server_takes_fields_in_its_own_order_and_sorts_the_sets(connection, reader, keyspace):
    connection.session.execute(f"CREATE TYPE {keyspace}.u (x int, b text, a int)")
    columns = {
        "u": "{}",
        "f": "frozen<{}>",
        "s": "set<{}>",
        "z": "frozen<set<{}>>",
        "l": "list<frozen<set<{}>>>",
    }
    body = ", ".join(
        f"{column} {text.format('u' if column in 'uf' else 'frozen<u>')}"
        for column, text in columns.items()
    )
    table = create_table(connection, keyspace, "t", f"k int PRIMARY KEY, {body}")
    first, second = {"a": 1, "b": "z"}, {"a": 2, "b": "y"}
    for column, text in columns.items():
        origin = parse_type(text.format("{a int, b text}"))
        target = parse_type(text.format("{x int, b text, a int}"))
        convert = build_converter(origin, target)
        value = {"u": first, "f": first, "l": [[first, second]]}.get(column, [first, second])
        converted = convert(encode_value(value, origin))
        write_bytes(connection, table, column, converted)
        stored = read_bytes(connection, table, column)
        assert stored == encode_value(value, target)
        # The set was sorted by a; the server sorts it by b.
        assert (stored == converted) is (column != "s")
        assert sort_elements(stored, target) == sort_elements(converted, target)
        assert needs_sorting(origin, target) is (column in "szl")
    row = reader.execute(f"SELECT u, f FROM {table}").one()
    assert {(v.x, v.b, v.a) for v in row.values()} == {(None, "z", 1)}


def random_value(cql_type, rng):
    """A value as people write it, near enough to others that all of its parts decide."""
    name, inner = cql_type.name, cql_type.parameters

    def maybe(kind):
        return None if rng.random() < 0.3 else random_value(kind, rng)

    if name in ("list", "set"):
        return [random_value(inner[0], rng) for _ in range(rng.randrange(4))]
    if name == "map":
        return [[random_value(kind, rng) for kind in inner] for _ in range(rng.randrange(3))]
    if name == "tuple":
        return [maybe(kind) for kind in inner]
    if name == "vector":
        return [random_value(inner[0], rng) for _ in range(cql_type.dimensions)]
    if name == "udt":
        return {field: maybe(kind) for field, kind in cql_type.fields}
    if name in INT_BITS or name in ("varint", "timestamp"):
        bits = INT_BITS.get(name, 100 if name == "varint" else 45)
        return rng.getrandbits(rng.choice((2, bits - 1))) * rng.choice((1, -1))
    fraction = rng.choice((0.0, -0.0, 1.5, "NaN", "Infinity", "-Infinity", rng.gauss(0, 1e5)))
    time = rng.choice(("50554d6e-29bb-1", "50554d6e-29bc-1", "60554d6e-29bb-1"))
    tail = f"1e5-{rng.choice('89ab')}{rng.getrandbits(60):015x}"
    tail = f"{tail[:8]}-{tail[8:]}"
    return {
        "text": lambda: "".join(rng.choices("aZé\uffff\U0001f600", k=rng.randrange(4))),
        "ascii": lambda: "".join(rng.choices("aZ ~\x01", k=rng.randrange(4))),
        "blob": lambda: "0x" + rng.choice((b"", rng.randbytes(2), b"\xff\0")).hex(),
        "float": lambda: fraction,
        "double": lambda: fraction,
        "decimal": lambda: f"{rng.randrange(-12, 13)}{rng.choice(('', '.0', '.5', 'e1', 'e-40'))}",
        "boolean": lambda: rng.random() < 0.5,
        "timeuuid": lambda: time + tail,
        "uuid": lambda: time[:-1] + rng.choice("0112347f") + tail,
        "date": lambda: date.fromordinal(rng.randrange(1, 3_652_000)).isoformat(),
        "time": lambda: f"{rng.randrange(24):02}:00:00.{rng.randrange(3)}",
        "inet": lambda: rng.choice(("", "::", "fe80::")) + f"{rng.randrange(256)}.0.0.1",
    }[name]()


ORDERED = [
    *("ascii", "text", "tinyint", "smallint", "int", "bigint", "varint", "float", "double"),
    *("decimal", "boolean", "uuid", "timeuuid", "timestamp", "date", "time", "inet", "blob"),
    *("frozen<list<int>>", "frozen<list<text>>", "frozen<set<float>>", "frozen<set<decimal>>"),
    *("frozen<map<varint, text>>", "frozen<map<timeuuid, frozen<list<smallint>>>>"),
    *("frozen<tuple<int, timeuuid>>", "frozen<tuple<frozen<set<uuid>>, decimal>>"),
    *("vector<float, 2>", "vector<text, 2>", "vector<boolean, 2>", "vector<smallint, 2>"),
    *("vector<vector<double, 1>, 2>", "vector<frozen<list<tinyint>>, 2>"),
    "frozen<{a timestamp, b frozen<map<decimal, boolean>>, c timeuuid}>",
]
MAY_BE_EMPTY = (
    *("int", "bigint", "varint", "float", "double", "decimal", "boolean", "uuid", "timeuuid"),
    *("timestamp", "inet"),
)


def test_a_server_keeps_sets_and_maps_as_they_are_encoded(connection, keyspace):
    fields = "a timestamp, b frozen<map<decimal, boolean>>, c timeuuid"
    connection.session.execute(f"CREATE TYPE {keyspace}.u ({fields})")
    rng = random.Random(5)
    columns, cells, expected = [], [], []
    for text in ORDERED:
        kind = parse_type(text)
        items = [random_value(kind, rng) for _ in range(60)]
        entries = [[item, number] for number, item in enumerate(items)]
        elements = [encode_value(item, kind) for item in items]
        unordered = write_elements(elements)
        a_map = write_entries([(e, encode_value(n, INT)) for n, e in enumerate(elements)])
        # Bytes that nobody can write as a value, but that drivers send.
        empty = [b""] if text in MAY_BE_EMPTY else []
        in_order = read_elements(encode_value(items, CqlType("set", (kind,))))
        assert elements != in_order == sorted(in_order, key=sort_key(kind))
        # Decimals of one value and two scales stay in a nested set, if a driver sends both.
        distinct = rng.sample(in_order, len(in_order))
        ordered_map = encode_value(entries, CqlType("map", (kind, INT)))
        name = text.replace("{" + fields + "}", "u")
        for form, given_bytes, kept_bytes in (
            ("set<{}>", write_elements(elements + empty), write_elements(empty + in_order)),
            ("frozen<set<{}>>", unordered, write_elements(in_order)),
            (
                "list<frozen<set<{}>>>",
                write_elements([write_elements(distinct)]),
                write_elements([write_elements(in_order)]),
            ),
            ("map<{}, int>", a_map, ordered_map),
            ("frozen<map<{}, int>>", a_map, ordered_map),
        ):
            columns.append(form.format(name))
            cells.append(given_bytes)
            expected.append(kept_bytes)
    names = [f"c{number}" for number in range(len(columns))]
    body = ", ".join(f"{name} {text}" for name, text in zip(names, columns, strict=True))
    table = create_table(connection, keyspace, "t", f"k int PRIMARY KEY, {body}")
    write_cells(connection, table, names, cells)
    stored = read_cells(connection, table, names)
    wrong = [
        c for c, found, wanted in zip(columns, stored, expected, strict=True) if found != wanted
    ]
    assert wrong == []
