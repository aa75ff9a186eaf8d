"""Extraction of video frames to folders of numbered JPEG files, the layout of Something-Something.

Notation: m extracted frames of H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from slowfast.datasets.decode.container import choose_timing
from slowfast.datasets.decode.image import FIRST_NUMBER
from slowfast.datasets.decode.pyav import PyAVReader
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.decode.rgb import RgbConverter
from slowfast.datasets.resample import scaled_size
from slowfast.prepare.files import ConvertedFile, Job, target_exists
from slowfast.prepare.jobs import Conversion, convert_files
from slowfast.utils.files import atomic_path
from slowfast.utils.ray_cluster import LOCAL
from slowfast.utils.worker import still_working

TEMPLATE = "{:05d}.jpg"
PART = ".frames"  # suffix of incomplete folders


@dataclass(frozen=True)
class FrameSettings:
    """Size, rate and quality of extracted frames.

    Args:
        short_side: Short side of the frames in pixels; smaller videos keep their size.
        fps: Maximum frame rate in frames/s (default: that of Something-Something V2); None to keep all frames.
        quality: JPEG quality, 1 to 100.
    """

    short_side: int = 240
    fps: float | None = 12.0
    quality: int = 95


def extract(source: Path, target: Path, settings: FrameSettings, workers: int, engine: str = LOCAL) -> Conversion:
    """Write the frames of all videos below `source` to folders below `target`.

    The frames of ``a/b.mp4`` become ``a/b/00001.jpg`` and so on. A folder appears once it is complete; existing folders
    are skipped. Failures are listed in failed.csv.

    Args:
        source: Folder of videos.
        target: Folder to write to, outside of `source`.
        settings: Size, rate and quality of the frames.
        workers: Number of worker processes.
        engine: `LOCAL` or `RAY`, see :func:`~slowfast.prepare.jobs.run_jobs`.

    Raises:
        UserError: If a folder is unsuitable or the frames cannot be written.
        DataError: If no video can be read.
    """
    work = partial(_extract_one, settings)
    return convert_files(
        work, source, target, workers, is_done=target_exists, target_suffix="", verb="extracted", engine=engine
    )


def _extract_one(settings: FrameSettings, job: Job) -> ConvertedFile:
    with atomic_path(job.target, PART) as part:
        part.mkdir()
        return ConvertedFile(_write_frames(job.source, part, settings))


def _write_frames(source: Path, folder: Path, settings: FrameSettings) -> str | None:
    """Write the frames, repeating the previous one for lost ones; return a description of damage in the source."""
    with PyAVReader(source) as video:
        wanted = choose_timing(video.times(), video.fps, settings.fps).source  # (m,), non-descending
        written = 0
        data = b""
        for index, image in _images(video):
            # Repeat the previous frame for frames that could not be decoded.
            first = int(np.searchsorted(wanted, index, side="left"))
            written = _write(folder, data, written, first) if data else written
            last = int(np.searchsorted(wanted, index, side="right"))
            if last > written:
                data = _encoded(image, settings)
                written = _write(folder, data, written, last)
        if not data:
            raise DecodeError(f"no frame can be decoded: {video.error or 'no error reported by the decoder'}")
        _write(folder, data, written, len(wanted))
        return video.error or video.truncation


def _images(video: PyAVReader) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the index of each decodable frame and the upright RGB image (H, W, 3)."""
    convert = RgbConverter()
    for index, frame in video.every_frame():
        still_working()
        yield index, convert(frame)


def _encoded(image: np.ndarray, settings: FrameSettings) -> bytes:
    """Encode a frame as JPEG, scaled down to `short_side`."""
    height, width = image.shape[:2]
    if min(height, width) > settings.short_side:
        height, width = scaled_size(height, width, settings.short_side)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, settings.quality])
    if not done:
        raise RuntimeError("OpenCV was built without JPEG support")
    return data.tobytes()


def _write(folder: Path, data: bytes, start: int, stop: int) -> int:
    """Write the same frame with the indices start .. stop - 1; return the next index."""
    for index in range(start, stop):
        (folder / TEMPLATE.format(index + FIRST_NUMBER)).write_bytes(data)
    return max(start, stop)
