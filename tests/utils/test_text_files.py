"""Text and JSON files."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowfast.utils import text_files
from slowfast.utils.text_files import UnreadableTextError, from_json, iter_json_list, read_text_bytes, to_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.text(max_size=4)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(VALUES, min_size=1, max_size=5), st.sampled_from([None, 1]))
def test_items_of_a_list_equal_the_parsed_list(items: list[object], indent: int | None) -> None:
    text = f"\n {to_json(items, indent=indent)}\t"
    if "\ufeff" not in text:
        assert list(iter_json_list(text)) == from_json(text) == items


@given(st.text(st.sampled_from('[]{},:" 1ae\ufeff'), max_size=10))
def test_what_is_no_list_is_refused(text: str) -> None:
    try:
        found = list(iter_json_list(text))
    except ValueError:
        return
    assert found == from_json(text)


@given(st.lists(st.sampled_from([b"a", b"\n", "é".encode(), "日".encode(), "😀".encode(), b"\xff", b"\xe6", b"\x97"])))
def test_text_is_checked_in_pieces(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    file = Path(tmp_path_factory.getbasetemp()) / "pieces.txt"
    file.write_bytes(b"".join(parts))
    try:
        expected: object = file.read_bytes().decode() and file.read_bytes()
    except UnicodeDecodeError as error:
        expected = file.read_bytes()[: error.start].count(b"\n") + 1
    with mock.patch.object(text_files, "_DECODED", 5):
        try:
            found: object = read_text_bytes(file, 100)
        except UnreadableTextError as error:
            found = error.line
    assert found == (expected or b"")
