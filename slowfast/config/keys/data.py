"""Keys of datasets: index files, clips, crops, decoding, data loading, augmentation and mixup."""

from slowfast.config.key import Key, Section
from slowfast.config.rules import MAX_SIDE, MAX_WORKERS, Choices, FilePath, Forms, Range, Separator, Template

DATA = Section("DATA", "Data")

DATA.PATH_TO_DATA_DIR = Key(
    "",
    "Folder of the index files: train.csv, val.csv, test.csv and categories.txt of kinetics, the lists of "
    "Something-Something, train/ and val/ of imagenet, the official split files of ucf101 and hmdb51. Lists may also "
    "be at an https://, s3:// or hf:// address.",
    rule=FilePath(),
    origin="SF",
)
DATA.PATH_PREFIX = Key(
    "",
    "Folder, or s3:// address, that the paths in the index files are relative to. No path may lead out of it; empty "
    "for no restriction.",
    rule=FilePath(),
    origin="SF",
)
DATA.CACHE_GIB = Key(
    50.0,
    "Size of the cache of samples from s3:// addresses; the least recently used ones are deleted.",
    unit="GiB",
    rule=Range(0.01, 10**6),
)
DATA.PATH_LABEL_SEPARATOR = Key(
    " ", "Separator between path and label on a line of an index file.", rule=Separator(), origin="SF"
)
DATA.SPLIT = Key(1, "Number of the official split of ucf101 and hmdb51.", rule=Choices(1, 2, 3))
DATA.LABEL_PATH_TEMPLATE = Key(
    "somesomev1_rgb_{}_split.txt",
    "Something-Something: file name of the list of a split, where {} is train, validation or test. A name in .json "
    "(V2, videos) or .csv (V1, folders of frames) selects the official lists and their label table.",
    rule=Template(("train", "validation"), r"s?", "somesomev2_rgb_{}_split.txt"),
    origin="M",
)
DATA.IMAGE_TEMPLATE = Key(
    "{:05d}.jpg",
    "Something-Something: file name of an extracted frame, where {} is its number from 1.",
    rule=Template((1, 2), r"0?[1-9]?[0-9]?d?", "{:05d}.jpg"),
    origin="M",
)
DATA.SAMPLING = Key(
    "uniform",
    "Training samples of an epoch: uniform (each once) or balanced (equally many of each class).",
    rule=Choices("uniform", "balanced"),
)
DATA.NUM_FRAMES = Key(8, "Frames per clip.", unit="frames", rule=Range(1, 4096), origin="SF")
DATA.SAMPLING_RATE = Key(
    8,
    "Distance between consecutive frames of a clip at DATA.TARGET_FPS. A clip covers NUM_FRAMES x SAMPLING_RATE / "
    "TARGET_FPS seconds.",
    unit="frames",
    rule=Range(1, 10**6),
    origin="SF",
)
DATA.TARGET_FPS = Key(
    30, "Frame rate that DATA.SAMPLING_RATE refers to.", unit="frames/s", rule=Range(1, 10**6), origin="SF"
)
DATA.USE_OFFSET_SAMPLING = Key(
    False,
    "Start test views at multiples of floor(delta / (views - 1)) instead of delta / views, where delta is the "
    "number of frames by which a clip can be shifted.",
    origin="SF",
)
DATA.TRAIN_JITTER_SCALES = Key(
    [256, 320],
    "Range of the random short side in training. Tests of kinetics with 1 crop resize to the first value.",
    unit="pixels",
    rule=Range(1, MAX_SIDE),
    length=2,
    origin="SF",
)
DATA.TRAIN_JITTER_SCALES_RELATIVE = Key(
    [],
    "Range of the area of a random resized crop, relative to the frame; empty for short-side jitter.",
    unit="fraction",
    rule=Range(0, 1, above=True),
    origin="SF",
)
DATA.TRAIN_JITTER_ASPECT_RELATIVE = Key(
    [],
    "Range of the aspect ratio (width / height) of a random resized crop.",
    unit="ratio",
    rule=Range(1e-3, 1000),
    origin="SF",
)
DATA.TRAIN_CROP_SIZE = Key(224, "Side of a training crop.", unit="pixels", rule=Range(1, MAX_SIDE), origin="SF")
DATA.TEST_CROP_SIZE = Key(
    224, "Side of a validation and test crop.", unit="pixels", rule=Range(1, MAX_SIDE), origin="M"
)
DATA.IN_VAL_CROP_RATIO = Key(
    0.875,
    "imagenet: side of the evaluation center crop, relative to the short side.",
    unit="fraction",
    rule=Range(0.01, 1),
    origin="SF",
)
DATA.IN_VAL_INTERPOLATION = Key(
    "bicubic",
    "imagenet: interpolation (with antialiasing) in evaluation.",
    rule=Choices("bilinear", "bicubic"),
    origin="EAT",
)
DATA.RANDOM_FLIP = Key(True, "Flip training clips horizontally with probability 0.5.", origin="SF")
DATA.MEAN = Key(
    [0.45, 0.45, 0.45],
    "Mean of each channel, in the channel order of the network input.",
    unit="in [0, 1]",
    rule=Range(0, 1),
    length=3,
    origin="SF",
)
DATA.STD = Key(
    [0.225, 0.225, 0.225],
    "Standard deviation of each channel, in the channel order of the network input.",
    unit="in [0, 1]",
    rule=Range(1e-6, 1000),
    length=3,
    origin="SF",
)
DATA.REVERSE_INPUT_CHANNEL = Key(False, "Feed BGR frames instead of RGB frames.", origin="SF")
DATA.DECODING_BACKEND = Key(
    "pyav",
    "Video decoder; torchcodec needs the torchcodec extra.",
    rule=Choices("pyav", "torchcodec"),
    origin="SF",
)
DATA.DECODING_THREADS = Key(
    1,
    "Decoder threads per process; 0 lets FFmpeg choose. Decoded frames do not depend on it.",
    unit="threads",
    rule=Range(0, MAX_WORKERS),
)
DATA.ENSEMBLE_METHOD = Key(
    "sum", "Combination of the scores of all views: sum (their mean) or max.", rule=Choices("sum", "max"), origin="SF"
)
DATA.MAX_FAILED = Key(
    0.01,
    "Training videos that may be unreadable in an epoch before the run stops. Above 0, at least 3 videos may be "
    "unreadable, but never all.",
    unit="fraction",
    rule=Range(0, 1),
)

