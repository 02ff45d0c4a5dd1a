"""A position survives being written, read and edited by people; what is none is refused."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration_platform.errors import DeclarationError
from migration_platform.syncing.position import (
    MAX_OFFSET,
    MAX_PARTITIONS,
    MAX_REASON,
    MAX_UNREADABLE,
    Position,
    Unreadable,
    earliest,
)
from migration_platform.token_ranges import MAX_RANGES

INDEXES = st.integers(0, 40) | st.integers(0, MAX_RANGES - 1)
OFFSETS = st.integers(0, 9) | st.integers(0, MAX_OFFSET)
# To the millisecond, as they are written.
MOMENTS = st.integers(0, 4_000_000_000_000).map(lambda millis: millis / 1000)
UNREADABLE = st.builds(
    Unreadable,
    st.integers(0, MAX_PARTITIONS),
    OFFSETS,
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    MOMENTS,
)
POSITIONS = st.builds(
    Position,
    topic=st.sampled_from(["", "a", "shop.orders"]),
    offsets=st.dictionaries(st.integers(0, 4) | st.integers(0, MAX_PARTITIONS), OFFSETS),
    open_ranges=st.frozensets(INDEXES),
    round_began_at=MOMENTS,
    compared_at=st.dictionaries(INDEXES, MOMENTS),
    synced_at=MOMENTS,
    unreadable=st.lists(UNREADABLE, max_size=3).map(tuple),
    topic_id=st.sampled_from(["", "x", "y"]),
)


@given(POSITIONS)
def test_a_position_that_was_written_is_read_as_the_same(position):
    text = position.to_json()
    assert "\n" not in text
    read = Position.parse(text)
    # A range that was never compared needs no moment to say so.
    compared = {index: moment for index, moment in position.compared_at.items() if moment}
    assert read == replace(position, compared_at=compared) or read == position


@given(POSITIONS)
def test_an_open_range_is_open_until_it_was_compared(position):
    opened = position.with_open([1, 2, 3])
    assert {1, 2, 3} <= opened.open_ranges
    done = opened.with_compared([2], 5.0)
    assert done.open_ranges == opened.open_ranges - {2}
    assert done.compared_at == {**position.compared_at, 2: 5.0}
    assert replace(done, open_ranges=position.open_ranges, compared_at=position.compared_at) == (
        position
    )


@given(st.lists(POSITIONS, min_size=1, max_size=4))
def test_the_earliest_position_lacks_what_any_of_them_lacks(positions):
    found = earliest(positions)
    one_topic = len({(each.topic, each.topic_id) for each in positions}) == 1
    for each in positions:
        assert each.open_ranges <= found.open_ranges
        assert found.synced_at <= each.synced_at
        assert set(each.unreadable) <= set(found.unreadable)
        if one_topic and each.topic:
            assert (found.topic, found.topic_id) == (each.topic, each.topic_id)
            assert set(each.offsets) <= set(found.offsets)
            for partition, offset in found.offsets.items():
                assert offset <= each.offsets.get(partition, 0)
    if not one_topic:
        assert (found.topic, found.topic_id, found.offsets) == ("", "", {})
    assert found == earliest([*positions, *positions])
    assert found == earliest(reversed(positions))


def test_the_earliest_of_one_is_that_one_and_of_none_the_beginning():
    one = Position("t", {0: 5}, frozenset({1}), synced_at=9.0, topic_id="x")
    assert earliest([one]) == one
    assert earliest([]) == Position()


def test_the_same_topic_made_anew_is_another_one():
    before, after = (Position("t", {0: 5}, topic_id=each) for each in ("x", "y"))
    assert earliest([before, after]) == Position()


def test_a_person_can_read_and_write_a_position():
    written = """{
        "synced_at": "2030-01-31T12:00:00+01:00", "topic": "t", "offsets": {"0": 5, "1": "6"},
        "open_ranges": "0...2,  7", "compared_at": {"3": "2030-01-31T11:00:00"}
    }"""
    position = Position.parse(written)
    assert position.open_ranges == {0, 1, 2, 7}
    assert position.offsets == {0: 5, 1: 6}
    assert position.synced_at == position.compared_at[3] == 1_896_087_600.0
    assert json.loads(position.to_json()) == {
        "synced_at": "2030-01-31T11:00:00.000+00:00",
        "topic": "t",
        "offsets": {"0": 5, "1": 6},
        "open_ranges": "0...2, 7",
        "compared_at": {"3": "2030-01-31T11:00:00.000+00:00"},
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "null",
        "[]",
        "7",
        '{"offset": 1}',
        '{"topic": 1}',
        '{"topic_id": []}',
        '{"offsets": []}',
        '{"offsets": {"0": -1}}',
        '{"offsets": {"0": true}}',
        '{"offsets": {"0": 1.5}}',
        '{"offsets": {"-1": 1}}',
        '{"offsets": {"0": 9223372036854775808}}',
        '{"offsets": {"٣": 1}}',
        '{"offsets": {"0": null}}',
        '{"open_ranges": "2...1"}',
        '{"open_ranges": "1...2...3"}',
        '{"open_ranges": "a"}',
        '{"open_ranges": [1]}',
        '{"open_ranges": "0...99999999999"}',
        '{"compared_at": {"1": 5}}',
        '{"compared_at": {"1": "yesterday"}}',
        '{"compared_at": "1"}',
        '{"synced_at": "1900-01-01"}',
        '{"synced_at": 1}',
        '{"unreadable": [{"partition": 0}]}',
        '{"unreadable": {"0": 1}}',
        '{"unreadable": [1]}',
        "[" * 100_000,
        '{"offsets": {"0": ' + "9" * 5_000 + "}}",
    ],
)
def test_what_is_no_position_is_refused_in_one_sentence(text):
    with pytest.raises(DeclarationError) as caught:
        Position.parse(text)
    assert str(caught.value).startswith("this is no position of a synchronisation: ")
    assert len(str(caught.value)) < 500


@settings(max_examples=300)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "synced_at",
                        "topic",
                        "offsets",
                        "open_ranges",
                        "compared_at",
                        "unreadable",
                        "0",
                    ]
                ),
                inner,
            )
        ),
        max_leaves=10,
    )
)
def test_any_json_is_a_position_or_is_refused(value):
    try:
        position = Position.parse(json.dumps(value))
    except DeclarationError:
        return
    assert Position.parse(position.to_json()) == position


def test_what_is_kept_of_unreadable_messages_is_bounded():
    each = {"partition": 0, "offset": 1, "reason": "x" * 1000}
    position = Position.parse(json.dumps({"unreadable": [each]}))
    assert len(position.unreadable[0].reason) == MAX_REASON
    with pytest.raises(DeclarationError, match="more than 1000 unreadable"):
        Position.parse(json.dumps({"unreadable": [each] * (MAX_UNREADABLE + 1)}))
