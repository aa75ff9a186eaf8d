"""Keys of optimization: optimizer, learning rate schedule, weight decay, gradient clipping and batch normalization."""

from slowfast.config.key import Key, Section
from slowfast.config.rules import Choices, Range, RegistryNames

SOLVER = Section("SOLVER", "Optimization")

SOLVER.OPTIMIZING_METHOD = Key(
    "sgd",
    "Optimizer.",
    rule=RegistryNames(
        "slowfast.engine.optim", "OPTIMIZER_REGISTRY", ("adam", "adamw", "sgd"), "slowfast.engine.optim"
    ),
    origin="SF",
)
SOLVER.BASE_LR = Key(
    0.1,
    "Learning rate after warm-up, for steps of TRAIN.BATCH_SIZE videos.",
    rule=Range(0, 10**6, above=True),
    origin="SF",
)
SOLVER.BASE_LR_SCALE_NUM_SHARDS = Key(False, "Multiply all learning rates by NUM_SHARDS.", origin="SF")
SOLVER.LR_POLICY = Key(
    "cosine",
    "Learning rate schedule after warm-up; steps_with_relative_lrs uses SOLVER.STEPS and SOLVER.LRS.",
    rule=Choices("cosine", "steps_with_relative_lrs"),
    origin="SF",
)
SOLVER.COSINE_END_LR = Key(0.0, "Learning rate at the end of the cosine.", rule=Range(0, 10**6), origin="SF")
SOLVER.COSINE_AFTER_WARMUP = Key(False, "Start the cosine after warm-up instead of at epoch 0.", origin="SF")
SOLVER.STEPS = Key(
    [],
    "steps_with_relative_lrs: epochs at which each factor of SOLVER.LRS starts; the first is 0.",
    unit="epochs",
    rule=Range(0, 10**6),
    origin="SF",
)
SOLVER.LRS = Key(
    [],
    "steps_with_relative_lrs: factors of SOLVER.BASE_LR, one per step.",
    unit="factor",
    rule=Range(0, 10**6),
    origin="SF",
)
SOLVER.COOLDOWN_EPOCHS = Key(
    0.0,
    "Final epochs at the last learning rate of the cosine; part of SOLVER.MAX_EPOCH.",
    unit="epochs",
    rule=Range(0, 10**6),
    origin="ConvMLP",
)
SOLVER.MAX_EPOCH = Key(60, "Epochs of training (PySlowFast: 300).", unit="epochs", rule=Range(1, 10**6))
SOLVER.WARMUP_EPOCHS = Key(0.0, "Epochs of linear warm-up.", unit="epochs", rule=Range(0, 10**6), origin="SF")
SOLVER.WARMUP_START_LR = Key(0.01, "Learning rate at the start of warm-up.", rule=Range(0, 10**6), origin="SF")
SOLVER.MOMENTUM = Key(0.9, "Momentum of sgd.", rule=Range(0, 1, below=True), origin="SF")
SOLVER.DAMPENING = Key(
    0.0, "Dampening of sgd; must be 0 with SOLVER.NESTEROV.", rule=Range(0, 1, below=True), origin="SF"
)
SOLVER.NESTEROV = Key(True, "Nesterov momentum of sgd; ignored if SOLVER.MOMENTUM is 0.", origin="SF")
SOLVER.BETAS = Key([0.9, 0.999], "Betas of adam and adamw.", rule=Range(0, 1, below=True), length=2, origin="SF")
SOLVER.WEIGHT_DECAY = Key(1e-4, "Weight decay.", rule=Range(0, 10**6), origin="SF")
SOLVER.ZERO_WD_1D_PARAM = Key(
    False,
    "Exempt one-dimensional parameters (biases, norms) and those named by the network's own recipe (EAT: position "
    "embedding and learned queries) from weight decay.",
    origin="SF",
)
SOLVER.NO_WD_PARAMS = Key(
    [],
    "Additional parameters without weight decay: suffixes of their names such as head.weight, or patterns such as "
    '"blocks.*.fc1.weight".',
    type=list[str],
)
SOLVER.LAYER_DECAY = Key(
    1.0,
    "Layer-wise learning rate decay: the top layer (final norm and head) has the scheduled rate, each layer below it "
    "LAYER_DECAY times the rate of the layer above; 1 for none. Layers are the blocks and, below them, the embedding.",
    rule=Range(0, 1, above=True),
    origin="SF",
)
SOLVER.HEAD_LR_MULT = Key(
    1.0,
    "Learning rate multiplier of the head, such as 10 for a new head on pre-trained weights.",
    rule=Range(0, 10**6, above=True),
)
SOLVER.FUSED = Key(
    "auto",
    "Fused implementation of the optimizer, one kernel for all parameters: auto uses it if there is one, always "
    "rejects optimizers without one, never uses PyTorch's default implementation.",
    rule=Choices("auto", "always", "never"),
)
SOLVER.CLIP_GRAD_VAL = Key(
    0.0, "Clip each gradient element to this absolute value; 0 for none.", rule=Range(0, 10**12), origin="SF"
)
SOLVER.CLIP_GRAD_L2NORM = Key(
    0.0, "Clip the L2 norm of all gradients to this value; 0 for none.", rule=Range(0, 10**12), origin="SF"
)

BN = Section("BN", "Batch normalization")

BN.WEIGHT_DECAY = Key(
    0.0,
    "Weight decay of batch norm parameters, unless SOLVER.ZERO_WD_1D_PARAM exempts them.",
    rule=Range(0, 10**6),
    origin="SF",
)
BN.NORM_TYPE = Key(
    "batchnorm",
    "Batch norm layer; sync_batchnorm computes statistics over all processes, on GPU and CPU.",
    rule=Choices("batchnorm", "sync_batchnorm"),
    origin="SF",
)
BN.USE_PRECISE_STATS = Key(
    False,
    "Recompute the statistics over BN.NUM_BATCHES_PRECISE training batches before each evaluation.",
    origin="SF",
)
BN.NUM_BATCHES_PRECISE = Key(200, "Batches of BN.USE_PRECISE_STATS.", unit="batches", rule=Range(1, 10**9), origin="SF")
