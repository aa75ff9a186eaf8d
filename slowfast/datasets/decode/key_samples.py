"""Checks of sample tables against the packets that decoding depends on: the key packets and the first packets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from av import Packet
from av.video.stream import VideoStream

from slowfast.datasets.decode.nal_units import NalFormat, ParameterSets
from slowfast.datasets.decode.packet_scan import field_pairs
from slowfast.datasets.decode.sample_tables import Samples

VERIFIED = 8  # packets compared with the sample tables
MAX_GROUP = 600  # maximum interval of sync samples for using the sample tables
_START = 16  # bytes of a key packet needed to recognize a leading slice


def check_keys(samples: Samples, path: str, stream: VideoStream, nal: NalFormat, sets: ParameterSets) -> bytes | None:
    """Check that the sync samples are key packets as a scan finds them, with the same parameter sets.

    Args:
        samples: Samples of the stream.
        path: The file.
        stream: The stream.
        nal: NAL unit format of the stream.
        sets: Parameter sets of the stream, updated with the sync samples.

    Returns:
        The beginning of the first one; None if the stream must be scanned.
    """
    keys = np.flatnonzero(samples.key)
    if not nal.length_size or field_pairs(stream, nal, sets) is not None:
        return None
    if np.diff(np.append(keys, len(samples))).max() > MAX_GROUP:
        return None  # recovery points are not in the tables, and decoding would start too early
    first = b""
    for at, start in zip(keys.tolist(), samples.heads(path, keys, _START), strict=True):
        if at and nal.begins_with_key_slice(start):
            continue  # no parameter sets, and an IDR picture in H.264
        [head] = samples.heads(path, np.array([at]), nal.HEAD)
        sets.observe_head(at, memoryview(head))
        if stream.codec_context.name == "h264" and not nal.has_idr(memoryview(head)):
            return None  # FFmpeg uses SEI messages to decide whether it is a key packet
        first = first or head
    return None if sets.changed or field_pairs(stream, nal, sets) is not None else first


def matching(samples: Samples, first: Sequence[Packet]) -> Samples | None:
    """Return the samples with FFmpeg's presentation timestamps; None if its first packets are not the first samples.

    Args:
        samples: Samples of the stream.
        first: The first packets, VERIFIED or all.
    """
    if len(first) != min(VERIFIED, len(samples)) or first[0].pts is None:
        return None
    samples = samples.shifted(0, first[0].pts - int(samples.pts[0]))
    same = all(samples.is_sample(at, packet) for at, packet in enumerate(first))
    return samples if same and [packet.is_keyframe for packet in first] == samples.key[: len(first)].tolist() else None
