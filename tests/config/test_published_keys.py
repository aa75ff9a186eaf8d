"""Published SlowFast and MorphMLP configs load unchanged, with one warning about ignored keys."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from slowfast.cli.setup import load_config
from slowfast.config import published_keys
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError
from tests.config.yaml_files import PUBLISHED_K400_S16, merge_text


def merge_published(folder: Path, text: str) -> ConfigNode:
    return merge_text(folder, text, "published.yaml")


def test_a_published_morphmlp_file_loads_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "published.yaml"
    path.write_text(PUBLISHED_K400_S16, encoding="utf-8")
    cfg = load_config(path)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.COSINE_END_LR, cfg.DATA.DECODING_BACKEND) == (2e-4, 1e-6, "pyav")
    assert (cfg.MORPH.LAYERS, cfg.DATA.PATH_LABEL_SEPARATOR, cfg.NUM_GPUS) == ([3, 4, 9, 3], ",", 8)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert "\n" not in message
    for part in ("MODEL.ARCH", "MODEL.DROPOUT_RATE", "MORPH.T_STRIDE", "AUG.RE_SPLIT", "torchvision", "pyav"):
        assert part in message
    assert "BASE_LR" not in message


def test_the_morphmlp_settings_here_equal_the_published_ones(tmp_path: Path) -> None:
    published, here = merge_published(tmp_path, PUBLISHED_K400_S16), get_cfg()
    here.merge_from_file(Path(__file__).parents[2] / "configs/K400/K400_MLP_S16x4.yaml")
    other = {k for (k, a), (_, b) in zip(published.keys_by_path(), here.keys_by_path(), strict=True) if a != b}
    assert other == {"OUTPUT_DIR", "TENSORBOARD.ENABLE", "TEST.BATCH_SIZE", "TEST.NUM_ENSEMBLE_VIEWS"}


def test_whole_sections_of_other_networks_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "RESNET: {DEPTH: 50, STRIDES: [[1], [2]]}\nTENSORBOARD: {MODEL_VIS: {ENABLE: True}}\nDIST_BACKEND: nccl\n"
    assert merge_published(tmp_path, text) == get_cfg()
    (record,) = caplog.records
    assert "RESNET, TENSORBOARD.MODEL_VIS, DIST_BACKEND" in record.getMessage()


@pytest.mark.parametrize("decoder", ["decord", "torchvision"])
def test_decoders_that_are_gone_mean_the_default(decoder: str, caplog: pytest.LogCaptureFixture) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["DATA.DECODING_BACKEND", decoder])
    assert cfg.DATA.DECODING_BACKEND == "pyav"
    assert decoder in caplog.text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{USE_CHECKPOINT: True}", True),
        ("{USE_CHECKPOINT: False}", False),
        ("{USE_CHECKPOINT: False, CHECKPOINT_NUM: 2}", False),
        ("{USE_CHECKPOINT: True, CHECKPOINT_NUM: 2}", 2),
        ("{CHECKPOINT_NUM: 3}", 3),
        ("{CHECKPOINT_NUM: [1, 1, 1, 1]}", 1),
    ],
)
def test_published_checkpointing(tmp_path: Path, text: str, wanted: object, caplog: pytest.LogCaptureFixture) -> None:
    value = merge_published(tmp_path, f"MODEL: {text}").MODEL.ACT_CHECKPOINT
    assert value == wanted and type(value) is type(wanted)
    assert "MODEL.ACT_CHECKPOINT" in caplog.text


def test_checkpointing_that_differs_by_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"published.yaml:1: MODEL.CHECKPOINT_NUM.*MODEL.ACT_CHECKPOINT"):
        merge_published(tmp_path, "MODEL: {USE_CHECKPOINT: True, CHECKPOINT_NUM: [4, 0, 0, 0]}")


def test_published_clipping(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert merge_published(tmp_path, "SOLVER: {CLIP_GRAD_VAL: null, CLIP_GRAD_L2NORM: null}") == get_cfg()
    assert not caplog.records
    assert merge_published(tmp_path, "SOLVER: {CLIP_GRADIENT: 20}").SOLVER.CLIP_GRAD_L2NORM == 20.0


def test_published_something_files_feed_bgr_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    published = "TASK: ''\n"  # a key that only published files have
    assert merge_published(tmp_path, f"{published}TRAIN: {{DATASET: sth}}").DATA.REVERSE_INPUT_CHANNEL is True
    assert "BGR" in caplog.text and "DATA.REVERSE_INPUT_CHANNEL True" in caplog.text
    caplog.clear()
    for channels in (True, False):
        given = merge_published(
            tmp_path, f"{published}TRAIN: {{DATASET: sth}}\nDATA: {{REVERSE_INPUT_CHANNEL: {channels}}}"
        )
        assert given.DATA.REVERSE_INPUT_CHANNEL is channels
    assert not merge_published(tmp_path, f"{published}TRAIN: {{DATASET: ssv1}}").DATA.REVERSE_INPUT_CHANNEL
    assert not merge_published(tmp_path, "TRAIN: {DATASET: sth}").DATA.REVERSE_INPUT_CHANNEL  # no published file
    assert "BGR" not in caplog.text
    with pytest.raises(ConfigError, match=r"TRAIN\.DATASET"):
        merge_published(tmp_path, f"{published}TRAIN: {{DATASET: [sth]}}")


def test_no_warning_without_published_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    merge_published(tmp_path, "TRAIN: {BATCH_SIZE: 8}\nDATA: {DECODING_BACKEND: pyav}")
    assert not caplog.records


def test_keys_that_mean_something_here_are_not_listed_as_ignored() -> None:
    declared = {key for key, _ in get_cfg().keys_by_path()}
    assert not declared & published_keys.IGNORED_KEYS
    assert not any(published_keys.is_ignored(key) for key in declared)


def test_a_typo_in_a_published_key_is_still_a_typo() -> None:
    with pytest.raises(ConfigError, match="unknown key MORPH.T_STRID"):
        get_cfg().merge_from_list(["MORPH.T_STRID", "4"])


@pytest.mark.parametrize(
    "override",
    ["SOLVER.LARS_ON True", "MODEL.DROPOUT_RATE=0.5", "DATA.MULTI_LABEL True", "MULTIGRID.SHORT_CYCLE True"],
)
def test_a_key_without_effect_is_an_error_on_the_command_line(
    override: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match=rf"{re.split('[ =]', override)[0]}, .* has no effect here. Remove it"):
        get_cfg().merge_from_list(override.split())
    key, value = re.split("[ =]", override)
    section, _, leaf = key.rpartition(".")
    assert not caplog.records
    assert merge_published(tmp_path, f"{section}: {{{leaf}: {value}}}") == get_cfg()
    assert len(caplog.records) == 1  # in a file, it is a warning


def test_every_merge_gives_its_own_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    merge_published(tmp_path, "MODEL: {ARCH: morph}\n").merge_from_list(["DATA.DECODING_BACKEND", "decord"])
    first, second = (record.getMessage() for record in caplog.records)
    assert "published.yaml: " in first and "MODEL.ARCH" in first
    assert second == "overrides: DATA.DECODING_BACKEND decord is read as pyav, the default"
