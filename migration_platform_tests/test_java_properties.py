"""Files of properties are read as Java reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_platform.cdm.java_properties import MAX_BYTES, decode_properties, parse_properties
from migration_platform.errors import DeclarationError


def pairs(text):
    return [(entry.key, entry.value) for entry in parse_properties(text)]


@pytest.mark.parametrize("separator", ["=", ":", " ", "\t", " = ", "  :\f", "   "])
def test_a_key_ends_at_the_first_separator_and_the_rest_is_the_value(separator):
    assert pairs(f"  key{separator}a = b: c ") == [("key", "a = b: c ")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# a=b\n ! c=d\n\n \t\r\nx=1\r# e\ry=2", [("x", "1"), ("y", "2")]),
        ("x = 1,\\\n    2,\\\r\n  3\ny=4", [("x", "1,2,3"), ("y", "4")]),
        ("x=1\\\n# no comment", [("x", "1# no comment")]),
        ("x=1\\\\\ny=2", [("x", "1\\"), ("y", "2")]),
        ("a\\=b\\:c\\ d=e", [("a=b:c d", "e")]),
        (r"x=\u0041\t\q\"\\", [("x", 'A\tq"\\')]),
        (r"x=\uD83D\uDE00", [("x", "\N{GRINNING FACE}")]),
        ("x\n=y\nz=", [("x", ""), ("", "y"), ("z", "")]),
        ("x=1\nx=2", [("x", "1"), ("x", "2")]),
        ("x=1\\", [("x", "1")]),
        ("", []),
    ],
)
def test_comments_continuations_and_escapes(text, expected):
    assert pairs(text) == expected


@pytest.mark.parametrize("value", [r"\u00", r"\uzzzz", r"\uD83D", r"secret\u12"])
def test_what_is_no_character_is_refused_by_its_line_and_not_shown(value):
    with pytest.raises(DeclarationError, match=r"line 2 has a \\u") as refused:
        parse_properties(f"a=b\nx={value}")
    assert "secret" not in str(refused.value)


def test_both_encodings_are_read():
    assert decode_properties("x=\N{GREEK SMALL LETTER ALPHA}".encode()) == "x=\u03b1"
    assert decode_properties("\ufeffx=é".encode()) == "x=é"
    assert decode_properties("x=é".encode("iso-8859-1")) == "x=é"
    with pytest.raises(DeclarationError, match="more than any file of properties"):
        decode_properties(b"#" * (MAX_BYTES + 1))


def written(text, *, is_key):
    """Write a text as Java's own Properties.store does."""
    special = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\f": "\\f"}
    out = ""
    for position, char in enumerate(text):
        if char in special:
            out += special[char]
        elif char in "\\=:#!" or (char == " " and (is_key or not position)):
            out += "\\" + char
        elif char.isascii() and char.isprintable():
            out += char
        else:
            halves = char.encode("utf-16-be")
            out += "".join(f"\\u{halves[i : i + 2].hex()}" for i in range(0, len(halves), 2))
    return out


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=5))
def test_what_java_would_write_is_read_as_it_was(found):
    text = "#now\n" + "".join(
        f"{written(key, is_key=True)}={written(value, is_key=False)}\n"
        for key, value in found.items()
    )
    assert dict(pairs(text)) == found


@given(st.text(alphabet="ab\\ \n\r\t=:#!u0", max_size=40))
def test_no_text_is_too_strange(text):
    try:
        found = parse_properties(text)
    except DeclarationError:
        return
    lines = len(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    assert [entry.line for entry in found] == sorted({entry.line for entry in found})
    assert all(1 <= entry.line <= lines for entry in found)
