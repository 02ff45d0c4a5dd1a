"""Every CQL type of Cassandra 5 arrives with its extremes, on its own, in collections and as a key.

What arrived is read by `cells.py`, to the last bit and with every writetime and expiry.
"""

from collections.abc import Iterator

import pytest

from migration_platform.cql.names import quote
from migration_platform_tests.cells import (
    EXTREMES,
    NAMES,
    NO_KEYS,
    ManyTables,
    Pairs,
    assert_same_cells,
    many_tables,
    read_cells,
    rows_in,
)
from migration_platform_tests.tables import (
    copy_table,
    create_table,
    insert_rows,
    rows_of,
)

FORMS = {
    "v": "{0}",
    "l": "list<{0}>",
    "s": "set<{0}>",
    "mk": "map<{0}, int>",
    "mv": "map<int, {0}>",
    "u": "of_{1}",
    "fl": "frozen<list<{0}>>",
    "fs": "frozen<set<{0}>>",
    "fk": "frozen<map<{0}, int>>",
    "fv": "frozen<map<int, {0}>>",
    "fu": "frozen<of_{1}>",
    "t": "tuple<{0}, int, {0}>",
    "ve": "vector<{0}, 2>",
    "deep": "map<int, frozen<map<text, frozen<list<frozen<tuple<{0}, {0}>>>>>>>",
}
NEED_ORDER = ("s", "mk", "fs", "fk")
EMPTY_COLLECTIONS = {"l": [], "s": [], "mv": Pairs(), "fl": [], "fs": [], "fk": Pairs()}
WITHOUT_BYTES = {
    # The server takes these as values, though they have no bytes; none of them is null.
    **{t: f"blobas{t}(0x)" for t in ("bigint", "boolean", "decimal", "double", "float", "inet")},
    **{t: f"blobas{t}(0x)" for t in ("int", "timestamp", "timeuuid", "uuid", "varint")},
    **dict.fromkeys(("ascii", "text", "varchar"), "''"),
    "blob": "0x",
}
FIRST = 1_700_000_000_000_000


@pytest.fixture(scope="module")
def tables(connection) -> Iterator[ManyTables]:
    with many_tables(connection) as tables:
        yield tables


def in_every_form(value, other):
    """Give a value of each form, made of two extremes."""
    return {
        "v": value,
        "l": [value, other, value],
        "s": [value, other],
        "mk": Pairs([(value, 1), (other, 2)]),
        "mv": Pairs([(1, value), (2, other)]),
        "u": (value, [other, value]),
        "fl": [value, value],
        "fs": [value],
        "fk": Pairs([(value, 1)]),
        "fv": Pairs([(-1, value)]),
        "fu": (None, [value]),
        "t": (value, None, other),
        "ve": [value, other],
        "deep": Pairs([(7, Pairs([("", [(value, None), (None, other)])]))]),
    }


def fill(connection, table, cql_type, forms):
    """Write each extreme in a row of its own, whose cells and elements differ in their times."""
    extremes = EXTREMES[cql_type]
    key = {} if cql_type in NO_KEYS else {"p": extremes[0], "c": extremes[0]}
    for n, (value, other) in enumerate(zip(extremes, [*extremes[1:], extremes[0]], strict=True)):
        row = {"k": n, **({"p": value, "c": other} if key else {})}
        row |= {name: some for name, some in in_every_form(value, other).items() if name in forms}
        ttl = f" AND TTL {1000 + n}" if n % 2 else ""
        insert_rows(connection, table, [row], using=f"USING TIMESTAMP {FIRST + n}{ttl}")
        again = {name: row[name] for name in ("k", "p", "c", "v", "fl") if name in row}
        insert_rows(connection, table, [again], using=f"USING TIMESTAMP {FIRST + 100 + n}")
        if key:
            add = connection.session.prepare(
                f"UPDATE {table} USING TIMESTAMP {FIRST + 200} SET s = s + ?, mk[?] = 9 "
                "WHERE k = ? AND p = ? AND c = ?"
            )
            connection.session.execute(add, [[other], other, n, value, other])
    nothing = {name: value for name, value in EMPTY_COLLECTIONS.items() if name in forms}
    insert_rows(connection, table, [{"k": 100, **key}, {"k": 101, **key, **nothing}])
    if cql_type in WITHOUT_BYTES:
        marks = ", ".join([WITHOUT_BYTES[cql_type]] * 3)
        connection.session.execute(f"INSERT INTO {table} (k, v, p, c) VALUES (102, {marks})")


