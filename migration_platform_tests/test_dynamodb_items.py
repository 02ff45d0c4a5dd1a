"""A row becomes one item and that the same row again, as DynamoDB itself keeps it."""

import http.client
import json
import uuid
from base64 import b64encode
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration_platform.cql.elements import write_elements, write_entries
from migration_platform.cql.types import CqlType, parse_type
from migration_platform.cql.values import encode_value
from migration_platform.errors import DeclarationError, PermanentError
from migration_platform.local.ports import LOCALHOST
from migration_platform.stores.dynamodb.codecs import compile_canonical
from migration_platform.stores.dynamodb.items import (
    STATIC_SORT,
    UNREADABLE,
    ItemColumn,
    ItemForm,
    KeyPart,
    UnholdableRow,
    compile_cells,
    compile_item,
    compile_key,
    item_size,
    key_schema,
    read_units,
    write_units,
)
from migration_platform.stores.dynamodb.types import MAX_LEVELS, offered_types
from migration_platform_tests.typed_cells import SCALARS, cells_of, cql_types, scalar

ITEM_LIMIT = 400 * 1024


def column(name, text="text", attribute_type=None):
    return ItemColumn(name, parse_type(text), attribute_type)


def users(*more, **options):
    """The form of a table whose key is `id`."""
    return ItemForm((column("id"), *more), KeyPart("id", ("id",)), **options)


def visits(**options):
    """The form of a table whose key parts are joined."""
    columns = (column("a"), column("b", "int"), column("c"), column("v"))
    parts = KeyPart("pk", ("a", "b")), KeyPart("sk", ("c",))
    return ItemForm(columns, *parts, **options)


def statics_of(form):
    """The form of the static cells of `visits`."""
    columns = (*form.columns[:2], column("s"))
    return replace(form, columns=columns, sort=KeyPart("sk", ()), is_static=True)


def written(form, *cells, expires_at=None, writetime_us=None):
    item, key = compile_item(form)(cells, expires_at, writetime_us)
    return json.loads(item), json.loads(key)


def number(value):
    return encode_value(value, CqlType("int"))


# -- items and keys ----------------------------------------------------------------------------


def test_a_row_is_an_item_with_an_attribute_for_each_column():
    form = users(column("n", "int"), column("none"))
    assert written(form, b"u1", number(5), None) == (
        {"id": {"S": "u1"}, "n": {"N": "5"}},
        {"id": {"S": "u1"}},
    )
    assert key_schema(form) == (("id", "S"),)


def test_null_may_be_an_attribute():
    form = users(column("n", "int"), nulls="null")
    item, _ = written(form, b"u1", None)
    assert item == {"id": {"S": "u1"}, "n": {"NULL": True}}
    assert compile_cells(form)(item) == [b"u1", None]


def test_key_parts_of_several_columns_are_joined_and_the_columns_stay():
    item, key = written(visits(), b"x#%", number(-1), b"c", b"v")
    assert key == {"pk": {"S": "x%23%25#-1"}, "sk": {"S": "c"}}
    assert item == {
        **key,
        **{"a": {"S": "x#%"}, "b": {"N": "-1"}, "c": {"S": "c"}, "v": {"S": "v"}},
    }
    assert key_schema(visits()) == (("pk", "S"), ("sk", "S"))


def test_a_key_that_is_a_column_has_the_columns_type():
    form = ItemForm(
        (column("a", "bigint"), column("b", "blob")), KeyPart("a", ("a",)), KeyPart("b", ("b",))
    )
    assert key_schema(form) == (("a", "N"), ("b", "B"))
    assert compile_key(form)([b"\0" * 7 + b"\5", b"\1"]) == '{"a":{"N":"5"},"b":{"B":"AQ=="}}'


def test_an_empty_sort_key_is_kept_where_it_is_joined():
    form = visits()
    item, key = written(form, b"", number(1), b"", None)
    assert key == {"pk": {"S": "#1"}, "sk": {"S": "%"}}
    assert compile_cells(form)(item) == [b"", number(1), b"", None]


