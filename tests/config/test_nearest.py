"""Suggestions: only for what is a few edits away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowfast.config.nearest import edit_distance, nearest_keys, nearest_name, unknown_value

WORDS = st.text("abc", max_size=6)
KEYS = ("TRAIN.BATCH_SIZE", "TEST.BATCH_SIZE", "TRAIN.ENABLE", "SOLVER.LRS", "DATA.NUM_FRAMES")


@pytest.mark.parametrize(
    ("a", "b", "edits"),
    [("", "abc", 3), ("adamv", "adamw", 1), ("abcd", "abdc", 1), ("kitten", "sitting", 3), ("ab", "ba", 1)],
)
def test_known_distances(a: str, b: str, edits: int) -> None:
    assert edit_distance(a, b) == edits


@given(WORDS, WORDS, WORDS)
def test_distances_are_a_measure(a: str, b: str, c: str) -> None:
    assert edit_distance(a, b) == edit_distance(b, a) and (edit_distance(a, b) == 0) == (a == b)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))
    assert edit_distance(a + c, b + c) <= edit_distance(a, b)


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("adamv", "adamw"),
        ("ADAM", "adam"),
        ("sdg", "sgd"),
        ("lion", ""),
        ("rmsprop", ""),
        ("x", ""),
        ("", ""),
        ("a" * 5000, ""),
    ],
)
def test_names_within_a_small_distance(word: str, near: str) -> None:
    assert nearest_name(word, ["sgd", "adam", "adamw"]) == near


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("TRIAN.BATCH_SIZE", ["TRAIN.BATCH_SIZE"]),
        ("BATCH_SIZE", ["TRAIN.BATCH_SIZE", "TEST.BATCH_SIZE"]),
        ("BATCH_SZIE", ["TRAIN.BATCH_SIZE", "TEST.BATCH_SIZE"]),
        ("MODEL.NUM_FRAME", ["DATA.NUM_FRAMES"]),
        ("SOLVER.GAMMA", []),
    ],
)
def test_keys(key: str, near: list[str]) -> None:
    assert nearest_keys(key, KEYS) == near


def test_the_message_of_an_unknown_value() -> None:
    message = unknown_value("SOLVER.OPTIMIZING_METHOD", "adamv", ["sgd", "adam", "adamw"])
    assert message == "SOLVER.OPTIMIZING_METHOD: unknown value 'adamv'. Did you mean 'adamw'? Choices: sgd, adam, adamw"
