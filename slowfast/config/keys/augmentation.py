"""Keys of augmentation: RandAugment, random erasing, repeated augmentation, MixUp and CutMix."""

from slowfast.config.key import Key, Section
from slowfast.config.rules import Choices, Forms, Range

AUG = Section("AUG", "Augmentation")

_TO_10, _TO_100 = r"(0*10(\.0+)?|0*\d(\.\d+)?)", r"(0*100(\.0+)?|0*\d{1,2}(\.\d+)?)"
# No part twice.
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
    "Random erasing: filling of a box: pixel (noise per pixel), rand (one color per box) or const (the mean color).",
    rule=Choices("pixel", "rand", "const"),
    origin="SF",
)
AUG.RE_COUNT = Key(1, "Random erasing: most boxes per clip.", unit="boxes", rule=Range(1, 1000), origin="SF")

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