@pytest.mark.parametrize("cql_type", EXTREMES)
def test_a_type_arrives_in_every_form(connection, reader, tables, cql_type):
    number, ordered = list(EXTREMES).index(cql_type), cql_type not in NO_KEYS
    forms = {name: form for name, form in FORMS.items() if ordered or name not in NEED_ORDER}
    tables.add_type(f"of_{number}", f"a {cql_type}, b frozen<list<{cql_type}>>")
    columns = ", ".join(f"{name} {form.format(cql_type, number)}" for name, form in forms.items())
    key = f"p {cql_type}, c {cql_type}, PRIMARY KEY ((k, p), c)" if ordered else "PRIMARY KEY (k)"
    order = " WITH CLUSTERING ORDER BY (c DESC)" if ordered else ""
    origin, target = (
        tables.make(side, f"k int, {columns}, {key}{end}")
        for side, end in (("a", order), ("b", ""))
    )
    fill(connection, origin, cql_type, forms)

    counts = copy_table(connection, origin, target)

    expected = read_cells(reader, origin)
    rows = len(EXTREMES[cql_type]) + 2 + (cql_type in WITHOUT_BYTES)
    assert counts.read == counts.written == rows_in(expected) == rows
    assert {place.column for place in expected} == {"", *forms}
    assert_same_cells(expected, read_cells(reader, target))


def test_empty_is_not_null_and_null_is_not_empty(connection, reader, tables):
    body = (
        "k int PRIMARY KEY, t text, b blob, n int, l list<int>, fl frozen<list<int>>, "
        "fm frozen<map<int, int>>, tu tuple<int, text>"
    )
    origin, target = tables.make("a", body), tables.make("b", body)
    reader.execute(
        f"INSERT INTO {origin} (k, t, b, n, l, fl, fm, tu) "
        "VALUES (1, '', 0x, blobAsInt(0x), [], [], {}, (null, ''))"
    )
    reader.execute(f"INSERT INTO {origin} (k) VALUES (2)")
    copy_table(connection, origin, target)
    query = "SELECT t, b, intasblob(n) AS n, l, fl, fm, tu FROM {} WHERE k = {}"
    empty, null = (reader.execute(query.format(target, k)).one() for k in (1, 2))
    assert (empty["t"], empty["b"], empty["n"], empty["l"]) == ("", b"", b"", None)
    assert (list(empty["fl"]), dict(empty["fm"]), tuple(empty["tu"])) == ([], {}, (None, ""))
    assert set(null.values()) == {None}
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


def test_every_name_that_needs_quotes_is_a_name_like_any_other(connection, reader, keyspace):
    fields = ", ".join(f"{quote(name)} int" for name in NAMES)
    connection.session.execute(f'CREATE TYPE {keyspace}."Of Names" ({fields})')
    key, descending, static, *others = NAMES
    kinds = ("text", "set<int>", "map<int, int>", "list<int>", '"Of Names"', 'frozen<"Of Names">')
    columns = {name: kinds[n % len(kinds)] for n, name in enumerate(others)}
    named = ", ".join(f"{quote(name)} {kind}" for name, kind in columns.items())
    body = (
        f"{quote(key)} int, {quote(descending)} text, {quote(static)} set<text> STATIC, {named}, "
        f"PRIMARY KEY ({quote(key)}, {quote(descending)}) "
        f"WITH CLUSTERING ORDER BY ({quote(descending)} DESC)"
    )
    origin, target = (create_table(connection, keyspace, name, body) for name in ("Order", "set"))
    everything = tuple(range(len(NAMES)))
    values = ["x", [1, 2], Pairs([(1, 2), (3, 4)]), [2, 1], everything, everything]
    for n in range(3):
        row = {key: 1, descending: f"ü{n}", static: ["a", "b"]}
        row |= {name: values[n % len(values)] for n, name in enumerate(others)}
        insert_rows(connection, origin, [row], using=f"USING TIMESTAMP {FIRST + n}")
    for n, name in enumerate(others):
        if kinds[n % len(kinds)] == '"Of Names"':
            for number, field in enumerate(NAMES):
                reader.execute(
                    f"UPDATE {origin} USING TIMESTAMP {FIRST + 10 + number} "
                    f"SET {quote(name)}.{quote(field)} = 7 "
                    f"WHERE {quote(key)} = 1 AND {quote(descending)} = 'ü1'"
                )
    assert copy_table(connection, origin, target).written == 3
    expected = read_cells(reader, origin)
    assert {place.column for place in expected} == {"", static, *others}
    assert_same_cells(expected, read_cells(reader, target))


# -- types of one's own --------------------------------------------------------------------------

PERSON = "name text, age int, home frozen<place>, tags frozen<set<text>>"
HUMAN = "age int, nick text, home frozen<spot>, tags frozen<set<text>>, name text, since date"
USES = {
    "u": "{0}",
    "f": "frozen<{0}>",
    "l": "list<frozen<{0}>>",
    "s": "set<frozen<{0}>>",
    "mv": "map<text, frozen<{0}>>",
    "mk": "map<frozen<{0}>, int>",
    "t": "tuple<int, frozen<{0}>>",
    "d": "frozen<map<text, frozen<list<frozen<tuple<frozen<{0}>, int>>>>>>",
}


