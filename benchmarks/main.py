"""Command line of tools/benchmark.py."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks import suite, tables
from benchmarks.camera import measure_cameras
from benchmarks.event_driven import measure_event_driven
from benchmarks.event_networks import measure_embeddings, measure_event2vec
from benchmarks.event_readers import measure_readers
from benchmarks.events import measure_reading, measure_stream
from benchmarks.loading import loading_measurements, measure_large_frames, measure_loading, measure_testing
from benchmarks.measure import Measurement, describe_machine, machine_table, measurements_table, on_one_core
from benchmarks.network import measure_network
from benchmarks.networks import measure_networks, networks_table
from benchmarks.results import version
from benchmarks.scale import measure_scale
from benchmarks.videos import enlarge_video, find_videos, in_shards, link_videos, make_videos, on_folder, prepare_videos
from slowfast.cli.command import CommandParser, exit_status, integer
from slowfast.cli.model_table import published_configs
from slowfast.cli.setup import load_config, split_overrides
from slowfast.config.node import ConfigNode
from slowfast.errors import UserError
from slowfast.utils.cpu import usable_cores
from slowfast.utils.distributed import usable_gpus
from slowfast.utils.files import atomic_write_text, check_output_file, make_output_folder
from slowfast.utils.machine import keep_freed_memory
from slowfast.utils.screen import show, show_table
from slowfast.utils.text import did_you_mean, nearest_name, plain, quoted
from slowfast.utils.text_files import to_json

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("load", "load_1080p", "test", "network")
# Measured only alone.
NETWORKS, EVENTS, EVENT_READERS = "networks", "events", "event_readers"
EVENT_DRIVEN, CAMERAS, SCALE = "event_driven", "cameras", "scale"
ALONE = (NETWORKS, EVENTS, EVENT_READERS, EVENT_DRIVEN, CAMERAS, SCALE)
# Commands with their own options.
COMMANDS = {"all": suite.main, "tables": tables.main}
EXAMPLE = "python tools/benchmark.py load test --videos kinetics/val/abseiling --json results.json"
USAGE = """\
%(prog)s [load] [load_1080p] [test] [network] | networks | events | event_readers | event_driven | cameras |
       scale [options] [KEY VALUE ...]
       %(prog)s all --out DIR [options]
       %(prog)s tables [DIR|FILE ...] [--write PAGE]"""
DESCRIPTION = f"""\
Benchmark on this machine, with the settings of a config; the first four parts by default:

  load      training input pipeline of one worker process on one core: throughput and time per stage; for the videos
            as given, for the same videos prepared by slowfast prepare, and for those in shards
  load_1080p
            the same for the first video enlarged to 1080p, with frames resized while decoding and in full size
  test      test input pipeline on one core with 4x1 and 10x3 views, relative to decoding each video once
  network   forward pass and training step in fp32 and bf16, with and without activation checkpointing; memory; share
            of the machine's matrix multiplication rate
  networks  throughput of all published models in batches of 8 images or 32 frames, fp32 and bf16, with the share of
            the machine's matrix multiplication rate; run alone. --profile adds the fp32 time by kind of operator
  events    event recordings: neighbor embeddings of Event2Vec; Event2Vec against its published layout; reading samples
            from stored and compressed files, and from a file of 5 million events, on one core; a stream; run alone
  event_readers
            reading 5 million events of .dat, .raw and .aedat4 files: speed and peak memory; run alone.
            `python -m benchmarks.event_readers` compares other packages
  event_driven
            event-driven against dense inference of evMLP on the same frames: synthetic changes, and the videos of
            --videos; gate settings of EVENT; run alone
  cameras   event-driven inference on EVENT.STREAMS network cameras, which send the first of --videos over TCP:
            throughput, dropped frames, latency, CPU usage, in windows of 5 s; run alone
  scale     what grows with the dataset: an index of a million lines, the confusion matrix of 20,000 classes, mean
            average precision, opening the first of --videos and one 60 times as long; run alone

  all       every part, one after another; `all --help` explains it
  tables    tables of the results of all, machines side by side; `tables --help` explains it

  {EXAMPLE} DATA.DECODING_THREADS 2

