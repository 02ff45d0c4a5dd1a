"""What a copy to DynamoDB will consume: counted as DynamoDB counts, and honest about its error."""

import random
from math import inf

from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.stores.dynamodb.cost import (
    Cost,
    Estimate,
    IndexShape,
    Sample,
    Window,
    estimate_cost,
    tell_cost,
)
from migration_platform.stores.dynamodb.declaration import DynamoDbTarget, GlobalIndex

RING = 1_000_000


def migration_with(**options) -> Migration:
    declared = DynamoDbTarget(**options.pop("dynamodb", {}))
    return Migration(
        Endpoint("a", TableName("k", "users")),
        Endpoint("b", TableName("", "Users"), declared=declared),
        **{"writetime": "now", "ttl": "none", **options},
    )


def item_of(size: int, **more: str) -> dict:
    texts = {"id": "1", **more}
    known = sum(len(name) + len(text) for name, text in texts.items())
    return {name: {"S": text} for name, text in texts.items()} | {
        "v": {"S": "x" * (size - known - 1)}
    }


def window_of(*sizes: int, tokens: int = RING) -> Window:
    window = Window(tokens=tokens)
    for size in sizes:
        assert window.add_item(item_of(size), []) == size
    return window


def test_units_are_counted_by_the_begun_kb_and_bytes_with_what_dynamodb_adds() -> None:
    sample = Sample((window_of(1024, 1025, 5000),), RING, largest_item=5000)
    cost = estimate_cost(sample, looks_up=False)
    assert (cost.items.value, cost.write_units.value) == (3, 1 + 2 + 5)
    assert cost.storage_bytes.value == 1024 + 1025 + 5000 + 300
    assert cost.read_units.value == (1024 + 1025 + 5000) / 4096
    assert estimate_cost(sample, looks_up=False, scans=2).read_units.value == 2 * 7049 / 4096
    assert estimate_cost(sample, looks_up=True).read_units.value == 1 + 1 + 2
    assert cost.is_complete
    assert str(cost.items) == "3"


def test_an_index_holds_the_items_that_have_its_key_and_of_them_what_it_projects() -> None:
    keys_only = IndexShape(("mail",), frozenset(("id", "mail")))
    everything = IndexShape(("mail",), None)
    item = item_of(3000, mail="a@b")
    assert keys_only.size_of(item) == len("id1maila@b")
    assert everything.size_of(item) == 3000
    assert everything.size_of(item_of(3000)) is None
    window = Window(tokens=RING)
    window.add_item(item, [keys_only, everything])
    assert window.index_units == 1 + 3
    assert window.index_bytes == 10 + 3000 + 200


def test_the_error_holds_what_the_sample_did_not_see() -> None:
    caught = 0
    for seed in range(200):
        chance = random.Random(seed)
        tokens = sorted(chance.randrange(RING) for _ in range(5_000))
        windows = []
        for number in range(16):
            start = number * RING // 16
            mine = [token - start for token in tokens if token >= start][:51]
            # As read: the rows before the last one, and the tokens before it.
            windows.append(window_of(*[500] * 50, tokens=mine[50] - 1))
        cost = estimate_cost(Sample(tuple(windows), RING), looks_up=False)
        assert cost.items.percent < 15
        caught += abs(cost.items.value - 5_000) <= cost.items.error
    assert caught >= 170


def test_what_one_window_shows_has_an_error_that_nobody_knows() -> None:
    cost = estimate_cost(Sample((window_of(100, tokens=10),), RING), looks_up=False)
    assert cost.items == Estimate(RING / 10, inf)
    assert str(cost.items) == "about 100,000"
    assert estimate_cost(Sample((), RING), looks_up=False).items.error == inf
    assert not cost.is_complete


def _told(cost: Cost, migration: Migration, scans: int = 1) -> dict[str, tuple[str, str]]:
    lines = tell_cost(cost, migration, None, scans=scans)
    return {what: (much, how) for what, much, how in lines}


def test_a_comparison_that_scans_for_static_cells_too_says_so() -> None:
    sample = Sample((window_of(*[2000] * 10),), RING)
    once, twice = (
        _told(estimate_cost(sample, looks_up=False, scans=scans), migration_with(), scans)[
            "read units of a comparison"
        ]
        for scans in (1, 2)
    )
    assert (once[0], twice[0]) == ("5", "10")
    assert ", 2 times: for rows and for static cells" in twice[1]
    assert "times" not in once[1]


def test_the_slowest_of_the_limits_says_how_long_it_takes() -> None:
    cost = estimate_cost(Sample((window_of(*[2000] * 10),), RING), looks_up=False)

    def told(migration: Migration) -> dict[str, tuple[str, str]]:
        return _told(cost, migration)

    lines = told(migration_with())
    assert lines["duration of the copy"][0] == "not known"
    assert "no limit is declared" in lines["duration of the copy"][1]
    assert lines["way of writing"][0] == "BatchWriteItem"
    assert "write units of its indexes" not in lines
    lines = told(migration_with(dynamodb={"write_units_per_second": 5}))
    assert lines["duration of the copy"] == (
        "at least 0:00:04",
        "target.write_units_per_second is 5",
    )
    provisioned = {"billing_mode": "PROVISIONED", "read_units": 1, "write_units": 1}
    lines = told(migration_with(dynamodb={"write_units_per_second": 5, **provisioned}))
    assert lines["duration of the copy"] == ("at least 0:00:20", "the table's write capacity is 1")
    newest = {"writetime": "row_max", "dynamodb": {"writetime_attribute": "w"}}
    assert told(migration_with(**newest))["way of writing"][0] == "one conditional PutItem a row"


def test_what_indexes_cost_counts_where_the_run_is_limited_and_not_in_the_tables_capacity() -> None:
    window = Window(tokens=RING)
    for _ in range(10):
        window.add_item(item_of(2000, mail="a@b"), [IndexShape(("mail",), None)])
    cost = estimate_cost(Sample((window,), RING), looks_up=False)
    index = GlobalIndex("by_mail", "mail", read_units=1, write_units=9)
    lines = _told(cost, migration_with(dynamodb={"write_units_per_second": 5}))
    assert lines["duration of the copy"][0] == "at least 0:00:08"
    provisioned = {"billing_mode": "PROVISIONED", "read_units": 1, "write_units": 5}
    lines = _told(cost, migration_with(dynamodb={"indexes": (index,), **provisioned}))
    assert lines["duration of the copy"] == ("at least 0:00:04", "the table's write capacity is 5")
    assert "counts them, too" in lines["write units of its indexes"][1]
