"""Every cell becomes one attribute value, and that the same cell again."""

import json
import re
import struct
from contextlib import suppress
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from migration_platform.cql.elements import write_elements, write_entries, write_fields
from migration_platform.cql.texts import compile_text, escape
from migration_platform.cql.types import CqlType, parse_type
from migration_platform.cql.values import encode_value, show_value
from migration_platform.errors import DeclarationError
from migration_platform.stores.dynamodb.codecs import (
    compile_canonical,
    compile_decoder,
    compile_encoder,
)
from migration_platform.stores.dynamodb.types import attribute_type_of, offered_types
from migration_platform_tests.servers import REPOSITORY
from migration_platform_tests.typed_cells import SCALARS, cells_of, scalar, typed_cells


def attribute(value, text, attribute_type=None, **options):
    """The attribute value of a value as people write it."""
    kind = parse_type(text)
    cell = value if isinstance(value, bytes) else encode_value(value, kind)
    return json.loads(compile_encoder(kind, attribute_type, **options)(cell))


def unless_refused(encode, cell, reasons):
    """The attribute value, or None if the cell is refused for one of the reasons."""
    try:
        return json.loads(encode(cell))
    except ValueError as error:
        if re.search(reasons, str(error)):
            return None
        raise


def same(canonical, one, other):
    return one == other if canonical is None else canonical(one) == canonical(other)


# -- there and back ----------------------------------------------------------------------------


@given(typed_cells(), st.data())
def test_every_cell_comes_back_from_every_attribute_type_that_is_offered(typed, data):
    cql_type, cell = typed
    kind = data.draw(st.sampled_from(offered_types(cql_type)))
    options = (cql_type, kind)
    encoded = json.loads(compile_encoder(*options, numbers="string")(cell))
    assert cell == b"" or next(iter(encoded)) in (kind, "S")
    back = compile_decoder(*options, numbers="string")(encoded)
    assert same(compile_canonical(*options, numbers="string"), back, cell)


@pytest.mark.parametrize("name", SCALARS)
def test_every_cell_of_a_type_comes_back(name):
    kind = scalar(name)
    encode = compile_encoder(kind, numbers="string")
    decode = compile_decoder(kind, numbers="string")
    canonical = compile_canonical(kind, numbers="string")

    @given(cells_of(kind))
    def comes_back(cell):
        assert same(canonical, decode(json.loads(encode(cell))), cell)

    comes_back()


@given(typed_cells())
def test_a_cell_that_is_refused_where_numbers_must_fit_is_refused_for_a_number(typed):
    cql_type, cell = typed
    encode, decode = compile_encoder(cql_type), compile_decoder(cql_type)
    encoded = unless_refused(encode, cell, "no N holds")
    if encoded:
        assert same(compile_canonical(cql_type), decode(encoded), cell)


@given(typed_cells())
def test_the_one_form_of_a_cell_is_the_form_of_itself(typed):
    cql_type, cell = typed
    canonical = compile_canonical(cql_type, numbers="string")
    if canonical:
        assert canonical(canonical(cell)) == canonical(cell)


@given(typed_cells(), st.data())
def test_cells_of_a_key_come_back_byte_for_byte_or_are_refused(typed, data):
    cql_type, cell = typed
    kind = data.draw(st.sampled_from(offered_types(cql_type, is_key=True)))
    encode = compile_encoder(cql_type, kind, is_key=True)
    encoded = unless_refused(encode, cell, "usual ones|no N holds")
    if encoded:
        assert compile_decoder(cql_type, kind, is_key=True)(encoded) == cell


@given(typed_cells(), st.data())
def test_two_cells_have_one_canonical_text_only_if_they_are_one_value(typed, data):
    cql_type, cell = typed
    other = data.draw(cells_of(cql_type))
    write = compile_text(cql_type)
    if write(cell) == write(other):
        canonical = compile_canonical(cql_type, "S")
        assert same(canonical, cell, other)


