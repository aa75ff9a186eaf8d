"""Merging of files and overrides: types, lists, number formats, `_BASE_` chains and error messages."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from slowfast.config.defaults import get_cfg
from slowfast.config.keys import KEYS
from slowfast.config.node import ConfigNode
from slowfast.config.parse import configs_folder
from slowfast.errors import ConfigError
from tests.config.yaml_files import merge_text

pytestmark = pytest.mark.slow

DEFAULTS = dict(get_cfg().keys_by_path())
INTEGERS = st.integers(-(2**63) + 1, 2**63 - 1)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")))


def values_for(key: str) -> st.SearchStrategy[object]:
    """Return a strategy for values of the type of a key, regardless of its rule."""
    default = DEFAULTS[key]
    if KEYS[key].type == list[str]:
        return st.lists(st.from_regex(r"[a-z_]+(\.[a-z_*]+)?", fullmatch=True), max_size=5)
    kinds = {bool: st.booleans(), int: INTEGERS, float: NUMBERS, str: TEXT}
    if isinstance(default, list):
        return st.lists(kinds[type(default[0])] if default else st.one_of(INTEGERS, NUMBERS), max_size=5)
    return kinds[type(default)]


@st.composite
def settings(draw: st.DrawFn) -> tuple[str, object]:
    key = draw(st.sampled_from(sorted(set(DEFAULTS) - {"MODEL.ACT_CHECKPOINT", "DATA.DECODING_BACKEND"})))
    return key, draw(values_for(key))


def value(cfg: ConfigNode, key: str) -> object:
    return dict(cfg.keys_by_path())[key]


def error_of(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        merge_text(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    return message


def override_error(*overrides: object) -> str:
    with pytest.raises(ConfigError) as caught:
        get_cfg().merge_from_list(overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@given(settings())
def test_overrides_of_every_type_as_text_and_as_python_values(setting: tuple[str, object]) -> None:
    key, wanted = setting
    for given_as in (wanted, str(wanted), f"{key}={wanted}"):
        cfg = get_cfg()
        cfg.merge_from_list([given_as] if given_as == f"{key}={wanted}" else [key, given_as])
        assert value(cfg, key) == wanted
        if DEFAULTS[key] != []:
            assert type(value(cfg, key)) is type(DEFAULTS[key])


@hypothesis_settings(max_examples=30)
@given(st.dictionaries(st.just("x"), settings(), min_size=1).map(lambda d: d["x"]))
def test_a_dump_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, setting: tuple[str, object]) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(setting)
    again = merge_text(tmp_path_factory.mktemp("dump"), cfg.dump())
    assert again == cfg
    assert [type(v) for _, v in again.keys_by_path()] == [type(v) for _, v in cfg.keys_by_path()]


@pytest.mark.parametrize(
    ("key", "text", "wanted"),
    [
        ("SOLVER.BASE_LR", "2e-4", 2e-4),
        ("SOLVER.BASE_LR", "1e-6", 1e-6),
        ("SOLVER.BASE_LR", "1", 1.0),
        ("TRAIN.ENABLE", "false", False),
        ("TRAIN.ENABLE", "FALSE", False),
        ("TRAIN.ENABLE", "yes", True),
        ("MORPH.SEGMENT_DIM", "[14,28,28,49]", [14, 28, 28, 49]),
        ("MORPH.SEGMENT_DIM", "[14, 28, 28, 49]", [14, 28, 28, 49]),
        ("MORPH.SEGMENT_DIM", "(14,28,28,49)", [14, 28, 28, 49]),
        ("SOLVER.LRS", "[1, 1e-1]", [1, 0.1]),
        ("DATA.MEAN", "[0, 1, 0.5]", [0.0, 1.0, 0.5]),
        ("OUTPUT_DIR", "2024", "2024"),
        ("OUTPUT_DIR", "2024-01-01", "2024-01-01"),
        ("MODEL.ACT_CHECKPOINT", "2", 2),
        ("MODEL.ACT_CHECKPOINT", "True", True),
    ],
)
def test_text_is_read_by_the_type_wanted(tmp_path: Path, key: str, text: str, wanted: object) -> None:
    section, _, leaf = key.rpartition(".")
    cfg = get_cfg()
    cfg.merge_from_list([key, text])
    written = [cfg]
    if not text.startswith("("):  # YAML has no tuples
        written.append(merge_text(tmp_path, f"{section}: {{{leaf}: {text}}}" if section else f"{leaf}: {text}"))
    for each in written:
        assert value(each, key) == wanted
        assert type(value(each, key)) is type(wanted)


def test_python_values_of_other_kinds() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["MORPH.SEGMENT_DIM", (1, 2), "OUTPUT_DIR", Path("a") / "b", "MORPH.PRETRAIN_PATH", None])
    assert (cfg.MORPH.SEGMENT_DIM, cfg.OUTPUT_DIR, cfg.MORPH.PRETRAIN_PATH) == ([1, 2], "a/b", "")


def test_null_is_no_text_and_an_empty_section_is_nothing(tmp_path: Path) -> None:
    cfg = merge_text(tmp_path, "MORPH:\n  PRETRAIN_PATH: null\nTRAIN:\n# BATCH_SIZE: 3\n")
    assert cfg == get_cfg()


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (("TRIAN.BATCH_SIZE", "4"), ("unknown key TRIAN.BATCH_SIZE", "TRAIN.BATCH_SIZE")),
        (("train.batch_size", "4"), ("TRAIN.BATCH_SIZE",)),
        (("TEST.ENSEMBLE_VIEWS", "4"), ("Keys of TEST: ENABLE, ", "NUM_ENSEMBLE_VIEWS")),
        (("TRAIN.NUM_ENSEMBLE_VIEWS", "4"), ("Did you mean TEST.NUM_ENSEMBLE_VIEWS?",)),
        (("NUM_CLASSES", "4"), ("Did you mean MODEL.NUM_CLASSES?",)),
        (("TRAIN.BATCH_SIZE", "many"), ("TRAIN.BATCH_SIZE", "an integer", "many")),
        (("TRAIN.BATCH_SIZE", "2.5"), ("an integer",)),
        (("TRAIN.BATCH_SIZE", True), ("an integer",)),
        (("SOLVER.BASE_LR", "nan"), ("finite",)),
        (("SOLVER.BASE_LR", ""), ("a number",)),
        (("TRAIN.ENABLE", "2"), ("True or False",)),
        (("OUTPUT_DIR", 3), ("a string",)),
        (("MORPH.LAYERS", "14,28"), ("Write [14,28]",)),
        (("MORPH.LAYERS", "3"), ("Write [3]",)),
        (("MORPH.LAYERS", "[[3]]"), ("an integer",)),
        (("MORPH.LAYERS", "[14,", "28]"), ("without spaces",)),
        (("MORPH.LAYERS", "[a,b]"), ("an integer", "[a,b]")),
        (("MODEL.ACT_CHECKPOINT", "-1"), ("True, False or an integer from 0",)),
        (("TRAIN.ENABLE",), ("TRAIN.ENABLE has no value", "pairs")),
        (("TRAIN", "3"), ("section", "BATCH_SIZE")),
        (("TRAIN.BATCH_SIZE.X", "3"), ("unknown key",)),
        (("3", "4"), ("expected a key",)),
        ((5, "4"), ("expected a key",)),
    ],
)
def test_wrong_overrides_say_what_and_what_to_do(overrides: tuple[object, ...], parts: tuple[str, ...]) -> None:
    message = override_error(*overrides)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        ("TRAIN:\n  BATCH_SIZE: 4\n  BATCHSIZE: 4\n", 3, ("TRAIN.BATCHSIZE", "Did you mean TRAIN.BATCH_SIZE?")),
        ("TRIAN:\n  BATCH_SIZE: 4\n", 1, ("TRIAN",)),
        ("TRAIN:\n  BATCH_SIZE: 4\n  BATCH_SIZE: 8\n", 3, ("is set twice",)),
        ("TRAIN:\n  BATCH_SIZE: 4\nTRAIN:\n  ENABLE: True\n", 3, ("TRAIN is set twice",)),
        ("TRAIN:\n  BATCH_SIZE: four\n", 2, ("an integer", "four")),
        ("TRAIN:\n  BATCH_SIZE: null\n", 2, ("an integer",)),
        ("TRAIN:\n  BATCH_SIZE: {A: 1}\n", 2, ("an integer",)),
        ("TRAIN: 3\n", 1, ("section",)),
        ("TRAIN:\n  ENABLE: [unclosed\n", 3, ("not valid YAML",)),
        ("A: &a\n\tB: 1\n", 2, ("not valid YAML",)),
        ("- TRAIN\n", 1, ("sections",)),
        ("just words\n", 1, ("sections",)),
        ("? [a, b]\n: 1\n", 1, ("keys must be names",)),
        ("\nOUTPUT_DIR: !!python/object/apply:os.getcwd []\n", 2, ("not allowed",)),
        ("MORPH:\n  LAYERS: [!!python/name:os.system '']\n", 2, ("not allowed",)),
        ("TRAIN: &a\n  ENABLE: *a\n", 2, ("True or False",)),
        ("TRAIN: &a\n  TRAIN: *a\n", 2, ("unknown key TRAIN.TRAIN",)),
        ("_BASE_: [a, b]\n", 1, ("_BASE_",)),
    ],
)
def test_wrong_files_name_file_and_line(tmp_path: Path, text: str, line: int, parts: tuple[str, ...]) -> None:
    message = error_of(tmp_path, text)
    assert f"a.yaml:{line}:" in message, message
    assert all(part in message for part in parts), message


def test_the_same_line_twice_is_no_contradiction(tmp_path: Path) -> None:
    # as in published MorphMLP files
    cfg = merge_text(tmp_path, "SOLVER:\n  COSINE_AFTER_WARMUP: True\n  COSINE_AFTER_WARMUP: True\n")
    assert cfg.SOLVER.COSINE_AFTER_WARMUP is True


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "K400_S16.yaml").write_text("NUM_GPUS: 0\n", encoding="utf-8")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    (tmp_path / "control.yaml").write_text("NUM_GPUS: \x07\n", encoding="utf-8")
    for name, part in (
        ("K400_S1.yaml", "Did you mean"),
        ("no/such/K400_S16.yaml", "K400_S16.yaml"),
        ("unlike anything.yaml", "does not exist$"),
        ("", "is a directory"),
        ("binary.yaml", "UTF-8"),
        ("control.yaml", "not valid YAML"),
    ):
        with pytest.raises(ConfigError, match=part) as caught:
            get_cfg().merge_from_file(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "zeros.yaml").symlink_to("/dev/zero")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket.yaml"))
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(2**40)
    for name, reason in (
        ("pipe", "named pipe"),
        ("folder", "directory"),
        ("zeros", "device"),
        ("loop", "cannot be read"),
        ("socket", "socket"),
        ("large", "larger than 1 MiB"),
        ("x" * 300, "cannot be read .file name too long"),
        ("a\0b", "not a valid file name"),
    ):
        for path, text in (
            (tmp_path / f"{name}.yaml", ""),
            (tmp_path / "base.yaml", f"_BASE_: {json.dumps(name)}.yaml"),
        ):
            if text:
                path.write_text(text.replace(".yaml", "").replace(json.dumps(name), json.dumps(f"{name}.yaml")))
            with pytest.raises(ConfigError, match=reason) as caught:
                get_cfg().merge_from_file(path)
            assert str(caught.value).isprintable()
            assert ("base.yaml:1: _BASE_: " in str(caught.value)) == bool(text)


def test_texts_of_other_systems(tmp_path: Path) -> None:
    text = "TRAIN:\n  BATCH_SIZE: 3\n"
    for data in (
        b"\xef\xbb\xbf" + text.encode(),
        text.replace("\n", "\r\n").encode(),
        text.replace("\n", "\r").encode(),
    ):
        (tmp_path / "a.yaml").write_bytes(data)
        cfg = get_cfg()
        cfg.merge_from_file(tmp_path / "a.yaml")
        assert cfg.TRAIN.BATCH_SIZE == 3
    (tmp_path / "a.yaml").write_bytes(text.encode("utf-16"))
    with pytest.raises(ConfigError, match="is UTF-16 text, not UTF-8"):
        get_cfg().merge_from_file(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("DATA: {MEAN: " + "[" * 500 + "]" * 500 + "}", "levels of nesting"),
        ("DATA: " + "{A: " * 500 + "}" * 500, "levels of nesting"),
        ("A: " + "- " * 500 + "1", "not valid YAML"),
        ("A: " + "[" * 100_000, "levels of nesting"),
        ("a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nTRAIN: *c\n", "unknown key a"),
        ("DATA: {MEAN: [" + "*a," * 200 + "]}", "undefined alias"),
        ("DATA: &a {MEAN: *a}", "a nested value"),
        ("A: &a [1]\nDATA: {MEAN: [" + "*a," * 200 + "]}", "more than 100 aliases"),
        ("DATA: {MEAN: [" + "1," * 30_000 + "]}", "more than 20000 values"),
        ("TRAIN: {<<: {ENABLE: True}}", "unknown key TRAIN.<<"),
        ("1: 2", "unknown key 1"),
        ("~: 2", "unknown key ~"),
        ("2024-01-01: 2", "unknown key 2024-01-01"),
        ('"\\0": 2', "unknown key '"),
        ('OUTPUT_DIR: "a\\0b"', "a string without NUL characters"),
        ('OUTPUT_DIR: "\\uD800"', "UTF-8"),
        ('OUTPUT_DIR: "\\UFFFFFFFF"', "not valid YAML"),
        ("%YAML " + "9" * 5000 + ".1\n---\nA: 1", "not valid YAML"),
        ("SOLVER: {MAX_EPOCH: 010}", "without leading zeros"),
        ("SOLVER: {MAX_EPOCH: 1:30}", "an integer"),
        ("SOLVER: {MAX_EPOCH: yes}", "an integer"),
        ("SOLVER: {MAX_EPOCH: " + "9" * 5000 + "}", "below 2\\*\\*63"),
        ("SOLVER: {BASE_LR: .inf}", "a number"),
        ("SOLVER: {BASE_LR: 1e400}", "a finite number"),
        ("TRAIN: {ENABLE: 1}\nTRAIN.ENABLE: False", "TRAIN.ENABLE is set twice"),
        ("A: 1\n---\nB: 1", "not valid YAML"),
    ],
)
def test_texts_that_are_no_config(tmp_path: Path, text: str, part: str) -> None:
    message = error_of(tmp_path, text)
    assert part.replace("\\", "") in message and message.isprintable() and len(message) < 600, message


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_config_or_one_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "a.yaml"
    path.write_bytes(data)
    try:
        get_cfg().merge_from_file(path)
    except ConfigError as error:
        assert str(error).isprintable()


def test_a_long_chain_of_bases_is_refused(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.yaml").write_text(f"_BASE_: {number + 1}.yaml\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"20\.yaml:1: _BASE_: more than 20 files"):
        get_cfg().merge_from_file(tmp_path / "0.yaml")


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert merge_text(tmp_path, "# nothing\n") == get_cfg()


def test_base_files_come_first_and_are_relative(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "root.yaml").write_text("NUM_GPUS: 5\nLOG_PERIOD: 5\nRNG_SEED: 5\n", encoding="utf-8")
    (tmp_path / "sub" / "mid.yaml").write_text("LOG_PERIOD: 6\n_BASE_: ../root.yaml\nRNG_SEED: 6\n", encoding="utf-8")
    cfg = merge_text(tmp_path, "RNG_SEED: 7\n_BASE_: sub/mid.yaml\n")
    assert (cfg.NUM_GPUS, cfg.LOG_PERIOD, cfg.RNG_SEED) == (5, 6, 7)


def test_a_base_may_be_a_shipped_config(tmp_path: Path) -> None:
    shipped = get_cfg()
    shipped.merge_from_file(configs_folder() / "K400" / "K400_MLP_S32x4.yaml")
    assert merge_text(tmp_path, "_BASE_: K400/K400_MLP_S32x4\n") == shipped != get_cfg()
    assert "K400/K400_MLP_S32x does not exist" in error_of(tmp_path, "_BASE_: K400/K400_MLP_S32x\n")
    (tmp_path / "K400").mkdir()
    (tmp_path / "K400" / "K400_MLP_S32x4").write_text("NUM_GPUS: 3\n", encoding="utf-8")
    assert merge_text(tmp_path, "_BASE_: K400/K400_MLP_S32x4\n").NUM_GPUS == 3  # a file beside it comes first


def test_paths_in_the_folder_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "real" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "link").symlink_to(inner)
    here = "${CONFIG_DIR}"
    (inner / "base.yaml").write_text(f"DATA: {{PATH_TO_DATA_DIR: {here!r}, PATH_PREFIX: {here + '/../videos'!r}}}\n")
    (tmp_path / "top.yaml").write_text(
        f"_BASE_: link/base.yaml\nOUTPUT_DIR: {here}/out\nTRAIN: {{CHECKPOINT_FILE_PATH: {here + 'x'!r}}}\n"
    )
    monkeypatch.chdir("/")
    cfg = get_cfg()
    cfg.merge_from_file(tmp_path / "top.yaml")
    # ".." leaves the real folder, not the link.
    assert (cfg.DATA.PATH_TO_DATA_DIR, cfg.DATA.PATH_PREFIX) == (str(inner), str(tmp_path / "real" / "videos"))
    assert (cfg.OUTPUT_DIR, cfg.TRAIN.CHECKPOINT_FILE_PATH) == (str(tmp_path / "out"), "${CONFIG_DIR}x")


def test_a_circular_chain_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("_BASE_: a.yaml\n", encoding="utf-8")
    message = error_of(tmp_path, "_BASE_: b.yaml\n")
    assert "circular" in message and "a.yaml -> " in message


def test_nothing_is_merged_when_a_part_is_wrong(tmp_path: Path) -> None:
    cfg = get_cfg()
    with pytest.raises(ConfigError):
        cfg.merge_from_list(["NUM_GPUS", 3, "NUM_GPU", 3])
    assert cfg == get_cfg()


def test_a_frozen_config_stays_as_it_is() -> None:
    cfg = get_cfg()
    cfg.freeze()
    with pytest.raises(AttributeError):
        cfg.merge_from_list(["TRAIN.BATCH_SIZE", 3])
    assert cfg.TRAIN.BATCH_SIZE == get_cfg().TRAIN.BATCH_SIZE


def test_copies_share_nothing() -> None:
    cfg = get_cfg()
    cfg.MORPH.LAYERS.append(1)
    cfg.TRAIN.BATCH_SIZE = 1
    assert get_cfg().MORPH.LAYERS == [3, 4, 9, 3] and get_cfg().TRAIN.BATCH_SIZE != 1
    assert isinstance(cfg.clone().TRAIN, ConfigNode)


def test_the_dump_is_plain_yaml() -> None:
    assert yaml.safe_load(get_cfg().dump())["SOLVER"]["BETAS"] == [0.9, 0.999]
