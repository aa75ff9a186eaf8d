"""Opening of video files with FFmpeg, frame rates and durations from their headers, and timing of re-encoded videos."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.logging
import numpy as np
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from slowfast.datasets.decode.reader import Deadline, DecodeError, check_file, plausible_rate

_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_HEADER = 2**16  # bytes that are searched for the size of a file
_LOCAL = {"protocol_whitelist": "file"}
# PyAV 19 and later decode metadata in any encoding, and have no option for it.
_LENIENT_METADATA = int(av.__version__.partition(".")[0]) >= 19
# FFmpeg demuxers of image formats that may be animated.
_ANIMATED = {"webp_pipe": "WebP"}
# Ticks per second for videos with a variable frame rate.
VARIABLE_RATE_TICKS = 90_000


def open_file(path: Path, deadline: Deadline) -> InputContainer:
    """Open a local file.

    Raises:
        DecodeError: If it is not a video, with the reason of FFmpeg.
    """
    check_file(path)
    name = f"file:{path}"  # with the prefix, a name with a colon is not mistaken for a protocol
    try:
        return open_any_metadata(name, _LOCAL, deadline.seconds)
    except av.FFmpegError:
        if deadline.is_over:
            raise DecodeError(deadline.message) from None
        # Details such as "moov atom not found" go to FFmpeg's log only: retry with the log captured.
        level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)
        try:
            with av.logging.Capture() as log:
                return open_any_metadata(name, _LOCAL, deadline.seconds)
        except av.FFmpegError as error:
            detail = f": {log[0][2].strip()}" if log else ""
            if _is_raw_mpeg4(path):  # FFmpeg assumes MP4 because of its suffix
                detail = ". It is a raw MPEG-4 stream that does not start with a key frame"
            raise DecodeError(f"not a video that FFmpeg can read: {reason(error)}{detail}") from error
        finally:
            av.logging.set_level(level)
            av.logging.set_skip_repeated(skips)


def _is_raw_mpeg4(path: Path) -> bool:
    if path.suffix.lower() != ".m4v":
        return False
    with path.open("rb") as file:
        return file.read(3) == b"\0\0\1"


def open_any_metadata(name: str, options: dict[str, str], timeout: float | None = None) -> InputContainer:
    """Open a file with metadata in any encoding; FFmpeg interrupts calls that exceed the time limit in seconds."""
    if _LENIENT_METADATA:
        return av.open(name, options=options, timeout=timeout)
    return av.open(name, options=options, metadata_errors="replace", timeout=timeout)


def best_stream(container: InputContainer) -> VideoStream:
    """Return the video stream that FFmpeg prefers, ignoring cover images.

    Raises:
        DecodeError: If there is none, or no decoder for it.
    """
    best = container.streams.best("video")
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        covers = " (only a cover image)" if container.streams.video else ""
        raise DecodeError(f"no video stream{covers}")
    stream = best if best in moving else moving[0]
    if stream.codec_context is None:
        raise DecodeError("no decoder for its video codec")
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return stream


def frame_rate(stream: VideoStream, times: np.ndarray | None) -> float:
    """Return the frames per second from the header, or (n - 1) / duration."""
    header = stream.average_rate or stream.guessed_rate or stream.base_rate
    measured = None
    if times is not None and len(times) > 1 and times[-1] > times[0] and stream.time_base is not None:
        measured = (len(times) - 1) / (int(times[-1] - times[0]) * float(stream.time_base))
    return plausible_rate(float(header) if header else None, measured)


def header_duration(stream: VideoStream, start: int) -> float | None:
    """Return the end of the last frame in seconds from the header, for a first frame at `start`; None if unknown."""
    if stream.container.format.name == "avi" and stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate)  # FFmpeg measures the duration of a truncated file
    tagged = _tagged_duration(stream)  # the duration is counted from 0
    if tagged is None and stream.duration and stream.time_base is not None:
        return float((min(stream.start_time or 0, start) + stream.duration) * stream.time_base)
    return tagged


def missing_bytes(container: InputContainer, stream: VideoStream, frames: int) -> str | None:
    """Describe how much of a truncated ASF, WMV or AVI file is missing; None for complete and other files.

    Args:
        container: Open file.
        stream: Stream of its frames.
        frames: Number of frames that were found in the stream.
    """
    stated_size = _STATED_SIZE.get(container.format.name)
    if stated_size is None or (container.format.name == "avi" and frames >= stream.frames):
        return None  # of an AVI file with all frames, only the index at the end can be missing
    path = Path(container.name.removeprefix("file:"))
    with path.open("rb") as file:
        stated, size = stated_size(file.read(_HEADER)), path.stat().st_size
    return f"the file has {size} of its {stated} bytes" if size < stated else None


def _asf_size(head: bytes) -> int:
    """Return the size of an ASF file that its header states; 0 if it states none.

    FFmpeg ignores the duration of a truncated file. The size is in the file properties object (ASF specification,
    section 3.2); it is invalid in broadcasts.
    """
    _, found, properties = head.partition(_ASF_FILE_PROPERTIES)
    is_broadcast = bool(properties[72:73]) and properties[72] & 1
    return int.from_bytes(properties[24:32], "little") if found and not is_broadcast else 0


def _riff_size(head: bytes) -> int:
    """Return the size of an AVI file that its header states, at least that of its first RIFF chunk."""
    return int.from_bytes(head[4:8], "little") + 8


_STATED_SIZE = {"asf": _asf_size, "avi": _riff_size}


def _tagged_duration(stream: VideoStream) -> float | None:
    """Return the duration in seconds of a Matroska tag such as 00:00:10.333000000."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d*)?)", stream.metadata.get("DURATION", ""))
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else None