@given(st.lists(st.text("#%2\\a3", max_size=3), min_size=2, max_size=3), st.data())
def test_no_two_lists_of_texts_join_alike(texts, data):
    size = len(texts)
    others = data.draw(st.lists(st.text("#%2\\a3", max_size=3), min_size=size, max_size=size))
    joined = ["#".join(map(escape, each)) for each in (texts, others)]
    assert (joined[0] == joined[1]) == (texts == others)


@given(st.binary(min_size=4, max_size=4))
def test_a_float_has_the_shortest_text_that_gives_it_back(cell):
    (number,) = struct.unpack(">f", cell)
    assume(number - number == 0)
    shown = compile_text(CqlType("float"))(cell)
    digits = len(Decimal(shown).normalize().as_tuple().digits)
    assert struct.pack(">f", float(shown)) == cell
    # Among normal numbers none has a shorter text.
    assert digits <= 9
    if abs(number) > 1.2e-38 and digits > 1:
        shorter = float(f"{number:.{digits - 1}g}")
        with suppress(OverflowError):
            assert struct.pack(">f", shorter) != cell


# -- what it looks like ------------------------------------------------------------------------

SHOWN = [
    ("text", 'a"b\n★', {"S": 'a"b\n★'}),
    ("text", "", {"S": ""}),
    ("int", -5, {"N": "-5"}),
    ("int", b"", {"S": ""}),
    ("counter", 2**63 - 1, {"N": "9223372036854775807"}),
    ("varint", 10**37, {"N": "1" + "0" * 37}),
    ("decimal", "12.50", {"N": "12.5"}),
    ("decimal", "1e2", {"N": "1E+2"}),
    ("float", 0.1, {"N": "0.1"}),
    ("float", 16777216.0, {"N": "16777216"}),
    ("double", 0.1, {"N": "0.1"}),
    ("double", 1e22, {"N": "1e+22"}),
    ("boolean", True, {"BOOL": True}),
    ("boolean", b"", {"S": ""}),
    ("blob", "0xcafe", {"B": "yv4="}),
    ("blob", "0x", {"B": ""}),
    ("'org.example.Money'", b"\x01", {"B": "AQ=="}),
    ("uuid", "123E4567-e89b-42d3-a456-426614174000", {"S": "123e4567-e89b-42d3-a456-426614174000"}),
    ("inet", "192.0.2.1", {"S": "192.0.2.1"}),
    ("inet", "2001:DB8:0::1", {"S": "2001:db8::1"}),
    ("date", b"\x80\0\0\0", {"S": "1970-01-01"}),
    ("date", b"\0\0\0\0", {"S": "-5877641-06-23"}),
    ("date", b"\xff\xff\xff\xff", {"S": "+5881580-07-11"}),
    ("time", "10:20:30.5", {"S": "10:20:30.500000000"}),
    ("timestamp", "2024-01-31T10:20:30Z", {"S": "2024-01-31T10:20:30.000Z"}),
    ("timestamp", -(2**63), {"S": "-292275055-05-16T16:47:04.192Z"}),
    ("timestamp", 2**63 - 1, {"S": "+292278994-08-17T07:12:55.807Z"}),
    ("timestamp", -62_167_219_200_001, {"S": "-0001-12-31T23:59:59.999Z"}),
    ("timestamp", -62_167_219_200_000, {"S": "0000-01-01T00:00:00.000Z"}),
    ("duration", "-1y2mo3d4ns", {"S": "-14mo3d4ns"}),
    ("list<int>", [2, 1, 2], {"L": [{"N": "2"}, {"N": "1"}, {"N": "2"}]}),
    ("list<text>", [], {"L": []}),
    ("set<text>", ["b", "", "a"], {"SS": ["", "a", "b"]}),
    ("set<bigint>", [2, 1], {"NS": ["1", "2"]}),
    ("set<blob>", ["0x01"], {"BS": ["AQ=="]}),
    ("set<varint>", [1], {"L": [{"N": "1"}]}),
    ("set<double>", [1], {"L": [{"N": "1"}]}),
    ("list<frozen<set<text>>>", [["a"], []], {"L": [{"L": [{"S": "a"}]}, {"L": []}]}),
    (
        "map<text, int>",
        {"": 1, "%": 2, "a%": 3},
        {"M": {"%": {"N": "1"}, "%%": {"N": "2"}, "a%": {"N": "3"}}},
    ),
    ("map<int, boolean>", {1: True}, {"M": {"1": {"BOOL": True}}}),
    ("tuple<int, text>", [1, None], {"L": [{"N": "1"}, {"NULL": True}]}),
    ('{a int, "B" text}', {"B": "x"}, {"M": {"B": {"S": "x"}}}),
    ("vector<float, 2>", [1, 2.5], {"L": [{"N": "1"}, {"N": "2.5"}]}),
]


