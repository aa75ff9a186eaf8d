"""Reading still images: any file that OpenCV reads, as upright 8-bit R G B; and one image as a video of one frame."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from slowfast.datasets.decode.reader import Decoded, DecodeError, check_file, distinct_frames

IMAGE_SUFFIXES = frozenset(".bmp .jpeg .jpg .png .tif .tiff .webp".split())

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"


def read_image(path: Path) -> np.ndarray:
    """An image as uint8 (H, W, 3), R G B, turned upright as its EXIF orientation says.

    Grey and palette images become R G B, CMYK is converted, 16 bits are cut to the upper 8, transparency is left out
    (as in Pillow's conversion to RGB, with which published networks were evaluated).
    Raises DecodeError for a file that is missing, cut off, or no image.
    """
    check_file(path)
    try:
        data = path.read_bytes()
        if _is_cut_off(data):
            raise DecodeError("the image is cut off")
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except OSError as error:
        raise DecodeError((error.strerror or str(error)).lower()) from error
    except cv2.error as error:  # such as an image of more pixels than OpenCV allows
        raise DecodeError(f"not an image that OpenCV can read ({' '.join(error.err.split())})") from error
    if image is None:
        raise DecodeError("not a whole image that OpenCV can read")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _is_cut_off(data: bytes) -> bool:
    """Whether a JPEG lacks its end marker, as Pillow asks for it too: OpenCV fills the rest with grey and says nothing.

    After the last start of a scan only coded data follows, in which the marker cannot occur by chance (ITU-T T.81,
    B.1.1.5), so a thumbnail's own end does not count.
    """
    return data.startswith(_JPEG_START) and data.rfind(_JPEG_END) <= data.rfind(_JPEG_SCAN)


class ImageReader:
    """One image behind the interface of a video of one frame; read when opened."""

    num_frames = 1
    fps = 1.0

    def __init__(self, path: Path) -> None:
        """Raises DecodeError as `read_image`."""
        self._image = read_image(path)

    @property
    def height(self) -> int:
        """Height of the upright image (pixels)."""
        return self._image.shape[0]

    @property
    def width(self) -> int:
        """Width of the upright image (pixels)."""
        return self._image.shape[1]

    def read(self, indices: Any) -> Decoded:
        """The image, as frame 0."""
        wanted, rows = distinct_frames(indices, self.num_frames)
        return Decoded(self._image[None][wanted], rows, None)

    def close(self) -> None:
        """Nothing is open any more."""

    def __enter__(self) -> ImageReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
