"""Readers of images and of folders of extracted frames."""

from __future__ import annotations

import io
import tarfile
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from slowfast.datasets.decode.reader import (
    MAX_IMAGE_BYTES,
    MAX_IMAGE_PIXELS,
    Decoded,
    DecodeError,
    FrameReader,
    check_file,
    fill_missing,
)
from slowfast.errors import system_reason

FIRST_NUMBER = 1  # number of the first image in a folder
_PNG_START = b"\x89PNG\r\n\x1a\n"
_ANIMATED = frozenset({"GIF", "WEBP"})  # formats of Pillow with animations, beside PNG
_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"


class ImageReader(FrameReader):
    """Image with the interface of a one-frame video; it is read on construction.

    Raises:
        DecodeError: See :func:`read_image`.
    """

    num_frames = 1
    fps = 1.0

    def __init__(self, path: Path) -> None:
        self._image = read_image(path)
        self._size = self._image.shape[1], self._image.shape[0]

    def _decode(self, wanted: np.ndarray, rows: np.ndarray) -> Decoded:
        return Decoded(self._image[None], rows, None)


class FrameFolderReader(FrameReader):
    """Folder of numbered images with the interface of a video.

    Args:
        folder: Folder of the images, or a tar file of it, such as a part of a shard.
        template: Format string of the file names, such as ``{:05d}.jpg``; numbers start at 1.
        num_frames: Number of images.
        fps: Frame rate to report, which images do not contain.

    Raises:
        DecodeError: If the folder is missing or contains fewer images.
    """

    def __init__(self, folder: Path, template: str, num_frames: int, fps: float = 30.0) -> None:
        self._folder, self._template = folder, template
        self._num_frames, self.fps = num_frames, fps
        self._packed = _packed_images(folder, template.count("/") + 1) if folder.is_file() else None
        if not self._exists(num_frames - 1):
            raise DecodeError(self._reason())

    def _name(self, index: int) -> str:
        return self._template.format(index + FIRST_NUMBER)

    def _exists(self, index: int) -> bool:
        if self._packed is not None:
            return self._name(index) in self._packed
        return (self._folder / self._name(index)).is_file()

    def _reason(self) -> str:
        if self._packed is None and not self._folder.is_dir():
            return "no such file or directory"
        missing = [index for index in range(self.num_frames) if not self._exists(index)]
        if self._packed == {}:
            return "not a folder of frames"
        return (
            f"the folder contains {self.num_frames - len(missing)} of the {self.num_frames} frames in the index. "
            f"First missing frame: {self._name(missing[0])}"
        )

    def _read(self, index: int) -> np.ndarray:
        if self._packed is None:
            return read_image(self._folder / self._name(index))
        place = self._packed.get(self._name(index))
        if place is None:
            raise DecodeError("no such file or directory")
        _check_bytes(len(place))
        with self._folder.open("rb") as file:
            file.seek(place.start)
            return decode_image(file.read(len(place)))

    @property
    def num_frames(self) -> int:
        """Number of images."""
        return self._num_frames

    def _decode(self, wanted: np.ndarray, rows: np.ndarray) -> Decoded:
        """Read images; those whose size differs from the first readable one count as unreadable."""
        frames = np.empty((0, 0, 0, 3), np.uint8)
        valid = np.zeros(len(wanted), dtype=bool)
        reason = ""
        for row, index in enumerate(wanted.tolist()):
            try:
                image = self._read(index)
                if not len(frames):
                    frames = np.empty((len(wanted), *image.shape), np.uint8)
                _check_size(image, frames)
            except DecodeError as error:
                reason = reason or f"{self._name(index)}: {error}"
                continue
            frames[row], valid[row] = image, True
        if not valid.any():
            raise DecodeError(f"none of {len(wanted)} frames can be read: {reason}")
        self._size = (frames.shape[2], frames.shape[1])
        return Decoded(frames, rows, None) if valid.all() else fill_missing(frames[valid], rows, wanted, valid, reason)


def _packed_images(file: Path, depth: int) -> dict[str, range]:
    """Return the bytes of each file in a tar file, by the last `depth` parts of its name; {} for another file.

    Reads headers in a tenth of tarfile's time, which counts beside the decoding of small images.
    """
    found: dict[str, range] = {}
    name, at = b"", 0
    try:
        with file.open("rb") as archive:
            while header := archive.read(tarfile.BLOCKSIZE).rstrip(b"\0"):
                size, kind = int(header[124:135], 8), header[156:157]
                at += tarfile.BLOCKSIZE
                if kind == tarfile.GNUTYPE_LONGNAME:  # of the next member
                    name = archive.read(size).rstrip(b"\0")
                elif kind in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    name = name or header[: tarfile.LENGTH_NAME].rstrip(b"\0")
                    key = b"/".join(name.split(b"/")[-depth:]).decode("utf-8", "surrogateescape")
                    found[key], name = range(at, at + size), b""
                at += -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                archive.seek(at)
    except (ValueError, OSError):
        return {}
    return found