@pytest.mark.parametrize(("text", "value", "shown"), SHOWN, ids=[f"{t} {v}" for t, v, _ in SHOWN])
def test_a_value_looks_like_this(text, value, shown):
    assert attribute(value, text) == shown
    assert {*shown} <= {attribute_type_of(parse_type(text)), "S"}


KEYS = [
    ("decimal", "1.50", "S", "1.50"),
    ("double", -0.0, "S", "-0.0"),
    ("float", "NaN", "S", "NaN"),
    ("boolean", True, "S", "true"),
    ("varint", 12, "N", "12"),
    ("int", 12, "N", "12"),
    ("blob", "0x01", "B", "AQ=="),
    ("timestamp", "2024-01-31", "S", "2024-01-31T00:00:00.000Z"),
    ("list<int>", [], "S", "00000000"),
]


@pytest.mark.parametrize(("text", "value", "kind", "shown"), KEYS, ids=[k[0] for k in KEYS])
def test_a_key_is_a_string_a_number_or_bytes(text, value, kind, shown):
    assert attribute(value, text, is_key=True) == {kind: shown}
    assert attribute_type_of(parse_type(text), None, is_key=True) == kind


def test_another_attribute_type_may_be_declared():
    assert attribute("1.50", "decimal", "S") == {"S": "1.50"}
    assert attribute(7, "int", "S") == {"S": "7"}
    assert attribute("2024-01-31", "timestamp", "N") == {"N": "1706659200000"}
    assert attribute("1970-01-02", "date", "N") == {"N": "1"}
    assert attribute(True, "boolean", "S") == {"S": "true"}
    assert attribute("0xCAFE", "blob", "S") == {"S": "cafe"}
    assert attribute(["b", "a"], "set<text>", "L") == {"L": [{"S": "a"}, {"S": "b"}]}
    assert attribute([1], "list<int>", "B") == {"B": "AAAAAQAAAAQAAAAB"}


@pytest.mark.parametrize(
    ("text", "attribute_type", "is_key", "offered"),
    [
        ("int", "BOOL", False, "N, S, B"),
        ("text", "N", False, "S, B"),
        ("decimal", "N", True, "S, B"),
        ("list<text>", "SS", False, "L, S, B"),
        ("set<text>", "M", False, "SS, L, S, B"),
        ("timestamp", "X", False, "S, N, B"),
    ],
)
def test_an_attribute_type_that_would_lose_something_is_refused(
    text, attribute_type, is_key, offered
):
    with pytest.raises(DeclarationError, match=f"write one of {offered}$"):
        compile_encoder(parse_type(text), attribute_type, is_key=is_key)


def test_an_unknown_way_with_numbers_is_refused():
    with pytest.raises(DeclarationError, match="write refuse or string"):
        compile_encoder(CqlType("int"), numbers="round")


# -- what cannot be held -----------------------------------------------------------------------

