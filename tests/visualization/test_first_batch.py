"""First batch as an image, for every type of input; its appearance was checked by eye."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slowfast.config.defaults import get_cfg
from slowfast.datasets.collate import pad_events
from slowfast.datasets.dvs.frames import BRIGHTER, DARKER
from slowfast.datasets.mixup import Mixup, smooth_one_hot
from slowfast.engine.forward import normalize
from slowfast.models.protocol import MASKED
from slowfast.utils.distributed import World
from slowfast.visualization.first_batch import (
    FRAME_SIDE,
    FRAMES,
    Denormalize,
    FirstBatch,
    captions,
    draw_sheet,
    pixels,
    sample_images,
)

DENORMALIZE = Denormalize((0.45, 0.4, 0.35), (0.2, 0.25, 0.3), False, (6, 8))
NAMES = ["left", "right", "up", "down"]


def frames(n: int, t: int, side: int = 12, seed: int = 0) -> np.ndarray:
    """Clips uint8 (n, t, side, side, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (n, t, side, side, 3), dtype=np.uint8)


def network_input(clips: np.ndarray, denormalize: Denormalize = DENORMALIZE) -> torch.Tensor:
    return normalize(torch.from_numpy(clips), denormalize.mean, denormalize.std, denormalize.reverse_channels)


def holds(picture: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((picture == color).all(-1).any())


@given(
    mean=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    std=st.lists(st.floats(0.05, 1), min_size=3, max_size=3),
    reverse=st.booleans(),
    seed=st.integers(0, 99),
)
def test_normalized_clips_turn_back_into_their_pixels(
    mean: list[float], std: list[float], reverse: bool, seed: int
) -> None:
    denormalize, clips = Denormalize(mean, std, reverse, (1, 1)), frames(2, 3, 5, seed)
    assert np.array_equal(pixels(network_input(clips, denormalize), denormalize), clips)


def test_clips_are_frames_in_the_order_of_time() -> None:
    clips = np.empty((3, 16, 12, 12, 3), np.uint8)
    clips[:] = np.linspace(0, 250, 16).astype(np.uint8)[:, None, None, None]
    samples = sample_images(network_input(clips), 2, DENORMALIZE)
    assert len(samples.images) == 2 and "right" in samples.note
    line = samples.images[0][FRAME_SIDE // 2, FRAME_SIDE // 2 :: FRAME_SIDE + 4, 0].astype(int)
    assert len(line) == FRAMES and line[0] == 0 and line[-1] == 250 and (np.diff(line) > 0).all()


def test_a_clip_of_few_frames_and_an_image() -> None:
    assert sample_images(network_input(frames(1, 2)), 8, DENORMALIZE).images[0].shape == (
        FRAME_SIDE,
        2 * FRAME_SIDE + 4,
        3,
    )
    image = frames(2, 1, 300)
    shown = sample_images(network_input(image[:, 0]), 8, DENORMALIZE).images
    assert len(shown) == 2 and shown[0].shape == (240, 240, 3)
    assert np.abs(shown[0].mean((0, 1)) - image[0, 0].mean((0, 1))).max() < 2


def test_events_are_drawn_on_the_sensor_without_padding_and_masked_ones() -> None:
    one = {"x": [7, 0], "y": [5, 0], "p": [1, 0], "t": [0.0, 0.5], "valid": [True, True]}
    other = {"x": [3], "y": [2], "p": [1], "t": [0.0], "valid": [True]}
    batch = pad_events([{key: torch.tensor(values) for key, values in sample.items()} for sample in (one, other)])
    first, second = sample_images(batch, 8, DENORMALIZE).images
    factor = (first.shape[0] - 2) // 6
    assert first.shape == (2 + 6 * factor, 2 + 8 * factor, 3)
    assert tuple(first[-2, -2]) == BRIGHTER and tuple(first[1, 1]) == DARKER
    assert holds(second, BRIGHTER) and not holds(second, DARKER)
    masked = batch | {MASKED: torch.tensor([[True, False], [True, False]])}
    first, second = sample_images(masked, 8, DENORMALIZE).images
    assert not holds(first, BRIGHTER) and holds(first, DARKER) and not holds(second, BRIGHTER)


def test_an_unknown_kind_of_input_says_so() -> None:
    with pytest.raises(TypeError, match="inputs of type str"):
        sample_images("clips", 1, DENORMALIZE)


def test_captions_of_labels_soft_labels_and_mixed_ones() -> None:
    labels = torch.tensor([2, 0, 1])
    assert captions(labels, NAMES, 2) == ["up", "left"]
    assert captions(smooth_one_hot(labels, 4, 0.1), NAMES, 8) == ["up", "left", "right"]
    mixup = Mixup(1.0, 0.0, 1.0, 0.0, 0.1, 4)
    clips = torch.zeros(3, 3, 2, 4, 4)
    clips[0] = 1.0
    mixed, soft = mixup(clips, labels, np.random.default_rng(0))
    share = float(mixed[0, 0, 0, 0, 0])
    texts = captions(soft, NAMES, 8)
    parts = sorted([(share, "up"), (1 - share, "right")], reverse=True)
    assert texts[0] == " + ".join(f"{part:.2f} {name}" for part, name in parts) and texts[1] == "left"


@pytest.mark.parametrize("count", [1, 2, 5, 8, 30])
def test_the_sheet_has_room_for_all(count: int) -> None:
    colors = [(10 + 8 * place, 200 - 5 * place, 77) for place in range(count)]
    pictures = [np.full((40, 60, 3), color, np.uint8) for color in colors]
    sheet = draw_sheet(pictures, ["a very long name of a class " * 3] * count, "title")
    for color in colors:
        assert (sheet == color).all(-1).sum() == 40 * 60


def first_batch(folder: Path, world: World, count: int = 3) -> FirstBatch | None:
    cfg = get_cfg()
    cfg.merge_from_list(["OUTPUT_DIR", str(folder), "DATA.PATH_TO_DATA_DIR", str(folder), "MODEL.NUM_CLASSES", 4])
    cfg.DATA_LOADER.DRAW_SAMPLES = count
    return FirstBatch.from_config(cfg, world, "train", lambda *_: None)


def test_the_first_process_alone_draws_and_changes_nothing(tmp_path: Path) -> None:
    assert first_batch(tmp_path, World(rank=1, size=2)) is None and first_batch(tmp_path, World(), 0) is None
    show = first_batch(tmp_path, World())
    assert show is not None
    inputs = network_input(frames(5, 4))
    before, state = inputs.clone(), torch.get_rng_state()
    show(inputs, torch.arange(5) % 4)
    assert torch.equal(inputs, before) and torch.equal(torch.get_rng_state(), state)
    assert [path.name for path in tmp_path.iterdir()] == ["first_batch_train.png"]
    image = cv2.imread(str(tmp_path / "first_batch_train.png"))
    assert image is not None and image.std() > 5


def test_denormalization_of_a_config() -> None:
    cfg = get_cfg()
    denormalize = Denormalize.from_config(cfg)
    assert denormalize == replace(denormalize, sensor=(180, 240), mean=(0.45, 0.45, 0.45), reverse_channels=False)
