"""Extreme values of every key are accepted or rejected with a one-line message, without being slow."""

from __future__ import annotations

import random
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from slowfast.cli import validate_components
from slowfast.cli.setup import load_config
from slowfast.config.defaults import get_cfg
from slowfast.errors import UserError
from slowfast.models.build import build_model
from tests.config.extreme_values import extreme_values

pytestmark = pytest.mark.slow

MEMORY = 8 * 2**30  # bytes of address space: larger requests fail at once instead of freezing the machine
TINY = {
    "MorphMLP": "TRAIN.DATASET kinetics TEST.DATASET kinetics DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 32"
    " DATA.TEST_CROP_SIZE 32 MORPH.LAYERS [1,1,1,1] MORPH.SEGMENT_DIM [4,4,2,1] MORPH.EMBED_DIMS [16,16,16,16]"
    " MORPH.MLP_RATIOS [1,1,1,1]",
    "ConvMLP": "TRAIN.DATASET imagenet TEST.DATASET imagenet TEST.NUM_ENSEMBLE_VIEWS 1 TEST.NUM_SPATIAL_CROPS 1"
    " CONVMLP.LAYERS [1,1] CONVMLP.EMBED_DIMS [16,16] CONVMLP.MLP_RATIOS [1,1] CONVMLP.CONV_DIM 16",
    "EAT": "TRAIN.DATASET imagenet TEST.DATASET imagenet TEST.NUM_ENSEMBLE_VIEWS 1 TEST.NUM_SPATIAL_CROPS 1"
    " EAT.LAYERS 1 EAT.CLASS_LAYERS 1 EAT.EMBED_DIM 16 EAT.HEADS 2",
    "evMLP": "TRAIN.DATASET imagenet TEST.DATASET imagenet TEST.NUM_ENSEMBLE_VIEWS 1 TEST.NUM_SPATIAL_CROPS 1"
    " DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32 EVMLP.PATCH_SIZES [8,2,2] EVMLP.EMBED_DIMS [16,16,16]"
    " EVMLP.LAYERS [1,1,1] EVMLP.MLP_RATIOS [1,1,1] EVMLP.DROPOUT_RATES [0,0,0]",
    "Event2Vec": "TRAIN.DATASET dvsgesture TEST.DATASET dvsgesture TEST.NUM_ENSEMBLE_VIEWS 1 TEST.NUM_SPATIAL_CROPS 1"
    " EVENT2VEC.GRID_SIZE [6,8] EVENT2VEC.EMBED_DIM 16 EVENT2VEC.HEADS 2 EVENT2VEC.MLP_DIM 16 EVENT2VEC.LAYERS 1",
    "EfficientNetV2": "TRAIN.DATASET imagenet TEST.DATASET imagenet TEST.NUM_ENSEMBLE_VIEWS 1 TEST.NUM_SPATIAL_CROPS 1"
    " EFFICIENTNET.LAYERS [1,1,1,1,1,1] EFFICIENTNET.EMBED_DIMS [8,8,8,8,8,8] EFFICIENTNET.HEAD_DIM 8",
    "RegNetY": "TRAIN.DATASET imagenet TEST.DATASET imagenet TEST.NUM_ENSEMBLE_VIEWS 1 TEST.NUM_SPATIAL_CROPS 1"
    " REGNET.LAYERS [1,1] REGNET.EMBED_DIMS [8,16] REGNET.GROUP_WIDTH 8",
}
# Section of each network; all other keys are tried with one network.
OWN = {"MorphMLP": "MORPH.", "ConvMLP": "CONVMLP.", "EAT": "EAT.", "evMLP": "EVMLP.", "Event2Vec": "EVENT2VEC."}
OWN |= {"EfficientNetV2": "EFFICIENTNET.", "RegNetY": "REGNET."}
DEFAULTS = dict(get_cfg().keys_by_path())


@pytest.fixture
def limited_memory() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def overrides_of(network: str, output: Path) -> list[str]:
    common = f"MODEL.MODEL_NAME {network} MODEL.NUM_CLASSES 8 TRAIN.BATCH_SIZE 4 NUM_GPUS 0 OUTPUT_DIR {output}"
    return f"{common} {TINY[network]}".split()


def keys_for(network: str) -> list[str]:
    own = [key for key in DEFAULTS if key.startswith(OWN[network])]
    shared = [
        "DATA.NUM_FRAMES",
        "DATA.TRAIN_CROP_SIZE",
        "DATA.TEST_CROP_SIZE",
        "DVS.SENSOR_SIZE",
        "MODEL.ACT_CHECKPOINT",
    ]
    return own + shared + ["MODEL.NUM_CLASSES"]


def outcome(path: Path, overrides: list[object]) -> str:
    """Return "" for a config that loads and builds, else its error message."""
    try:
        cfg = load_config(path, overrides)
        with torch.device("meta"):
            build_model(cfg)
    except UserError as error:
        return str(error)
    return ""


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "empty.yaml"
    path.touch()
    return path


def some_extreme_values(key: str, count: int) -> list[object]:
    """Return a NUL character and a sample seeded by the key, so that all values are tried over all keys."""
    values = list(extreme_values(DEFAULTS[key]))
    return ["a\0b", *random.Random(key).sample(values, count)]


def outcomes(path: Path, base: list[str], key: str, count: int) -> list[str]:
    messages = [outcome(path, [*base, key, value]) for value in some_extreme_values(key, count)]
    for message in filter(None, messages):
        assert message.isprintable() and len(message) < 1000, (key, message)
    assert messages[0], key  # a NUL character is refused everywhere
    return messages


@pytest.mark.parametrize("network", TINY)
def test_extreme_values_of_what_a_network_reads(network: str, empty: Path, limited_memory: None) -> None:
    base = overrides_of(network, empty.parent / "out")
    assert outcome(empty, [*base]) == ""
    for key in keys_for(network):
        outcomes(empty, base, key, 12)


def test_extreme_values_of_all_other_keys(empty: Path, limited_memory: None) -> None:
    base = overrides_of("MorphMLP", empty.parent / "out")
    for key in DEFAULTS:
        outcomes(empty, base, key, 3)


TOO_LARGE = (
    ("MorphMLP", "MORPH.EMBED_DIMS [65536,65536,65536,65536] MORPH.SEGMENT_DIM [1,1,1,1]", "the weights of MorphMLP"),
    (
        "MorphMLP",
        "DATA.TRAIN_CROP_SIZE 16384 DATA.TRAIN_JITTER_SCALES [16384,16384] TRAIN.BATCH_SIZE 1000000",
        "BATCH_SIZE",
    ),
    ("MorphMLP", "TEST.BATCH_SIZE 1000000 DATA.NUM_FRAMES 256", "TEST.BATCH_SIZE"),
    ("evMLP", "EVMLP.EMBED_DIMS [65536,65536,65536]", "the weights of evMLP"),
    (
        "Event2Vec",
        "DVS.SENSOR_SIZE [16384,16384] EVENT2VEC.GRID_SIZE [16384,16384] EVENT2VEC.EMBED naive",
        "the weights",
    ),
)


@pytest.mark.parametrize(("network", "settings", "part"), TOO_LARGE)
def test_what_no_machine_can_hold_is_refused(
    network: str, settings: str, part: str, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate_components, "machine_memory", lambda: 16 * 2**30)
    message = outcome(empty, [*overrides_of(network, empty.parent / "out"), *settings.split()])
    assert part in message and "GiB of memory, but this machine has 16.0 GiB" in message


def test_the_memory_of_this_machine_is_found() -> None:
    assert 2**28 < validate_components.machine_memory() <= psutil.virtual_memory().total
