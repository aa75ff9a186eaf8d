"""Videos, and event recordings rendered as videos, with their predicted classes drawn on every frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, find_dataset
from slowfast.datasets.decode.container import choose_timing
from slowfast.datasets.decode.image import FrameFolderReader
from slowfast.datasets.decode.pyav import PyAVReader
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.decode.rgb import RgbConverter
from slowfast.datasets.dvs.recording import Recording, clean_events
from slowfast.datasets.index.samples import target_files
from slowfast.datasets.types import Record, failure_reason
from slowfast.errors import UserError
from slowfast.inference.predictor import Prediction
from slowfast.inference.segments import Segment, SegmentAt, VideoSegments
from slowfast.utils.logging import get_logger
from slowfast.visualization.event_plots import event_frames
from slowfast.visualization.video_writer import NAME_LENGTH, write_annotated

# Frame rate and minimum number of frames of a rendered event recording.
EVENTS_FPS, MIN_FRAMES = 20, 40


def annotate_files(cfg: ConfigNode, predictions: Sequence[Prediction], folder: Path) -> Path:
    """Write each video or event recording that was read as .mp4, with its predicted classes drawn on it.

    Videos keep their size and frame rate and lose their sound; folders of frames play at DATA.TARGET_FPS. Event
    recordings show ON events in red and OFF events in blue, in real time or, if that is less than `MIN_FRAMES` frames,
    slowed down. Files that cannot be annotated are reported and skipped.

    Args:
        cfg: Config of the predictions.
        predictions: Predictions of files.
        folder: Output folder.

    Returns:
        The output folder.
    """
    recordings = find_dataset(cfg, TEST).reads_recordings
    read = [prediction for prediction in predictions if prediction.scores is not None]
    targets = target_files([prediction.record for prediction in read], folder, ".mp4")
    for prediction, target in zip(read, targets, strict=True):
        lines = class_lines(prediction.best())
        with _reported(prediction.path):
            if recordings:
                sensor = tuple(cfg.DVS.SENSOR_SIZE)
                annotate_events(prediction.record, sensor, cfg.DVS.TIME_UNIT, lines, target, cfg.DVS.STREAM)
            else:
                annotate(prediction.record, cfg.DATA.IMAGE_TEMPLATE, cfg.DATA.TARGET_FPS, lines, target)
    return folder


def annotate_segments(cfg: ConfigNode, videos: Sequence[VideoSegments], names: Sequence[str], folder: Path) -> Path:
    """Write each video as .mp4, with the classes of the segment whose center is nearest drawn on each frame.

    Args:
        cfg: Config of the predictions.
        videos: Videos and their segments.
        names: Class names.
        folder: Output folder.

    Returns:
        The output folder.
    """
    targets = target_files([video.record for video in videos], folder, ".mp4")
    for video, target in zip(videos, targets, strict=True):
        with _reported(video.record.name):
            lines = SegmentLines(video.segments, names)
            annotate(video.record, cfg.DATA.IMAGE_TEMPLATE, cfg.DATA.TARGET_FPS, lines, target)
    return folder


class SegmentLines:
    """Lines of text at each time of a video: the best classes of a segment.

    Args:
        segments: Segments of the video.
        names: Class names.
    """

    def __init__(self, segments: Sequence[Segment], names: Sequence[str]) -> None:
        self._at, self._names = SegmentAt(segments), names

    def __call__(self, seconds: float) -> list[str]:
        """Return the lines at a time in seconds; none outside the segments."""
        segment = self._at(seconds)
        return [] if segment is None else class_lines([(self._names[label], score) for label, score in segment.best])


def class_lines(best: Sequence[tuple[str, float]]) -> list[str]:
    """Return the line of text of each (class name, score)."""
    return [f"{100 * score:5.1f} %  {name[:NAME_LENGTH]}" for name, score in best]


@contextmanager
def _reported(path: str) -> Iterator[None]:
    """Report a file that cannot be annotated, and continue with the others."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        get_logger().warning(f"{path} cannot be annotated: {failure_reason(error)}")


Lines = Sequence[str] | Callable[[float], Sequence[str]]


def annotate(record: Record, template: str, fps: float, lines: Lines, target: Path) -> int:
    """Write the frames of a video or folder of frames with lines of text drawn on them.

    Args:
        record: The video or folder of frames.
        template: File name template of a folder of frames.
        fps: Frame rate of a folder of frames.
        lines: Text to draw, or a function from the time in seconds after the first frame to the text.
        target: Video file to write.

    Returns:
        The number of frames written.

    Raises:
        DecodeError: If no frame can be read.
    """
    if record.frames is not None:
        with FrameFolderReader(record.path, template, record.frames, fps) as folder:
            times = np.arange(record.frames) / fps
            return write_annotated(_images(folder), choose_timing(times, fps, None), _by_frame(lines, times), target)
    with PyAVReader(record.path) as video:
        times = video.times()
        return write_annotated(_frames(video), choose_timing(times, video.fps, None), _by_frame(lines, times), target)


def _by_frame(lines: Lines, times: np.ndarray) -> Sequence[str] | Callable[[int], Sequence[str]]:
    """Return the lines as a function of the frame number; `times` are the display times of the frames."""
    return (lambda number: lines(float(times[number]))) if callable(lines) else lines


def annotate_events(
    record: Record, sensor: tuple[int, int], time_unit: float, lines: Sequence[str], target: Path, stream: str = ""
) -> int:
    """Render all events of a recording as a video with lines of text drawn on it.

    Args:
        record: The recording.
        sensor: Sensor height and width in pixels.
        time_unit: Duration of one timestamp tick in seconds.
        lines: Text to draw.
        target: Video file to write.
        stream: Name of the stream of a file with several.

    Returns:
        The number of frames written.

    Raises:
        DecodeError: If the recording cannot be read.
    """
    recording = Recording(record.path, stream)
    events, _ = clean_events(recording.take(slice(None)), sensor, recording.time_unit(time_unit))
    seconds = 1e-6 * float(events.t[-1] - events.t[0])
    frames = max(round(seconds * EVENTS_FPS), MIN_FRAMES)
    timing = choose_timing(np.arange(frames) / EVENTS_FPS, EVENTS_FPS, None)
    return write_annotated(enumerate(event_frames(events, sensor, frames)), timing, lines, target)


def _images(folder: FrameFolderReader) -> Iterator[tuple[int, np.ndarray]]:
    for number in range(folder.num_frames):
        try:
            yield number, folder.read([number]).frames[0]
        except DecodeError:
            continue  # the previous frame stays visible; the prediction names the missing one


def _frames(video: PyAVReader) -> Iterator[tuple[int, np.ndarray]]:
    convert = RgbConverter()
    for number, frame in video.every_frame():
        yield number, convert(frame)
