"""Keys of the networks: MorphMLP, ConvMLP, EAT, evMLP, Event2Vec and the teachers."""

from slowfast.config.key import Key, Section
from slowfast.config.rules import MAX_BLOCKS, MAX_SIDE, Choices, FilePath, Forms, Range

_BLOCKS = Range(1, MAX_BLOCKS, max_sum=MAX_BLOCKS)
_CHANNELS = Range(1, 65_536)
_MLP_RATIO = Range(1, 64)
_DROP_RATE = Range(0, 1, below=True)

MORPH = Section("MORPH", "MorphMLP", "arXiv 2111.12527. Defaults are MorphMLP-S of the authors' YAML files.")

MORPH.LAYERS = Key([3, 4, 9, 3], "Blocks per stage.", unit="blocks", rule=_BLOCKS, origin="M")
MORPH.SEGMENT_DIM = Key(
    [14, 28, 28, 49],
    "Segment length per stage: tokens mixed by one linear layer.",
    unit="tokens",
    rule=_CHANNELS,
    origin="M",
)
MORPH.EMBED_DIMS = Key(
    [112, 224, 392, 784], "Embedding dimension per stage.", unit="channels", rule=_CHANNELS, origin="M"
)
MORPH.MLP_RATIOS = Key(
    [3, 3, 3, 3],
    "Hidden dimension of the MLPs per stage, relative to the embedding dimension.",
    unit="ratio",
    rule=_MLP_RATIO,
    origin="M",
)
MORPH.QKV_BIAS = Key(True, "Use biases in the linear layers of the branches.", origin="M")
MORPH.DROP_DEPTH_RATE = Key(
    0.1,
    "Stochastic depth of the last block; rises linearly from 0 over the blocks.",
    unit="probability",
    rule=_DROP_RATE,
    origin="M",
)
MORPH.PRETRAIN_PATH = Key(
    "",
    "Image or video weights to start training from, a path or an address. Training stops if the file is missing.",
    rule=FilePath(),
    origin="M",
)

CONVMLP = Section("CONVMLP", "ConvMLP", "arXiv 2109.04454. Defaults are ConvMLP-S of the paper.")

CONVMLP.LAYERS = Key([2, 4, 2], "Blocks per MLP stage.", unit="blocks", rule=_BLOCKS, origin="ConvMLP")
CONVMLP.EMBED_DIMS = Key(
    [128, 256, 512], "Embedding dimension per MLP stage.", unit="channels", rule=_CHANNELS, origin="ConvMLP"
)
CONVMLP.MLP_RATIOS = Key(
    [2, 2, 2],
    "Hidden dimension of the MLPs per stage, relative to the embedding dimension.",
    unit="ratio",
    rule=_MLP_RATIO,
    origin="ConvMLP",
)
CONVMLP.CONV_DIM = Key(
    64, "Dimension of the tokenizer and the convolution stage.", unit="channels", rule=_CHANNELS, origin="ConvMLP"
)
CONVMLP.CONV_LAYERS = Key(
    2, "Blocks of the convolution stage.", unit="blocks", rule=Range(0, MAX_BLOCKS), origin="ConvMLP"
)
CONVMLP.DROP_DEPTH_RATE = Key(
    0.1,
    "Stochastic depth of the last block of each MLP stage; rises linearly from 0 within the stage.",
    unit="probability",
    rule=_DROP_RATE,
    origin="ConvMLP",
)

EAT = Section(
    "EAT",
    "EAT",
    "arXiv 2105.15089. Defaults are EAT-Ti of the paper. Images are squares of DATA.TEST_CROP_SIZE pixels.",
)

