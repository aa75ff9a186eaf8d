"""Keys of event-driven inference with evMLP on ordinary video."""

from slowfast.config.key import Key, Section
from slowfast.config.rules import Choices, Range

EVENT = Section(
    "EVENT",
    "Event-driven inference",
    "Event-driven inference with evMLP on ordinary video: only the patches that changed are recomputed.",
)

EVENT.ENABLE = Key(
    False,
    "Run event-driven inference. For an image network, on the videos of DATA.PATH_PREFIX (a folder, a file, a camera "
    "number, a stream address, or a .txt file with one of these per line), without training and testing; with "
    "MODEL.FRAMEWISE, within the clips of a test.",
)
EVENT.RESIZE = Key(
    "squash",
    "Resizing of a frame to the square network input: squash (ignore the aspect ratio), crop (short side, then center, "
    "as in image evaluation) or letterbox (keep the aspect ratio, pad with DATA.MEAN). Clips of a test are cropped as "
    "set in TEST.",
    rule=Choices("squash", "crop", "letterbox"),
    origin="evMLP",
)
EVENT.THRESHOLD = Key(
    0.05,
    "Change above which a patch is recomputed.",
    unit="normalized pixel values",
    rule=Range(0, 10**6),
    origin="evMLP",
)
EVENT.REFERENCE = Key(
    "hold",
    "Frame that a patch is compared with: hold (the one in which it was last computed) or previous (as published; "
    "errors of slow changes accumulate).",
    rule=Choices("previous", "hold"),
)
EVENT.GATE = Key(
    "mean",
    "Change of a patch: mean or, as published, any (the maximum) of the absolute differences of its pixels.",
    rule=Choices("any", "mean"),
)
EVENT.KEYFRAME_EVERY = Key(
    0,
    "Interval between frames that are computed in full; 0 computes only the first frame in full.",
    unit="frames",
    rule=Range(0, 10**9),
)
EVENT.STREAMS = Key(
    1,
    "Videos processed together in one batch. Results do not depend on it.",
    unit="videos",
    rule=Range(1, 10_000),
)
EVENT.CHUNK = Key(
    16,
    "Frames of a video processed together; 1 has the lowest latency. Results do not depend on it.",
    unit="frames",
    rule=Range(1, 10_000),
)
EVENT.PRECISION = Key(
    "float32",
    "Precision of the weights. With int8, the compiled kernels also quantize the activations, with a scale per patch.",
    rule=Choices("float32", "bfloat16", "int8"),
)
EVENT.COMPILED = Key(
    True,
    "On CPUs, use kernels that are compiled on first use, if there is a C++ compiler, where they are faster than "
    "PyTorch on this machine; on GPUs, capture the steps as CUDA graphs.",
)
EVENT.MAX_FRAMES = Key(
    0,
    "Frames to process per video; 0 for all, for a camera or stream until Ctrl-C.",
    unit="frames",
    rule=Range(0, 10**12),
)
EVENT.RECONNECT = Key(
    0.0,
    "Delay before a lost camera or stream is reopened; 0 never reopens it. It doubles after every failed attempt, up "
    "to 60 seconds or this value if that is longer.",
    unit="seconds",
    rule=Range(0, 10**6),
)
EVENT.COMPARE = Key(
    True,
    "Also run dense inference, on the frames that EVENT.COMPARE_EVERY selects, to measure speed-up, agreement and "
    "error.",
)
EVENT.COMPARE_EVERY = Key(
    0,
    "Compare every Nth batch with dense inference: 1 compares all frames; 0 also does so for files, but with cameras "
    "or streams compares every 32nd batch, which typically takes less than 10 % of the time.",
    unit="batches",
    rule=Range(0, 10**6),
)
EVENT.FRAME_LOG = Key(
    True,
    "Write event_frames.csv, one line per frame: about 200 MB per day for a camera of 30 frames/s.",
)
EVENT.ANNOTATE = Key(False, "Write each video as .mp4 with its changed patches and top classes drawn on it.")
