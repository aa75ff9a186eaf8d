"""Suggestions: only for names a few edits away."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowfast.utils.suggest import edit_distance, file_in_sibling_folder, nearest_keys, nearest_name, unknown_value

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


@pytest.mark.parametrize(
    ("wanted", "there", "found"),
    [
        ("sth-v1", ["sthv1", "sthv2"], "sthv1"),
        ("sthv2", ["sth-v1", "sth-v2", "SSV2"], "sth-v2"),
        ("K400", ["k400", "k600"], "k400"),
        ("kinetcs", ["kinetics"], "kinetics"),
        ("sth-v1", ["k400"], None),
        ("sth-v1", [], None),
    ],
)
def test_a_folder_of_another_spelling_is_found(
    wanted: str, there: list[str], found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in there:
        (tmp_path / "lists" / name).mkdir(parents=True)
        (tmp_path / "lists" / name / "train.txt").touch()
    (tmp_path / "lists" / "sth_v1").mkdir(parents=True, exist_ok=True)  # without the file
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path / "lists", Path("lists")):
        expected = None if found is None else root / found / "train.txt"
        assert file_in_sibling_folder(root / wanted / "train.txt") == expected
    monkeypatch.chdir(tmp_path / "lists")
    assert file_in_sibling_folder(Path(wanted) / "train.txt") == (None if found is None else Path(found) / "train.txt")


@pytest.mark.parametrize(
    "path", ["train.txt", "/train.txt", "no/such/place/train.txt", "a" * 5000 + "/b/c", "x\0y/z/t"]
)
def test_no_folder_is_found_beside_impossible_ones(path: str) -> None:
    assert file_in_sibling_folder(Path(path)) is None