EAT.PATCH_SIZE = Key(16, "Side of a patch.", unit="pixels", rule=Range(1, MAX_SIDE), origin="EAT")
EAT.LAYERS = Key(12, "Blocks on the tokens.", unit="blocks", rule=Range(1, MAX_BLOCKS), origin="EAT")
EAT.CLASS_LAYERS = Key(
    2,
    "Blocks in which the learned query attends to the tokens.",
    unit="blocks",
    rule=Range(1, MAX_BLOCKS),
    origin="EAT",
)
EAT.EMBED_DIM = Key(192, "Embedding dimension.", unit="channels", rule=_CHANNELS, origin="EAT")
EAT.HEADS = Key(
    4,
    "Attention heads of a class block. Blocks on the tokens have half as many, on half of the channels.",
    unit="heads",
    rule=_CHANNELS,
    origin="EAT",
)
EAT.MLP_RATIO = Key(
    4, "Hidden dimension of the MLPs, relative to EAT.EMBED_DIM.", unit="ratio", rule=_MLP_RATIO, origin="EAT"
)
EAT.PIXEL_ORDER = Key(
    "sis",
    "Scan order of pixels or patches (see EAT.SFC_MODE): sis (sweep in sweep), sweep, scan; zorder and hilbert need "
    "sides that are powers of two.",
    rule=Choices("sis", "sweep", "scan", "zorder", "hilbert"),
    origin="EAT",
)
EAT.SFC_MODE = Key(
    "first",
    "Elements that EAT.PIXEL_ORDER sorts: first (pixels, before the embedding) or second (embedded patches).",
    rule=Choices("first", "second"),
    origin="EAT",
)
EAT.BLOCK_TYPE = Key(
    "base_local",
    "Blocks on the tokens: base_local (attention and a local branch) or base (attention only).",
    rule=Choices("base_local", "base"),
    origin="EAT",
)
EAT.LOCAL = Key(
    "conv",
    "Local branch: conv (convolution over neighboring tokens) or attn (attention among them).",
    rule=Choices("conv", "attn"),
    origin="EAT",
)
EAT.LOCAL_RATIO = Key(
    0.5, "Fraction of the channels in the local branch.", unit="fraction", rule=Range(0, 1), origin="EAT"
)
EAT.LOCAL_KS = Key(3, "Kernel size of the local branch; odd.", unit="tokens", rule=Range(1, 65_535), origin="EAT")
EAT.POS_EMB = Key(True, "Add a learned position embedding to the tokens.", origin="EAT")
EAT.CLS_TOKEN = Key(False, "Classify by a class token among the patch tokens.", origin="EAT")
EAT.CLS_TOKEN_HEAD = Key(
    True,
    "Without EAT.CLS_TOKEN: classify by EAT.CLASS_LAYERS blocks with a learned query. False averages the tokens.",
    origin="EAT",
)
EAT.DISTILLED = Key(
    False, "Add a second query and head for distillation; the logits are the mean of both heads.", origin="EAT"
)
EAT.DROP_DEPTH_RATE = Key(
    0.1,
    "Stochastic depth of the last block; rises linearly from 0 over the blocks.",
    unit="probability",
    rule=_DROP_RATE,
    origin="EAT",
)

EVMLP = Section("EVMLP", "evMLP", "arXiv 2507.01927. Defaults are the paper's network for images of 224 x 224 pixels.")

EVMLP.EMBED_DIMS = Key(
    [64, 128, 512, 512, 512, 512],
    "Embedding dimension per stage.",
    unit="channels",
    rule=_CHANNELS,
    origin="evMLP",
)
EVMLP.PATCH_SIZES = Key(
    [7, 2, 2, 2, 2, 2],
    "Side of a patch per stage: pixels in the first stage, tokens of the previous stage in the others. Their product "
    "is the side of the image.",
    unit="pixels, tokens",
    rule=Range(1, MAX_SIDE),
    origin="evMLP",
)
EVMLP.LAYERS = Key([5, 5, 7, 7, 9, 9], "Blocks per stage.", unit="blocks", rule=_BLOCKS, origin="evMLP")
EVMLP.MLP_RATIOS = Key(
    [4, 4, 2, 2, 2, 2],
    "Hidden dimension of the MLPs per stage, relative to the embedding dimension.",
    unit="ratio",
    rule=_MLP_RATIO,
    origin="evMLP",
)
EVMLP.DROPOUT_RATES = Key(
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.2],
    "Dropout inside the MLPs per stage.",
    unit="probability",
    rule=_DROP_RATE,
    origin="evMLP",
)
EVMLP.INIT = Key(
    "truncated_normal",
    "Weight initialization: truncated_normal (standard deviation 0.02) or pytorch (PyTorch's default, as published). "
    "In a small trial, truncated_normal reached a training loss of 0.35 and pytorch 1.40.",
    rule=Choices("pytorch", "truncated_normal"),
)

EVENT2VEC = Section("EVENT2VEC", "Event2Vec", "arXiv 2504.15371. Defaults are the published ones for ASL-DVS.")

