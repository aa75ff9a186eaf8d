"""Something-Something V1 and V2: folders of frames, or V2's videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from slowfast.datasets.base import DATASET_REGISTRY, FrameDataset, warn_once
from slowfast.datasets.decode import VideoReader
from slowfast.datasets.decode.image import FrameFolderReader
from slowfast.datasets.index.kinetics import read_class_names
from slowfast.datasets.index.something import is_official, official_class_names, read_something_index
from slowfast.datasets.sampling import SegmentSampling, TemporalSampling
from slowfast.datasets.transforms import ViewTransform
from slowfast.datasets.types import Record


@DATASET_REGISTRY.register(name="sth")
class SomethingSomething(FrameDataset):
    """Base class of both versions, with the lists named by DATA.LABEL_PATH_TEMPLATE.

    Attributes:
        other_version: Part of DATA.LABEL_PATH_TEMPLATE that names the lists of the other version.
    """

    num_classes = 174
    reads_frame_folders = True
    other_version: ClassVar[str | None] = None

    def read_index(self, split: str) -> Sequence[Record]:
        data = self.cfg.DATA
        return read_something_index(
            data.PATH_TO_DATA_DIR,
            data.LABEL_PATH_TEMPLATE,
            split,
            data.PATH_PREFIX,
            self.cfg.MODEL.NUM_CLASSES,
            data.IMAGE_TEMPLATE,
        )

    def read_class_names(self) -> list[str] | None:
        folder, template = self.cfg.DATA.PATH_TO_DATA_DIR, self.cfg.DATA.LABEL_PATH_TEMPLATE
        if is_official(template):
            return official_class_names(folder, template, self.cfg.MODEL.NUM_CLASSES)
        return read_class_names(folder, self.cfg.MODEL.NUM_CLASSES)

    def open_sample(self, short_side: int, record: Record) -> VideoReader:
        """Open a folder of frames, or a video if the index gives no number of frames."""
        if record.frames is None:
            return super().open_sample(short_side, record)
        data = self.cfg.DATA
        return FrameFolderReader(record.path, data.IMAGE_TEMPLATE, record.frames, data.TARGET_FPS)

    def temporal_sampling(self) -> TemporalSampling:
        """Return the temporal sampling of a clip: one frame in each of T equal segments."""
        return SegmentSampling.from_config(self.cfg)

    def view_transform(self, crops: int) -> ViewTransform:
        """Return the transform of an evaluation view: short side DATA.TEST_CROP_SIZE."""
        size = self.cfg.DATA.TEST_CROP_SIZE
        return ViewTransform(size, size, crops, single=self.cfg.TEST.SINGLE_CROP)

    def check(self, training: bool) -> None:
        """Check that the lists are not those of the other version; see `FrameDataset.check`."""
        super().check(training)
        template = self.cfg.DATA.LABEL_PATH_TEMPLATE
        if self.other_version is not None and self.other_version in template:
            name = self.cfg.TRAIN.DATASET if training else self.cfg.TEST.DATASET
            warn_once(f"DATA.LABEL_PATH_TEMPLATE ({template}) names lists of {self.other_version}, not of {name}")


@DATASET_REGISTRY.register(name="ssv1")
class SomethingV1(SomethingSomething):
    """Something-Something V1: frames named ``{:05d}.jpg``."""

    other_version = "somesomev2"


@DATASET_REGISTRY.register(name="ssv2")
class SomethingV2(SomethingSomething):
    """Something-Something V2: frames named ``{:06d}.jpg``, or the published videos."""

    other_version = "somesomev1"
