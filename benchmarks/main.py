"""The command line of `tools/benchmark.py`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.camera import measure_cameras
from benchmarks.event_driven import measure_event_driven
from benchmarks.events import measure_embeddings, measure_reading, measure_stream
from benchmarks.loading import loading_figures, measure_large, measure_loading, measure_testing
from benchmarks.measure import Figure, describe_machine, figures_table, machine_table, on_one_core
from benchmarks.network import measure_network
from benchmarks.networks import measure_networks, networks_table
from benchmarks.videos import enlarge_video, find_videos, link_videos, make_videos, on_folder, prepare_videos
from slowfast.cli.command import CommandParser, exit_status, whole_number
from slowfast.cli.setup import load_config, split_overrides
from slowfast.config.node import ConfigNode
from slowfast.utils.distributed import usable_gpus
from slowfast.utils.files import write_whole
from slowfast.utils.json_files import to_json
from slowfast.utils.machine import keep_freed_memory, usable_cores
from slowfast.utils.output_folders import check_output_file, make_output_folder
from slowfast.utils.screen import show, show_table
from slowfast.utils.text import quoted

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("load", "test", "network")
NETWORKS, EVENTS, EVENT_DRIVEN, CAMERAS = "networks", "events", "event_driven", "cameras"  # measured when named alone
ALONE = (NETWORKS, EVENTS, EVENT_DRIVEN, CAMERAS)
EXAMPLE = "python tools/benchmark.py load test --videos kinetics/val/abseiling --json results.json"
USAGE = "%(prog)s [load] [test] [network] | networks | events | event_driven | cameras [options] [KEY VALUE ...]"
DESCRIPTION = f"""\
Measure on this machine, with the settings of a config:

  load      the training pipeline of one worker process on one core: clips a second, and where the time goes; for
            the files as given and for the same files prepared by tools/prepare_videos.py; and for the first file
            enlarged to 1080 lines, with frames scaled while decoding and in full size
  test      the test pipeline on one core at 4x1 and 10x3 views, against decoding each file once
  network   forward and train step in float32 and bfloat16, plain and with gradient checkpointing; memory; the share
            of the machine's matrix-multiply rate
  networks  views a second of all published networks, in batches of 8 images or 32 frames; float32 and bfloat16, with
            the share of the machine's matrix-multiply rate; when named alone. --profile: where float32's time goes
  events    event recordings: Event2Vec's embeddings against gathering neighbour by neighbour; samples of stored and
            compressed files, also of one of 5 million events, on one core; a stream; when named alone
  event_driven
            evMLP computing what changed, against the whole network on the same frames: synthetic changes, and the
            files of --videos; with the gate of EVENT's keys; when named alone
  cameras   the whole of event-driven inference behind EVENT.STREAMS cameras, which send the first of --videos over
            TCP: frames a second, those left out, delay, processors in use; in windows of 5 s; when named alone

  {EXAMPLE} DATA.DECODING_THREADS 2

