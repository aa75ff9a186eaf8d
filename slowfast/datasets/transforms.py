"""Transforms of decoded frames to training clips and evaluation views; all frames are uint8.

Notation: U distinct frames, T frames of a clip, H height, W width, S side of the crop, C = 3 channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.datasets.photometric import RandomErasing, apply_photometric, draw_color_jitter
from slowfast.datasets.rand_augment import AugmentOp, AugmentPolicy, parse_policy
from slowfast.datasets.resample import (
    GEOMETRIC,
    GRAY,
    INTERPOLATIONS,
    Color,
    Crop,
    Resize,
    jittered_crop,
    op_matrix,
    random_resized_crop,
    resample,
    resize_plain,
    scaled_size,
    shrink,
    translate,
    view_corners,
    view_matrix,
)
from slowfast.errors import ConfigError
from slowfast.utils.text import quoted, unknown_value

_RANDOM_INTERPOLATION = ("bilinear", "bicubic")


class TrainTransform:
    """Random crop of S x S pixels with flip, RandAugment, AutoAugment or color jitter, and random erasing.

    All frames of a clip share one draw. Each distinct frame is resampled once, directly to the crop: the warps are
    combined with crop, resize and flip into one matrix. Photometric operations are applied to the crop, in the order
    drawn. (The published codes apply the operations one by one; combining them keeps content that an earlier warp would
    have moved out of the frame.)

    Args:
        crop_size: Side of the crop, S.
        jitter_scales: Smallest and largest short side that frames are scaled to before cropping.
        scales_relative: Smallest and largest area of a random resized crop, as a fraction of the frame; replaces
            `jitter_scales`, with `aspect_relative`.
        aspect_relative: Smallest and largest aspect ratio of a random resized crop.
        flip: Flip half of the clips left to right.
        aa_type: Policy, see :func:`parse_policy`; "" for none.
        color_jitter: Strength of color jitter, used without a policy.
        interpolation: Interpolation, a key of INTERPOLATIONS or ``random``.
        erasing: Random erasing.
        images: Crop first and warp the crop, as the published image codes do; frames of videos are warped first. Crops
            of large images are then averaged to a multiple of their size before they are resampled.
        fill: Color outside the frame for warps.

    Raises:
        ConfigError: If a value is invalid; the message names its key.
    """

    def __init__(
        self,
        crop_size: int,
        *,
        jitter_scales: Sequence[int] = (256, 320),
        scales_relative: Sequence[float] = (),
        aspect_relative: Sequence[float] = (),
        flip: bool = True,
        aa_type: str = "",
        color_jitter: float = 0.0,
        interpolation: str = "bilinear",
        erasing: RandomErasing | None = None,
        images: bool = False,
        fill: Color = GRAY,
    ) -> None:
        self.crop_size = crop_size
        self.jitter_scales = jitter_scales
        self.scales_relative = scales_relative
        self.aspect_relative = aspect_relative
        self.flip = flip
        self.policy: AugmentPolicy | None = parse_policy(aa_type) if aa_type else None
        self.color_jitter = color_jitter
        self.interpolation = interpolation
        self.erasing = erasing
        self.images = images
        self.fill: Color = fill if self.policy is None or self.policy.fill is None else self.policy.fill
        self._check()

    @classmethod
    def from_config(cls, cfg: ConfigNode, *, images: bool = False) -> TrainTransform:
        """Build the training transform from DATA and, if enabled, AUG.

        Warps of images are filled with the mean color, as in timm, those of videos with gray, as in SlowFast.

        Args:
            cfg: Config of the run.
            images: Whether samples are images.
        """
        augment = cfg.AUG.ENABLE
        order = slice(None, None, -1 if cfg.DATA.REVERSE_INPUT_CHANNEL else 1)  # clips are still RGB here
        mean, std = cfg.DATA.MEAN[order], cfg.DATA.STD[order]
        erase = augment and cfg.AUG.RE_PROB > 0
        return cls(
            cfg.DATA.TRAIN_CROP_SIZE,
            jitter_scales=cfg.DATA.TRAIN_JITTER_SCALES,
            scales_relative=cfg.DATA.TRAIN_JITTER_SCALES_RELATIVE,
            aspect_relative=cfg.DATA.TRAIN_JITTER_ASPECT_RELATIVE,
            flip=cfg.DATA.RANDOM_FLIP,
            aa_type=cfg.AUG.AA_TYPE if augment else "",
            color_jitter=cfg.AUG.COLOR_JITTER if augment else 0.0,
            interpolation=cfg.AUG.INTERPOLATION,
            erasing=RandomErasing(cfg.AUG.RE_PROB, cfg.AUG.RE_MODE, cfg.AUG.RE_COUNT, mean, std) if erase else None,
            images=images,
            fill=mean_color(mean) if images else GRAY,
        )

    def _check(self) -> None:
        if self.interpolation not in (*INTERPOLATIONS, "random"):
            raise ConfigError(unknown_value("AUG.INTERPOLATION", self.interpolation, [*INTERPOLATIONS, "random"]))
        if bool(self.scales_relative) != bool(self.aspect_relative):
            raise ConfigError(
                "DATA.TRAIN_JITTER_SCALES_RELATIVE and DATA.TRAIN_JITTER_ASPECT_RELATIVE belong together. "
                "Set both (for example [0.08,1.0] and [0.75,1.3333]) or neither"
            )
        _check_range("DATA.TRAIN_JITTER_SCALES_RELATIVE", self.scales_relative, 1.0)
        _check_range("DATA.TRAIN_JITTER_ASPECT_RELATIVE", self.aspect_relative, None)
        if not self.scales_relative:
            _check_range("DATA.TRAIN_JITTER_SCALES", self.jitter_scales, None)
            if self.jitter_scales[0] < self.crop_size:
                raise ConfigError(
                    f"DATA.TRAIN_JITTER_SCALES[0] ({self.jitter_scales[0]}) must not be smaller than "
                    f"DATA.TRAIN_CROP_SIZE ({self.crop_size})"
                )

    def __call__(self, frames: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return an augmented clip, (T, S, S, C).

        Args:
            frames: Distinct frames (U, H, W, C), not changed.
            rows: Indices of the clip's frames among them, (T,).
            rng: Generator of all draws.
        """
        height, width = frames.shape[1:3]
        ops = self._draw_ops(rng)
        crop = self._draw_crop(height, width, rng)
        flip = self.flip and rng.random() < 0.5
        interpolation = self.interpolation
        if interpolation == "random":
            interpolation = _RANDOM_INTERPOLATION[rng.integers(2)]
        distinct, back = np.unique(rows, return_inverse=True)
        warp = self._warp_crop if self.images else self._warp_frame
        clip = warp(frames, distinct, [op for op in ops if op.name in GEOMETRIC], (crop, flip), interpolation)
        apply_photometric(clip, [op for op in ops if op.name not in GEOMETRIC])
        if not np.array_equal(back, np.arange(len(distinct))):
            clip = clip[back]  # repeated frames of a short video, or reordered frames
        return clip if self.erasing is None else self.erasing(clip, rng)

    def _warp_frame(
        self, frames: np.ndarray, rows: np.ndarray, ops: list[AugmentOp], view: tuple[Crop, bool], interpolation: str
    ) -> np.ndarray:
        """Warp frames, then crop and flip, in one resampling."""
        matrix = np.eye(3)
        for op in ops:
            matrix = matrix @ op_matrix(op, *frames.shape[1:3])
        crop, flip = view
        matrix = matrix @ view_matrix(crop, self.crop_size, flip)
        return resample(frames, rows, matrix, self.crop_size, interpolation, self.fill)

    def _warp_crop(
        self, frames: np.ndarray, rows: np.ndarray, ops: list[AugmentOp], view: tuple[Crop, bool], interpolation: str
    ) -> np.ndarray:
        """Crop and flip, then warp the crop, in one resampling unless the operations are translations only."""
        (crop, flip), size = view, self.crop_size
        top, left = int(crop.top), int(crop.left)
        inside = frames[:, top : top + int(crop.height), left : left + int(crop.width)]
        inside, crop = shrink(inside, Crop(0, 0, *inside.shape[1:3]), size)
        warps = np.eye(3)
        for op in ops:
            warps = warps @ op_matrix(op, size, size)
        shifts = all(op.name.startswith("translate") for op in ops)
        matrix = view_matrix(crop, size, flip)
        if not shifts:
            return resample(inside, rows, matrix @ warps, size, interpolation, self.fill)
        clip = resample(inside, rows, matrix, size, interpolation, self.fill)
        x, y = int(warps[0, 2]), int(warps[1, 2])
        return translate(clip, x, y, self.fill) if x or y else clip

    def _draw_ops(self, rng: np.random.Generator) -> list[AugmentOp]:
        if self.policy is not None:
            return self.policy.draw(rng)
        return draw_color_jitter(self.color_jitter, rng) if self.color_jitter > 0 else []

    def _draw_crop(self, height: int, width: int, rng: np.random.Generator) -> Crop:
        if self.scales_relative:
            return random_resized_crop(height, width, self.scales_relative, self.aspect_relative, rng)
        return jittered_crop(height, width, self.jitter_scales, self.crop_size, rng)


