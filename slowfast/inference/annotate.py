"""Videos, and films of event recordings, with their best classes drawn on every frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, find_dataset
from slowfast.datasets.decode.image import FrameFolderReader
from slowfast.datasets.decode.pyav import PyAVReader
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.decode.rgb import RgbConverter
from slowfast.datasets.decode.timing import choose_timing
from slowfast.datasets.dvs.recording import Recording
from slowfast.datasets.dvs.repair import whole
from slowfast.datasets.index.media import target_files
from slowfast.datasets.types import Record, failure_reason
from slowfast.errors import UserError
from slowfast.inference.predictor import Prediction
from slowfast.utils.logging import get_logger
from slowfast.visualization.event_plots import event_frames
from slowfast.visualization.video_writer import NAME_LENGTH, write_annotated

EVENTS_FPS, SHORTEST = 20, 40  # of films of events: frames a second, and in all at least


def annotate_media(cfg: ConfigNode, predictions: Sequence[Prediction], folder: Path) -> Path:
    """Write every video or event recording that was read to `folder`, its best classes drawn on it; gives the folder.

    Whole videos at their own size and rate, without their sound; folders of frames at DATA.TARGET_FPS; all events of
    recordings, as red and blue dots, as fast as they came, or slower for a event_frames of at least SHORTEST frames.
    """
    recordings = find_dataset(cfg, TEST).reads_recordings
    read = [prediction for prediction in predictions if prediction.scores is not None]
    targets = target_files([prediction.record for prediction in read], folder, ".mp4")
    for prediction, target in zip(read, targets, strict=True):
        lines = [f"{100 * score:5.1f} %  {name[:NAME_LENGTH]}" for name, score in prediction.best()]
        try:
            if recordings:
                annotate_events(prediction.record, tuple(cfg.DVS.SENSOR_SIZE), cfg.DVS.TIME_UNIT, lines, target)
            else:
                annotate(prediction.record, cfg.DATA.IMAGE_TEMPLATE, cfg.DATA.TARGET_FPS, lines, target)
        except UserError:
            raise
        except Exception as error:
            get_logger().warning(f"{prediction.path} cannot be annotated: {failure_reason(error)}")
    return folder


def annotate(record: Record, template: str, fps: float, lines: Sequence[str], target: Path) -> int:
    """Write the frames of a record with lines of text drawn on them; the number of frames written.

    `template` and `fps` are for folders of frames. Raises DecodeError where nothing can be read.
    """
    if record.frames is not None:
        with FrameFolderReader(record.path, template, record.frames, fps) as folder:
            timing = choose_timing(np.arange(record.frames) / fps, fps, None)
            return write_annotated(_images(folder), timing, lines, target)
    with PyAVReader(record.path) as video:
        timing = choose_timing(video.times(), video.fps, None)
        return write_annotated(_frames(video), timing, lines, target)


def annotate_events(
    record: Record, sensor: tuple[int, int], time_unit: float, lines: Sequence[str], target: Path
) -> int:
    """Write a event_frames of all events of a recording with lines of text drawn on it; the number of frames written.

    sensor: height, width; time_unit: seconds of one unit of its times. Raises DecodeError where it cannot be read.
    """
    events, _ = whole(Recording(record.path).take(slice(None)), sensor, time_unit)
    seconds = 1e-6 * float(events.t[-1] - events.t[0])
    frames = max(round(seconds * EVENTS_FPS), SHORTEST)
    timing = choose_timing(np.arange(frames) / EVENTS_FPS, EVENTS_FPS, None)
    return write_annotated(enumerate(event_frames(events, sensor, frames)), timing, lines, target)


def _images(folder: FrameFolderReader) -> Iterator[tuple[int, np.ndarray]]:
    for number in range(folder.num_frames):
        try:
            yield number, folder.read([number]).frames[0]
        except DecodeError:
            continue  # the frame before stays on the screen; the prediction says what is missing


def _frames(video: PyAVReader) -> Iterator[tuple[int, np.ndarray]]:
    convert = RgbConverter()
    for number, frame in video.every_frame():
        yield number, convert(frame)
