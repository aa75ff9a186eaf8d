"""Images and folders of frames against Pillow, and damaged files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from video_files import picture

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.decode.image import FrameFolderReader, ImageReader, read_image

SOFT = cv2.GaussianBlur(picture(3, 60, 90), (0, 0), 3)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def written(folder: Path, data: bytes, name: str = "image") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(("RGB", kind) for kind in ("JPEG", "PNG", "BMP", "TIFF", "WEBP")),
        *(("L", "JPEG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("1", "PNG"), ("CMYK", "JPEG"), ("RGBA", "PNG")),
    ],
)
def test_every_format_equals_pillow(tmp_path: Path, mode: str, kind: str) -> None:
    image = Image.fromarray(SOFT).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(SOFT[:, :, 0]))
    data = encoded(image, kind)
    found = read_image(written(tmp_path, data))
    assert found.dtype == np.uint8 and found.shape == (60, 90, 3)
    assert np.abs(found.astype(int) - by_pillow(data)).max() <= 1  # CMYK is rounded differently


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_reduced_to_the_upper_8(tmp_path: Path, channels: int) -> None:
    values = SOFT[:, :, :channels].astype(np.uint16) * 256 + 77
    done, data = cv2.imencode(".png", values[:, :, ::-1])
    assert done
    assert np.array_equal(
        read_image(written(tmp_path, data.tobytes())), np.broadcast_to(SOFT[:, :, :channels], SOFT.shape)
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(SOFT), "JPEG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read_image(written(tmp_path, data)), expected)


def large_jpeg(**options: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    return encoded(Image.fromarray(noise), "JPEG", **options)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.99])
def test_truncated_jpeg_is_an_error(tmp_path: Path, progressive: bool, share: float) -> None:
    data = large_jpeg(progressive=progressive)
    with pytest.raises(DecodeError) as caught:
        read_image(written(tmp_path, data[: int(share * len(data))]))
    assert str(caught.value) and "\n" not in str(caught.value)


def test_trailing_data_and_thumbnails_are_ignored(tmp_path: Path) -> None:
    data = large_jpeg()
    assert np.array_equal(read_image(written(tmp_path, data + b"\0" * 9)), by_pillow(data))
    thumbnail = encoded(Image.fromarray(SOFT), "JPEG")
    head = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail  # an application segment
    with_thumbnail = data[:2] + head + data[2:]
    assert np.array_equal(read_image(written(tmp_path, with_thumbnail)), by_pillow(data))
    with pytest.raises(DecodeError, match="truncated"):
        read_image(written(tmp_path, with_thumbnail[:-5000]))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_other_truncated_images(tmp_path: Path, kind: str) -> None:
    data = encoded(Image.fromarray(picture(1, 60, 90)), kind)
    with pytest.raises(DecodeError):
        read_image(written(tmp_path, data[: len(data) // 2]))


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "GIF"])
def test_animations_are_no_images(tmp_path: Path, kind: str) -> None:
    first, *others = (Image.fromarray(picture(number, 32, 40)) for number in range(5))
    first.save(tmp_path / "several", kind, save_all=True, append_images=others, duration=100)
    with pytest.raises(DecodeError, match="an animated image of 5 frames. Convert it to a video such as MP4"):
        read_image(tmp_path / "several")
    first.save(tmp_path / "one", kind, save_all=True, lossless=True)
    assert kind == "GIF" or np.array_equal(read_image(tmp_path / "one"), np.asarray(first))


def test_pages_are_no_animation(tmp_path: Path) -> None:
    first, other = (Image.fromarray(picture(number, 32, 40)) for number in range(2))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[other])
    assert np.array_equal(read_image(tmp_path / "a.tif"), np.asarray(first))


def test_files_that_are_not_images(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="empty"):
        read_image(written(tmp_path, b""))
    with pytest.raises(DecodeError, match="not a complete image"):
        read_image(written(tmp_path, b"some text\n" * 50))
    with pytest.raises(DecodeError, match="no such file"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(DecodeError, match="directory"):
        read_image(tmp_path)


def test_image_is_a_video_of_one_frame(tmp_path: Path) -> None:
    path = written(tmp_path, encoded(Image.fromarray(SOFT), "PNG"))
    with ImageReader(path) as reader:
        assert (reader.num_frames, reader.height, reader.width) == (1, 60, 90) and reader.fps > 0
        decoded = reader.read(np.zeros((2, 1), int))
        with pytest.raises(IndexError):
            reader.read([1])
    assert np.array_equal(decoded.frames[decoded.rows], np.broadcast_to(SOFT, (2, 1, 60, 90, 3)))
    assert decoded.missing is None


# ------------------------------------------------------------------ folders of frames
@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write ten distinguishable frames."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(10):
        Image.fromarray(picture(number, 24, 32)).save(frames / f"{number + 1:05d}.png")
    return frames


def opened(folder: Path, count: int = 10) -> FrameFolderReader:
    return FrameFolderReader(folder, "{:05d}.png", count, fps=12)


def test_only_requested_frames_are_opened(folder: Path) -> None:
    for number in (1, 3, 5):
        (folder / f"{number:05d}.png").unlink()
    with opened(folder) as reader:
        assert (reader.num_frames, reader.fps) == (10, 12)
        decoded = reader.read([[9, 1], [3, 9]])
        assert decoded.missing is None and len(decoded.frames) == 3
        assert np.array_equal(decoded.frames[decoded.rows], [[picture(9, 24, 32), picture(1, 24, 32)]] + [
            [picture(3, 24, 32), picture(9, 24, 32)]
        ])  # fmt: skip
        assert (reader.height, reader.width) == (24, 32)


def test_nearest_frame_replaces_a_broken_one(folder: Path) -> None:
    (folder / "00004.png").unlink()
    (folder / "00008.png").write_bytes(b"no image")
    Image.fromarray(picture(9, 8, 8)).save(folder / "00010.png")
    decoded = opened(folder).read(np.arange(10))
    shown = decoded.frames[decoded.rows]
    assert (
        decoded.missing is not None and decoded.missing.startswith("3 of 10 frames") and "00004.png" in decoded.missing
    )
    for index, nearest in enumerate([0, 1, 2, 2, 4, 5, 6, 6, 8, 8]):
        assert np.array_equal(shown[index], picture(nearest, 24, 32))


def test_frame_of_another_size_is_unreadable(folder: Path) -> None:
    Image.fromarray(picture(9, 8, 16)).save(folder / "00010.png")
    missing = opened(folder).read([0, 9]).missing
    assert missing is not None and "has 16 x 8 pixels, but the others have 32 x 24" in missing


def test_no_readable_frame(folder: Path) -> None:
    (folder / "00001.png").write_bytes(b"")
    (folder / "00002.png").unlink()
    with pytest.raises(DecodeError, match=r"none of 2 frames.*00001\.png: the file is empty"):
        opened(folder).read([0, 1])


def test_fewer_frames_than_in_the_index(folder: Path) -> None:
    with pytest.raises(DecodeError, match=r"the folder contains 10 of the 12 frames in the index.*00011\.png"):
        opened(folder, 12)
    with pytest.raises(DecodeError, match="no such file"):
        opened(folder / "nowhere")
    with pytest.raises(DecodeError, match="not a folder"):
        opened(folder / "00001.png")


def test_more_frames_than_in_the_index_are_ignored(folder: Path) -> None:
    with pytest.raises(IndexError):
        opened(folder, 5).read([5])