NO_NUMBERS = [
    ("double", "NaN"),
    ("double", "-Infinity"),
    ("double", -0.0),
    ("double", 1e126),
    ("double", 9e-131),
    ("float", -0.0),
    ("float", "Infinity"),
    ("varint", 10**38 + 1),
    ("varint", 10**126),
    ("decimal", "1e126"),
    ("decimal", "1e-131"),
    ("decimal", "0." + "1" * 39),
]


@pytest.mark.parametrize(("text", "value"), NO_NUMBERS)
def test_what_is_no_number_to_dynamodb_is_refused_or_a_string(text, value):
    kind = parse_type(text)
    cell = encode_value(value, kind)
    with pytest.raises(ValueError, match=r"no N holds .* target\.numbers: string"):
        compile_encoder(kind)(cell)
    shown = attribute(value, text, numbers="string")
    assert list(shown) == ["S"]
    assert compile_decoder(kind, numbers="string")(shown) == cell
    with pytest.raises(ValueError, match=f"is no {text}"):
        compile_decoder(kind)(shown)
    nested = attribute([value], f"list<{text}>", numbers="string")
    assert nested == {"L": [shown]}


@pytest.mark.parametrize(
    ("text", "cell", "reason"),
    [
        ("text", b"\xff", "its bytes are no text: invalid start byte"),
        ("text", b"\xed\xa0\x80", "its bytes are no text: invalid continuation byte"),
        ("ascii", b"\x80", "its bytes are no ascii"),
        ("int", b"\x01", "its 1 bytes are no int"),
        ("time", struct.pack(">q", -1), "-1 nanoseconds are no time of day"),
        ("duration", bytes([1, 2, 2]), "a duration's parts have one sign"),
        ("uuid", b"\x01", "its 1 bytes are no UUID"),
        ("inet", b"\x01", "its 1 bytes are no inet"),
        ("boolean", b"\x01\x01", "its 2 bytes are no boolean"),
        ("decimal", b"\x00", "its 1 bytes are no decimal"),
        ("set<int>", write_elements([b""]), "NS holds no empty value; write L for the column"),
        ("set<int>", write_elements([]), "NS holds no empty set"),
        ("map<text, int>", write_entries([(b"a", None), (b"a", None)]), "a key stands twice"),
        ("tuple<int>", write_fields([None, None]), "8 bytes are no 1 fields"),
    ],
)
def test_bytes_that_cannot_be_held_are_refused_with_the_reason(text, cell, reason):
    with pytest.raises(ValueError, match=reason):
        compile_encoder(parse_type(text))(cell)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("varint", b"\x00\x01"),
        ("boolean", b"\x02"),
        ("double", b"\x7f\xf8" + b"\x01" * 6),
        ("decimal", b"\0\0\0\0\0\x01"),
    ],
)
def test_a_key_of_unusual_bytes_is_refused_since_another_row_may_have_the_usual_ones(text, cell):
    with pytest.raises(ValueError, match="another row's may be"):
        compile_encoder(parse_type(text), is_key=True)(cell)


WRONG = [
    ("int", {"S": "1"}),
    ("int", {"N": "3000000000"}),
    ("int", {"N": "1.5"}),
    ("text", {"N": "1"}),
    ("ascii", {"S": "é"}),
    ("uuid", {"S": "123E4567-e89b-42d3-a456-426614174000"}),
    ("timestamp", {"S": "2024-01-31"}),
    ("timestamp", {"S": "2024-02-30T00:00:00.000Z"}),
    ("timestamp", {"S": "2024-01-31T25:00:00.000Z"}),
    ("timestamp", {"S": "+999999999-01-31T00:00:00.000Z"}),
    ("date", {"S": "+2024-01-01"}),
    ("time", {"S": "10:20"}),
    ("inet", {"S": "::0"}),
    ("inet", {"S": "host"}),
    ("duration", {"S": "P1D"}),
    ("boolean", {"S": "true"}),
    ("double", {"N": "0.1000000000000000001"}),
    ("double", {"S": "0.1"}),
    ("float", {"N": "0.100000001"}),
    ("varint", {"N": "0.5"}),
    ("decimal", {"S": "1"}),
    ("blob", {"B": "?"}),
    ("list<int>", {"L": [{"S": "x"}]}),
    ("list<int>", {"M": {}}),
    ("list<int>", {"S": "x"}),
    ("set<int>", {"L": []}),
    ("map<int, int>", {"M": {"x": {"N": "1"}}}),
    ("tuple<int, int>", {"L": [{"N": "1"}]}),
    ("{a int}", {"M": {"b": {"N": "1"}}}),
    ("vector<int, 2>", {"L": [{"N": "1"}]}),
    ("int", {}),
    ("int", None),
]