What follows the options are overrides of config keys: KEY VALUE pairs. Times are medians over runs, the first run
discarded; what is compared takes turns within a run. Without --videos two synthetic clips are made (10 s, 256 lines,
a key frame every 250 frames, B-frames, film grain), about as hard to decode as clips of Kinetics.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; `overrides` has the config keys and values. UserError for one that cannot be parsed."""
    words, overrides = split_overrides(arguments, {"--profile", "-h", "--help"})
    parser = CommandParser("benchmark.py", DESCRIPTION, USAGE, EXAMPLE)
    default, evmlp = ROOT / "configs/K400/K400_MLP_S16x4.yaml", ROOT / "configs/ImageNet/EVMLP.yaml"
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help="load, test, network or all of them (default); or one of the others"
    )
    parser.add_argument("--cfg", type=Path, metavar="FILE", help=f"default: {default.name}, or {evmlp.name}")
    parser.add_argument("--videos", type=Path, nargs="+", default=[], metavar="PATH", help="files and folders")
    parser.add_argument(
        "--repeats", type=whole_number(1, 10_000), default=5, metavar="N", help="runs (default %(default)s)"
    )
    parser.add_argument(
        "--clips",
        type=whole_number(1, 10_000),
        default=2,
        metavar="N",
        help="the network's batch (default %(default)s)",
    )
    parser.add_argument("--profile", action="store_true", help="networks: also where the time of a forward pass goes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    chosen = parser.parse_intermixed_args(words)
    for part in chosen.parts:
        if part not in (*PARTS, "all", *ALONE):
            parser.error(f"unknown PART {quoted(part)}. Choices: {', '.join((*PARTS, 'all', *ALONE))}")
        if part in ALONE and len(chosen.parts) > 1:
            parser.error(f"{part} is measured alone")
        if part in (NETWORKS, EVENTS) and overrides:
            parser.error(f"{part} is measured as published, without overrides")
    if not set(ALONE) & set(chosen.parts):
        chosen.parts = [part for part in PARTS if part in chosen.parts or "all" in chosen.parts or not chosen.parts]
    chosen.overrides = overrides
    chosen.cfg = chosen.cfg or (evmlp if {EVENT_DRIVEN, CAMERAS} & set(chosen.parts) else default)
    return chosen


def main(arguments: Sequence[str]) -> int:
    """Measure, print and return the exit status: 0 done, 2 user error."""
    return exit_status(lambda: _run(parse(arguments)))


def _run(chosen: argparse.Namespace) -> None:
    if chosen.json is not None:
        check_output_file(chosen.json, "--json")
    cfg = load_config(chosen.cfg, chosen.overrides)
    keep_freed_memory()  # as a run does
    device = torch.device("cuda", 0) if usable_gpus(cfg.NUM_GPUS) else torch.device("cpu")
    results: dict[str, Any] = {"machine": describe_machine(device), "cfg": str(chosen.cfg)}
    show_table(machine_table(results["machine"]))
    results |= {"overrides": chosen.overrides, "videos": [str(path) for path in chosen.videos] or "synthetic"}
    figures = [figure for part in _measure(chosen, cfg, device) for figure in part]
    if chosen.json is not None:
        results["figures"] = [figure.as_json() for figure in figures]
        make_output_folder(chosen.json.parent, "--json")
        write_whole(chosen.json, to_json(results, indent=1) + "\n")
        show(f"written: {chosen.json}")


def _measure(chosen: argparse.Namespace, cfg: ConfigNode, device: torch.device) -> Iterator[list[Figure]]:
    """The figures of each part, printed as soon as they are there."""
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "given"
        if {"load", "test"} & set(chosen.parts):
            videos = find_videos(chosen.videos) if chosen.videos else make_videos(Path(folder) / "synthetic")
            link_videos(videos, given)
            on_videos = on_folder(cfg, given)
        for part in chosen.parts:
            show()
            show(f"measuring {part} ...")
            if part == "load":
                prepared = prepare_videos(given, Path(folder) / "prepared", usable_cores())
                cfgs = {"load, files as given": on_videos, "load, prepared files": on_folder(cfg, prepared)}
                loading = on_one_core(measure_loading, cfgs, chosen.repeats)
                figures = [f for group in cfgs for f in loading_figures(group, loading[group], chosen.repeats)]
                enlarge_video(videos[0], Path(folder) / "large" / "large.mp4")
                figures += on_one_core(measure_large, on_folder(cfg, Path(folder) / "large"), chosen.repeats)
            elif part == "test":
                figures = on_one_core(measure_testing, on_videos, chosen.repeats)
            elif part == NETWORKS:
                figures = _measure_networks(chosen, device)
            elif part == EVENT_DRIVEN:
                files = find_videos(chosen.videos) if chosen.videos else []
                figures = measure_event_driven(cfg, device, chosen.repeats, files)
            elif part == CAMERAS:
                [video, *_] = find_videos(chosen.videos) if chosen.videos else make_videos(Path(folder) / "synthetic")
                figures = measure_cameras(cfg, device, chosen.repeats, video, Path(folder))
            elif part == EVENTS:
                figures = measure_embeddings(device, chosen.repeats)
                figures += measure_stream(device, chosen.repeats)
                figures += on_one_core(measure_reading, Path(folder), chosen.repeats)
            else:
                figures = measure_network(cfg, device, chosen.repeats, chosen.clips)
            show_table(figures_table(figures))
            yield figures


def _measure_networks(chosen: argparse.Namespace, device: torch.device) -> list[Figure]:
    """The figures of all published networks, each named when it is done; then their table."""
    figures: list[Figure] = []
    for one in measure_networks(device, chosen.repeats, shares=chosen.profile):
        show(f"  {one[0].group}")
        figures += one
    show_table(f"\n{networks_table(figures)}\n")
    return figures
