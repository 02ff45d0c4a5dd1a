"""The ring: a valid, harmless SVG at every size and in every state."""

import base64
import re
from typing import get_args
from xml.etree import ElementTree

import pytest

from migration_platform.picture import Segment, State, as_markdown, draw_ring, draw_strip
from migration_platform.token_ranges import split_ring

SVG = "{http://www.w3.org/2000/svg}"
STATES = get_args(State)


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in parse(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("count", [1, 2, 3, 64, 1000])
@pytest.mark.parametrize("state", STATES)
def test_every_size_in_every_state_is_valid_and_draws_each_range(count: int, state: State) -> None:
    segments = [Segment(r, state, 10, 100.0) for r in split_ring(count)]

    picture = parse(draw_ring("sunbird.user_enrolments", segments))

    titles = [path.find(f"{SVG}title") for path in picture.iter(f"{SVG}path")]
    ranges = [title.text for title in titles if title is not None]
    assert len(ranges) == count
    assert ranges[-1] == f"{segments[-1].token_range.key}: {state}, 10 rows, 100 rows/s"


def test_no_number_of_the_drawing_is_missing_or_infinite() -> None:
    for count in (1, 2, 1000):
        svg = draw_ring("t", [Segment(r, "copied") for r in split_ring(count)])
        assert not re.search(r"nan|inf|None", svg)


def test_a_hostile_title_stays_text() -> None:
    hostile = "ks.\"<script>alert(1)</script> & 'x' ]]>\""

    picture = parse(draw_ring(hostile, [Segment(r, "copied") for r in split_ring(4)]))

    title = picture.find(f"{SVG}title")
    assert title is not None
    assert (title.text or "").startswith(hostile)
    allowed = {"svg", "title", "rect", "path", "text"}
    assert {element.tag.removeprefix(SVG) for element in picture.iter()} <= allowed


def test_the_middle_tells_how_many_ranges_are_verified_or_else_copied() -> None:
    ranges = split_ring(6)
    states: list[State] = ["verified", "copied", "running", "failing", "not copied", "verified"]

    svg = draw_ring("t", [Segment(r, s) for r, s in zip(ranges, states, strict=True)])
    copied = draw_ring("t", [Segment(r, "copied") for r in ranges])

    assert {"2/6", "ranges verified"} <= set(texts(svg))
    assert {"6/6", "ranges copied"} <= set(texts(copied))
    assert "failing: 03-of-6" in texts(svg)
    assert "not copied: 04-of-6" in texts(svg)


def test_rows_of_all_ranges_are_summed() -> None:
    ranges = split_ring(2)
    svg = draw_ring("t", [Segment(ranges[0], "verified", 5), Segment(ranges[1], "failing", 5)])
    assert "10 rows in 2 ranges" in texts(svg)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000])
def test_the_line_of_squares_shows_at_most_64_and_never_hides_a_failing_range(count: int) -> None:
    ranges = split_ring(count)
    states = dict.fromkeys(ranges, "verified") | {ranges[count // 2]: "failing"}

    strip = draw_strip([Segment(r, state) for r, state in states.items()])

    assert len(strip) == min(count, 64)
    assert strip.count("🟥") == 1
    assert strip.count("🟩") == len(strip) - 1


def test_the_states_differ_without_their_colours() -> None:
    failing, calm = (
        draw_ring("t", [Segment(r, state) for r in split_ring(4)])
        for state in ("failing", "copied")
    )
    shapes = [[path.get("d") for path in parse(svg).iter(f"{SVG}path")] for svg in (failing, calm)]
    assert shapes[0] != shapes[1]


def test_a_thousand_ranges_stay_a_picture_that_an_event_can_hold() -> None:
    svg = draw_ring("t", [Segment(r, "verified", 10**9, 12345.6) for r in split_ring(1000)])

    assert len(as_markdown(svg)) < 1_000_000


def test_a_long_table_is_shortened_and_its_keyspace_stands_above() -> None:
    svg = draw_ring(f"sunbird_courses.{'x' * 200}", [Segment(split_ring(1)[0], "copied")])

    assert {"sunbird_courses", "x" * 29 + "…"} <= set(texts(svg))


def test_the_markdown_is_an_image_that_holds_all_of_its_data() -> None:
    svg = draw_ring("ünïcode ✓", [Segment(r, "verified") for r in split_ring(8)])

    found = re.fullmatch(
        r"!\[([^\]]+)\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", as_markdown(svg)
    )

    assert found
    assert base64.b64decode(found[2]).decode() == svg
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
