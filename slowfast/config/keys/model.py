"""Model keys: network, loss, freezing, EMA and knowledge distillation."""

from slowfast.config.key import Key, Section
from slowfast.config.rules import Choices, FilePath, Range, RegistryNames

MODEL = Section("MODEL", "Model")

MODEL.MODEL_NAME = Key(
    "MorphMLP",
    "Network. MorphMLP takes clips (MorphMLP_32 is the published name of the same network with 32 frames); "
    "MorphMLPImage, ConvMLP, EAT, evMLP and the teachers EfficientNetV2 and RegNetY take images; Event2Vec, "
    "Event2VecV2 and Event2VecV3 take events.",
    rule=RegistryNames(
        "slowfast.models.build",
        "MODEL_REGISTRY",
        (
            "ConvMLP",
            "EAT",
            "EfficientNetV2",
            "Event2Vec",
            "Event2VecV2",
            "Event2VecV3",
            "MorphMLP",
            "MorphMLPImage",
            "MorphMLP_32",
            "RegNetY",
            "evMLP",
        ),
        "slowfast.models.protocol",
    ),
    origin="M",
)
MODEL.NUM_CLASSES = Key(400, "Number of classes.", unit="classes", rule=Range(1, 10**6), origin="SF")
MODEL.TASK = Key(
    "classification",
    "Task: classification (one class per sample), multi_label (several labels per sample, such as 3,17) or pretraining "
    "(self-supervised; Event2Vec with EVENT2VEC.MASK_RATIO above 0 always uses it).",
    rule=RegistryNames(
        "slowfast.engine.tasks",
        "TASK_REGISTRY",
        ("classification", "multi_label", "pretraining"),
        "slowfast.engine.tasks.base",
    ),
)
MODEL.LOSS_FUNC = Key(
    "cross_entropy",
    "Loss; soft_cross_entropy supports label smoothing and MixUp, bce_logit is for multi_label.",
    rule=RegistryNames(
        "slowfast.engine.losses",
        "LOSSES",
        ("bce_logit", "cross_entropy", "soft_cross_entropy"),
        "slowfast.engine.losses",
    ),
    origin="SF",
)
MODEL.CLASS_WEIGHTS = Key(
    "",
    "Class weights of the loss: empty (all 1), balanced (inversely proportional to the class frequency in training), "
    "or a text file with one number per line, in label order.",
    rule=FilePath(),
)
MODEL.FRAMEWISE = Key(
    "",
    "Run an image network on each frame of a clip and average logits or features over time; empty for off.",
    rule=Choices("", "logits", "features"),
)
MODEL.FREEZE_BACKBONE = Key(
    False, "Linear probing: train only the head; all other weights are frozen and in evaluation mode."
)
MODEL.FREEZE = Key(
    [],
    "Layers that keep their initial weights and run in evaluation mode, batch norms included: names of layers or "
    'parameters such as patch_embed1, patterns such as "blocks[12].*", and stages such as stage1 (with the embedding '
    "before it). Adds to MODEL.FREEZE_BACKBONE.",
    type=list[str],
)
MODEL.CHANNELS_LAST = Key(
    False, "Keep the weights of convolutions in channels-last order in memory; inputs always are."
)
MODEL.ACT_CHECKPOINT = Key(
    False,
    "Activation checkpointing: False, True (every block), or the number of leading blocks per stage.",
    unit="blocks",
    rule=Range(0, 1000),
    type=bool | int,
)
MODEL.EMA = Key(
    False,
    "Keep an exponential moving average (EMA) of the weights, which is evaluated and saved along with the raw weights. "
    "Tests use it unless TEST.CHECKPOINT_WEIGHTS is raw.",
)
MODEL.EMA_DECAY = Key(0.99996, "Decay of the EMA per step.", unit="fraction", rule=Range(0, 1), origin="EAT")

DISTILL = Section(
    "DISTILL", "Knowledge distillation", "Distillation from a trained teacher as in DeiT (arXiv 2012.12877)."
)

DISTILL.ENABLE = Key(False, "Add a distillation loss.")
DISTILL.TYPE = Key(
    "hard",
    "Target of the distillation loss: hard (the teacher's top-1 class) or soft (its class probabilities).",
    rule=Choices("hard", "soft"),
    origin="DeiT",
)
DISTILL.ALPHA = Key(
    0.5,
    "Weight of the distillation loss; the base loss has weight 1 - ALPHA. DeiT uses 0.1 with soft.",
    unit="fraction",
    rule=Range(0, 1),
    origin="DeiT",
)
DISTILL.TAU = Key(
    3.0, "soft: temperature that divides the logits of both networks.", rule=Range(1e-3, 10**6), origin="DeiT"
)
DISTILL.TEACHER_CFG = Key(
    "",
    "Config file of the teacher, a path or an address; any network. Its own DATA.MEAN, DATA.STD and "
    "DATA.REVERSE_INPUT_CHANNEL normalize its input.",
    rule=FilePath(),
)
DISTILL.TEACHER_CHECKPOINT = Key(
    "",
    "Weights of the teacher, including its head, a path or an address. TEST.CHECKPOINT_WEIGHTS of its config selects "
    "raw or EMA weights.",
    rule=FilePath(),
)
DISTILL.TEACHER_CHECKPOINT_TYPE = Key(
    "pytorch",
    "Format of DISTILL.TEACHER_CHECKPOINT: pytorch reads files of torch.save and safetensors, paddle .pdparams files.",
    rule=Choices("pytorch", "paddle"),
)