@pytest.mark.parametrize(("text", "value"), WRONG, ids=[f"{t} {v}" for t, v in WRONG])
@pytest.mark.parametrize("numbers", ["refuse", "string"])
def test_a_value_that_no_cell_gives_is_refused(text, value, numbers):
    with pytest.raises(ValueError, match="is no"):
        compile_decoder(parse_type(text), numbers=numbers)(value)


def test_a_number_may_come_back_written_in_another_way():
    for text, sent, returned in (
        ("double", 1e-7, "0.0000001"),
        ("double", 1e22, "10000000000000000000000"),
        ("float", 3.4028234663852886e38, "340282350000000000000000000000000000000"),
        ("varint", 10**20, "1E+20"),
        ("decimal", "1e2", "100"),
    ):
        kind = parse_type(text)
        cell = encode_value(sent, kind)
        back = compile_decoder(kind)({"N": returned})
        assert same(compile_canonical(kind), back, cell)


def test_sets_and_maps_come_back_in_cassandras_order():
    for text, value in (
        ("set<text>", ["b", "a", "é"]),
        ("set<int>", [-1, 1, -2]),
        ("set<timestamp>", [5, -5]),
        ("map<int, text>", {-1: "a", 1: "b", -5: "c"}),
        ("map<double, int>", {"-1.5": 1, "0.5": 2, "NaN": 3}),
    ):
        kind = parse_type(text)
        cell = encode_value(value, kind)
        shown = attribute(value, text)
        if "SS" in shown or "NS" in shown:
            shown = {key: [*reversed(inner)] for key, inner in shown.items()}
        assert compile_decoder(kind)(shown) == cell, show_value(cell, kind)


def test_texts_of_days_sort_as_the_days_do():
    encode = compile_text(CqlType("timestamp"))
    moments = [encode(struct.pack(">q", ms)) for ms in range(0, 250_000_000_000_000, 10**12 + 7)]
    assert all(one < other for one, other in pairwise(moments))


def test_bytes_that_are_no_value_stay_as_they_are_in_a_comparison():
    for text in ("list<varint>", "map<int, int>", "tuple<int>", "decimal", "duration"):
        canonical = compile_canonical(parse_type(text), numbers="string")
        assert canonical is not None
        assert canonical(b"\x00\x01") == b"\x00\x01"


def test_the_document_tells_the_attribute_types_of_every_type():
    text = (REPOSITORY / "docs" / "dynamodb.md").read_text()
    told = set()
    for line in text.partition("## Numbers")[0].splitlines():
        types, _, rest = line.removeprefix("| ").partition(" | ")
        if not line.startswith("| `") or " of " in types:
            continue
        kind, _, others = rest.partition(" | ")
        names = re.findall("`([a-z]+)`", types)
        for name in names:
            inner = (CqlType("int"),) * {"list": 1, "tuple": 1, "vector": 1, "map": 2}.get(name, 0)
            cql_type = CqlType(parse_type(name).name if not inner else name, inner)
            offered = offered_types(cql_type)
            assert f"`{offered[0]}`" == kind, line
            assert re.findall("`([A-Z]+)`", others.rpartition(" | ")[2]) == [*offered[1:]], line
        told.update(names)
    assert told >= {*SCALARS, "list", "tuple", "vector", "map", "varchar"} - {"custom"}
