"""Videos to folders of numbered JPEG frames, as the Something-Something layout has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from slowfast.datasets.decode.image import FIRST
from slowfast.datasets.decode.pyav import PyAVReader
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.decode.rgb import RgbConverter
from slowfast.datasets.decode.timing import choose_timing
from slowfast.datasets.sampling import scaled_size
from slowfast.errors import UserError
from slowfast.prepare.jobs import Conversion, ConvertedFile, Job, convert_files, target_exists
from slowfast.utils.files import written_whole
from slowfast.utils.worker import still_working

TEMPLATE = "{:05d}.jpg"
PART = ".frames"  # in the names of unfinished folders


@dataclass(frozen=True)
class FrameSettings:
    """How frames are written; raises UserError for values that cannot be used."""

    short_side: int = 240  # pixels; never enlarged
    fps: float | None = 12.0  # most frames a second, as Something-Something V2 has; None: all
    quality: int = 95  # of the JPEG files

    def __post_init__(self) -> None:
        for name, low, high in (("short_side", 16, 4320), ("fps", 0.1, 1000), ("quality", 1, 100)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"--{name.replace('_', '-')} {value}: must be from {low} to {high}")


def extract(source: Path, target: Path, settings: FrameSettings, workers: int) -> Conversion:
    """Write the frames of all videos below `source` to folders below `target`.

    The frames of ``a/b.mp4`` become ``a/b/00001.jpg`` and so on. A folder appears once it is complete; existing folders
    are skipped. Failures are listed in failed.csv.

    Args:
        source: Folder of videos.
        target: Folder to write to, outside of `source`.
        settings: Size, rate and quality of the frames.
        workers: Number of worker processes.

    Raises:
        UserError: If a folder is unsuitable or the frames cannot be written.
        DataError: If no video can be read.
    """
    work = partial(_extract_one, settings)
    return convert_files(work, source, target, workers, is_done=target_exists, target_suffix="", verb="extracted")


def _extract_one(settings: FrameSettings, job: Job) -> ConvertedFile:
    with written_whole(job.target, PART) as part:
        part.mkdir()
        return ConvertedFile(_write_frames(job.source, part, settings))


def _write_frames(source: Path, folder: Path, settings: FrameSettings) -> str | None:
    """Write the frames, the lost ones stood in for by the one before; what was wrong with the source."""
    with PyAVReader(source) as video:
        wanted = choose_timing(video.times(), video.fps, settings.fps).source  # (m,) not descending
        written = 0
        data = b""
        for index, image in _images(video):
            # Frames shown before this one that did not come out.
            first = int(np.searchsorted(wanted, index, side="left"))
            written = _write(folder, data, written, first) if data else written
            last = int(np.searchsorted(wanted, index, side="right"))
            if last > written:
                data = _encoded(image, settings)
                written = _write(folder, data, written, last)
        if not data:
            raise DecodeError(f"no frame can be decoded ({video.error or 'the decoder gave no error'})")
        _write(folder, data, written, len(wanted))
        return video.error or video.cut_off


def _images(video: PyAVReader) -> Iterator[tuple[int, np.ndarray]]:
    """All frames that can be decoded, with their number, as upright R G B (H, W, 3)."""
    convert = RgbConverter()
    for index, frame in video.every_frame():
        still_working()
        yield index, convert(frame)


def _encoded(image: np.ndarray, settings: FrameSettings) -> bytes:
    """A frame as JPEG, its short side reduced to `short_side`."""
    height, width = image.shape[:2]
    if min(height, width) > settings.short_side:
        height, width = scaled_size(height, width, settings.short_side)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, settings.quality])
    if not done:
        raise RuntimeError("OpenCV cannot encode JPEG here")
    return data.tobytes()


def _write(folder: Path, data: bytes, start: int, stop: int) -> int:
    """Write the same frame to the places start .. stop - 1; gives the next place."""
    for place in range(start, stop):
        (folder / TEMPLATE.format(place + FIRST)).write_bytes(data)
    return max(start, stop)