DATA_LOADER = Section("DATA_LOADER", "Data loading")

DATA_LOADER.NUM_WORKERS = Key(
    8,
    "Worker processes per training process; 0 loads in the process itself.",
    unit="processes",
    rule=Range(0, MAX_WORKERS),
    origin="SF",
)
DATA_LOADER.PIN_MEMORY = Key(True, "Copy batches to page-locked memory first (GPU only).", origin="SF")
DATA_LOADER.PREFETCH_FACTOR = Key(
    2, "Batches that each worker loads in advance.", unit="batches", rule=Range(1, 1000), origin="torch"
)
DATA_LOADER.TIMEOUT = Key(
    300,
    "Time limit for reading one file; 0 for none. A file that takes longer counts as unreadable, and its worker is "
    "replaced.",
    unit="seconds",
    rule=Range(0, 10**6),
)
DATA_LOADER.DRAW_SAMPLES = Key(
    8,
    "Samples of the first training and test batch to draw as the network sees them, into OUTPUT_DIR and TensorBoard; "
    "0 for none.",
    unit="samples",
    rule=Range(0, MAX_WORKERS),
)


AUG = Section("AUG", "Augmentation")

_TO_10, _TO_100 = r"(0*10(\.0+)?|0*\d(\.\d+)?)", r"(0*100(\.0+)?|0*\d{1,2}(\.\d+)?)"
# No part may occur twice.
_RAND_AUGMENT = (
    r"rand(?!.*-(mstd|mmax|inc|m|n)\d.*-\1\d)"
    rf"(-m{_TO_10}|-mmax{_TO_10}|-mstd{_TO_100}|-n\d{{1,2}}|-inc[01])*"
)

