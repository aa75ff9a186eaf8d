"""Kinds of damaged inputs and the invariants that must hold for them, one class each."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import ClassVar

import av
import cv2
import numpy as np
import torch

from slowfast.cli.setup import load_config
from slowfast.config.defaults import get_cfg
from slowfast.datasets.decode import DecodeError, open_video
from slowfast.datasets.decode.container import open_any_metadata
from slowfast.datasets.decode.image import read_image
from slowfast.errors import UserError
from slowfast.models import MODEL_REGISTRY, build_model
from slowfast.models.evmlp import EvMLP
from slowfast.models.protocol import CLIPS, EVENTS, IMAGES
from slowfast.models.weights import read_weights
from tests.fuzz.mutate import BINARY, TEXT
from tests.fuzz.protocol import REFUSED, USED, Kind, WrongValue
from tests.fuzz.recordings import EventFormats, Recordings


class Videos:
    """Videos in several containers: frames read at once equal those read alone, wherever nothing is reported."""

    mutations = BINARY
    FILES: ClassVar[dict[str, str]] = {
        "h264.mp4": "libx264",
        "h264.mkv": "libx264",
        "h264.ts": "libx264",
        "h264.flv": "libx264",
        "mpeg4.avi": "mpeg4",
        "vp8.webm": "libvpx",
        "mjpeg.mov": "mjpeg",
    }

    def make(self, folder: Path) -> list[Path]:
        """Encode 24 frames, 4.8 s, with each codec and container."""
        paths = []
        for name, codec in self.FILES.items():
            path = folder / name
            with av.open(str(path), "w") as file:
                stream = file.add_stream(codec, rate=5)
                stream.width, stream.height, stream.gop_size = 64, 48, 8
                stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
                for number in range(24):
                    image = np.full((48, 64, 3), number * 10, np.uint8)
                    image[number : number + 16, 2 * number : 2 * number + 16] = (250, 40, 90)
                    file.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
                file.mux(stream.encode())
            paths.append(path)
        return paths

    def check(self, path: Path, original: Path) -> str:
        """Read all frames, then three of them alone from files opened anew."""
        try:
            with open_video(path, timeout=20.0) as video:
                count = video.num_frames
                whole = video.read(np.arange(count))
        except DecodeError:
            return REFUSED
        frames = whole.frames[whole.rows]
        if count < 1 or frames.shape != (count, video.height, video.width, 3) or frames.dtype != np.uint8:
            raise WrongValue(f"{count} frames give an array of {frames.shape}")
        for index in {0, count // 2, count - 1}:
            with open_video(path, timeout=20.0) as video:
                try:
                    alone = video.read([index])
                except DecodeError as error:
                    if whole.missing is None:
                        raise WrongValue(f"frame {index} can be read with the others only") from error
                    continue
            if whole.missing is not None or alone.missing is not None or np.array_equal(alone.frames[0], frames[index]):
                continue
            if ffmpeg_is_sure(path, index):
                raise WrongValue(f"frame {index} of {count} differs when it is read alone, and nothing is reported")
        return USED


def ffmpeg_is_sure(path: Path, index: int) -> bool:
    """Return whether FFmpeg's decoder gives one picture for a frame of a damaged file, wherever it starts.

    It reports no error for much damage: then it may show what its memory held before, refer to pictures that are not
    there, or put frames out in another order than their times say.
    """
    whole = _decode(path, 0, hold=True)
    times = [time for time, _ in whole]
    if index >= len(whole) or None in times or times != sorted(times):
        return False
    time, picture = whole[index]
    with open_any_metadata(str(path), {}) as file:
        keys = [number for number, packet in enumerate(file.demux(video=0)) if packet.is_keyframe]
    starts = [(start, hold) for start in {0, *keys} for hold in (True, False)]
    others = (found for start, hold in starts for at, found in _decode(path, start, hold) if at == time)
    return all(np.array_equal(other, picture) for other in others)


def _decode(path: Path, start: int, hold: bool) -> list[tuple[int | None, np.ndarray]]:
    """Decode from packet `start` on with one thread: times and gray pictures; `hold` keeps the decoder's memory."""
    held, out = [], []
    with open_any_metadata(str(path), {}) as file:
        context = file.streams.video[0].codec_context
        context.thread_count, context.thread_type = 1, "NONE"
        for number, packet in enumerate(file.demux(video=0)):
            if number < start:
                continue
            try:
                frames = context.decode(packet if packet.size else None)
            except av.FFmpegError:
                continue
            held += frames if hold else []
            out += [(frame.pts, frame.to_ndarray(format="gray")) for frame in frames]
    return out


