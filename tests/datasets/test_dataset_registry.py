"""Dataset registry: declarations of each dataset, warnings about differences, and registration errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.datasets.base import DATASET_REGISTRY, BaseDataset, FrameDataset, warn_once
from slowfast.datasets.build import TEST, TRAIN, find_dataset
from slowfast.datasets.event_cameras import EventDataset
from slowfast.errors import ConfigError
from slowfast.models.protocol import CLIPS, EVENTS, IMAGES

NAMES = "asldvs dvsfolder dvsframes dvsgesture dvslip hmdb51 imagenet kinetics ssv1 ssv2 sth ucf101".split()
CLASSES = {"asldvs": 24, "dvsgesture": 11, "dvslip": 100, "sth": 174, "ssv1": 174, "ssv2": 174}
CLASSES |= {"ucf101": 101, "hmdb51": 51}


@pytest.fixture(autouse=True)
def _forget_warnings() -> None:
    warn_once.cache_clear()


def config(*overrides: object) -> ConfigNode:
    cfg = get_cfg()
    cfg.merge_from_list(list(overrides))
    return cfg


def test_all_names_their_classes_and_kinds() -> None:
    assert [name for name in DATASET_REGISTRY.names() if name in NAMES] == NAMES
    found = {name: DATASET_REGISTRY.get(name) for name in NAMES}
    assert {name: cls.num_classes for name, cls in found.items() if cls.num_classes is not None} == CLASSES
    kinds = {name: cls.input_kind for name, cls in found.items() if cls.input_kind != CLIPS}
    assert kinds == {"imagenet": IMAGES} | dict.fromkeys(("asldvs", "dvsfolder", "dvsgesture", "dvslip"), EVENTS)
    assert len(set(found.values())) == len(NAMES)  # one entry each


def test_the_split_decides_which_key_names_the_dataset() -> None:
    cfg = config("TRAIN.DATASET", "asldvs", "TEST.DATASET", "ssv2")
    assert type(find_dataset(cfg, TRAIN)).__name__ == type(find_dataset(cfg, "val")).__name__ == "ASLDVS"
    assert type(find_dataset(cfg, TEST)).__name__ == "SomethingV2"


def test_an_unknown_name_is_reported_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"TRAIN.DATASET: unknown value 'kinetcs'. Did you mean 'kinetics'\?"):
        find_dataset(config("TRAIN.DATASET", "kinetcs"), TRAIN)


@pytest.mark.parametrize("cls", [int, object()], ids=["a class", "no class"])
def test_only_subclasses_are_registered(cls: object) -> None:
    with pytest.raises(ConfigError, match="must derive from slowfast.datasets.base.BaseDataset"):
        DATASET_REGISTRY.register(cls, name="other")
    assert "other" not in DATASET_REGISTRY


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ConfigError, match="'kinetics' of .*Other is already taken by slowfast.datasets.kinetics.Kin"):

        @DATASET_REGISTRY.register(name="kinetics")
        class Other(FrameDataset):
            """Never used."""

    assert DATASET_REGISTRY.get("kinetics").__name__ == "Kinetics"


@pytest.mark.parametrize(("classes", "warned"), [(24, False), (4, False), (400, True)])
def test_more_classes_than_the_dataset_has_are_one_warning(
    classes: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = config("TEST.DATASET", "asldvs", "MODEL.NUM_CLASSES", classes, "TEST.NUM_SPATIAL_CROPS", 1)
    for _ in range(2):
        find_dataset(cfg, TEST).check(training=False)
    assert caplog.text.count(f"TEST.DATASET asldvs has 24 classes, but MODEL.NUM_CLASSES is {classes}") == warned


def recordings(folder: Path, *names: str) -> Path:
    for name in names:
        for label in ("0", "1"):
            target = folder / name / label
            target.mkdir(parents=True)
            for number in range(5):
                np.savez(target / f"{number}.npz", t=[0], x=[0], y=[0], p=[0])
    return folder


@pytest.mark.parametrize(
    ("name", "folders", "warning"),
    [
        ("dvsgesture", ("train", "test"), ""),
        ("dvslip", (".",), "split by the first 80 % of the files of each class"),
        ("asldvs", (".",), ""),
        ("asldvs", ("train", "test"), "split by the folders train/ and test/"),
        ("dvsfolder", (".",), ""),
        ("dvsfolder", ("train", "test"), ""),
    ],
)
def test_another_split_than_the_published_one_is_used_and_logged(
    name: str, folders: tuple[str, ...], warning: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = recordings(tmp_path / "data", *folders)
    cfg = config("TRAIN.DATASET", name, "MODEL.NUM_CLASSES", 2, "DATA.PATH_TO_DATA_DIR", str(root))
    dataset = find_dataset(cfg, TRAIN)
    assert isinstance(dataset, EventDataset)
    assert len(dataset.read_index("train")) == (8 if folders == (".",) else 10) and dataset.read_index("test")
    assert (warning in caplog.text) if warning else not caplog.text


@pytest.mark.parametrize(("name", "version", "warned"), [("ssv1", 1, False), ("ssv2", 1, True), ("sth", 2, False)])
def test_lists_of_the_other_version_are_a_warning(
    name: str, version: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    lists = f"somesomev{version}_rgb_{{}}_split.txt"
    cfg = config("TRAIN.DATASET", name, "MODEL.NUM_CLASSES", 174, "DATA.LABEL_PATH_TEMPLATE", lists)
    find_dataset(cfg, TRAIN).check(training=True)
    assert ("names lists of somesomev1, not of ssv2" in caplog.text) == warned


def test_hooks_have_defaults() -> None:
    class Videos(FrameDataset):
        """A dataset that only reads its index."""

        def read_index(self, split: str) -> list:
            return []

    dataset: BaseDataset = Videos(get_cfg())
    assert dataset.read_class_names() is None and dataset.num_classes is None
    dataset.check(training=True)
    assert len(dataset.build_train()) == len(dataset.build_eval([], all_views=True)) == 0
