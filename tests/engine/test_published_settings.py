"""Published MorphMLP networks: one complete optimizer step on one clip.

At the published size: 49 tokens are the fewest that the last stage's segments of 49 fill, and 224 x 224 pixels give
just these. Some 40 s of one idle core; only the batch (one clip) is smaller than published. The eight settings for
Something-Something train the same networks with another head; `tests/config` loads and builds them.
"""

from __future__ import annotations

import fcntl
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from slowfast.cli.setup import load_config
from slowfast.datasets.types import TrainBatch
from slowfast.engine.forward import ClipForward
from slowfast.engine.optim import build_optimizer
from slowfast.engine.step import TrainStep
from slowfast.models import build_model
from slowfast.utils.distributed import World
from slowfast.utils.machine import keep_freed_memory

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / "configs"
# Setting: frames and classes.
SETTINGS = {
    f"{data}/{data}_MLP_{size}{frames}{stride}": (frames, classes)
    for data, stride, classes in (("K400", "x4", 400), ("SSV1", "", 174), ("SSV2", "", 174))
    for size in "SB"
    for frames in (16, 32)
}
ONE_CLIP = ["TRAIN.BATCH_SIZE", 1, "AUG.NUM_SAMPLE", 1, "NUM_GPUS", 0]


def test_these_are_the_published_settings() -> None:
    paths = [path for folder in ("K400", "SSV1", "SSV2") for path in CONFIGS.glob(f"{folder}/*_MLP_*.yaml")]
    found = {path.relative_to(CONFIGS).with_suffix("").as_posix() for path in paths}
    assert found == SETTINGS.keys() and len(SETTINGS) == 12


@pytest.fixture
def alone() -> Iterator[None]:
    """One setting at a time, also where tests run in parallel: each needs up to 6 GiB of memory."""
    with Path(__file__).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("name", SETTINGS)
def test_the_networks_are_those_of_kinetics(name: str, tmp_path: Path) -> None:
    """All parameters but the head's have the shapes of the Kinetics setting of the same size and length."""
    same = f"K400/K400_MLP_{name.split('_MLP_')[1].removesuffix('x4')}x4"
    with torch.device("meta"):
        networks = [build_model(load_config(CONFIGS / f"{n}.yaml", ["OUTPUT_DIR", tmp_path])) for n in (name, same)]
    shapes = [{k: v.shape for k, v in network.state_dict().items() if "head." not in k} for network in networks]
    assert shapes[0] == shapes[1] and len(shapes[0]) > 500
    assert networks[0].head.out_features == SETTINGS[name][1]


@pytest.mark.extensive
@pytest.mark.parametrize("name", [name for name in SETTINGS if name.startswith("K400") and "16x4" in name])
def test_one_step(name: str, tmp_path: Path, alone: None) -> None:
    keep_freed_memory()  # as in a run
    frames, classes = SETTINGS[name]
    cfg = load_config(CONFIGS / f"{name}.yaml", [*ONE_CLIP, "OUTPUT_DIR", tmp_path])
    assert (cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE, cfg.MODEL.NUM_CLASSES) == (frames, 224, classes)
    torch.manual_seed(0)
    model = build_model(cfg)
    before = [p.detach().clone() for p in model.parameters()]
    step = TrainStep(
        cfg, World(), model, build_optimizer(cfg, model), ClipForward.from_config(cfg, torch.device("cpu"))
    )
    clip = torch.randint(0, 256, (1, frames, 224, 224, 3), dtype=torch.uint8)
    loss, _ = step(TrainBatch(clip, torch.tensor([classes - 1]), [], []), 0, 0, cfg.SOLVER.BASE_LR)
    assert float(loss) == pytest.approx(math.log(classes), abs=1)  # random guessing, for one clip
    for (key, parameter), old in zip(model.named_parameters(), before, strict=True):
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert parameter.isfinite().all()
        if parameter.grad.any():  # the temporal Linears start at 0 and hold some of the gradients there
            assert not torch.equal(parameter, old), key
