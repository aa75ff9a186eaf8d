"""Invalid configs: each error is one line that names the keys and the solution; published settings are valid."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from slowfast.cli.setup import load_config
from slowfast.cli.validate import check_batch_size, check_pretrain
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError

S16 = Path(__file__).parents[2] / "configs/K400/K400_MLP_S16x4.yaml"


def load(tmp_path: Path, *overrides: object, world_size: int = 1) -> ConfigNode:
    return load_config(S16, ["OUTPUT_DIR", tmp_path / "out", *overrides], world_size)


def error_of(tmp_path: Path, *overrides: object, world_size: int = 1) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, *overrides, world_size=world_size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_loaded_is_frozen_and_reads_back(tmp_path: Path) -> None:
    cfg = load(tmp_path, "TEST.NUM_ENSEMBLE_VIEWS", 3)
    assert cfg.is_frozen() and cfg.TEST.NUM_ENSEMBLE_VIEWS == 3
    with pytest.raises(AttributeError):
        cfg.TRAIN.BATCH_SIZE = 1
    (tmp_path / "config.yaml").write_text(cfg.dump(), encoding="utf-8")
    assert load_config(tmp_path / "config.yaml") == cfg


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ("TRAIN.ENABLE False TEST.ENABLE False", ("TRAIN.ENABLE", "TEST.ENABLE", "nothing to do")),
        ("MODEL.MODEL_NAME MorphMPL", ("MODEL.MODEL_NAME", "Did you mean 'MorphMLP'?")),
        ("TRAIN.DATASET kinetic", ("TRAIN.DATASET", "Did you mean 'kinetics'?")),
        ("TEST.DATASET Kinetics", ("TEST.DATASET", "Did you mean 'kinetics'?")),
        ("SOLVER.OPTIMIZING_METHOD adamW", ("Did you mean 'adamw'? Choices: adam, adamw, sgd",)),
        ("SOLVER.LR_POLICY cosin", ("Did you mean 'cosine'?",)),
        ("MODEL.LOSS_FUNC soft_crossentropy", ("Did you mean 'soft_cross_entropy'?",)),
        ("TRAIN.AMP_DTYPE bf16", ("unknown value 'bf16'. Choices: bfloat16, float16",)),
        ("TEST.ENSEMBLE_ON logit", ("Did you mean 'logits'?",)),
        ("DATA.ENSEMBLE_METHOD mean", ("DATA.ENSEMBLE_METHOD", "max", "sum")),
        ("DATA.DECODING_BACKEND opencv", ("DATA.DECODING_BACKEND", "pyav")),
        ("TRAIN.CHECKPOINT_TYPE caffe2", ("TRAIN.CHECKPOINT_TYPE", "paddle")),
        ("TEST.FRAME_ORDER shuffle", ("Did you mean 'shuffled'?",)),
        ("AUG.RE_MODE pixels", ("Did you mean 'pixel'?",)),
        ("AUG.INTERPOLATION cubic", ("AUG.INTERPOLATION", "bicubic")),
        ("AUG.AA_TYPE rand-x9", ("AUG.AA_TYPE", "rand-m7-n4-mstd0.5-inc1")),
        ("TEST.NUM_SPATIAL_CROPS 2", ("TEST.NUM_SPATIAL_CROPS (2)", "1 or 3")),
        ("TRAIN.BATCH_SIZE 0", ("TRAIN.BATCH_SIZE (0)", "from 1")),
        ("DATA.NUM_FRAMES 0", ("DATA.NUM_FRAMES", "from 1")),
        ("NUM_GPUS -1", ("NUM_GPUS", "from 0")),
        ("MIXUP.PROB 1.5", ("MIXUP.PROB", "from 0 to 1")),
        ("MORPH.DROP_DEPTH_RATE 1", ("below 1",)),
        ("SOLVER.BASE_LR 0", ("SOLVER.BASE_LR", "above 0")),
        ("SOLVER.BETAS [0.9,1.0]", ("SOLVER.BETAS", "below 1")),
        ("DATA.MEAN [0.5,0.5]", ("DATA.MEAN", "2 values", "must have 3")),
        ("DATA.STD [0.5,0.5,0]", ("DATA.STD", "each value must be from 1e-06")),
        ("MORPH.LAYERS [3,4,9]", ("MORPH.LAYERS has 3", "MORPH.EMBED_DIMS has 4", "one per stage")),
        ("MODEL.LOSS_FUNC cross_entropy", ("MIXUP.ENABLE", "Set MODEL.LOSS_FUNC soft_cross_entropy")),
        ("MIXUP.ALPHA 0 MIXUP.CUTMIX_ALPHA 0", ("MIXUP.ALPHA", "MIXUP.CUTMIX_ALPHA")),
        ("SOLVER.WARMUP_EPOCHS 60", ("SOLVER.WARMUP_EPOCHS (60) must be smaller than SOLVER.MAX_EPOCH (60)",)),
        ("SOLVER.LR_POLICY steps_with_relative_lrs", ("SOLVER.STEPS", "SOLVER.LRS", "at least one")),
        (
            "SOLVER.LR_POLICY steps_with_relative_lrs SOLVER.STEPS [0,5] SOLVER.LRS [1]",
            ("SOLVER.STEPS has 2 values but SOLVER.LRS has 1",),
        ),
        (
            "SOLVER.LR_POLICY steps_with_relative_lrs SOLVER.STEPS [1,5] SOLVER.LRS [1,0.1]",
            ("must start at 0 and increase",),
        ),
        ("DATA.TRAIN_JITTER_ASPECT_RELATIVE []", ("DATA.TRAIN_JITTER_SCALES_RELATIVE", "both")),
        ("DATA.TEST_CROP_SIZE 300", ("DATA.TEST_CROP_SIZE", "300")),
        (f"RNG_SEED {2**63}", ("RNG_SEED", "below 2**63")),
        ("DATA_LOADER.NUM_WORKERS 1025", ("DATA_LOADER.NUM_WORKERS (1025)", "to 1,024")),
        ("AUG.INTERPOLATION bicubik", ("AUG.INTERPOLATION", "Did you mean 'bicubic'?")),
        ("SHARD_ID 1", ("SHARD_ID (1)", "NUM_SHARDS (1)")),
        ("SHARD_ID 1 NUM_SHARDS 2", ("torchrun numbers this machine 0",)),
        ("TRAIN.ACCUMULATION_STEPS 3", ("TRAIN.BATCH_SIZE (64)", "multiple of 3", "such as 63")),
        ("TRAIN.CHECKPOINT_FILE_PATH no/weights.pth", ("TRAIN.CHECKPOINT_FILE_PATH", "does not exist")),
        ("TEST.CHECKPOINT_FILE_PATH no/weights.pth", ("TEST.CHECKPOINT_FILE_PATH", "does not exist")),
        ("MORPH.SEGMENT_DIM [14,28,28,50]", ("MORPH.SEGMENT_DIM",)),
        ("SOLVER.NO_WD_PARAMS [head.wieght]", ("NO_WD_PARAMS", "head.wieght", "Did you mean head.weight?")),
        (
            "SOLVER.OPTIMIZING_METHOD sgd SOLVER.DAMPENING 0.1",
            ("SOLVER.NESTEROV does not support dampening", "Set SOLVER.NESTEROV False"),
        ),
        ("MODEL.FREEZE_BACKBONE True BN.USE_PRECISE_STATS True", ("FREEZE_BACKBONE", "BN.USE_PRECISE_STATS")),
        ("MODEL.FREEZE [blocks1] BN.USE_PRECISE_STATS True", ("MODEL.FREEZE", "BN.USE_PRECISE_STATS")),
        ("MODEL.FREEZE [blocks1,bloks2]", ("MODEL.FREEZE", "bloks2", "Did you mean blocks2?")),
        ("MODEL.FREEZE [stage5]", ("MODEL.FREEZE", "Its stages are stage1 to stage4")),
        ('MODEL.FREEZE ["*"]', ("MODEL.FREEZE", "every parameter is frozen")),
        ("MODEL.FREEZE [head] MODEL.FREEZE_BACKBONE True", ("MODEL.FREEZE", "every parameter is frozen")),
        ("SOLVER.LAYER_DECAY 0", ("SOLVER.LAYER_DECAY (0.0)", "above 0")),
        ("SOLVER.HEAD_LR_MULT 0", ("SOLVER.HEAD_LR_MULT (0.0)", "above 0")),
    ],
)
def test_impossible_configs(tmp_path: Path, overrides: str, parts: tuple[str, ...]) -> None:
    message = error_of(tmp_path, *overrides.split())
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    "overrides",
    [
        "TRAIN.ENABLE False SOLVER.MAX_EPOCH 1 TRAIN.BATCH_SIZE 7",  # training's own rules
        "TEST.ENABLE False TEST.CHECKPOINT_FILE_PATH no/weights.pth",
        "TEST.NUM_SPATIAL_CROPS 3 DATA.TRAIN_JITTER_SCALES [224,224]",
        "MODEL.ACT_CHECKPOINT 2 TRAIN.MIXED_PRECISION True TRAIN.AMP_DTYPE float16 NUM_GPUS 0",
        "SOLVER.LR_POLICY steps_with_relative_lrs SOLVER.STEPS [0,30,50] SOLVER.LRS [1,0.1,0.01]",
        "MODEL.MODEL_NAME MorphMLP_32 DATA.NUM_FRAMES 32",
        "SOLVER.OPTIMIZING_METHOD sgd SOLVER.MOMENTUM 0",
        "SOLVER.OPTIMIZING_METHOD sgd SOLVER.NESTEROV False SOLVER.DAMPENING 0.1",
    ],
)
def test_possible_configs(tmp_path: Path, overrides: str) -> None:
    load(tmp_path, *overrides.split())


def test_the_batch_is_shared_evenly(tmp_path: Path) -> None:
    load(tmp_path, world_size=8)
    assert "3 processes" in error_of(tmp_path, world_size=3)
    load(tmp_path, "TRAIN.ENABLE", False, world_size=3)
    cfg = get_cfg()
    cfg.merge_from_list(["TRAIN.BATCH_SIZE", 1])
    with pytest.raises(ConfigError, match="multiple of 4 .*such as 4"):
        check_batch_size(cfg, 4)


def test_missing_pretrained_weights_stop_only_training_from_them(tmp_path: Path) -> None:
    cfg = load(tmp_path, "MORPH.PRETRAIN_PATH", "no/weights.pth")
    with pytest.raises(ConfigError, match='MORPH.PRETRAIN_PATH: no/weights.pth .*MORPH.PRETRAIN_PATH ""'):
        check_pretrain(cfg, resuming=False)
    check_pretrain(cfg, resuming=True)
    check_pretrain(load(tmp_path, "MORPH.PRETRAIN_PATH", "no/weights.pth", "TRAIN.ENABLE", False), resuming=False)
    check_pretrain(load(tmp_path, "MORPH.PRETRAIN_PATH", ""), resuming=False)
    (tmp_path / "w.pth").write_bytes(b"")
    check_pretrain(load(tmp_path, "MORPH.PRETRAIN_PATH", tmp_path / "w.pth"), resuming=False)


def test_a_near_file_name_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "weights_s16.pth").write_bytes(b"")
    message = error_of(tmp_path, "TEST.CHECKPOINT_FILE_PATH", tmp_path / "weights_s61.pth")
    assert f"Did you mean {tmp_path / 'weights_s16.pth'}?" in message


def test_a_checkpoint_that_this_run_will_write_may_be_tested(tmp_path: Path) -> None:
    path = tmp_path / "out" / "checkpoints" / "checkpoint_epoch_00010.pyth"
    load(tmp_path, "TEST.CHECKPOINT_FILE_PATH", path)
    assert "does not exist" in error_of(tmp_path, "TEST.CHECKPOINT_FILE_PATH", path, "TRAIN.ENABLE", False)


def test_output_dirs_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "is not a directory" in error_of(tmp_path, "OUTPUT_DIR", tmp_path / "file" / "x")
    assert "OUTPUT_DIR must not be empty" in error_of(tmp_path, "OUTPUT_DIR", "")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root can write everywhere
    assert "not writable" in error_of(tmp_path)