Config overrides, KEY VALUE pairs, follow the options. Times are medians over runs after a warm-up; variants that are
compared take turns within a run. Without --videos, two synthetic clips are rendered (10 s, 256 lines, a keyframe every
250 frames, B-frames, film grain), about as expensive to decode as Kinetics.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line, with the config overrides in `overrides`. Raises UserError if it is invalid."""
    parser = CommandParser("benchmark.py", DESCRIPTION, USAGE, EXAMPLE)
    default, evmlp = ROOT / "configs/K400/K400_MLP_S16x4.yaml", ROOT / "configs/ImageNet/EVMLP.yaml"
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help="the first four (default) or some of them, or one of the others"
    )
    parser.add_argument(
        "--cfg", type=Path, metavar="FILE", help=f"YAML file (default: {default.name}, or {evmlp.name})"
    )
    parser.add_argument("--videos", type=Path, nargs="+", default=[], metavar="PATH", help="video files and folders")
    parser.add_argument(
        "--repeats", type=integer(1, 10_000), default=5, metavar="N", help="number of runs (default %(default)s)"
    )
    parser.add_argument(
        "--clips",
        type=integer(1, 10_000),
        default=2,
        metavar="N",
        help="batch size of network (default %(default)s)",
    )
    parser.add_argument("--only", metavar="CONFIGS", help="networks: only these configs, such as EAT_S,EAT_B")
    parser.add_argument("--profile", action="store_true", help="networks: fp32 time by kind of operator")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the measurements to this file")
    words, overrides = split_overrides(arguments, parser.flags())
    chosen = parser.parse(words)
    for part in chosen.parts:
        if part not in (*PARTS, *ALONE):
            parser.error(f"unknown PART {quoted(part)}. Choices: {', '.join((*PARTS, *ALONE, *COMMANDS))}")
        if part in ALONE and len(chosen.parts) > 1:
            parser.error(f"{part} must be run alone")
        if part in (NETWORKS, EVENTS, EVENT_READERS) and overrides:
            parser.error(f"{part} takes no overrides")
    if not set(ALONE) & set(chosen.parts):
        chosen.parts = [part for part in PARTS if part in chosen.parts or not chosen.parts]
    if chosen.only and chosen.parts != [NETWORKS]:
        parser.error("--only: only networks takes it")
    chosen.only = _published(chosen.only.split(",")) if chosen.only else None
    chosen.overrides = overrides
    chosen.cfg = chosen.cfg or (evmlp if {EVENT_DRIVEN, CAMERAS} & set(chosen.parts) else default)
    return chosen


def _published(names: Sequence[str]) -> list[Path]:
    """Return published configs by name. Raises UserError if one does not exist."""
    configs = {path.stem: path for path in published_configs()}
    for name in names:
        if name not in configs:
            raise UserError(f"--only {plain(name)}: unknown config.{did_you_mean(nearest_name(name, configs))}")
    return [configs[name] for name in names]


def main(arguments: Sequence[str]) -> int:
    """Benchmark and return the exit status: 0 done, 1 after a failure, 2 after a user error."""
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:])
    return exit_status(lambda: _run(parse(arguments)))


def _run(chosen: argparse.Namespace) -> None:
    if chosen.json is not None:
        check_output_file(chosen.json, "--json")
    cfg = load_config(chosen.cfg, chosen.overrides, modules=chosen.modules)
    keep_freed_memory()  # as in a run
    device = torch.device("cuda", 0) if usable_gpus(cfg.NUM_GPUS) else torch.device("cpu")
    results: dict[str, Any] = {"machine": describe_machine(device), "cfg": str(chosen.cfg)}
    show_table(machine_table(results["machine"]))
    results |= {"command": _command(chosen), "version": version(), "date": date.today().isoformat()}
    results |= {"overrides": chosen.overrides, "videos": [str(path) for path in chosen.videos] or "synthetic"}
    measurements = [measurement for part in _measure(chosen, cfg, device) for measurement in part]
    if chosen.json is not None:
        results["figures"] = [measurement.as_json() for measurement in measurements]
        make_output_folder(chosen.json.parent, "--json")
        atomic_write_text(chosen.json, to_json(results, indent=1) + "\n")
        show(f"Wrote {chosen.json}")


def _command(chosen: argparse.Namespace) -> str:
    """Return the command line that repeats the measurements, with names instead of paths of videos."""
    words = ["python tools/benchmark.py", *chosen.parts, "--repeats", str(chosen.repeats)]
    words += ["--only", ",".join(path.stem for path in chosen.only)] if chosen.only else []
    words += ["--videos", *(path.name for path in chosen.videos)] if chosen.videos else []
    return " ".join([*words, *chosen.overrides])


def _measure(chosen: argparse.Namespace, cfg: ConfigNode, device: torch.device) -> Iterator[list[Measurement]]:
    """Yield the measurements of each part after printing them."""
    with tempfile.TemporaryDirectory() as folder:
        session = _Session(chosen, cfg, device, Path(folder))
        for part in chosen.parts:
            show()
            show(f"measuring {part} ...")
            measurements = _MEASURES[part](session)
            show_table(measurements_table(measurements))
            yield measurements


@dataclass(frozen=True)
class _Session:
    """Settings of the measurements, and a temporary folder."""

    chosen: argparse.Namespace
    cfg: ConfigNode
    device: torch.device
    folder: Path

    @property
    def runs(self) -> int:
        """Number of runs."""
        return int(self.chosen.repeats)

    @cached_property
    def given(self) -> list[Path]:
        """Videos of --videos."""
        return find_videos(self.chosen.videos) if self.chosen.videos else []

    @cached_property
    def videos(self) -> list[Path]:
        """Videos of --videos, or synthetic ones."""
        return self.given or make_videos(self.folder / "synthetic")

    @cached_property
    def video_folder(self) -> Path:
        """Folder with links to the videos."""
        return link_videos(self.videos, self.folder / "given")


def _measure_load(session: _Session) -> list[Measurement]:
    prepared = prepare_videos(session.video_folder, session.folder / "prepared", usable_cores())
    on_prepared = on_folder(session.cfg, prepared)
    cfgs = {"load, files as given": on_folder(session.cfg, session.video_folder), "load, prepared files": on_prepared}
    cfgs["load, prepared files in shards"] = in_shards(on_prepared, session.folder / "shards")
    loading = on_one_core(measure_loading, cfgs, session.runs)
    return [one for group in cfgs for one in loading_measurements(group, loading[group], session.runs)]


def _measure_large(session: _Session) -> list[Measurement]:
    enlarge_video(session.videos[0], session.folder / "large" / "large.mp4")
    return on_one_core(measure_large_frames, on_folder(session.cfg, session.folder / "large"), session.runs)


def _measure_events(session: _Session) -> list[Measurement]:
    measures = (measure_embeddings, measure_event2vec, measure_stream)
    measurements = [one for measure in measures for one in measure(session.device, session.runs)]
    return measurements + on_one_core(measure_reading, session.folder, session.runs)


def _measure_networks(session: _Session) -> list[Measurement]:
    """Measure the published models, or those of --only, and print their table."""
    chosen = session.chosen
    measurements = _as_they_come(measure_networks(session.device, session.runs, chosen.only, shares=chosen.profile))
    show_table(f"\n{networks_table(measurements)}\n")
    return measurements


def _as_they_come(groups: Iterable[list[Measurement]]) -> list[Measurement]:
    """Collect the measurements of all groups, and print each group when it is done."""
    measurements: list[Measurement] = []
    for group in groups:
        show(f"  {group[0].group}: " + ", ".join(f"{one.name} {one.value:.4g} {one.unit}" for one in group))
        measurements += group
    return measurements


_MEASURES: dict[str, Callable[[_Session], list[Measurement]]] = {
    "load": _measure_load,
    "load_1080p": _measure_large,
    "test": lambda s: on_one_core(measure_testing, on_folder(s.cfg, s.video_folder), s.runs),
    "network": lambda s: measure_network(s.cfg, s.device, s.runs, s.chosen.clips),
    NETWORKS: _measure_networks,
    EVENTS: _measure_events,
    EVENT_READERS: lambda s: measure_readers(s.folder / "readers", s.runs),
    EVENT_DRIVEN: lambda s: _as_they_come(measure_event_driven(s.cfg, s.device, s.runs, s.given)),
    CAMERAS: lambda s: measure_cameras(s.cfg, s.device, s.runs, s.videos[0], s.folder),
    SCALE: lambda s: measure_scale(s.videos[0], s.folder, s.runs),
}
