"""Re-encoding of one video for fast training."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream

from slowfast.datasets.decode.container import Timing, choose_timing
from slowfast.datasets.decode.pyav import PyAVReader
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.decode.rgb import FilterChain, frame_matrix, make_convertible, orientation_of
from slowfast.errors import system_reason
from slowfast.utils.cpu import instruction_sets
from slowfast.utils.files import atomic_path
from slowfast.utils.text_files import to_json
from slowfast.utils.worker import still_working


@dataclass(frozen=True)
class PrepareSettings:
    """Settings of the encoder. Videos already re-encoded with the same settings are skipped.

    Args:
        short_side: Short side of the frames in pixels; smaller videos keep their size.
        keyframe_interval: Number of frames between keyframes; a clip is decoded from the keyframe before it.
        crf: Constant rate factor of x264; lower values give higher quality and larger files.
        fps: Largest frame rate in frames/s; None to keep all frames.
        preset: Preset of x264.
    """

    short_side: int = 256
    keyframe_interval: int = 32
    crf: int = 20
    fps: float | None = None
    preset: str = "medium"

    def digest(self) -> str:
        """Return a hash of the settings and of the resulting x264 options."""
        text = to_json([asdict(self), self.x264_options()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def x264_options(self) -> dict[str, str]:
        """Return encoder options for fast decoding.

        Three of four frames are B-frames that no other frame refers to (no pyramid, fixed pattern, closed groups), so
        that the reader can skip those it does not need. ``fastdecode`` disables CABAC and in-loop deblocking, which
        doubles the decoding speed for about 15 % larger files. One thread, since there is one worker per core.
        """
        pattern = {"bframes": 3, "b-adapt": 0, "b-pyramid": "none", "open-gop": 0, "threads": 1}
        return {
            "preset": self.preset,
            "tune": "fastdecode",
            "crf": str(self.crf),
            "g": str(self.keyframe_interval),
            "x264-params": ":".join(f"{name}={value}" for name, value in pattern.items()),
        }


_MUXER = {"movflags": "+faststart"}
_UNSPECIFIED = 2  # FFmpeg's AVCOL_SPC_UNSPECIFIED


@dataclass(frozen=True)
class Encoded:
    """Re-encoded and verified video."""

    frames: int
    size: int  # in bytes
    damage: str | None  # description of what could not be read from the source


def prepare_video(source: Path, target: Path, settings: PrepareSettings) -> Encoded:
    """Re-encode a video. The target appears once it is complete and verified.

    Args:
        source: Video to read.
        target: File to write; its folder is created if necessary.
        settings: Settings of the encoder.

    Raises:
        DecodeError: If no frame of the source can be decoded, or the result differs from what was encoded.
        DiskError: If the file cannot be written.
    """
    try:
        with atomic_path(target) as part:
            count, damage = _encode(source, part, settings)
            _verify(part, count)
            size = part.stat().st_size
    except av.FFmpegError as error:
        raise DecodeError(f"cannot be re-encoded: {system_reason(error)}") from error
    return Encoded(count, size, damage)


def _encode(source: Path, part: Path, settings: PrepareSettings) -> tuple[int, str | None]:
    """Write the file; return the number of frames and a description of damage of the source."""
    with PyAVReader(source) as video, av.open(str(part), "w", format="mp4", options=_MUXER) as out:
        timing = choose_timing(video.times(), video.fps, settings.fps)
        writer: _Writer | None = None
        for index, frame in video.every_frame():
            still_working()
            writer = writer or _Writer(out, frame, timing, settings)
            writer.write(index, frame)
        if writer is None:
            raise DecodeError(f"no frame can be decoded: {video.error or 'no error reported by the decoder'}")
        writer.finish()
        lost = len(timing.source) - writer.count
        if lost:
            return (
                writer.count,
                f"{lost} of {len(timing.source)} frames lost: {video.error or 'no error reported by the decoder'}",
            )
        return writer.count, video.error or video.truncation


class _Writer:
    """Encoder that rotates and scales frames. The first frame determines the size and the color properties."""

    def __init__(self, out: OutputContainer, first: av.VideoFrame, timing: Timing, settings: PrepareSettings) -> None:
        self._out, self._timing = out, timing
        self._reformatter = VideoReformatter()
        self._filters: FilterChain | None = None
        make_convertible(first)
        self._stream = _add_stream(out, first, timing, settings)
        self._next = 0  # index of the next output frame
        self.count = 0  # number of frames written

    def write(self, index: int, frame: av.VideoFrame) -> None:
        """Write the output frames that show source frame `index`; indices must be ascending."""
        source, ticks = self._timing.source, self._timing.ticks
        first = max(self._next, int(np.searchsorted(source, index, side="left")))
        last = int(np.searchsorted(source, index, side="right"))
        for k in range(first, last):
            scaled = self._scaled(frame)
            scaled.pts, scaled.time_base = int(ticks[k]), self._timing.time_base
            scaled.pict_type = 0  # let the encoder choose
            self._out.mux(self._stream.encode(scaled))
            self.count += 1
        self._next = max(self._next, last)

    def _scaled(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return the frame, upright and scaled to the output size."""
        make_convertible(frame)
        width, height = self._stream.width, self._stream.height
        orientation = orientation_of(frame_matrix(frame))
        if orientation.is_identity:
            return self._reformatter.reformat(
                frame,
                width,
                height,
                format="yuv420p",
                dst_color_range=ColorRange.MPEG,
                interpolation="BICUBIC",
                threads=1,
            )
        scale = ("scale", f"{width}:{height}:flags=bicubic:out_range=tv")
        steps = [*orientation.filters(), scale, ("format", "yuv420p"), ("sidedata", "delete:DISPLAYMATRIX")]
        if self._filters is None or not self._filters.fit(frame, steps):
            self._filters = FilterChain(frame, steps)
        return self._filters(frame)

    def finish(self) -> None:
        """Flush the encoder."""
        self._out.mux(self._stream.encode(None))


