"""Opening videos: the registry of decoders behind DATA.DECODING_BACKEND."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from slowfast.datasets.decode.reader import Decoded, DecodeError, VideoReader
from slowfast.errors import ConfigError

__all__ = ["BACKENDS", "DecodeError", "Decoded", "VideoReader", "open_video", "require_backend"]

# Modules are imported when first used: torchcodec is an optional package.
BACKENDS = {
    "pyav": ("slowfast.datasets.decode.pyav", "PyAVReader"),
    "torchcodec": ("slowfast.datasets.decode.torchcodec", "TorchCodecReader"),
}


def require_backend(name: str) -> Callable[..., VideoReader]:
    """Return the reader class of a decoder.

    Raises:
        ConfigError: If it is unknown or its package does not work here.
    """
    if name not in BACKENDS:
        raise ConfigError(f"DATA.DECODING_BACKEND {name!r} is unknown; valid are {', '.join(BACKENDS)}")
    module, attribute = BACKENDS[name]
    reader: Callable[..., VideoReader] = getattr(import_module(module), attribute)
    return reader


def open_video(
    path: Path | str,
    backend: str = "pyav",
    threads: int = 1,
    timeout: float | None = None,
    short_side: int | None = None,
) -> VideoReader:
    """Open a video file; use it as a context manager.

    Args:
        path: Any file FFmpeg reads. Its best video stream is taken.
        backend: A name in BACKENDS.
        threads: Decoder threads; 0 lets FFmpeg choose. Frames never depend on it.
        timeout: Seconds after which opening and reading the file is given up with a DecodeError; None for no limit.
        short_side: Frames with a longer short side (pixels) are scaled down to it by area averaging, and `height` and
            `width` are those of the scaled frames; None to keep the size of the file.

    Raises:
        DecodeError: If the file is missing, empty, no regular file, has no video that can be decoded, exceeds a limit
            (`slowfast.datasets.decode.reader`), or takes longer than the timeout.
        ConfigError: If the backend is unknown or not installed.
    """
    return require_backend(backend)(Path(path), threads=threads, timeout=timeout, short_side=short_side)
