"""EVENT.RESIZE: visible part of a frame, its position, and the patches of its changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from slowfast.cli.setup import load_config
from slowfast.config.defaults import get_cfg
from slowfast.errors import ConfigError
from slowfast.event_driven.calibrate import Calibration
from slowfast.event_driven.feed import Batch
from slowfast.event_driven.run_outputs import OUTLINE, draw_patches
from slowfast.event_driven.sources import Sources
from slowfast.event_driven.video_frames import RESIZES, FileFrames, FrameResize, StreamFrames, resized_frames
from tests.event_driven.settings import EMPTY, on_videos
from tests.event_driven.synthetic_videos import CPU, synthetic_sources, video_run

WIDE = (32, 64)
MEAN = [0.2, 0.4, 0.6]


def transform(how: str, *change: object) -> FrameResize:
    overrides = [*on_videos("videos", Path("out")), "EVENT.RESIZE", how, "DATA.MEAN", MEAN, *change]
    cfg = get_cfg()
    cfg.merge_from_list(overrides)
    return FrameResize.from_config(cfg)


def test_default_is_the_published_squash() -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    cfg = get_cfg()
    cfg.merge_from_list(on_videos("videos", Path("out")))
    assert cfg.EVENT.RESIZE == "squash"
    np.testing.assert_array_equal(FrameResize.from_config(cfg)(image), cv2.resize(image, (32, 32)))


@pytest.mark.parametrize("size", [WIDE, (64, 32), (32, 32), (2, 300)])
def test_each_resize_shows_the_expected_part(size: tuple[int, int]) -> None:
    """Use a frame with a ramp from 0 to 200 along its long side."""
    ramp = np.linspace(0, 200, max(size))
    wide = size[1] >= size[0]
    image = np.broadcast_to(ramp[None, :, None] if wide else ramp[:, None, None], (*size, 3)).astype(np.uint8)
    squares = {how: transform(how)(image) for how in RESIZES}
    assert {square.shape for square in squares.values()} == {(32, 32, 3)}
    along = {how: square[15, :, 0] if wide else square[:, 15, 0] for how, square in squares.items()}
    # A pixel of the square is 1/32 of the side it covers.
    covered = min(size) / max(size)
    for how, share in (("squash", 1.0), ("crop", covered), ("letterbox", 1.0)):
        assert along[how][0] == pytest.approx(100 - share * (100 - 100 / 32), abs=5), how
        assert along[how][-1] == pytest.approx(100 + share * (100 - 100 / 32), abs=5), how


def test_a_letterbox_is_filled_with_the_mean_color() -> None:
    image = np.full((*WIDE, 3), 250, np.uint8)
    square = transform("letterbox")(image)
    assert (square[8:24] == 250).all()
    mean = [round(255 * value) for value in MEAN]
    assert (square[:8] == mean).all() and (square[24:] == mean).all()
    # With BGR networks DATA.MEAN is in the order B G R; frames are still RGB here.
    assert (transform("letterbox", "DATA.REVERSE_INPUT_CHANNEL", True)(image)[0] == mean[::-1]).all()


class LeftEdge:
    """Wide gray video whose 6 leftmost columns alternate between white and black."""

    rate, time_base, missing, pixel_aspect, arrived = Fraction(25), Fraction(1, 25), None, 1.0, 0.0

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        for number in range(6):
            image = np.full((*WIDE, 3), 128, np.uint8)
            image[:, :6] = 255 * (number % 2)
            yield number, image

    def close(self) -> None:
        """Do nothing."""


def left_edge() -> Sources:
    found = synthetic_sources((1, None))
    return replace(found, videos=[replace(found.videos[0], open=LeftEdge)])


# They are in the first column of 8 x 8 patches, in a letterbox only the rows with the frame; the crop cuts it off.
CHANGED = {
    "squash": [(row, 0) for row in range(8)],
    "crop": [],
    "letterbox": [(row, 0) for row in range(2, 6)],
}


@pytest.mark.parametrize("how", RESIZES)
def test_changed_patches_match_the_resized_frame(how: str, tmp_path: Path) -> None:
    run = video_run(tmp_path, left_edge(), "EVENT.RESIZE", how, "EVENT.ANNOTATE", True)
    batches: list[Batch] = []
    run.on_batch = batches.append
    report = run.run(lambda: False)
    changed = np.concatenate([run.engine.network.as_map(b.changes.mask[:, 0].T, 0).numpy() for b in batches], 2)
    assert changed.shape == (8, 8, 6) and changed[..., 0].all()
    for frame in np.moveaxis(changed, 2, 0)[1:]:
        assert [tuple(place) for place in np.argwhere(frame).tolist()] == CHANGED[how]
    seen = FrameResize.from_config(run.cfg)(next(iter(LeftEdge()))[1])
    np.testing.assert_array_equal(report.thumbnails[0], seen)
    outlined = (draw_patches(seen, changed[..., 1]) == OUTLINE).all(2)  # patches of 56 x 56 pixels
    assert {(row // 56, column // 56) for row, column in np.argwhere(outlined).tolist()} == set(CHANGED[how])
    with av.open(str(tmp_path / "annotated" / "v0.mp4")) as container:
        assert [(frame.height, frame.width) for frame in container.decode(video=0)] == [(448, 448)] * 6


@pytest.mark.parametrize("how", RESIZES)
def test_calibration_uses_the_same_resize(how: str, tmp_path: Path) -> None:
    cfg = load_config(EMPTY, [*on_videos(tmp_path, tmp_path), "EVENT.RESIZE", how])
    calibration = Calibration(cfg, CPU, left_edge())
    wanted = np.stack([FrameResize.from_config(cfg)(image) for _, image in LeftEdge()])
    np.testing.assert_array_equal(calibration.videos[0], wanted)
    # Of 6 frames x 64 patches, all of the first frame are active.
    active = calibration.measure(0.05).summary.active[0]
    assert active == pytest.approx(100 * (64 + 5 * len(CHANGED[how])) / (6 * 64))


@pytest.mark.parametrize("rotation", [0, 90])
@pytest.mark.parametrize("stream", [False, True])
def test_pixels_that_are_not_square(tmp_path: Path, rotation: int, stream: bool) -> None:
    """Store 48 x 48 pixels that are twice as wide as high; upright the video is 2 : 1, or 1 : 2 after the rotation."""
    path = tmp_path / "wide_pixels.mp4"
    with av.open(str(path), "w") as out:
        track = out.add_stream("libx264", rate=25)
        track.height, track.width, track.pix_fmt = 48, 48, "yuv420p"
        track.codec_context.sample_aspect_ratio = Fraction(2)
        if rotation:
            track.set_display_rotation(rotation)
        for _ in range(3):
            white = av.VideoFrame.from_ndarray(np.full((48, 48, 3), 250, np.uint8), format="rgb24")
            out.mux(track.encode(white))
        out.mux(track.encode(None))
    video = StreamFrames(f"file://{path}") if stream else FileFrames(path, 1)
    letterbox = transform("letterbox", "DATA.MEAN", [0.0, 0.0, 0.0])
    image = next(resized_frames(video, letterbox, 1)).image
    video.close()
    white = image.min(2) > 200
    assert (white.any(1).sum(), white.any(0).sum()) == ((32, 16) if rotation else (16, 32))
    assert white[16, 16]  # centered


def test_crop_of_pixels_that_are_not_square() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(transform("squash")(image, 2.0), transform("squash")(image))
    wide = transform("crop")(image, 2.0)  # as if the columns were twice as many
    np.testing.assert_allclose(wide, transform("crop")(cv2.resize(image, (128, 64)), 1.0), atol=60)
    assert np.abs(wide.astype(int) - transform("crop")(image)).mean() > 20


def test_unknown_resize_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"EVENT\.RESIZE.*'squish'.*squash"):
        load_config(EMPTY, [*on_videos(tmp_path, tmp_path), "EVENT.RESIZE", "squish"])