def _check_size(image: np.ndarray, frames: np.ndarray) -> None:
    """Raise DecodeError unless the image has the same size as the frames (U, H, W, 3)."""
    if image.shape != frames.shape[1:]:
        height, width = frames.shape[1:3]
        raise DecodeError(f"has {image.shape[1]} x {image.shape[0]} pixels, but the others have {width} x {height}")


def read_image(path: Path) -> np.ndarray:
    """Read an image and apply its EXIF orientation.

    Grayscale, palette and CMYK images are converted to RGB, 16 bits are reduced to the upper 8, and the alpha channel
    is dropped, as in Pillow's conversion to RGB, with which published networks were evaluated.

    Returns:
        The image, uint8 (H, W, 3), RGB.

    Raises:
        DecodeError: If the file is missing, truncated, not an image, an animation of several frames, or exceeds
            MAX_IMAGE_BYTES or MAX_IMAGE_PIXELS.
    """
    check_file(path)
    try:
        _check_bytes(path.stat().st_size)
        data = path.read_bytes()
    except OSError as error:
        raise DecodeError(system_reason(error)) from error
    return decode_image(data)


def decode_image(data: bytes) -> np.ndarray:
    """Decode the contents of an image file; see :func:`read_image`."""
    try:
        _check_header(data)
        if _is_truncated(data):
            raise DecodeError("the image is truncated")
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # for example more pixels than OpenCV allows
        raise DecodeError(f"not an image that OpenCV can read: {' '.join(error.err.split())}") from error
    if image is None:
        raise DecodeError("not a complete image that OpenCV can read")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _check_bytes(size: int) -> None:
    if size > MAX_IMAGE_BYTES:
        raise DecodeError(f"the file has {size} bytes, more than the limit of {MAX_IMAGE_BYTES} for images")


def _check_header(data: bytes) -> None:
    """Raise DecodeError if the header states more than MAX_IMAGE_PIXELS or several frames."""
    size, frames = (_jpeg_size(data), 1) if data.startswith(_JPEG_START) else _header(data)
    if size is not None and size[0] * size[1] > MAX_IMAGE_PIXELS:
        raise DecodeError(f"{size[0]} x {size[1]} pixels exceed the limit of {MAX_IMAGE_PIXELS} pixels")
    if frames > 1:
        raise DecodeError(f"an animated image of {frames} frames. Convert it to a video such as MP4, or save one frame")


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height from a JPEG frame header (ITU-T T.81, B.2.2), faster than Pillow."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        if 0xC0 <= data[at + 1] <= 0xCF and data[at + 1] not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _header(data: bytes) -> tuple[tuple[int, int] | None, int]:
    """Return width and height, and the number of frames of an animation, from an image header.

    The size is None for formats that Pillow does not know but OpenCV may. Further pages of a TIFF do not count.
    """
    if data.startswith(_PNG_START):
        return (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")), _png_frames(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                return image.size, getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
    except Image.DecompressionBombError as error:
        raise DecodeError(f"more pixels than the limit of {MAX_IMAGE_PIXELS}") from error
    except Exception:  # Pillow raises various errors for damaged headers; let OpenCV decide
        return None, 1


def _png_frames(data: bytes) -> int:
    """Return the number of frames that an animated PNG states before its image data; 1 without an animation."""
    at = len(_PNG_START)
    while at + 12 <= len(data) and data[at + 4 : at + 8] not in (b"IDAT", b"acTL"):
        at += 12 + int.from_bytes(data[at : at + 4], "big")  # length, name, content, checksum
    return int.from_bytes(data[at + 8 : at + 12], "big") if data[at + 4 : at + 8] == b"acTL" else 1


def _is_truncated(data: bytes) -> bool:
    """Return whether a JPEG lacks its end marker, as Pillow does: OpenCV silently fills missing parts with gray.

    The marker cannot occur in the coded data after the last start of scan (ITU-T T.81, B.1.1.5), so the end marker of
    a thumbnail does not count.
    """
    return data.startswith(_JPEG_START) and data.rfind(_JPEG_END) <= data.rfind(_JPEG_SCAN)