def test_static_cells_are_an_item_that_no_row_is():
    rows = visits()
    statics = statics_of(rows)
    item, key = written(statics, b"x", number(1), b"s")
    assert key == {"pk": {"S": "x#1"}, "sk": {"S": STATIC_SORT}}
    assert compile_cells(statics)(item) == [b"x", number(1), b"s"]
    assert compile_cells(rows)(item) is None
    for text in (STATIC_SORT, "%", "", "%25static"):
        row, row_key = written(rows, b"x", number(1), text.encode(), None)
        assert row_key != key
        assert compile_cells(statics)(row) is None
        assert compile_cells(rows)(row) == [b"x", number(1), text.encode(), None]


def test_expiry_and_writetime_have_attributes_of_their_own():
    form = users(ttl_attribute="expires", writetime_attribute="written")
    item, _ = written(form, b"u1", expires_at=1_900_000_000, writetime_us=17)
    assert item["expires"] == {"N": "1900000000"}
    assert item["written"] == {"N": "17"}
    bare, _ = written(form, b"u1")
    assert not {"expires", "written"} & bare.keys()
    assert compile_cells(form, now_seconds=lambda: 1_899_999_999.9)(item) == [b"u1"]
    assert compile_cells(form, now_seconds=lambda: 1_900_000_000.0)(item) is None
    assert compile_cells(form, now_seconds=lambda: 2e9)(bare) == [b"u1"]
    assert compile_cells(form)(item) == [b"u1"]


def test_an_expiry_that_is_no_number_never_comes():
    form = users(ttl_attribute="expires")
    item = {"id": {"S": "u1"}, "expires": {"S": "soon"}}
    assert compile_cells(form, now_seconds=lambda: 2e9)(item) == [b"u1"]


@st.composite
def forms(draw):
    """Forms of any columns, with any key and any attribute types, and cells for two rows."""
    kinds = draw(st.lists(cql_types(), min_size=1, max_size=6))
    names = [f"c{place}" for place in range(len(kinds))]
    first = draw(st.integers(1, min(2, len(kinds))))
    second = draw(st.integers(first, min(first + 2, len(kinds))))
    parts = [names[:first], names[first:second]]
    keys = [
        KeyPart(part[0] if len(part) == 1 and draw(st.booleans()) else f"key{place}", tuple(part))
        for place, part in enumerate(parts)
        if part
    ]
    columns = [
        ItemColumn(
            name,
            kind,
            draw(st.none() | st.sampled_from(offered_types(kind, is_key=name in names[:second]))),
        )
        for name, kind in zip(names, kinds, strict=True)
    ]
    form = ItemForm(
        tuple(draw(st.permutations(columns))),
        keys[0],
        keys[1] if len(keys) == 2 else None,
        nulls=draw(st.sampled_from(["absent", "null"])),
        numbers="string",
        ttl_attribute=draw(st.sampled_from([None, "ttl"])),
    )
    rows = [
        [
            draw(
                cells_of(c.cql_type)
                if c.name in form.key_columns
                else st.none() | cells_of(c.cql_type)
            )
            for c in form.columns
        ]
        for _ in range(2)
    ]
    return form, rows


@given(forms())
def test_every_row_that_is_written_comes_back_and_keys_tell_rows_apart(made):
    form, rows = made
    write, read, write_key = compile_item(form), compile_cells(form), compile_key(form)
    names = [each.name for each in form.columns]
    keys = []
    for cells in rows:
        key_cells = [cells[names.index(name)] for name in form.key_columns]
        try:
            item, key = write(cells, 5, None)
        except UnholdableRow as error:
            # In a key only: everything else is a value that has to be held.
            text = str(error)
            assert any(f": {name}: " in text for name in (*form.key_columns, *form.key_names))
            return
        assert write_key(key_cells) == key
        back = read(json.loads(item))
        assert back is not None
        for each, cell, found in zip(form.columns, cells, back, strict=True):
            canonical = compile_canonical(
                each.cql_type,
                each.attribute_type,
                numbers="string",
                is_key=each.name in form.key_columns,
            )
            if cell is None or found is None or canonical is None:
                assert found == cell, each
            else:
                assert canonical(found) == canonical(cell), each
        keys.append((key, key_cells))
    assert (keys[0][0] == keys[1][0]) == (keys[0][1] == keys[1][1])


