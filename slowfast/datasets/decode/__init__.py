"""Video decoding: :func:`open_video` and the decoders of DATA.DECODING_BACKEND."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from slowfast.datasets.decode.reader import Decoded, DecodeError, VideoReader
from slowfast.errors import ConfigError

__all__ = ["BACKENDS", "DecodeError", "Decoded", "VideoReader", "open_video", "require_backend"]

# Modules are imported on first use, because torchcodec is an optional package.
BACKENDS = {
    "pyav": ("slowfast.datasets.decode.pyav", "PyAVReader"),
    "torchcodec": ("slowfast.datasets.decode.torchcodec", "TorchCodecReader"),
}


def require_backend(name: str) -> Callable[..., VideoReader]:
    """Return the reader class of a decoder.

    Raises:
        ConfigError: If it is unknown or its package cannot be used.
    """
    if name not in BACKENDS:
        raise ConfigError(f"DATA.DECODING_BACKEND: unknown value {name!r}. Choices: {', '.join(BACKENDS)}")
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
        path: Any file that FFmpeg can read. Its best video stream is used.
        backend: A name in BACKENDS.
        threads: Number of decoder threads; 0 lets FFmpeg choose. The frames do not depend on it.
        timeout: Time limit in seconds for opening and reading the file; None for no limit.
        short_side: Frames with a longer short side are scaled down to this many pixels by area averaging; ``height``
            and ``width`` are those of the scaled frames. None keeps the size of the file.

    Raises:
        DecodeError: If the file is missing, empty, not a regular file, contains no video that can be decoded, exceeds a
            limit (see :mod:`slowfast.datasets.decode.reader`) or takes longer than the timeout.
        ConfigError: If the backend is unknown or not installed.
    """
    return require_backend(backend)(Path(path), threads=threads, timeout=timeout, short_side=short_side)
