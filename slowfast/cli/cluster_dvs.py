"""`slowfast cluster-dvs`: convert event recordings to k-means clusters of their events."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from slowfast.cli.command import (
    RESUMABLE,
    CommandParser,
    add_engine,
    add_source_and_out,
    add_workers,
    exit_status,
    integer,
    number,
    show_conversion,
)
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.screen import show

EXAMPLE = "slowfast cluster-dvs dvslip --out dvslip_clusters --sensor 128 128"
USAGE = "%(prog)s SOURCE --out FOLDER --sensor HEIGHT WIDTH [--clusters N] [--time-unit SECONDS] [--workers N]"
DESCRIPTION = f"""\
Replace the events of all recordings of a folder and its subfolders by the centers of k-means clusters in x, y and time,
computed separately for each polarity, with the number of events per cluster, as Event2Vec v3 does for DVS-Lip. All
formats that `slowfast convert-dvs` reads are supported. Recordings with no more events than clusters are kept as they
are. Train on the output with DVS.CLUSTERS True. Needs the events extra.

  {EXAMPLE}

The source is not changed. Run an interrupted command again to continue: complete recordings are kept.
"""
MAX_SIDE = 2**14


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    parser = CommandParser("slowfast cluster-dvs", DESCRIPTION, USAGE, EXAMPLE)
    add_source_and_out(parser, "folder of recordings", "output folder, outside of SOURCE")
    side = integer(2, MAX_SIDE)
    sensor, count, unit = "size of the sensor in pixels", "clusters per recording", "duration of a timestamp tick"
    parser.add_argument("--sensor", type=side, nargs=2, required=True, metavar=("HEIGHT", "WIDTH"), help=sensor)
    parser.add_argument(
        "--clusters", type=integer(2, 10**6), default=1024, metavar="N", help=f"{count} (default: 1024)"
    )
    parser.add_argument("--time-unit", type=number(1e-12, 3600), default=1e-6, metavar="SECONDS", help=f"{unit} (1e-6)")
    add_workers(parser)
    add_engine(parser)
    return parser.parse_and_import(arguments)


def main(arguments: Sequence[str]) -> int:
    """Cluster and return the exit status: 0 done, failures listed; 2 after a user error."""
    with messages_on_screen():
        return exit_status(lambda: _cluster(parse(arguments)), interrupted=RESUMABLE)


def _cluster(chosen: argparse.Namespace) -> None:
    from slowfast.prepare.cluster_dvs import cluster_recordings
    from slowfast.utils.cpu import usable_cores

    sensor = (chosen.sensor[0], chosen.sensor[1])
    workers = chosen.workers or usable_cores()
    result = cluster_recordings(
        chosen.source, chosen.out, sensor, chosen.clusters, chosen.time_unit, workers, chosen.engine
    )
    for note, count in sorted(result.notes.items()):
        show(f"{note}: in {count} of {result.done} recordings")
    show_conversion(result, "recordings clustered", chosen.out)