# -- what cannot be ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ([None, None], "id: a key of DynamoDB cannot be null"),
        ([b"", None], "id: a key of DynamoDB cannot be empty"),
        ([b"x" * 2049, None], "id: a key of 2,049 bytes is longer than 2,048"),
        (["é".encode() * 1025, None], "id: a key of 2,050 bytes is longer than 2,048"),
        ([b"u1", b"\x7f\xf0" + b"\0" * 6], "n: no N holds Infinity"),
        ([b"u1", b"\0"], "n: its 1 bytes are no double"),
        ([b"\xff", None], "id: its bytes are no text: invalid start byte"),
    ],
)
def test_a_row_that_no_item_holds_is_refused_with_column_and_reason(cells, reason):
    with pytest.raises(UnholdableRow, match=f"^DynamoDB cannot hold the row: {reason}"):
        compile_item(users(column("n", "double")))(cells, None, None)


@pytest.mark.parametrize(
    ("key", "cell", "reason"),
    [
        ("v", b"", "v: a key of an index cannot be empty"),
        ("v", "é".encode() * 513, "v: a key of an index of 1,026 bytes is longer than 1,024"),
        ("a", b"a" * 1025, "a: a key of an index of 1,025 bytes is longer than 1,024"),
    ],
)
def test_a_row_that_an_index_cannot_hold_is_refused_with_column_and_reason(key, cell, reason):
    form = visits(index_keys=(("v", 1024), ("a", 1024), ("a", 2048)))
    cells = {"a": b"x", "b": number(1), "c": b"c", "v": b"v"}
    written(form, *cells.values())
    written(form, *{**cells, "v": None}.values())
    with pytest.raises(UnholdableRow, match=reason):
        written(form, *{**cells, key: cell}.values())


def test_the_partition_key_may_be_a_shorter_key_of_an_index():
    form = users(index_keys=(("id", 1024),))
    written(form, b"x" * 1024)
    with pytest.raises(UnholdableRow, match="a key of 1,025 bytes is longer than 1,024"):
        written(form, b"x" * 1025)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ([None, number(1), b"c"], "a: a part of a key cannot be null"),
        ([b"a", b"\0", b"c"], "b: its 1 bytes are no int"),
        ([b"#" * 700, number(1), b"c"], "pk: a key of 2,102 bytes is longer than 2,048"),
        ([b"a", number(1), b"c" * 1025], "sk: a key of 1,025 bytes is longer than 1,024"),
    ],
)
def test_a_joined_key_is_refused_with_column_and_reason(cells, reason):
    with pytest.raises(UnholdableRow, match=reason):
        compile_key(visits())(cells)
    with pytest.raises(UnholdableRow, match=reason):
        compile_item(visits())([*cells, None], None, None)


def test_rows_whose_unusual_bytes_would_join_alike_are_refused():
    form = ItemForm(
        (column("a"), column("n", "varint", "B")),
        KeyPart("pk", ("a", "n")),
    )
    assert compile_key(form)([b"x", b"\1"]) == '{"pk":{"S":"x#1"}}'
    with pytest.raises(UnholdableRow, match="n: its bytes are not the usual ones"):
        compile_key(form)([b"x", b"\0\1"])
    item, _ = written(form, b"x", b"\1")
    with pytest.raises(
        PermanentError, match=r"the item .* is none that a row gives: .* not the usual ones"
    ):
        compile_cells(form)({**item, "n": {"B": "AAE="}})


def test_an_item_that_is_too_large_names_what_is_large():
    form = users(column("v"), column("w"))
    reason = "an item of 500,007 bytes is larger than 409,600; most of it is w"
    with pytest.raises(UnholdableRow, match=reason):
        compile_item(form)([b"u1", None, b"x" * 500_002], None, None)


def test_a_key_of_a_map_may_be_as_long_as_a_name_at_most():
    form = users(column("m", "map<text, int>"))

    def write(size):
        compile_item(form)([b"u1", write_entries([(b"k" * size, None)])], None, None)

    write(65_535)
    with pytest.raises(UnholdableRow, match="m: a key of its map has 65,536 bytes"):
        write(65_536)