class Images:
    """Images: whatever is read has the size that the header says."""

    mutations = BINARY

    def make(self, folder: Path) -> list[Path]:
        """Encode one image in each format."""
        image = cv2.resize(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8), (96, 72))
        paths = [folder / f"image.{suffix}" for suffix in ("jpg", "png", "bmp", "webp", "tif")]
        for path in paths:
            cv2.imwrite(str(path), image)
        return paths

    def check(self, path: Path, original: Path) -> str:
        """Read it."""
        try:
            image = read_image(path)
        except DecodeError:
            return REFUSED
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise WrongValue(f"an image of {image.dtype} {image.shape}")
        return USED


class _Marker:
    """What a hostile pickle calls: it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


class Checkpoints:
    """Files of weights: refused, or the weights that were written; nothing in them ever runs."""

    mutations = BINARY

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = EvMLP(3, (4, 8), (2, 2), (1, 1), (1, 1), (0, 0))

    def make(self, folder: Path) -> list[Path]:
        """Write the layouts of trainings, bare weights, and a file that would leave another one behind."""
        state = self.model.state_dict()
        torch.save({"model_state": state, "epoch": 3, "cfg": "TRAIN: {}"}, folder / "training.pyth")
        torch.save(state, folder / "weights.pth")
        evil = {"model": state, "x": _Marker(folder / "ran")}
        torch.save(evil, folder / "hostile.pth")
        (folder / "hostile.pkl").write_bytes(pickle.dumps(evil["x"]))
        return sorted(path for path in folder.iterdir() if path.name != "ran")

    def check(self, path: Path, original: Path) -> str:
        """Read the weights."""
        try:
            state = read_weights(path, "pytorch", self.model)
        except UserError:
            state = None
        if (original.parent / "ran").exists():
            raise WrongValue("a file of weights ran code")
        if state is None:
            return REFUSED
        own = self.model.state_dict()
        if state.keys() != own.keys() or not all(torch.equal(state[key], own[key]) for key in own):
            raise WrongValue("other numbers than were saved")
        return USED


class Configs:
    """YAML files: refused in one or two lines, or a config whose network builds."""

    mutations = TEXT

    def make(self, folder: Path) -> list[Path]:
        """Write all keys of every network's config."""
        paths = []
        for name, network in MODEL_REGISTRY:
            dataset = {CLIPS: "kinetics", IMAGES: "imagenet", EVENTS: "asldvs"}[network.input_kind]
            cfg = get_cfg()
            cfg.merge_from_list(["MODEL.MODEL_NAME", name, "TRAIN.DATASET", dataset, "TEST.DATASET", dataset])
            cfg.merge_from_list(["TEST.NUM_ENSEMBLE_VIEWS", 1, "TEST.NUM_SPATIAL_CROPS", 1, "NUM_GPUS", 0])
            cfg.merge_from_list(["OUTPUT_DIR", str(folder / "out")])
            path = folder / f"{name}.yaml"
            path.write_text(cfg.dump())
            paths.append(path)
        return paths

    def check(self, path: Path, original: Path) -> str:
        """Load it, and build the network without memory for its weights."""
        try:
            cfg = load_config(path)
            with torch.device("meta"):
                build_model(cfg)
        except UserError as error:
            text = str(error)
            if not text or text.count("\n") > 1 or len(text) > 1000:
                raise WrongValue(f"a message of {len(text)} characters: {text[:200]}") from error
            return REFUSED
        return USED


KINDS: dict[str, type[Kind]] = {
    "videos": Videos,
    "images": Images,
    "recordings": Recordings,
    "event formats": EventFormats,
    "checkpoints": Checkpoints,
    "configs": Configs,
}
