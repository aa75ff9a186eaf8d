"""Lists in JSON files."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slowfast.utils.text_files import from_json, iter_json_list, to_json

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
