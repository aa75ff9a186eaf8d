"""Published recipes: each config here has the values that the published code ran with.

The YAML files of MorphMLP are loaded unchanged. The other sources are YAML files of other programs, argparse options
or a paper, whose values are compared with the configs here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slowfast.cli.setup import load_config
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from tests.config.yaml_files import PUBLISHED_K400_S16

CONFIGS = Path(__file__).parents[2] / "configs"
LAYERS = {"S": "[3, 4, 9, 3]", "B": "[4, 6, 15, 4]"}
TEST_K400 = "TEST.NUM_ENSEMBLE_VIEWS 4 TEST.NUM_SPATIAL_CROPS 1"
TEST_SSV = "TEST.NUM_ENSEMBLE_VIEWS 1 TEST.NUM_SPATIAL_CROPS 3"

# Config: BASE_LR, WARMUP_EPOCHS, DROP_DEPTH_RATE, MAX_EPOCH, DATA.SAMPLING_RATE.
MORPHMLP: dict[str, tuple[float, float, float, int, int]] = {
    "K400/K400_MLP_S16x4": (2e-4, 10, 0.1, 60, 4),
    "K400/K400_MLP_S32x4": (2e-4, 10, 0.1, 60, 4),
    "K400/K400_MLP_B16x4": (2e-4, 10, 0.3, 60, 4),
    "K400/K400_MLP_B32x4": (2e-4, 30, 0.3, 60, 4),
    "SSV1/SSV1_MLP_S16": (4e-4, 5, 0.3, 60, 4),
    "SSV1/SSV1_MLP_S32": (4e-4, 5, 0.3, 60, 4),
    "SSV1/SSV1_MLP_B16": (4e-4, 5, 0.5, 60, 4),
    "SSV1/SSV1_MLP_B32": (4e-4, 5, 0.5, 60, 8),
    "SSV2/SSV2_MLP_S16": (4e-4, 5, 0.3, 60, 4),
    "SSV2/SSV2_MLP_S32": (4e-4, 5, 0.3, 60, 8),
    "SSV2/SSV2_MLP_B16": (4e-4, 5, 0.6, 60, 4),
    "SSV2/SSV2_MLP_B32": (4e-4, 5, 0.6, 64, 8),
}


def published_file(name: str) -> str:
    """Return the YAML file of the authors, derived from that of K400_MLP_S16x4."""
    rate, warmup, drop, epochs, stride = MORPHMLP[name]
    data, size, frames = name[:4], name.split("_")[2][0], 32 if "32" in name else 16
    text = PUBLISHED_K400_S16
    changes = {
        "NUM_FRAMES: 16, SAMPLING_RATE: 4": f"NUM_FRAMES: {frames}, SAMPLING_RATE: {stride}",
        "LAYERS: [3, 4, 9, 3]": f"LAYERS: {LAYERS[size]}",
        "DROP_DEPTH_RATE: 0.1": f"DROP_DEPTH_RATE: {drop}",
        "video_morphmlp_s": f"video_morphmlp_{size.lower()}",
        "BASE_LR: 2e-4": f"BASE_LR: {rate}",
        "WARMUP_EPOCHS: 10.0": f"WARMUP_EPOCHS: {warmup}",
        "MAX_EPOCH: 60": f"MAX_EPOCH: {epochs}",
        "MODEL_NAME: MorphMLP": "MODEL_NAME: MorphMLP_32" if frames == 32 else "MODEL_NAME: MorphMLP",
    }
    if data != "K400":
        lists = "PATH_TO_DATA_DIR: 'data_list/sthv1'"
        if data == "SSV2":
            lists = (
                "PATH_TO_DATA_DIR: 'data_list/sthv2', LABEL_PATH_TEMPLATE: 'somesomev2_rgb_{}_split.txt', "
                "IMAGE_TEMPLATE: '{:06d}.jpg'"
            )
        changes |= {
            "DATASET: kinetics": "DATASET: sth",
            "PATH_TO_DATA_DIR: 'data_list/k400'": f"{lists}, RANDOM_FLIP: False",
            "NUM_CLASSES: 400": "NUM_CLASSES: 174",
        }
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize("name", MORPHMLP)
def test_a_published_morphmlp_command(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{Path(name).name}.yaml"
    path.write_text(published_file(name), encoding="utf-8")
    command = TEST_K400 if name.startswith("K400") else TEST_SSV
    overrides = ["DATA.PATH_PREFIX", "videos", "TRAIN.ENABLE", False, *command.split(), "OUTPUT_DIR", tmp_path / "out"]
    cfg = load_config(path, overrides)
    check_common(cfg)
    rate, warmup, drop, epochs, _ = MORPHMLP[name]
    solver = cfg.SOLVER
    assert (solver.BASE_LR, solver.WARMUP_EPOCHS, solver.MAX_EPOCH) == (rate, warmup, epochs)
    assert cfg.MORPH.DROP_DEPTH_RATE == drop and str(cfg.MORPH.LAYERS) in LAYERS.values()
    something = not name.startswith("K400")
    assert cfg.DATA.REVERSE_INPUT_CHANNEL is something and cfg.DATA.RANDOM_FLIP is not something
    assert (cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS) == ((1, 3) if something else (4, 1))
    if something:
        version, digits = name[3], 5 if name.startswith("SSV1") else 6
        assert cfg.DATA.LABEL_PATH_TEMPLATE == f"somesomev{version}_rgb_{{}}_split.txt"
        assert cfg.DATA.IMAGE_TEMPLATE.format(7) == f"{7:0{digits}d}.jpg"
    assert different_from_here(cfg, name) <= ELSEWHERE


def check_common(cfg: ConfigNode) -> None:
    """Check the values that all MorphMLP files and the defaults of their code have in common."""
    data, aug, mix, solver = cfg.DATA, cfg.AUG, cfg.MIXUP, cfg.SOLVER
    assert data.PATH_LABEL_SEPARATOR == "," and data.USE_OFFSET_SAMPLING and data.DECODING_BACKEND == "pyav"
    assert (data.MEAN, data.STD, data.TARGET_FPS) == ([0.45] * 3, [0.225] * 3, 30)
    assert (data.TRAIN_JITTER_SCALES, data.TRAIN_CROP_SIZE, data.TEST_CROP_SIZE) == ([256, 320], 224, 224)
    assert (aug.NUM_SAMPLE, aug.AA_TYPE, aug.INTERPOLATION) == (2, "rand-m7-n4-mstd0.5-inc1", "bicubic")
    assert (aug.RE_PROB, aug.RE_MODE, aug.RE_COUNT, aug.REPEATED) == (0.25, "pixel", 1, 1)
    assert (mix.ALPHA, mix.CUTMIX_ALPHA, mix.PROB, mix.SWITCH_PROB, mix.LABEL_SMOOTH_VALUE) == (0.8, 1, 1, 0.5, 0.1)
    assert (solver.OPTIMIZING_METHOD, solver.WEIGHT_DECAY, solver.ZERO_WD_1D_PARAM) == ("adamw", 0.05, True)
    assert solver.CLIP_GRAD_L2NORM == 20 and solver.CLIP_GRAD_VAL == 0  # the default of the code
    assert (solver.WARMUP_START_LR, solver.COSINE_END_LR, solver.BASE_LR_SCALE_NUM_SHARDS) == (1e-6, 1e-6, True)
    assert cfg.TRAIN.BATCH_SIZE == 64 and cfg.NUM_GPUS == 8 and cfg.MODEL.LOSS_FUNC == "soft_cross_entropy"


# Keys that the configs here set in another way or leave to the command line.
ELSEWHERE = {
    *(
        "OUTPUT_DIR",
        "TENSORBOARD.ENABLE",
        "TEST.BATCH_SIZE",
        "TRAIN.ENABLE",
        "DATA.PATH_PREFIX",
        "DATA.PATH_TO_DATA_DIR",
    ),
    *("TRAIN.DATASET", "TEST.DATASET", "MODEL.MODEL_NAME"),  # sth and MorphMLP_32 are other names of the same
    # Without effect on Something-Something.
    *("DATA.SAMPLING_RATE", "DATA.USE_OFFSET_SAMPLING", "DATA.PATH_LABEL_SEPARATOR"),
}


def different_from_here(cfg: ConfigNode, name: str) -> set[str]:
    here = get_cfg()
    here.merge_from_file(CONFIGS / f"{name}.yaml")
    return {k for (k, a), (_, b) in zip(cfg.keys_by_path(), here.keys_by_path(), strict=True) if a != b}


IMAGENET: dict[str, Any] = {
    "DATA.MEAN": [0.485, 0.456, 0.406],
    "DATA.STD": [0.229, 0.224, 0.225],
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": [0.08, 1.0],
    "MIXUP.LABEL_SMOOTH_VALUE": 0.1,
    "SOLVER.COSINE_END_LR": 1e-5,
    "SOLVER.WARMUP_EPOCHS": 5,
    "AUG.REPEATED": 1,
    "AUG.NUM_SAMPLE": 1,
    "AUG.RE_COUNT": 1,
    "TRAIN.BATCH_SIZE": 1024,
}
TIMM: dict[str, Any] = {
    "AUG.AA_TYPE": "rand-m9-mstd0.5-inc1",
    "AUG.INTERPOLATION": "bicubic",
    "AUG.RE_PROB": 0.25,
    "AUG.RE_MODE": "pixel",
    "MIXUP.ALPHA": 0.8,
    "MIXUP.CUTMIX_ALPHA": 1.0,
    "MIXUP.PROB": 1.0,
    "MIXUP.SWITCH_PROB": 0.5,
    "SOLVER.OPTIMIZING_METHOD": "adamw",
    "SOLVER.WEIGHT_DECAY": 0.05,
}
OTHERS: dict[str, dict[str, Any]] = {
    # SHI-Labs/Convolutional-MLPs, convmlp_s_imagenet.yml, with timm's defaults.
    "ImageNet/CONVMLP_S": IMAGENET
    | TIMM
    | {
        "SOLVER.BASE_LR": 5e-4,
        "SOLVER.WARMUP_START_LR": 1e-4,
        "SOLVER.COOLDOWN_EPOCHS": 10,
        "SOLVER.MAX_EPOCH": 310,
        "MODEL.EMA": True,
        "MODEL.EMA_DECAY": 0.99996,
    },
    # TencentYoutuResearch/BaseArchitecture-EAT, the defaults of main.py: the rate is that for 512 images.
    "ImageNet/EAT_TI": IMAGENET
    | TIMM
    | {
        "SOLVER.BASE_LR": 5e-4 * 1024 / 512,
        "SOLVER.WARMUP_START_LR": 1e-6,
        "SOLVER.MAX_EPOCH": 300,
        "SOLVER.CLIP_GRAD_L2NORM": 1.0,
        "MODEL.EMA": False,
    },
    # arXiv 2507.01927: torchvision's recipe, 4 x 256 images.
    "ImageNet/EVMLP": IMAGENET
    | {
        "AUG.AA_TYPE": "autoaugment_torchvision",
        "AUG.INTERPOLATION": "bilinear",
        "AUG.RE_PROB": 0.1,
        "AUG.RE_MODE": "const",
        "MIXUP.ALPHA": 0.2,
        "SOLVER.OPTIMIZING_METHOD": "sgd",
        "SOLVER.BASE_LR": 0.1,
        "SOLVER.MOMENTUM": 0.9,
        "SOLVER.WEIGHT_DECAY": 1e-5,
        "SOLVER.WARMUP_START_LR": 1e-3,
        "SOLVER.COSINE_AFTER_WARMUP": True,
        "SOLVER.MAX_EPOCH": 300,
        "EVENT.THRESHOLD": 0.05,
        "EVENT.RESIZE": "squash",
    },
    # arXiv 2504.15371 v1 for ASL-DVS.
    "DVS/ASLDVS_EVENT2VEC": {
        "DATA.REVERSE_INPUT_CHANNEL": False,
        "DVS.NUM_EVENTS": 255,
        "DVS.SENSOR_SIZE": [180, 240],
        "EVENT2VEC.GRID_SIZE": [36, 48],
        "TEST.NUM_ENSEMBLE_VIEWS": 4,
        "TRAIN.BATCH_SIZE": 128,
        "SOLVER.BASE_LR": 1e-3,
        "SOLVER.MAX_EPOCH": 64,
        "SOLVER.OPTIMIZING_METHOD": "adamw",
        "SOLVER.WEIGHT_DECAY": 0.0,
    },
    # arXiv 2504.15371 v3; rates are those of 256 recordings.
    "DVS/ASLDVS_EVENT2VEC_V3": {
        "DVS.NUM_EVENTS": 1024,
        "TEST.NUM_ENSEMBLE_VIEWS": 10,
        "SOLVER.BASE_LR": 1e-3 * 448 / 256,
        "SOLVER.MAX_EPOCH": 64,
        "SOLVER.WARMUP_EPOCHS": 4.0,
        "SOLVER.WEIGHT_DECAY": 0.0,
        "AUG.ENABLE": False,
    },
    "DVS/DVSGESTURE_EVENT2VEC_V3": {
        "DVS.NUM_EVENTS": 4096,
        "DVS.AUG_PROB": 0.6,
        "DVS.ERASE_PROB": 0.1,
        "DVS.DROP_CHUNKS": [8, 256],
        "SOLVER.BASE_LR": 1e-3,
        "SOLVER.MAX_EPOCH": 64 * 24,
        "SOLVER.CLIP_GRAD_L2NORM": 1.0,
    },
    "DVS/DVSLIP_EVENT2VEC_V3_CLUSTERS": {
        "DVS.CLUSTERS": True,
        "DVS.DROP_CHUNKS": [4, 128],
        "EVENT2VEC.TOKEN_MIX": 0.5,
        "EVENT2VEC.INTENSITY_DROP": 0.1,
        "EVENT2VEC.DROP_DEPTH_RATE": 0.4,
        "SOLVER.MAX_EPOCH": 64 * 3,
        "SOLVER.WEIGHT_DECAY": 0.05,
        "MIXUP.LABEL_SMOOTH_VALUE": 0.1,
        "TEST.NUM_ENSEMBLE_VIEWS": 1,
    },
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_published_recipe_of_another_program(name: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(CONFIGS / f"{name}.yaml")
    values = dict(cfg.keys_by_path())
    wanted = OTHERS[name]
    assert {key: values[key] for key in wanted} == wanted
