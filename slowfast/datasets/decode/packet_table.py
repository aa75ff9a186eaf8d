"""Table of the packets of a video stream, and selection of the packets to decode for given frames.

Notation: P packets in decoding order, n frames in display order, U wanted frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Additional packets that a second attempt decodes: an H.264 decoder outputs the frame in which it recovers from a start
# within a group only when others follow.
_MORE_PACKETS = 16


@dataclass(frozen=True)
class PacketTable:
    """Assignment of packets to frames."""

    rank: np.ndarray  # int64 (P,): display order of the packets
    keys: np.ndarray  # int64 (K,): packets at which decoding can start, ascending
    frame_of: np.ndarray  # int64 (P,): display index of the frame of a packet, -1 if it is not shown
    packet_of: np.ndarray  # int64 (n,): first packet of each frame
    last_of: np.ndarray  # int64 (n,): last packet of each frame; a different one if fields have separate packets


def build_table(rank: np.ndarray, key: list[bool] | np.ndarray, shown: np.ndarray, second: list[int]) -> PacketTable:
    """Build the table of the displayed frames.

    Args:
        rank: Display order of the packets, int64 (P,).
        key: Key packets, (P,).
        shown: Packets that begin a frame that is shown, bool (P,).
        second: Positions of the packets that complete the frame of the previous packet.
    """
    completes = np.zeros(len(rank) + 1, dtype=bool)
    completes[second] = True
    keys = np.flatnonzero(np.array(key, dtype=bool) & ~completes[:-1])
    packet_of = np.flatnonzero(shown & ~completes[:-1])
    packet_of = packet_of[np.argsort(rank[packet_of], kind="stable")]
    frame_of = np.full(len(rank), -1, dtype=np.int64)
    frame_of[packet_of] = np.arange(len(packet_of))
    seconds = np.array(second, dtype=np.int64)
    frame_of[seconds] = frame_of[seconds - 1]
    last_of = packet_of + completes[packet_of + 1]
    return PacketTable(rank, keys, frame_of, packet_of, last_of)


@dataclass(frozen=True)
class Run:
    """Consecutive packets first..last to decode."""

    first: int
    last: int


def plan_runs(table: PacketTable, wanted: np.ndarray, again: bool = False) -> list[Run]:
    """Find the runs of packets to decode for given frames.

    A run starts at the last key packet that is neither decoded nor shown after the frame (a picture that is shown
    before its key packet refers to the previous group), and ends at the last packet of the frame.

    Args:
        table: Table of the packets.
        wanted: Display indices of the frames, (U,).
        again: Plan a second attempt, one key packet earlier and some packets longer: a packet marked as a key packet
            may depend on earlier ones.

    Returns:
        Disjoint runs in ascending order.
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


def all_packets(table: PacketTable) -> Run:
    """Return the run of all packets."""
    return Run(0, len(table.rank) - 1)


def _start(table: PacketTable, packet: int, keys_back: int) -> int:
    """Return the key packet at which decoding of a packet's frame starts; 0 before the first one."""
    at = int(np.searchsorted(table.keys, packet, side="right")) - 1
    while at > 0 and table.rank[table.keys[at]] > table.rank[packet]:
        at -= 1
    return int(table.keys[max(at - keys_back, 0)]) if at >= 0 else 0