def _encoder_options(settings: PrepareSettings) -> dict[str, str]:
    """Return the options of x264 on this machine.

    Its lookahead with AVX-512 reads memory that was not initialized: the same frames would give different files.
    """
    options = settings.x264_options()
    if "AVX-512F" in instruction_sets():
        options["x264-params"] += ":asm=AVX2"
    return options


def _add_stream(out: OutputContainer, first: av.VideoFrame, timing: Timing, settings: PrepareSettings) -> VideoStream:
    stream = out.add_stream("libx264", rate=timing.rate, options=_encoder_options(settings))
    upright = orientation_of(frame_matrix(first)).size(first.width, first.height)
    stream.width, stream.height = prepared_size(*upright, settings.short_side)
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = timing.time_base
    context.thread_count = 1
    # Keep the color matrix of the source, unless it is RGB (0).
    context.colorspace, context.color_range = first.colorspace or _UNSPECIFIED, ColorRange.MPEG
    context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
    return stream


def prepared_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return the output width and height: short side at most `short_side`, both even for 4:2:0 chroma subsampling."""
    scale = min(1.0, short_side / min(width, height))
    if scale == 1.0:
        return max(width - width % 2, 2), max(height - height % 2, 2)
    return max(2 * round(width * scale / 2), 2), max(2 * round(height * scale / 2), 2)


def _verify(part: Path, count: int) -> None:
    """Check the number of frames of the file, and that the first and the last one can be decoded."""
    with PyAVReader(part) as video:
        if video.num_frames != count:
            raise DecodeError(f"the re-encoded file contains {video.num_frames} instead of {count} frames")
        missing = video.read([0, count - 1]).missing
        if missing is not None:
            raise DecodeError(f"the re-encoded file is damaged: {missing}")
