"""Which packets must be decoded for which frames: pure functions on a PacketTable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slowfast.datasets.decode.packets import PacketTable


@dataclass(frozen=True)
class Run:
    """Packets first..last, in decoding order, to decode without a gap."""

    first: int
    last: int


def plan_runs(table: PacketTable, wanted: np.ndarray, keys_back: int = 0) -> list[Run]:
    """The runs of packets that give the wanted frames (U,), ascending and disjoint.

    Each starts at the last key packet that is decoded and shown no later than the frame (a picture shown before its
    key packet refers to the group before), `keys_back` key packets earlier if asked, and ends at the frame's packet.
    """
    if not len(wanted):
        return []
    if not table.timed or not len(table.keys):
        return [whole(table)]
    runs: list[Run] = []
    for packet in np.sort(table.packet_of[wanted]):
        first = _start(table, int(packet), keys_back)
        while runs and first <= runs[-1].last + 1:
            first = min(first, runs.pop().first)
        runs.append(Run(first, int(packet)))
    return runs


def whole(table: PacketTable) -> Run:
    """All packets from the first key packet on."""
    return Run(int(table.keys[0]) if len(table.keys) else 0, len(table.pts) - 1)


def _start(table: PacketTable, packet: int, keys_back: int) -> int:
    """The key packet to start at for one packet's frame."""
    at = int(np.searchsorted(table.keys, packet, side="right")) - 1
    while at > 0 and table.pts[table.keys[at]] > table.pts[packet]:
        at -= 1
    return int(table.keys[max(at - keys_back, 0)])
