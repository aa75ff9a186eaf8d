"""Training warps of images: crop first, then warp the crop, as in the published image code."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from slowfast.config.defaults import get_cfg
from slowfast.datasets.rand_augment import AugmentOp
from slowfast.datasets.resample import Crop
from slowfast.datasets.transforms import TrainTransform
from tests.datasets.test_resample import smooth_frames

SIZE = 48
MEAN = (124, 116, 104)


class Fixed:
    """A policy that always draws the same operations."""

    fill = None

    def __init__(self, *ops: AugmentOp) -> None:
        self.ops = list(ops)

    def draw(self, rng: np.random.Generator) -> list[AugmentOp]:
        return self.ops


def transform(*ops: AugmentOp, crop: Crop, flip: bool = False, images: bool = True) -> np.ndarray:
    made = TrainTransform(SIZE, jitter_scales=(SIZE, SIZE), flip=flip, images=images, fill=MEAN)
    made.policy = Fixed(*ops)
    made._draw_crop = lambda height, width, rng: crop  # type: ignore[method-assign]
    return made(smooth_frames()[:1], np.zeros(1, int), np.random.default_rng(0))[0]


def published(op: AugmentOp, crop: Crop) -> np.ndarray:
    """timm's order, with Pillow: crop and resize, then the operation on the crop, filled with the mean color."""
    image = Image.fromarray(smooth_frames()[0])
    box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
    view = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box, reducing_gap=None)
    if op.name == "rotate":
        return np.asarray(view.rotate(op.value, Image.Resampling.BILINEAR, fillcolor=MEAN))
    coefficients = {
        "shear_x": (1, op.value, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, op.value, 1, 0),
        "translate_x": (1, 0, op.value * SIZE, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, op.value * SIZE),
    }[op.name]
    return np.asarray(
        view.transform(view.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=MEAN)
    )


@pytest.mark.parametrize(
    "op",
    [
        AugmentOp("rotate", 20.0),
        AugmentOp("rotate", -27.0),
        AugmentOp("shear_x", 0.27),
        AugmentOp("shear_y", -0.2),
        AugmentOp("translate_x", 0.375),
        AugmentOp("translate_x", -0.25),
        AugmentOp("translate_y", 0.4375),
    ],
)
def test_equals_the_published_order(op: AugmentOp) -> None:
    crop = Crop(20, 30, 56, 64)
    ours, theirs = transform(op, crop=crop).astype(int), published(op, crop).astype(int)
    assert np.median(np.abs(ours - theirs)) <= 2  # one resampling instead of two
    filled = [(np.abs(view - MEAN).max(-1) == 0).mean() for view in (ours, theirs)]
    assert filled[0] == pytest.approx(filled[1], abs=0.02) and filled[1] > 0.05


def test_translations_fill_twice_as_much_as_those_of_the_whole_image() -> None:
    crop, op = Crop(24, 32, 48, 64), AugmentOp("translate_x", 0.375)
    whole = transform(op, crop=crop, images=False)
    of_crop = transform(op, crop=crop)
    assert (of_crop == MEAN).all(-1).mean() == pytest.approx(0.375)
    assert (whole == MEAN).all(-1).mean() < 0.375


def test_shifts_join_a_flip_and_other_warps() -> None:
    crop = Crop(0, 0, 96, 96)
    shifted = transform(AugmentOp("translate_x", 0.25), AugmentOp("translate_y", 0.25), crop=crop)
    plain = transform(crop=crop)
    assert np.array_equal(shifted[: SIZE * 3 // 4, : SIZE * 3 // 4], plain[SIZE // 4 :, SIZE // 4 :])
    both = transform(AugmentOp("translate_x", 0.25), AugmentOp("rotate", 90.0), crop=crop)
    one = np.rot90(transform(AugmentOp("translate_x", 0.25), crop=crop))
    assert np.abs(both.astype(int) - one.astype(int)).max() <= 2


def test_the_fill_of_images_is_the_mean_color_and_of_videos_gray() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["AUG.ENABLE", True, "DATA.MEAN", [0.485, 0.456, 0.406]])
    assert TrainTransform.from_config(cfg, images=True).fill == MEAN
    assert TrainTransform.from_config(cfg).fill == (128, 128, 128)
    cfg.merge_from_list(["AUG.AA_TYPE", "autoaugment_torchvision"])
    assert TrainTransform.from_config(cfg, images=True).fill == (0, 0, 0)
