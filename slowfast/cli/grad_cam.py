"""The command line of `tools/grad_cam.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from tabulate import tabulate
from torch import nn

from slowfast.cli.command import CommandParser, exit_status
from slowfast.cli.setup import parse_tool_line
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, names_of_classes, views_loader, views_of_records
from slowfast.datasets.index.media import Wanted, find_media, target_files
from slowfast.datasets.types import FailureLedger, TestVideo
from slowfast.engine.forward import ClipForward
from slowfast.engine.test import network_to_test
from slowfast.errors import DataError, UserError
from slowfast.inference.grad_cam import Heat, MapLayer, find_layer, heat_of, map_layers, usual_layer
from slowfast.models.inputs import input_shape
from slowfast.utils.distributed import World, join
from slowfast.utils.logging import get_logger, messages_on_screen
from slowfast.utils.screen import show, show_table
from slowfast.utils.suggest import did_you_mean, nearest_name
from slowfast.utils.text import plain
from slowfast.visualization.heat_map import draw_heat_map
from slowfast.visualization.plots import PlotsUnavailable, new_figure

EXAMPLE = "python tools/grad_cam.py --cfg configs/K400/K400_MLP_S16x4.yaml clip.mp4 TEST.CHECKPOINT_FILE_PATH w.pyth"
DESCRIPTION = f"""\
Draw where a network looks (Grad-CAM, arXiv 1610.02391), one PNG for each video, image or folder of frames: the
frames of its centre clip, and the heat of the predicted class over them. Weights as for a test.

  {EXAMPLE}
  python tools/grad_cam.py --cfg configs/ImageNet/EAT_TI.yaml --list-layers

The pictures are in OUTPUT_DIR/grad_cam. What follows the files are KEY VALUE pairs.
"""
USAGE = "%(prog)s --cfg FILE [--layer NAME] [--class NAME] [--list-layers] FILE_OR_FOLDER [...] [KEY VALUE ...]"
LIST_LAYERS = "--list-layers"


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigNode]:
    """The command line's values and the config. Raises UserError."""
    parser = CommandParser("grad_cam.py", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("media", type=Path, nargs="*", metavar="FILE_OR_FOLDER", help="what to look at")
    parser.add_argument(
        "--layer", default="", metavar="NAME", help="whose map is taken (default: a late, not too coarse one)"
    )
    parser.add_argument(
        "--class", dest="of_class", default="", metavar="NAME", help="name or number (default: the best)"
    )
    parser.add_argument(LIST_LAYERS, action="store_true", help="print the names that --layer can have, and stop")
    chosen, cfg = parse_tool_line(parser, arguments, {LIST_LAYERS})
    if not chosen.media and not chosen.list_layers:
        parser.error("FILE_OR_FOLDER is missing")
    return chosen, cfg


def main(arguments: Sequence[str]) -> int:
    """Draw; the exit status: 0 done, 2 nothing could be read or drawn, or the user's mistake."""
    with messages_on_screen():
        return exit_status(lambda: _draw(*parse(arguments)))


def _draw(chosen: argparse.Namespace, cfg: ConfigNode) -> None:
    device = join(cfg.NUM_GPUS).device
    model = network_to_test(cfg, device)
    blank = torch.zeros(1, *input_shape(model, cfg.DATA.NUM_FRAMES, cfg.DATA.TEST_CROP_SIZE), device=device)
    layers = map_layers(model, blank)
    if not layers:
        raise UserError(f"{cfg.MODEL.MODEL_NAME} has no layer that says how its map lies (MAP_AXES)")
    layer = find_layer(layers, chosen.layer) if chosen.layer else usual_layer(layers)
    if chosen.list_layers:
        rows = [(one.name, one.size, "default" if one is layer else "") for one in layers]
        show_table(tabulate(rows, headers=("layer", "map", ""), tablefmt="simple", disable_numparse=True))
        return
    order = [layer, *(other for other in reversed(layers) if other is not layer)]
    _draw_media(chosen, cfg, model, order, device)


def _draw_media(
    chosen: argparse.Namespace, cfg: ConfigNode, model: nn.Module, layers: Sequence[MapLayer], device: torch.device
) -> None:
    _require_plots()
    names = names_of_classes(cfg)
    label = _label_of(chosen.of_class, names) if chosen.of_class else None
    found = find_media(chosen.media, Wanted.from_config(cfg))
    videos = views_of_records(cfg, TEST, found.records, all_views=False)
    targets = target_files(found.records, Path(cfg.OUTPUT_DIR) / "grad_cam", ".png")
    forward = ClipForward.from_config(cfg, device, TEST)
    ledger, drawn = FailureLedger(found.count), 0
    ledger.add(found.refused)
    with views_loader(cfg, World(device=device), videos) as loader:
        for video, target in zip(loader, targets, strict=True):
            assert isinstance(video, TestVideo)  # as networks with maps take frames
            ledger.add(video.failures)
            if video.frames is not None:
                show(_picture(model, forward, video, layers, label, names, target))
                drawn += 1
    if not drawn:
        first = ledger.all[0]
        raise DataError(f"nothing could be read; the first: {first.name}: {first.reason}")


def _picture(
    model: nn.Module,
    forward: ClipForward,
    video: TestVideo,
    layers: Sequence[MapLayer],
    label: int | None,
    names: Sequence[str],
    target: Path,
) -> str:
    """Draw one medium; what was drawn, as a line."""
    clip = next(video.clips(forward.device))  # T S S 3
    x = forward.prepare(clip[None])
    with torch.no_grad():
        scores = model(x)[0].double().softmax(0)
    best = int(scores.argmax())
    label = best if label is None else label
    heat = heat_of(model, x, label, layers)
    title = f"{Path(video.record.name).name}: {names[best]} {100 * float(scores[best]):.1f} %"
    if label != best:
        title += f"; heat for {names[label]} {100 * float(scores[label]):.1f} %"
    note = _note(heat)
    if heat.instead_of:
        get_logger().warning(f"{video.record.name}: {note}")
    draw_heat_map(clip.cpu().numpy(), heat.values.cpu().numpy(), title, note, target)
    return f"{title}; {target}"


def _note(heat: Heat) -> str:
    """How the heat was found."""
    note = f"{heat.method} at {heat.layer.name} ({heat.layer.size})"
    return f"{note}, because nothing shows in {heat.instead_of}" if heat.instead_of else note


def _label_of(word: str, names: Sequence[str]) -> int:
    """Return the class of a name or number; UserError for neither."""
    if word in names:
        return list(names).index(word)
    if word.isdecimal() and len(word) < 10 and int(word) < len(names):
        return int(word)
    near = did_you_mean(nearest_name(word, names))
    raise UserError(
        f"--class: unknown class {plain(word)}.{near} Give a class name or a number from 0 to {len(names) - 1}"
    )


def _require_plots() -> None:
    """Raise UserError, before a network runs, where pictures cannot be drawn."""
    try:
        new_figure(1, 1)
    except PlotsUnavailable as error:
        raise UserError(str(error)) from error