def mean_color(mean: Sequence[float]) -> Color:
    """Return a color in [0, 1] units as 8-bit levels."""
    r, g, b = (min(255, round(255 * value)) for value in mean)
    return r, g, b


def _check_range(key: str, values: Sequence[float], limit: float | None) -> None:
    """Check that a range is empty or consists of two increasing values above 0 and at most `limit`."""
    rising = len(values) == 2 and 0 < values[0] <= values[1] and (limit is None or values[1] <= limit)
    if len(values) and not rising:
        upto = "" if limit is None else f" and at most {limit:g}"
        raise ConfigError(f"{key} ({quoted(list(values))}) must be [smallest,largest], both above 0{upto}")


class ViewTransform:
    """Scaling of frames and positions of the square crops of an evaluation view.

    Args:
        crop_size: Side of the crops in pixels.
        short_side: Short side that frames are scaled to.
        crops: Number of crops: 1 (center) or 3 (start, center and end of the long side).
        resize: Function that scales frames (U, H, W, C) to a height and width.
        center: Rounding of the distance of a center crop from the edge.
        single: Position of a single crop, ``center`` or ``left`` (the start of the long side).

    Raises:
        ConfigError: If the crop is larger than the short side.
    """

    def __init__(
        self,
        crop_size: int,
        short_side: int,
        crops: int,
        resize: Resize = resize_plain,
        center: Callable[[float], int] = math.ceil,
        single: str = "center",
    ) -> None:
        if short_side < crop_size:
            raise ConfigError(
                f"DATA.TEST_CROP_SIZE ({crop_size}) must not be larger than the short side that frames are scaled to "
                f"({short_side}, with 1 crop DATA.TRAIN_JITTER_SCALES[0])"
            )
        if crops not in (1, 3):
            raise ConfigError(f"TEST.NUM_SPATIAL_CROPS ({crops}) must be 1 (center) or 3")
        self.crop_size = crop_size
        self.short_side = short_side
        self.crops = crops
        self.resize = resize
        self.center = center
        self.single = single

    def __call__(self, frames: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Scale frames, (U, H, W, C) -> (U, H', W', C), and return them with (top, left) of each crop.

        Frames that already have this size are not copied.
        """
        height, width = scaled_size(frames.shape[1], frames.shape[2], self.short_side)
        corners = view_corners(height, width, self.crop_size, self.crops, self.center, self.single)
        return (frames if (height, width) == frames.shape[1:3] else self.resize(frames, height, width)), corners
