"""Grad-CAM heat maps of files, drawn as PNGs, and beside the frames as a video.

Notation: T frames of a clip, S side of the network's input.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from tabulate import tabulate
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, eval_loader, views_of_records
from slowfast.datasets.index.samples import SampleKind, find_samples, target_files
from slowfast.datasets.types import EvalVideo, FailureLedger
from slowfast.engine.forward import ClipForward
from slowfast.engine.state import network_to_test
from slowfast.engine.test import class_names_of
from slowfast.errors import DataError, UserError
from slowfast.inference.grad_cam import HeatMap, MapLayer, compute_heat_map, default_layer, find_layer, find_map_layers
from slowfast.models.protocol import Network, input_shape
from slowfast.utils.distributed import World, init_distributed
from slowfast.utils.logging import get_logger
from slowfast.utils.screen import show, show_table
from slowfast.utils.text import did_you_mean, nearest_name, plain
from slowfast.visualization.first_batch import save_image
from slowfast.visualization.heat_map import draw_heat_map, overlay
from slowfast.visualization.plots import PlotsUnavailable, new_figure
from slowfast.visualization.video_writer import VideoWriter, pad_to_even

MIN_SIDE = 320  # pixels of a frame in the heat map video, so that it is legible


@dataclass(frozen=True)
class ExplainedClip:
    """Clip or image with the heat map of a class.

    Attributes:
        frames: Frames as the model sees them, RGB uint8 (T, S, S, 3).
        heat: Values in [0, 1], (T, S, S).
        title: Predicted class and its score, and the class of the heat map if that is another.
        note: How the heat map was computed.
    """

    frames: np.ndarray
    heat: np.ndarray
    title: str
    note: str


class HeatMaps:
    """Computation and drawing of the heat maps of a trained model.

    Args:
        cfg: Config for evaluating the model.
        model: Model with its weights.
        device: Device of the model.
        layers: Layers with feature maps, the preferred one first.
        all_layers: The same layers in the order they run.
        class_names: Names of the classes.
    """

    def __init__(
        self,
        cfg: ConfigNode,
        model: nn.Module,
        device: torch.device,
        layers: Sequence[MapLayer],
        all_layers: Sequence[MapLayer],
        class_names: Sequence[str],
    ) -> None:
        self.cfg, self.model, self.device, self.layers, self.all_layers = cfg, model, device, layers, all_layers
        self.class_names = class_names
        self.forward = ClipForward.from_config(cfg, device, TEST)

    @classmethod
    def from_config(cls, cfg: ConfigNode, layer: str = "") -> HeatMaps:
        """Build the model and load its weights.

        Args:
            cfg: Config for evaluating the model.
            layer: Name of the preferred layer; "" for the last one with a sufficient resolution.

        Raises:
            UserError: If weights are missing, or no layer has a feature map or that name.
        """
        device = init_distributed(cfg.NUM_GPUS).device
        model = network_to_test(cfg, device)
        return cls.of_model(cfg, model, class_names_of(cfg, model), device, layer)

    @classmethod
    def of_model(
        cls, cfg: ConfigNode, model: Network, class_names: Sequence[str], device: torch.device, layer: str = ""
    ) -> HeatMaps:
        """Build from a model with its weights; see `from_config`."""
        blank = torch.zeros(1, *input_shape(model, cfg.DATA.NUM_FRAMES, cfg.DATA.TEST_CROP_SIZE), device=device)
        layers = find_map_layers(model, blank)
        if not layers:
            raise UserError(f"MODEL.MODEL_NAME {cfg.MODEL.MODEL_NAME}: no layer declares the layout of its feature map")
        first = find_layer(layers, layer) if layer else default_layer(layers)
        others = [other for other in reversed(layers) if other is not first]
        return cls(cfg, model, device, [first, *others], layers, class_names)

    def show_layers(self) -> None:
        """Print the names and sizes of all layers with feature maps."""
        rows = [(one.name, one.size, "default" if one is self.layers[0] else "") for one in self.all_layers]
        show_table(tabulate(rows, headers=("layer", "feature map", ""), tablefmt="simple", disable_numparse=True))

    def draw_files(self, paths: Iterable[Path], class_name: str, folder: Path) -> None:
        """Draw a heat map per video, image or folder of frames.

        Args:
            paths: Files and folders.
            class_name: Name or number of the class to draw; "" for the predicted one.
            folder: Output folder.

        Raises:
            UserError: For an unknown class, or if plots cannot be drawn.
            DataError: If no file can be read.
        """
        _require_plots()
        label = self._label_of(class_name) if class_name else None
        found = find_samples(paths, SampleKind.from_config(self.cfg))
        dataset = views_of_records(self.cfg, TEST, found.records, all_views=False)
        targets = target_files(found.records, folder, ".png")
        ledger, drawn = FailureLedger(found.count), 0
        ledger.add(found.refused)
        with eval_loader(self.cfg, World(device=self.device), dataset) as loader:
            for video, target in zip(loader, targets, strict=True):
                assert isinstance(video, EvalVideo)  # models with feature maps take frames, not events
                ledger.add(video.failures)
                if video.frames is not None:
                    show(self._draw(video, label, target))
                    drawn += 1
        if not drawn:
            first = ledger.all[0]
            raise DataError(f"nothing could be read; the first: {first.name}: {first.reason}")

    def _draw(self, video: EvalVideo, label: int | None, target: Path) -> str:
        """Draw one file; return a line about it."""
        name = Path(video.record.name).name
        explained = self.explain(video, label)
        title = f"{name}: {explained.title}"
        draw_heat_map(explained.frames, explained.heat, title, explained.note, target)
        return f"{title}; {target}"

    def explain(self, video: EvalVideo, label: int | None = None) -> ExplainedClip:
        """Compute the heat map for the first view of a video or image.

        Args:
            video: Views of a sample that could be read.
            label: Class of the heat map; None for the predicted one.

        Raises:
            UserError: If the heat map is constant at all layers.
        """
        clip = next(video.clips(self.forward.device))  # T S S 3
        x = self.forward.prepare(clip[None])
        with torch.no_grad():
            scores = self.model(x)[0].double().softmax(0)
        best = int(scores.argmax())
        label = best if label is None else label
        heat = compute_heat_map(self.model, x, label, self.layers)
        title = f"{self.class_names[best]} {100 * float(scores[best]):.1f} %"
        if label != best:
            title += f"; heat map of {self.class_names[label]} {100 * float(scores[label]):.1f} %"
        note = _note(heat)
        if heat.instead_of:
            get_logger().warning(f"{video.record.name}: {note}")
        return ExplainedClip(clip.cpu().numpy(), heat.values.cpu().numpy(), title, note)

    def _label_of(self, name: str) -> int:
        """Return a class by name or number. Raises UserError for anything else."""
        names = list(self.class_names)
        if name in names:
            return names.index(name)
        if name.isdecimal() and len(name) < 10 and int(name) < len(names):
            return int(name)
        near = did_you_mean(nearest_name(name, names))
        raise UserError(
            f"--class: unknown class {plain(name)}.{near} Give a class name or a number from 0 to {len(names) - 1}"
        )


def _note(heat: HeatMap) -> str:
    """Describe how the heat map was computed."""
    note = f"{heat.method} at {heat.layer.name} ({heat.layer.size})"
    return f"{note}; {heat.instead_of} is constant" if heat.instead_of else note


def _require_plots() -> None:
    """Raise UserError, before a model runs, if plots cannot be drawn."""
    try:
        new_figure(1, 1)
    except PlotsUnavailable as error:
        raise UserError(str(error)) from error


def write_heat_map(explained: ExplainedClip, rate: Fraction, target: Path) -> Path:
    """Write the frames beside their heat map, as a video or, for a single frame, as an image.

    Args:
        explained: Frames and heat map.
        rate: Frames/s of the video.
        target: File to write, without its suffix.

    Returns:
        The file.
    """
    frames = np.concatenate((explained.frames, overlay(explained.frames, explained.heat)), axis=2)  # T S 2S 3
    zoom = -(-MIN_SIDE // frames.shape[1])
    size = (zoom * frames.shape[2], zoom * frames.shape[1])
    images = (cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in frames)
    if len(frames) == 1:
        path = target.with_suffix(".png")
        save_image(next(images), path)
        return path
    path = target.with_suffix(".mp4")
    with VideoWriter(path, rate, 1 / rate) as out:
        for tick, image in enumerate(images):
            out.write(pad_to_even(image), tick)
    return path
