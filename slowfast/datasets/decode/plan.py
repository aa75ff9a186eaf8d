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


# Packets after a frame's own that a second attempt decodes, too: the frame in which an H.264 decoder recovers from
# a start within a group comes out only when others follow.
_MORE_PACKETS = 16


def plan_runs(table: PacketTable, wanted: np.ndarray, again: bool = False) -> list[Run]:
    """Return the runs of packets that give the wanted frames, ascending and disjoint.

    Each starts at the last key packet that is decoded and shown no later than the frame (a picture shown before its
    key packet refers to the group before) and ends at the frame's last packet.

    Args:
        table: The packets.
        wanted: Display indices of the frames (U,).
        again: Plan a second attempt, one key packet earlier and some packets longer: what is marked as a key packet
            may need what is before it.
    """
    if not len(wanted):
        return []
    runs: list[Run] = []
    for packet, last in sorted(zip(table.packet_of[wanted].tolist(), table.last_of[wanted].tolist(), strict=True)):
        first = _start(table, packet, int(again))
        while runs and first <= runs[-1].last + 1:
            first = min(first, runs.pop().first)
        runs.append(Run(first, min(last + _MORE_PACKETS * again, len(table.rank) - 1)))
    return runs


def whole(table: PacketTable) -> Run:
    """Return the run of all packets."""
    return Run(0, len(table.rank) - 1)


def _start(table: PacketTable, packet: int, keys_back: int) -> int:
    """The key packet to start at for one packet's frame; 0 before the first."""
    at = int(np.searchsorted(table.keys, packet, side="right")) - 1
    while at > 0 and table.rank[table.keys[at]] > table.rank[packet]:
        at -= 1
    return int(table.keys[max(at - keys_back, 0)]) if at >= 0 else 0
