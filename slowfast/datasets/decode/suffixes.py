"""File name suffixes that tell videos and images apart from other files when a folder is searched."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath

VIDEO_SUFFIXES = frozenset(
    # Containers.
    ".3g2 .3gp .amv .apng .asf .avi .dav .divx .dv .evo .f4v .flv .gif .gxf .ismv .ivr .m2t .m2ts .m4v .mj2 .mk3d .mkv"
    " .mod .mov .mp4 .mpe .mpeg .mpg .mts .mxf .nut .nuv .ogg .ogm .ogv .ogx .psp .pva .qt .rm .rmvb .roq .tod .ts .vob"
    " .webm .wmv .wtv .y4m"
    # Elementary streams.
    " .264 .265 .266 .apv .avc .avs2 .avs3 .cavs .dnxhd .dnxhr .drc .evc .h261 .h263 .h264 .h265 .h266 .hevc .ivf .m1v"
    " .m2v .mjpeg .mjpg .mpv .obu .rcv .vc1 .vc2 .vvc".split()
)
IMAGE_SUFFIXES = frozenset(".bmp .dib .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split())

# Files that accompany videos and images in datasets: skipped without a word.
_COMPANIONS = frozenset(
    # Text, tables, annotations and documents.
    " .cfg .conf .css .csv .doc .docx .feather .htm .html .ini .ipynb .js .json .jsonl .log .md .md5 .nfo .parquet .pdf"
    " .py .pyc .rst .sh .sha256 .sql .toml .tsv .txt .url .xls .xlsx .xml .yaml .yml"
    # Arrays, checkpoints and databases.
    " .ckpt .db .h5 .hdf5 .index .mat .npy .npz .onnx .pickle .pkl .pt .pth .sqlite"
    # Sound and subtitles.
    " .aac .ac3 .aif .aiff .ass .flac .idx .m4a .mka .mp3 .opus .pcm .smi .srt .ssa .sub .vtt .wav .wma"
    # Companions of cameras and of download programs.
    " .part .thm .lrv .xmp .modd .moff .cpi .bdm .mpl .ytdl".split()
)
_SHOWN = 3


def unrecognized(names: Iterable[str], suffixes: frozenset[str]) -> list[str]:
    """Return the names of files that a search skips although nothing says that they are no media.

    Args:
        names: File names or paths found in the searched folder.
        suffixes: Suffixes that the search takes, in lower case with the dot.
    """
    known = suffixes | VIDEO_SUFFIXES | IMAGE_SUFFIXES | _COMPANIONS
    found = []
    for name in names:
        path = PurePath(name)
        if not path.name.startswith(".") and path.suffix.lower() not in known:
            found.append(name)
    return found


def skipped_note(folder: object, names: Iterable[str], suffixes: frozenset[str]) -> str | None:
    """Return a warning that counts the unrecognized files of a searched folder and names a few; None without any."""
    found = sorted(unrecognized(names, suffixes))
    if not found:
        return None
    listed = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
    files = "1 file was" if len(found) == 1 else f"{len(found)} files were"
    return f"{folder}: {files} skipped because of an unknown suffix: {listed}"
