"""Parameter sets that change within an H.264 or H.265 stream, for decoding that starts anywhere in it."""

from __future__ import annotations

import bisect

from av import Packet

from slowfast.datasets.decode.nal_units import NalFormat


class ParameterSets:
    """Parameter sets in effect at each packet of a stream.

    A decoder keeps the sets that it got last. Where a stream changes them (a recording that was interrupted, files
    joined end to end, several sample descriptions), decoding that starts elsewhere needs those in effect there.

    Args:
        nal: NAL unit format of the stream.
        extradata: Global header of the stream.
    """

    def __init__(self, nal: NalFormat, extradata: bytes) -> None:
        self._nal = nal
        self._places, self._sets = [0], [nal.global_sets(extradata)]
        self._keys = 0

    @property
    def current(self) -> tuple[bytes, ...]:
        """Sets in effect after the last packet that was seen."""
        return self._sets[-1]

    @property
    def change(self) -> bool:
        """Return whether more than one group of sets is in use."""
        return len(self._places) > 1

    def see_key(self, place: int, packet: Packet) -> bool:
        """Note the sets of a key packet, or of one with a new global header; places ascend.

        Returns:
            Whether other sets are in effect from here on.
        """
        self._keys += 1
        before = self.current
        if packet.has_sidedata("new_extradata"):
            self._note(place, self._nal.global_sets(bytes(packet.get_sidedata("new_extradata"))))
        sets = self._nal.parameter_sets(memoryview(packet))
        if sets and not set(sets) <= set(self.current):
            complete = any(map(self._nal.is_sequence, sets))
            self._note(place, sets if complete else self.current + sets)
        return self.current is not before

    def _note(self, place: int, sets: tuple[bytes, ...]) -> None:
        if self._keys == 1:  # nothing was decoded with the sets before
            self._sets = [sets]
        elif set(sets) != set(self.current):
            self._places.append(place)
            self._sets.append(sets)

    def at(self, place: int) -> tuple[bytes, ...]:
        """Return the sets in effect at a packet."""
        return self._sets[bisect.bisect_right(self._places, place) - 1]

    def prepend(self, place: int, packet: Packet) -> Packet:
        """Return a packet at which decoding can start: with the sets in effect in front of it, if they ever change."""
        if not self.change:
            return packet
        start = Packet(self._nal.join(self.at(place)) + bytes(packet))
        start.pts, start.dts, start.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
        if packet.time_base:
            start.time_base = packet.time_base
        return start