AUG.ENABLE = Key(False, "Apply AUG.AA_TYPE and random erasing in training.", origin="SF")
AUG.NUM_SAMPLE = Key(
    1,
    "Repeated augmentation in a batch (arXiv 1901.09335): augmented clips per decoded video or image. The batch grows "
    "by this factor.",
    unit="clips",
    rule=Range(1, 1000),
    origin="SF",
)
AUG.REPEATED = Key(
    1,
    "Repeated augmentation in the sampler: consecutive copies of each drawn sample, each with its own augmentation "
    "and, if there are enough, in a different process. Batches and epochs keep their size, so an epoch covers one in "
    "REPEATED of the samples. The EAT authors' option repeated-aug uses 3.",
    unit="copies",
    rule=Range(1, 1000),
)
AUG.COLOR_JITTER = Key(
    0.4,
    "Strength of color jitter, used if AUG.AA_TYPE is empty; 0 for none.",
    rule=Range(0, 1000),
    origin="SF",
)
AUG.AA_TYPE = Key(
    "rand-m9-mstd0.5-inc1",
    "RandAugment in timm's notation (m: magnitude, n: operations, mstd: deviation of the magnitude, mmax: its limit, "
    "inc1: all operations get stronger with it); an AutoAugment ImageNet policy, timm's or torchvision's; or empty for "
    "none.",
    rule=Forms(
        {
            "": "",
            "rand-m<0 to 10>-n<0 to 99>-mstd<0 to 100>-mmax<0 to 10>-inc<0 or 1>": _RAND_AUGMENT,
            "autoaugment": "autoaugment|original",
            "autoaugment-mstd<0 to 100>": f"(autoaugment|original)-mstd{_TO_100}",
            "autoaugment_torchvision": "autoaugment_torchvision",
        },
        "each part after rand is optional, such as rand-m7-n4-mstd0.5-inc1; original is another name of autoaugment",
    ),
    origin="SF",
)
AUG.INTERPOLATION = Key(
    "bicubic",
    "Interpolation of training crops and geometric augmentations; random draws bilinear or bicubic.",
    rule=Choices("nearest", "bilinear", "bicubic", "random"),
    origin="SF",
)
AUG.RE_PROB = Key(0.25, "Random erasing: probability per clip.", unit="probability", rule=Range(0, 1), origin="SF")
AUG.RE_MODE = Key(
    "pixel",
    "Random erasing: fill of a box: pixel (noise per pixel), rand (one color per box) or const (the mean color).",
    rule=Choices("pixel", "rand", "const"),
    origin="SF",
)
AUG.RE_COUNT = Key(
    1, "Random erasing: maximum number of boxes per clip.", unit="boxes", rule=Range(1, 1000), origin="SF"
)

MIXUP = Section("MIXUP", "MixUp and CutMix")

MIXUP.ENABLE = Key(False, "Mix the clips and labels of each training batch.", origin="SF")
MIXUP.ALPHA = Key(0.8, "Beta parameter of MixUp; 0 disables it.", rule=Range(0, 1000), origin="SF")
MIXUP.CUTMIX_ALPHA = Key(1.0, "Beta parameter of CutMix; 0 disables it.", rule=Range(0, 1000), origin="SF")
MIXUP.PROB = Key(1.0, "Probability that a batch is mixed.", unit="probability", rule=Range(0, 1), origin="SF")
MIXUP.SWITCH_PROB = Key(
    0.5, "Probability of CutMix if both are enabled.", unit="probability", rule=Range(0, 1), origin="SF"
)
MIXUP.LABEL_SMOOTH_VALUE = Key(
    0.1,
    "Label smoothing of soft_cross_entropy, with and without mixing.",
    unit="fraction",
    rule=Range(0, 1, below=True),
    origin="SF",
)