WRONG_FORMS = [
    ({"columns": (column("id"), column("id"))}, "two columns would be the attribute id"),
    ({"partition": KeyPart("id", ("x",))}, "the key names x, which is no column"),
    ({"ttl_attribute": "v"}, "the attribute v would be two things"),
    ({"ttl_attribute": "t", "writetime_attribute": "t"}, "the attribute t would be two things"),
    ({"partition": KeyPart("v", ("id",))}, "the attribute v would be two things"),
    ({"partition": KeyPart("k" * 256, ("id", "v"))}, "name has 1 to 255 bytes"),
    ({"columns": (column("id"), column("v" * 65_536))}, "name has 1 to 65535 bytes"),
    ({"is_static": True}, "a table with static columns needs a sort key"),
    (
        {"columns": (column("id"), column("v", "int", "SS"))},
        "target.attributes.v: SS is no attribute type for values of int; write one of N, S, B",
    ),
    (
        {"columns": (column("id"), column("v", "list<" * 32 + "int" + ">" * 32))},
        "v is deeper than DynamoDB's 31 levels; write S or B for it",
    ),
]


@pytest.mark.parametrize(("change", "reason"), WRONG_FORMS, ids=[r for _, r in WRONG_FORMS])
def test_a_form_that_cannot_be_is_refused(change, reason):
    with pytest.raises(DeclarationError, match=reason):
        replace(users(column("v")), **change)  # pyright: ignore[reportArgumentType]


def test_an_attribute_that_was_not_written_gives_a_cell_that_equals_none():
    form = users(column("n", "int"))
    cells = compile_cells(form)({"id": {"S": "u1"}, "n": {"S": "five"}, "other": {"BOOL": True}})
    assert cells is not None
    assert cells[0] == b"u1"
    assert cells[1] == UNREADABLE + b'{"S": "five"} is no int'


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"sk": {"S": "c"}}, "a: is missing"),
        ({"a": {"N": "1"}}, 'a: not what was written: {"N": "1"} is no text'),
        ({"b": {"N": "x"}}, "b: not what was written"),
        ({"pk": {"S": "other"}}, "pk is not what its columns give: 'x#1'"),
        ({"sk": {"S": "%other"}}, "sk is not what its columns give: 'c'"),
    ],
)
def test_an_item_whose_key_is_not_its_own_is_named(item, reason):
    whole, _ = written(visits(), b"x", number(1), b"c", None)
    if "missing" in reason:
        del whole["a"]
    with pytest.raises(
        PermanentError, match=r'the item {"pk": .* is none that a row gives'
    ) as caught:
        compile_cells(visits())({**whole, **item})
    assert reason in str(caught.value)


# -- with the real server ----------------------------------------------------------------------


class Items:
    """A table of the real server that takes the JSON that is sent, as it is."""

    def __init__(self, port, form):
        self._connection = http.client.HTTPConnection(LOCALHOST, port, timeout=60)
        self.name = f"items_{uuid.uuid4().hex}"
        self._names = [name for name, _ in key_schema(form)]
        names = zip(key_schema(form), ("HASH", "RANGE"), strict=False)
        schema = [{"AttributeName": name, "KeyType": kind} for (name, _), kind in names]
        types = [{"AttributeName": n, "AttributeType": kind} for n, kind in key_schema(form)]
        self._ask(
            "CreateTable",
            f'"KeySchema": {json.dumps(schema)}, "AttributeDefinitions": {json.dumps(types)}, '
            '"BillingMode": "PAY_PER_REQUEST"',
        )

    def put(self, item):
        """Write the text of an item; give what it consumed."""
        answer = self._ask("PutItem", f'"Item": {item}, "ReturnConsumedCapacity": "TOTAL"')
        return answer["ConsumedCapacity"]["CapacityUnits"]

    def get(self, key):
        """Read the item of the text of a key."""
        return self._ask("GetItem", f'"Key": {key}, "ConsistentRead": true').get("Item")

    def refuses(self, item):
        """Say whether the server refuses the text of an item."""
        try:
            self.put(item)
        except ValueError:
            return True
        return False

    def _ask(self, operation, body):
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
            # Only the key's name counts to DynamoDB Local, not the signature.
            "Authorization": "AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/dynamodb/"
            "aws4_request, SignedHeaders=host, Signature=0",
        }
        text = f'{{"TableName": "{self.name}", {body}}}'
        self._connection.request("POST", "/", text.encode(), headers)
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            raise ValueError(answer)
        return answer

    def close(self):
        self._connection.close()


