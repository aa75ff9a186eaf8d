"""Training and view transforms; images are cropped first, then warped, as in the published image code."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from slowfast.config.defaults import get_cfg
from slowfast.datasets.photometric import RandomErasing, apply_photometric
from slowfast.datasets.rand_augment import AugmentOp
from slowfast.datasets.resample import Crop
from slowfast.datasets.transforms import TrainTransform, ViewTransform
from slowfast.errors import ConfigError
from tests.datasets.test_resample import smooth_frames

# ------------------------------------------------------------------ clips of videos
RESIZED = {"scales_relative": (0.08, 1.0), "aspect_relative": (0.75, 4 / 3)}


def frames(count: int = 5, height: int = 72, width: int = 96) -> np.ndarray:
    noise = np.random.default_rng(1).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 2) for frame in noise])


def full_transform(**changes: Any) -> TrainTransform:
    arguments = dict(
        **RESIZED,
        aa_type="rand-m7-n4-mstd0.5-inc1",
        interpolation="bicubic",
        erasing=RandomErasing(0.25, "pixel", 1, [0.45] * 3, [0.225] * 3),
    )
    return TrainTransform(48, **(arguments | changes))


# ------------------------------------------------------------------ training
@pytest.mark.parametrize("height,width", [(72, 96), (96, 72), (3, 200), (1, 1)])
def test_shape_and_type_for_any_frame(height: int, width: int) -> None:
    source = frames(3, height, width)
    for transform in (full_transform(), TrainTransform(48, jitter_scales=(56, 70), color_jitter=0.4)):
        for seed in range(40):
            clip = transform(source, np.array([0, 1, 1, 2]), np.random.default_rng(seed))
            assert clip.shape == (4, 48, 48, 3) and clip.dtype == np.uint8


def test_same_seed_same_bytes_and_the_frames_stay() -> None:
    source = frames()
    before = source.copy()
    rows = np.arange(5)
    transform = full_transform(interpolation="random")
    clips = [transform(source, rows, np.random.default_rng(seed)) for seed in (*range(40), *range(40))]
    assert all(np.array_equal(a, b) for a, b in zip(clips[:40], clips[40:], strict=True))
    assert len({clip.tobytes() for clip in clips}) == 40
    assert np.array_equal(source, before)


@pytest.mark.parametrize("rows", [[0, 0, 1, 1, 2], [4, 4, 4, 4, 4], [3, 1, 4, 0, 2]])
def test_repeated_and_reordered_frames(rows: list[int]) -> None:
    source, transform = frames(), full_transform(erasing=None)
    for seed in range(20):
        straight = transform(source, np.arange(5), np.random.default_rng(seed))
        clip = transform(source, np.array(rows), np.random.default_rng(seed))
        assert np.array_equal(clip, straight[rows])


def test_all_frames_share_one_draw() -> None:
    source = np.repeat(frames(1), 6, axis=0)
    for seed in range(30):
        clip = full_transform(erasing=None)(source, np.arange(6), np.random.default_rng(seed))
        assert (clip == clip[0]).all()


def test_whole_frame_crop_without_augmentation_is_a_resize_or_its_mirror() -> None:
    source = frames(1, 64, 64)
    transform = TrainTransform(48, scales_relative=(1.0, 1.0), aspect_relative=(1.0, 1.0))
    plain = cv2.resize(source[0], (48, 48))
    seen = {}
    for seed in range(20):
        clip = transform(source, np.zeros(1, int), np.random.default_rng(seed))[0]
        seen[clip.tobytes()] = clip
    assert set(seen) == {plain.tobytes(), plain[:, ::-1].tobytes()}
    still = TrainTransform(48, scales_relative=(1.0, 1.0), aspect_relative=(1.0, 1.0), flip=False)
    clips = [still(source, np.zeros(1, int), np.random.default_rng(seed))[0] for seed in range(20)]
    assert all(np.array_equal(clip, plain) for clip in clips)


def test_photometric_operations_act_on_the_crop_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    source = frames(2, 64, 64)
    ops = [
        AugmentOp("solarize", 77),
        AugmentOp("translate_x", 0.25),
        AugmentOp("contrast", 1.6),
        AugmentOp("equalize"),
    ]
    transform = TrainTransform(48, scales_relative=(1.0, 1.0), aspect_relative=(1.0, 1.0), flip=False)
    monkeypatch.setattr(transform, "_draw_ops", lambda rng: ops)
    shifted = np.full_like(source, 128)
    shifted[:, :, :48] = source[:, :, 16:]
    expected = np.stack([cv2.resize(frame, (48, 48)) for frame in shifted])
    apply_photometric(expected, [ops[0], ops[2], ops[3]])
    assert np.array_equal(transform(source, np.arange(2), np.random.default_rng(0)), expected)


def test_erasing_noise_differs_on_repeated_frames() -> None:
    transform = full_transform(aa_type="", erasing=RandomErasing(1.0, "pixel", 1, [0.45] * 3, [0.225] * 3))
    clip = transform(frames(), np.zeros(3, int), np.random.default_rng(0))
    differs = (clip[0] != clip[1]).any(-1)
    assert 0.01 < differs.mean() < 0.35


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"interpolation": "lanczos"}, "AUG.INTERPOLATION"),
        ({"aa_type": "rand-q7"}, "AUG.AA_TYPE"),
        ({"aspect_relative": ()}, "belong together"),
        ({"scales_relative": (0.08, 1.5)}, "DATA.TRAIN_JITTER_SCALES_RELATIVE"),
        ({"scales_relative": (0.0, 1.0)}, "DATA.TRAIN_JITTER_SCALES_RELATIVE"),
        ({"aspect_relative": (1.3, 0.7)}, "DATA.TRAIN_JITTER_ASPECT_RELATIVE"),
        ({"aspect_relative": (1.3,)}, "DATA.TRAIN_JITTER_ASPECT_RELATIVE"),
        ({"scales_relative": (), "aspect_relative": (), "jitter_scales": (40, 60)}, "DATA.TRAIN_CROP_SIZE"),
    ],
)
def test_mistakes(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        full_transform(**changes)


def test_train_transform_from_config() -> None:
    cfg = get_cfg()
    plain = TrainTransform.from_config(cfg)
    assert plain.crop_size == 224 and plain.policy is None and plain.erasing is None and plain.color_jitter == 0
    cfg.AUG.ENABLE = True
    cfg.DATA.MEAN, cfg.DATA.REVERSE_INPUT_CHANNEL = [0.1, 0.5, 0.9], True
    cfg.DATA.STD = [0.001, 0.001, 0.001]
    cfg.AUG.RE_PROB = 1.0
    augmented = TrainTransform.from_config(cfg)
    assert augmented.policy is not None and augmented.interpolation == "bicubic"
    assert augmented.erasing is not None
    black = augmented.erasing(np.zeros((1, 64, 64, 3), np.uint8), np.random.default_rng(0))
    noise = black[(black > 0).all(-1)].mean(0) / 255  # the network's B G R mean, in the clip's R G B order
    assert noise == pytest.approx([0.9, 0.5, 0.1], abs=0.01)
    cfg.AUG.AA_TYPE = ""
    assert TrainTransform.from_config(cfg).color_jitter == 0.4


# ------------------------------------------------------------------ views
@pytest.mark.parametrize("height,width", [(72, 96), (96, 72), (64, 64), (7, 90), (300, 64)])
@pytest.mark.parametrize("crops", [1, 3])
def test_view_squares_lie_inside(height: int, width: int, crops: int) -> None:
    source = frames(2, height, width)
    scaled, corners = ViewTransform(48, 64, crops)(source)
    assert scaled.dtype == np.uint8 and min(scaled.shape[1:3]) == 64 and len(corners) == crops
    for top, left in corners:
        assert scaled[0, top : top + 48, left : left + 48].shape == (48, 48, 3) and top >= 0 and left >= 0


def test_views_are_scaled_bilinearly_and_once() -> None:
    source = frames(2)
    before = source.copy()
    scaled, corners = ViewTransform(48, 48, 3)(source)
    assert np.array_equal(scaled[1], cv2.resize(source[1], (64, 48)))
    assert corners == [(0, 0), (0, 8), (0, 16)]
    assert np.array_equal(source, before)
    same, _ = ViewTransform(48, 72, 1)(source)
    assert same is source


def test_view_mistakes() -> None:
    with pytest.raises(ConfigError, match="DATA.TEST_CROP_SIZE"):
        ViewTransform(64, 48, 1)
    with pytest.raises(ConfigError, match="TEST.NUM_SPATIAL_CROPS"):
        ViewTransform(48, 64, 2)


# ------------------------------------------------------------------ warps of images
SIZE = 48
MEAN = (124, 116, 104)


class Fixed:
    """A policy that always draws the same operations."""

    fill = None

    def __init__(self, *ops: AugmentOp) -> None:
        self.ops = list(ops)

    def draw(self, rng: np.random.Generator) -> list[AugmentOp]:
        return self.ops


def warped(*ops: AugmentOp, crop: Crop, flip: bool = False, images: bool = True) -> np.ndarray:
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
    ours, theirs = warped(op, crop=crop).astype(int), published(op, crop).astype(int)
    assert np.median(np.abs(ours - theirs)) <= 2  # one resampling instead of two
    filled = [(np.abs(view - MEAN).max(-1) == 0).mean() for view in (ours, theirs)]
    assert filled[0] == pytest.approx(filled[1], abs=0.02) and filled[1] > 0.05


def test_translations_fill_twice_as_much_as_those_of_the_whole_image() -> None:
    crop, op = Crop(24, 32, 48, 64), AugmentOp("translate_x", 0.375)
    whole = warped(op, crop=crop, images=False)
    of_crop = warped(op, crop=crop)
    assert (of_crop == MEAN).all(-1).mean() == pytest.approx(0.375)
    assert (whole == MEAN).all(-1).mean() < 0.375


def test_shifts_join_a_flip_and_other_warps() -> None:
    crop = Crop(0, 0, 96, 96)
    shifted = warped(AugmentOp("translate_x", 0.25), AugmentOp("translate_y", 0.25), crop=crop)
    plain = warped(crop=crop)
    assert np.array_equal(shifted[: SIZE * 3 // 4, : SIZE * 3 // 4], plain[SIZE // 4 :, SIZE // 4 :])
    both = warped(AugmentOp("translate_x", 0.25), AugmentOp("rotate", 90.0), crop=crop)
    one = np.rot90(warped(AugmentOp("translate_x", 0.25), crop=crop))
    assert np.abs(both.astype(int) - one.astype(int)).max() <= 2


def test_the_fill_of_images_is_the_mean_color_and_of_videos_gray() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["AUG.ENABLE", True, "DATA.MEAN", [0.485, 0.456, 0.406]])
    assert TrainTransform.from_config(cfg, images=True).fill == MEAN
    assert TrainTransform.from_config(cfg).fill == (128, 128, 128)
    cfg.merge_from_list(["AUG.AA_TYPE", "autoaugment_torchvision"])
    assert TrainTransform.from_config(cfg, images=True).fill == (0, 0, 0)