def why_not_decodable(stream: VideoStream, error: av.FFmpegError | None) -> str:
    """Describe why no frame of a stream can be decoded."""
    if name := _ANIMATED.get(stream.container.format.name):
        return f"FFmpeg cannot decode animated {name}. Convert it to MP4, or give images to a network of images"
    if not stream.codec_context.width:
        return "the stream contains no header of its codec and no key frame"
    return reason(error)


def reason(error: av.FFmpegError | None) -> str:
    """Describe an FFmpeg error briefly."""
    return error.strerror.lower() if error is not None and error.strerror else "no error reported by the decoder"


# ------------------------------------------------------------------ timing
@dataclass(frozen=True)
class Timing:
    """Timing of a re-encoded video of n frames: frame k of m shows source frame ``source[k]`` from ``ticks[k]`` on."""

    rate: Fraction  # nominal frames/s
    time_base: Fraction  # seconds per tick
    source: np.ndarray  # int64 (m,), non-descending
    ticks: np.ndarray  # int64 (m,), strictly ascending


def choose_timing(times: np.ndarray, fps: float, max_fps: float | None) -> Timing:
    """Choose the timing of a re-encoded video.

    A video above the maximum frame rate is resampled to it: each output frame is the source frame shown at that time.
    Otherwise every frame is kept, at a constant rate if that shifts no frame by more than half a frame.

    Args:
        times: Display times of the source frames in seconds, (n,).
        fps: Frame rate of the source in frames/s.
        max_fps: Largest frame rate in frames/s; None for no limit.
    """
    rate = _simple(fps)
    if max_fps is not None and fps > max_fps:
        return _resampled(times, rate, _simple(max_fps))
    order = np.arange(len(times))
    if np.abs(times - order / fps).max(initial=0) <= 0.5 / fps:
        return Timing(rate, 1 / rate, order, order)
    ticks = np.round(times * VARIABLE_RATE_TICKS).astype(np.int64)
    ticks = np.maximum.accumulate(ticks - order) + order  # strictly ascending
    return Timing(rate, Fraction(1, VARIABLE_RATE_TICKS), order, ticks)


def _simple(rate: float) -> Fraction:
    """Approximate a positive rate by a fraction of small numbers: 30000/1001, 1/3600."""
    return Fraction(rate).limit_denominator(1001) if rate >= 1 else 1 / Fraction(1 / rate).limit_denominator(1001)


def _resampled(times: np.ndarray, rate: Fraction, target: Fraction) -> Timing:
    duration = float(times[-1]) + 1 / float(rate)
    ticks = np.arange(max(round(duration * float(target)), 1))
    instants = ticks / float(target) + 1e-6  # timestamps are rounded
    source = np.searchsorted(times, instants, side="right") - 1
    return Timing(target, 1 / target, np.maximum(source, 0), ticks)