EVENT2VEC.GRID_SIZE = Key(
    [36, 48],
    "Height and width of the grid that event coordinates are scaled to; at most DVS.SENSOR_SIZE.",
    unit="cells",
    rule=Range(1, MAX_SIDE),
    length=2,
    origin="Event2Vec",
)
EVENT2VEC.POLARITIES = Key(
    2, "Polarities to distinguish; 1 ignores the polarity.", rule=Choices(1, 2), origin="Event2Vec"
)
EVENT2VEC.EMBED = Key(
    "neighbor1d-naive2d-2-1",
    "Embedding of an event: naive (one row per cell), naive2d (separate rows and columns), or with n neighbors on each "
    "side at distance k.",
    rule=Forms(
        {
            "naive": "naive",
            "naive2d": "naive2d",
            **{
                f"{family}-n-k": rf"{family}-[0-9]{{1,2}}-[1-9][0-9]{{0,3}}"
                for family in ("neighbor1d-naive", "neighbor1d-naive2d", "neighbor2d-naive")
            },
        },
        "n: neighbors on each side, at most 99; k: their distance, such as neighbor1d-naive2d-2-1",
    ),
    origin="Event2Vec",
)
EVENT2VEC.TPE = Key(
    "add",
    "Time encoding of a token: add (to every channel) or t2v (Time2Vec).",
    rule=Choices("add", "t2v"),
    origin="Event2Vec",
)
EVENT2VEC.EMBED_DIM = Key(256, "Embedding dimension.", unit="channels", rule=_CHANNELS, origin="Event2Vec")
EVENT2VEC.HEADS = Key(16, "Attention heads.", unit="heads", rule=_CHANNELS, origin="Event2Vec")
EVENT2VEC.MLP_DIM = Key(512, "Hidden dimension of the MLPs.", unit="channels", rule=_CHANNELS, origin="Event2Vec")
EVENT2VEC.LAYERS = Key(2, "Layers of the encoder.", unit="layers", rule=Range(1, MAX_BLOCKS), origin="Event2Vec")
EVENT2VEC.T_HEADS = Key(
    1,
    "Consecutive slices of a recording whose tokens are averaged, event by event, before the encoder; 1 for none. "
    "As published, slices are those of the longest recording in the batch: with DVS.NUM_EVENTS 0, results depend on "
    "the batch.",
    unit="slices",
    rule=Range(1, 10_000),
    origin="Event2Vec",
)
EVENT2VEC.MASK_RATIO = Key(
    0.0,
    "Self-supervised pre-training: fraction of events that are masked and whose coordinates are predicted; 0 trains "
    "classification.",
    unit="fraction",
    rule=_DROP_RATE,
    origin="Event2Vec",
)

EVENT2VEC.POOL_EVERY = Key(
    0,
    "Average neighboring pairs of tokens after (Event2VecV3) or before (Event2VecV2) every so many layers; 0: never.",
    unit="layers",
    rule=Range(0, MAX_BLOCKS),
    origin="Event2Vec",
)
EVENT2VEC.EXPAND = Key(
    1.0,
    "Event2VecV2: channels of keys and values, relative to EVENT2VEC.EMBED_DIM.",
    unit="factor",
    rule=Range(0, 64, above=True),
    origin="Event2Vec",
)
EVENT2VEC.DROP_DEPTH_RATE = Key(
    0.0,
    "Event2VecV3: limit of stochastic depth, which rises linearly from 0 over the layers.",
    unit="probability",
    rule=_DROP_RATE,
    origin="Event2Vec",
)
EVENT2VEC.TOKEN_MIX = Key(
    0.0,
    "Event2VecV3: probability of mixing a batch: random places of all recordings get the tokens of other recordings, "
    "and labels are mixed in the same proportion. Needs MODEL.LOSS_FUNC soft_cross_entropy.",
    unit="probability",
    rule=Range(0, 1),
    origin="Event2Vec",
)
EVENT2VEC.INTENSITY_DROP = Key(
    0.0,
    "Event2VecV3: probability of replacing the intensity of an event, the size of its cluster, by 1 in training.",
    unit="probability",
    rule=Range(0, 1),
    origin="Event2Vec",
)

EFFICIENTNET = Section(
    "EFFICIENTNET",
    "EfficientNetV2",
    "arXiv 2104.00298, a teacher for distillation. Defaults are EfficientNetV2-S of torchvision.",
)

EFFICIENTNET.LAYERS = Key(
    [2, 4, 4, 6, 9, 15], "Blocks per stage; six stages.", unit="blocks", rule=_BLOCKS, origin="torchvision"
)
EFFICIENTNET.EMBED_DIMS = Key(
    [24, 48, 64, 128, 160, 256], "Channels per stage.", unit="channels", rule=_CHANNELS, origin="torchvision"
)
EFFICIENTNET.HEAD_DIM = Key(
    1280, "Channels of the last convolution.", unit="channels", rule=_CHANNELS, origin="torchvision"
)
EFFICIENTNET.DROPOUT_RATE = Key(
    0.2, "Dropout before the classifier.", unit="probability", rule=_DROP_RATE, origin="torchvision"
)
EFFICIENTNET.DROP_DEPTH_RATE = Key(
    0.2,
    "Limit of stochastic depth, which rises linearly from 0 over the blocks.",
    unit="probability",
    rule=_DROP_RATE,
    origin="torchvision",
)

REGNET = Section(
    "REGNET", "RegNetY", "arXiv 2003.13678, a teacher for distillation. Defaults are RegNetY-16GF of timm."
)

REGNET.LAYERS = Key([2, 4, 11, 1], "Blocks per stage; four stages.", unit="blocks", rule=_BLOCKS, origin="timm")
REGNET.EMBED_DIMS = Key(
    [224, 448, 1232, 3024],
    "Channels per stage; multiples of REGNET.GROUP_WIDTH.",
    unit="channels",
    rule=_CHANNELS,
    origin="timm",
)
REGNET.GROUP_WIDTH = Key(
    112, "Channels per group of the grouped convolutions.", unit="channels", rule=_CHANNELS, origin="timm"
)