@pytest.fixture(scope="module")
def people(tables):
    """Tables whose types have the same fields under other names of types, in another order."""
    tables.add_type("place", "x int, y int")
    tables.add_type("spot", "y int, x int, z int")
    tables.add_type("person", PERSON)
    tables.add_type("human", HUMAN)

    def make_people(of, **forms):
        columns = ", ".join(f"{n} {form.format(of)}" for n, form in {**USES, **forms}.items())
        return tables.make(of, f"k int, c int, {columns}, PRIMARY KEY (k, c)")

    return make_people


def write_people(connection, table):
    """Write people of whom all, some or no fields are known, and whose fields change later."""
    whole = ("Ada", 36, (1, 2), ["b", "a"])
    some = [whole, ("", None, (None, 0), []), (None, 7, None, None), (None, None, None, None)]
    for n, person in enumerate(some):
        values = {
            "u": person,
            "f": person,
            "l": [person, whole, person],
            "s": [person, whole],
            "mv": Pairs([("x", person)]),
            "mk": Pairs([(person, 1), (whole, 2)]),
            "t": (None, person),
            "d": Pairs([("", [(person, 1), (None, 2)])]),
        }
        row = {"k": 1, "c": n, **values}
        insert_rows(connection, table, [row], using=f"USING TIMESTAMP {FIRST + n}")
    changes = ["name = 'Eva'", "age = 1", "home = {x: 5}", "tags = {'z'}"]
    for n, change in enumerate(changes):
        connection.session.execute(
            f"UPDATE {table} USING TIMESTAMP {FIRST + 10 + n} AND TTL {1000 * (n + 1)} "
            f"SET u.{change} WHERE k = 1 AND c = 1"
        )
    connection.session.execute(
        f"UPDATE {table} USING TIMESTAMP {FIRST + 20} SET u.age = 2 WHERE k = 1 AND c = 2"
    )


def test_fields_of_types_find_each_other_by_their_names(connection, reader, people):
    origin, target = people("person"), people("human")
    write_people(connection, origin)
    assert copy_table(connection, origin, target).written == 4
    expected = read_cells(reader, origin)
    assert {place.column for place in expected} == {"", *USES}
    assert_same_cells(expected, read_cells(reader, target))
    eva = reader.execute(
        f"SELECT u.name AS n, u.age AS a, u.nick AS i FROM {target} WHERE k = 1 AND c = 1"
    ).one()
    assert (eva["n"], eva["a"], eva["i"]) == ("Eva", 1, None)


def test_a_type_whose_fields_have_another_order_can_become_frozen(connection, reader, people):
    origin = people("person")
    target = people("human", u="frozen<{0}>", mk="frozen<map<frozen<{0}>, int>>")
    write_people(connection, origin)
    copy_table(connection, origin, target)
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


def test_people_copied_again_are_the_same_people(connection, reader, people):
    origin, target = people("person"), people("human")
    write_people(connection, origin)
    copy_table(connection, origin, target)
    first = read_cells(reader, target)
    copy_table(connection, origin, target)
    assert_same_cells(first, read_cells(reader, target), except_lists=False)


def test_a_type_that_got_a_field_later_arrives_old_values_and_new(connection, reader, tables):
    tables.add_type("point", "x int")
    body = "k int PRIMARY KEY, u point, f frozen<point>, l list<frozen<point>>"
    origin, target = tables.make("a", body), tables.make("b", body)
    insert_rows(connection, origin, [{"k": 1, "u": (1,), "f": (1,), "l": [(1,)]}])
    connection.session.execute(f"ALTER TYPE {tables.keyspace}.point ADD y int")
    insert_rows(connection, origin, [{"k": 2, "u": (1, 2), "f": (1, 2), "l": [(1, 2), (3, None)]}])
    reader.execute(f"UPDATE {origin} USING TIMESTAMP {FIRST * 2} SET u.y = 3 WHERE k = 1")
    assert copy_table(connection, origin, target).written == 2
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))
    assert rows_of(reader, target) == rows_of(reader, origin)


def test_types_that_hold_more_take_what_holds_less(connection, reader, tables):
    body = (
        "k int PRIMARY KEY, a {0}, i {1}, l {2}list<{0}>{3}, s {2}set<{1}>{3}, "
        "m {2}map<{0}, {1}>{3}"
    )
    origin = tables.make("a", body.format("ascii", "timeuuid", "", ""))
    target = tables.make("b", body.format("text", "uuid", "frozen<", ">"))
    one, *_, other = EXTREMES["timeuuid"]
    row = {"a": "x", "i": one, "l": ["b", "", "b"], "s": [one], "m": Pairs([("x", one)])}
    insert_rows(connection, origin, [{"k": 1, **row}], using=f"USING TIMESTAMP {FIRST}")
    insert_rows(connection, origin, [{"k": 2, **row}], using=f"USING TIMESTAMP {FIRST}")
    add = connection.session.prepare(
        f"UPDATE {origin} USING TIMESTAMP {FIRST + 5} AND TTL 900 SET s = s + ?, m = m + ?, "
        "l = l + ? WHERE k = 1"
    )
    connection.session.execute(add, [[other], Pairs([("y", other)]), ["z"]])
    assert copy_table(connection, origin, target).written == 2
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))