@pytest.fixture
def make_items(dynamodb):
    made = []

    def make(form):
        made.append(Items(dynamodb.port, form))
        return made[-1]

    yield make
    for each in made:
        each.close()


NESTED = (
    *("list<varint>", "set<text>", "set<timestamp>", "set<int>", "set<blob>", "set<decimal>"),
    *("map<text, double>", "map<varint, frozen<set<int>>>", "map<frozen<list<int>>, int>"),
    *("tuple<int, text, frozen<list<float>>>", '{a int, "B c" text, d frozen<map<int, text>>}'),
    *("vector<float, 3>", "vector<text, 2>", "list<frozen<list<frozen<map<text, blob>>>>>"),
)


@pytest.fixture(scope="module")
def every_type():
    """A form with a column of every type."""
    kinds = [*map(scalar, SCALARS), *map(parse_type, NESTED)]
    columns = (ItemColumn(f"c{place}", kind) for place, kind in enumerate(kinds))
    parts = KeyPart("id", ("id",)), KeyPart("sk", ("at", "text"))
    key = column("id", "uuid"), column("at", "timestamp"), column("text")
    return ItemForm((*key, *columns), *parts, numbers="string")


def test_the_server_gives_back_what_every_type_was(make_items, every_type):
    items = make_items(every_type)
    write, read = compile_item(every_type), compile_cells(every_type)
    canonicals = [
        compile_canonical(each.cql_type, numbers="string", is_key=each.name in ("id", "at", "text"))
        for each in every_type.columns
    ]
    key = [SCALARS["uuid"], SCALARS["timestamp"], SCALARS["text"]]
    values = [st.none() | cells_of(each.cql_type) for each in every_type.columns[3:]]

    @settings(max_examples=150)
    @given(st.tuples(*key, *values))
    def comes_back(cells):
        item, key = write(cells, None, None)
        items.put(item)
        back = read(items.get(key))
        assert back is not None
        for each, canonical, cell, found in zip(
            every_type.columns, canonicals, cells, back, strict=True
        ):
            if cell is None or found is None or canonical is None:
                assert found == cell, each
            else:
                assert canonical(found) == canonical(cell), each

    comes_back()


def test_an_n_holds_what_the_server_takes_and_nothing_else(make_items):
    form = users(column("n", "decimal"))
    items, write = make_items(form), compile_item(form)
    digits = st.integers(1, 10**40) | st.sampled_from([1, 10**38 - 1, 10**38, 10**38 + 1, 10**40])
    exponents = st.integers(-175, 130) | st.sampled_from([125, 126, -130, -131, 88, 87])

    @settings(max_examples=150)
    @given(digits, exponents, st.sampled_from([1, -1]))
    def agrees(unscaled, exponent, sign):
        value = Decimal(f"{sign * unscaled}E{exponent}")
        cells = [b"u1", encode_value(value, CqlType("decimal"))]
        try:
            item, _ = write(cells, None, None)
        except UnholdableRow:
            item = f'{{"id": {{"S": "u1"}}, "n": {{"N": "{value}"}}}}'
            assert items.refuses(item)
        else:
            items.put(item)
            canonical = compile_canonical(CqlType("decimal"))
            back = compile_cells(form)(items.get('{"id": {"S": "u1"}}'))
            assert canonical
            assert back
            assert canonical(back[1] or b"") == canonical(cells[1])

    agrees()


