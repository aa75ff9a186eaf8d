"""Small real video files for tests, and sequential decoding."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import numpy as np


def picture(number: int, height: int, width: int) -> np.ndarray:
    """Return a unique frame, a moving gradient with a bright square, uint8 (H, W, 3)."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 3 + number * 5, columns * 2 - number * 7, (rows + columns) * 2 + number * 11], axis=2)
    image = (image % 256).astype(np.uint8)
    top, left = (number * 3) % max(height - 8, 1), (number * 5) % max(width - 8, 1)
    image[top : top + 8, left : left + 8] = 255
    return image


def write_video(
    path: Path,
    frames: int = 60,
    codec: str = "libx264",
    size: tuple[int, int] = (64, 96),  # height, width
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rotation: int = 0,
    rate: int = 25,
    max_b_frames: int | None = None,
    first: int = 0,
) -> Path:
    """Encode `picture(first..first + frames)`; `pts` in units of `time_base` (default: one per frame, 1 / rate)."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.thread_count = 1
        if max_b_frames is not None:
            stream.codec_context.max_b_frames = max_b_frames
        base = time_base or Fraction(1, rate)
        stream.codec_context.time_base = base
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(first + number, *size), format="rgb24")
            frame.pts, frame.time_base = (pts[number] if pts is not None else number), base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """Write half a second of audio without video."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 22050), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        out.mux(stream.encode(sound))
        out.mux(stream.encode(None))
    return path


def plain_frames(path: Path, scale: str = "flags=bicubic") -> np.ndarray:
    """Decode all frames of the first video stream sequentially, in the order of the decoder, uint8 (n, H, W, 3).

    Frames are converted by FFmpeg's scale filter with the arguments `scale`, as in the ffmpeg program, and not rotated.
    """
    with av.open(str(path)) as container:
        decoded = list(container.decode(container.streams.video[0]))
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=decoded[0].width, height=decoded[0].height, format=decoded[0].format, time_base=Fraction(1, 1000)
    )
    scale, convert, sink = graph.add("scale", scale), graph.add("format", "rgb24"), graph.add("buffersink")
    graph.link_nodes(source, scale, convert, sink).configure()
    images = []
    for frame in decoded:
        graph.vpush(frame)
        images.append(graph.vpull().to_ndarray())
    return np.stack(images)


def break_packets(source: Path, target: Path, broken: set[int]) -> Path:
    """Copy the video packets of a file, zeroing those at the positions `broken` in decoding order."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = container.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for place, packet in enumerate(p for p in container.demux(stream) if p.size):
            if place in broken:
                times = packet.pts, packet.dts, packet.time_base, packet.is_keyframe
                packet = av.Packet(bytes(packet.size))
                packet.pts, packet.dts, packet.time_base, packet.is_keyframe = times
            packet.stream = copy
            out.mux(packet)
    return target
