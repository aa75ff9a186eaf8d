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

from slowfast.datasets.decode.pyav import PyAVReader
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.decode.rgb import FilterChain, frame_matrix, make_convertible, orientation_of
from slowfast.datasets.decode.timing import Timing, choose_timing
from slowfast.errors import UserError, system_reason
from slowfast.utils.files import written_whole
from slowfast.utils.json_files import to_json
from slowfast.utils.worker import still_working

# x264's trades of encoding time for size, as fast as it gets first.
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


@dataclass(frozen=True)
class PrepareSettings:
    """How to re-encode; equal settings give files that need not be made again."""

    short_side: int = 256  # pixels; smaller videos keep their size
    keyframe_interval: int = 32  # frames; a clip is decoded from the key frame before it
    crf: int = 20  # x264's constant rate factor: lower is finer and larger
    fps: float | None = None  # most frames a second; None keeps all
    preset: str = "medium"  # of PRESETS

    def __post_init__(self) -> None:
        limits = {"short_side": (16, 4320), "keyframe_interval": (1, 1000), "crf": (0, 51), "fps": (0.1, 1000)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"--{name.replace('_', '-')} {value}: must be from {low} to {high}")
        if self.preset not in PRESETS:
            raise UserError(f"--preset {self.preset}: must be one of {', '.join(PRESETS)}")

    def digest(self) -> str:
        """Differs where the settings, or what `x264_options` makes of them, differ."""
        text = to_json([asdict(self), self.x264_options()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def x264_options(self) -> dict[str, str]:
        """Options of the encoder, chosen for decoding speed.

        Three of four frames are B-frames that no other frame refers to (no pyramid, fixed pattern, closed groups), so
        that the reader leaves out those it does not want. `fastdecode` does without CABAC and in-loop deblocking, which
        halve the decoder's speed, for some 15 % more bytes. One thread: the pool has a process a core.
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
    """A prepared video that was read back and found whole."""

    frames: int
    size: int  # bytes
    damage: str | None  # what could not be read of the source, None when all of it was


def prepare_video(source: Path, target: Path, settings: PrepareSettings) -> Encoded:
    """Re-encode `source` as `target`, which appears complete or not at all; its folder is made.

    Raises DecodeError when nothing of the source can be decoded or the result is not what was encoded, DiskError when
    the disk does not take it.
    """
    try:
        with written_whole(target) as part:
            count, damage = _encode(source, part, settings)
            _verify(part, count)
            size = part.stat().st_size
    except av.FFmpegError as error:
        raise DecodeError(f"cannot be re-encoded ({system_reason(error)})") from error
    return Encoded(count, size, damage)


def _encode(source: Path, part: Path, settings: PrepareSettings) -> tuple[int, str | None]:
    """Write the file; the number of frames written, and what was wrong with the source."""
    with PyAVReader(source) as video, av.open(str(part), "w", format="mp4", options=_MUXER) as out:
        timing = choose_timing(video.times(), video.fps, settings.fps)
        writer: _Writer | None = None
        for index, frame in video.every_frame():
            still_working()
            writer = writer or _Writer(out, frame, timing, settings)
            writer.write(index, frame)
        if writer is None:
            raise DecodeError(f"no frame can be decoded ({video.error or 'the decoder gave no error'})")
        writer.finish()
        lost = len(timing.source) - writer.count
        if lost:
            return writer.count, f"{lost} of {len(timing.source)} frames lost ({video.error or 'no error given'})"
        return writer.count, video.error or video.cut_off


class _Writer:
    """Turns upright, scales and encodes frames of one video. The first frame decides the size and the colors."""

    def __init__(self, out: OutputContainer, first: av.VideoFrame, timing: Timing, settings: PrepareSettings) -> None:
        self._out, self._timing = out, timing
        self._reformatter = VideoReformatter()
        self._filters: FilterChain | None = None
        make_convertible(first)
        self._stream = _add_stream(out, first, timing, settings)
        self._next = 0  # output frame to write
        self.count = 0  # frames written

    def write(self, index: int, frame: av.VideoFrame) -> None:
        """Write the output frames that show source frame `index`; frames come in ascending order."""
        source, ticks = self._timing.source, self._timing.ticks
        first = max(self._next, int(np.searchsorted(source, index, side="left")))
        last = int(np.searchsorted(source, index, side="right"))
        for k in range(first, last):
            scaled = self._scaled(frame)
            scaled.pts, scaled.time_base = int(ticks[k]), self._timing.time_base
            scaled.pict_type = 0  # the encoder decides, not the source
            self._out.mux(self._stream.encode(scaled))
            self.count += 1
        self._next = max(self._next, last)

    def _scaled(self, frame: av.VideoFrame) -> av.VideoFrame:
        """A frame, upright and as large as the output."""
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
        """Write what the encoder still holds."""
        self._out.mux(self._stream.encode(None))


def _add_stream(out: OutputContainer, first: av.VideoFrame, timing: Timing, settings: PrepareSettings) -> VideoStream:
    stream = out.add_stream("libx264", rate=timing.rate, options=settings.x264_options())
    upright = orientation_of(frame_matrix(first)).size(first.width, first.height)
    stream.width, stream.height = prepared_size(*upright, settings.short_side)
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = timing.time_base
    context.thread_count = 1
    # The same matrix as the source's, or the usual one for a source in RGB (0).
    context.colorspace, context.color_range = first.colorspace or _UNSPECIFIED, ColorRange.MPEG
    context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
    return stream


def prepared_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height (pixels): the short side reduced to `short_side`, never enlarged, both made even for 4:2:0."""
    scale = min(1.0, short_side / min(width, height))
    if scale == 1.0:
        return max(width - width % 2, 2), max(height - height % 2, 2)
    return max(2 * round(width * scale / 2), 2), max(2 * round(height * scale / 2), 2)


def _verify(part: Path, count: int) -> None:
    """Read the file back: the number of frames, the first and the last one."""
    with PyAVReader(part) as video:
        if video.num_frames != count:
            raise DecodeError(f"the re-encoded file has {video.num_frames} frames instead of {count}")
        missing = video.read([0, count - 1]).missing
        if missing is not None:
            raise DecodeError(f"the re-encoded file is damaged: {missing}")
