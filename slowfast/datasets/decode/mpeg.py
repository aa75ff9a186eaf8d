"""B-pictures and field pairs of MPEG-1, MPEG-2 and MPEG-4 streams, read from picture headers."""

from __future__ import annotations

from av.video.stream import VideoStream

from slowfast.datasets.decode.nal_units import Bits

_PICTURE, _SEQUENCE, _EXTENSION, _VOP = b"\0\0\1\0", b"\0\0\1\xb3", b"\0\0\1\xb5", b"\0\0\1\xb6"
NOT_CODED = 19  # largest size in bytes of a packet without a picture (MAX_NVOP_SIZE of FFmpeg)


class MpegPictures:
    """Reader of picture headers.

    Args:
        codec: FFmpeg's name of the codec.
        increment_bits: Size of vop_time_increment in MPEG-4; None if unknown.
    """

    def __init__(self, codec: str, increment_bits: int | None = None) -> None:
        self._codec, self._increment_bits = codec, increment_bits
        # Packed bitstreams (DivX): a packet contains a second picture, which FFmpeg decodes with the next packet; the
        # last packet of a series is empty. Whether the waiting picture is a B-picture.
        self._waiting: bool | None = None

    @classmethod
    def of(cls, stream: VideoStream) -> MpegPictures | None:
        """Return the reader for a stream; None for other codecs."""
        context = stream.codec_context
        if context.name == "mpeg4":
            return cls(context.name, _increment_bits(context.extradata or b""))
        return cls(context.name) if context.name in ("mpeg1video", "mpeg2video") else None

    def is_b(self, data: bytes) -> bool | None:
        """Return whether the next packet in decoding order is a B-picture, shown before the picture it follows.

        Returns:
            None if it may contain no picture, or if that is unknown.
        """
        if self._codec != "mpeg4":  # picture_coding_type: ISO/IEC 13818-2, 6.3.9
            at = data.find(_PICTURE)
            return data[at + 5] >> 3 & 7 == 3 if 0 <= at < len(data) - 5 else None
        last = data.rfind(_VOP)
        if not 0 <= last < len(data) - 4:
            return None
        before, first = self._waiting, data.find(_VOP)
        self._waiting = None
        if first != last or (before is not None and len(data) > 7):
            self._waiting = data[last + 4] >> 6 == 2  # vop_coding_type: ISO/IEC 14496-2, 6.3.5
        if before is not None:
            return before
        if len(data) <= NOT_CODED and not self._is_coded(data[last + 4 :]):
            return None
        return data[first + 4] >> 6 == 2

    def _is_coded(self, header: bytes) -> bool:
        """Return whether a video object plane contains a picture (vop_coded)."""
        if self._increment_bits is None:
            return False
        bits = Bits(header)
        try:
            bits.u(2)
            while bits.flag():  # modulo_time_base
                continue
            bits.u(1 + self._increment_bits + 1)
            return bits.flag()
        except IndexError:
            return False


def _increment_bits(extradata: bytes) -> int | None:
    """Return the size of vop_time_increment from the video object layer header (ISO/IEC 14496-2, 6.2.3), or None."""
    at = extradata.find(b"\0\0\1")
    while at >= 0 and not 0x20 <= (extradata[at + 3] if at + 3 < len(extradata) else 0) <= 0x2F:
        at = extradata.find(b"\0\0\1", at + 3)
    if at < 0:
        return None
    bits = Bits(extradata[at + 4 : at + 64])
    try:
        bits.u(9)
        bits.u(7 if bits.flag() else 0)  # is_object_layer_identifier
        bits.u(16 if bits.u(4) == 15 else 0)  # aspect_ratio_info
        if bits.flag():  # vol_control_parameters
            bits.u(3)
            bits.u(79 if bits.flag() else 0)
        if bits.u(2):  # video_object_layer_shape other than rectangular
            return None
        bits.u(1)
        return max((bits.u(16) - 1).bit_length(), 1)  # vop_time_increment_resolution
    except IndexError:
        return None


class Mpeg2FieldPairs:
    """Detector of second fields in MPEG-2, by the picture_structure of the extension (ISO/IEC 13818-2, 6.2.3.1)."""

    def __init__(self) -> None:
        self._open = 0  # structure of a first field whose second field has not been found yet

    def is_second(self, packet: memoryview) -> bool:
        """Return whether a packet completes the frame of the previous packet."""
        data = bytes(packet)
        structure = _mpeg2_structure(data)
        before, self._open = self._open, 0
        if structure == 3:
            return False
        if before and before != structure:
            return True
        if data.count(_PICTURE) == 1:  # unless both fields are in one packet
            self._open = structure
        return False


def _mpeg2_structure(data: bytes) -> int:
    """Return 1 for a top field, 2 for a bottom field, 3 for a frame."""
    at = data.find(_EXTENSION)
    while at >= 0 and at + 6 < len(data):
        if data[at + 4] >> 4 == 8:
            return data[at + 6] & 3 or 3
        at = data.find(_EXTENSION, at + 4)
    return 3


def sequence_size(data: bytes) -> bytes:
    """Return the coded size in the first sequence header of an MPEG-1 or MPEG-2 packet; empty without one."""
    at = data.find(_SEQUENCE)
    return data[at + 4 : at + 7] if at >= 0 else b""