FILLERS = {
    "numbers": '{"L": [{"N": "1.5"}, {"N": "-0.012"}, {"N": "100"}, {"N": "1E-7"}, {"N": "0"}]}',
    "nested": '{"M": {"a": {"L": []}, "é": {"BOOL": true}, "n": {"NULL": true}, "m": {"M": {}}}}',
    "sets": '{"L": [{"SS": ["a", "é"]}, {"NS": ["1", "23"]}, {"BS": ["AAEC", "AA=="]}]}',
    "bytes": '{"B": "AAECAw=="}',
}


@pytest.mark.parametrize("filler", FILLERS)
def test_sizes_are_what_the_server_counts(make_items, filler):
    items = make_items(users())
    many = ", ".join([FILLERS[filler]] * 500)
    start = f'{{"id": {{"S": "u1"}}, "f": {{"L": [{many}]}}, "v": {{"S": "'
    rest = ITEM_LIMIT - item_size(json.loads(start + '"}}'))
    fits = start + "x" * rest + '"}}'
    assert item_size(json.loads(fits)) == ITEM_LIMIT
    assert items.put(fits) == write_units(ITEM_LIMIT) == 400
    assert items.refuses(start + "x" * (rest + 1) + '"}}')


def test_items_up_to_the_servers_limit_are_written_and_larger_ones_refused(make_items):
    form = users(column("v", "text"), column("w", "blob"))
    items, write = make_items(form), compile_item(form)
    for cells in (
        [b"u1", b"x" * (ITEM_LIMIT - 5), None],
        [b"u1", "é".encode() * ((ITEM_LIMIT - 5) // 2), None],
        [b"u1", "\U0001f600".encode() * ((ITEM_LIMIT - 5) // 4), b""],
        [b"u1", None, b"x" * (ITEM_LIMIT - 5)],
    ):
        items.put(write(cells, None, None)[0])
        with pytest.raises(UnholdableRow, match=r"larger than 409,600"):
            write([b"u1xxxx", *cells[1:]], None, None)


def test_keys_up_to_the_servers_limits_are_written(make_items):
    form = ItemForm((column("a"), column("b", "blob")), KeyPart("a", ("a",)), KeyPart("b", ("b",)))
    items, write = make_items(form), compile_item(form)
    for a, b in ((b"a" * 2048, b"b"), (b"a", b"b" * 1024), ("é".encode() * 1024, b"b")):
        item, key = write([a, b], None, None)
        items.put(item)
        assert compile_cells(form)(items.get(key)) == [a, b]
    for a, b in ((b"a" * 2049, b"b"), (b"a", b"b" * 1025)):
        with pytest.raises(UnholdableRow, match="longer than"):
            write([a, b], None, None)
        b64 = b64encode(b).decode()
        assert items.refuses(f'{{"a": {{"S": "{a.decode()}"}}, "b": {{"B": "{b64}"}}}}')
    for a, b64 in (("", "AA=="), ("a", "")):
        assert items.refuses(f'{{"a": {{"S": "{a}"}}, "b": {{"B": "{b64}"}}}}')


def test_lists_may_lie_in_each_other_as_deep_as_the_server_allows(make_items):
    kind = CqlType("int")
    cell = number(1)
    for _ in range(MAX_LEVELS):
        kind, cell = CqlType("list", (kind,), is_frozen=True), write_elements([cell])
    form = users(ItemColumn("v", kind))
    items = make_items(form)
    item, key = compile_item(form)([b"u1", cell], None, None)
    items.put(item)
    assert compile_cells(form)(items.get(key)) == [b"u1", cell]
    deeper = CqlType("list", (kind,), is_frozen=True)
    with pytest.raises(DeclarationError, match="levels"):
        users(ItemColumn("v", deeper))
    too_deep = '{"L": [' * (MAX_LEVELS + 1) + '{"N": "1"}' + "]}" * (MAX_LEVELS + 1)
    assert items.refuses(f'{{"id": {{"S": "u1"}}, "v": {too_deep}}}')


def test_units_begin_with_each_kilobyte():
    assert [write_units(size) for size in (1, 1024, 1025)] == [1, 1, 2]
    assert [read_units(size) for size in (1, 4096, 4097)] == [1, 1, 2]
