"""Keys of a run: hardware, output, training, testing, experiment trackers and profiling."""

from slowfast.config.key import Key, Section
from slowfast.config.rules import Choices, FilePath, Name, Range, RegistryNames
from slowfast.utils.ray_cluster import ENGINES, LOCAL

RUN = Section("", "Run")

RUN.NUM_GPUS = Key(
    1,
    "GPUs of this machine to use; 0 runs on the CPU. If the machine has fewer, those it has are used, with a warning.",
    unit="GPUs",
    rule=Range(0, 100_000),
    origin="SF",
)
RUN.ENGINE = Key(
    LOCAL,
    "Where samples are evaluated in a test, by predict, by features and in event-driven inference on videos: local, by "
    "the processes of the command, or ray, on the nodes of a Ray cluster (RAY_ADDRESS), which see the same files. "
    "Training, cameras and streams are local.",
    rule=Choices(*ENGINES),
)
RUN.NUM_SHARDS = Key(
    1,
    "Machines of the run. It only scales SOLVER.BASE_LR (see SOLVER.BASE_LR_SCALE_NUM_SHARDS); torchrun starts the "
    "processes.",
    unit="machines",
    rule=Range(1, 100_000),
    origin="SF",
)
RUN.SHARD_ID = Key(
    0,
    "Index of this machine. It must agree with torchrun's node rank, which is the one used.",
    rule=Range(0, 100_000),
    origin="SF",
)
RUN.DIST_TIMEOUT = Key(
    0,
    "Time that a process of a run waits for the others, at the start and in every exchange; then the run ends with an "
    "error. 0 for 600 seconds, or twice DATA_LOADER.TIMEOUT if that is longer. All nodes need the same value.",
    unit="seconds",
    rule=Range(0, 10**6),
)
RUN.RNG_SEED = Key(
    0,
    "Seed of all random numbers: initial weights, sample order, views, augmentation and stochastic depth.",
    rule=Range(0, 2**63 - 1),
    origin="SF",
)
RUN.OUTPUT_DIR = Key(".", "Folder for all output files.", rule=FilePath(required=True), origin="SF")
RUN.LOG_PERIOD = Key(10, "Training steps between two log lines.", unit="steps", rule=Range(1, 10**9), origin="SF")

DATASETS = RegistryNames(
    "slowfast.datasets.build",
    "DATASET_REGISTRY",
    (
        *("asldvs", "dvsfolder", "dvsframes", "dvsgesture", "dvslip", "hmdb51", "imagenet", "kinetics", "ssv1", "ssv2"),
        *("sth", "ucf101"),
    ),
    "slowfast.datasets.base",
)

TRAIN = Section("TRAIN", "Training")

TRAIN.ENABLE = Key(True, "Train before testing.", origin="SF")
TRAIN.DATASET = Key(
    "kinetics",
    "Dataset for training and validation.",
    rule=DATASETS,
    origin="SF",
)
TRAIN.BATCH_SIZE = Key(
    64,
    "Videos (or images, or recordings) per optimizer step, summed over all processes and accumulation steps. Each "
    "contributes AUG.NUM_SAMPLE clips.",
    unit="videos",
    rule=Range(1, 10**6),
    origin="SF",
)
TRAIN.EVAL_PERIOD = Key(
    10,
    "Epochs between validations; the last epoch is always validated.",
    unit="epochs",
    rule=Range(1, 10**9),
    origin="SF",
)
TRAIN.EARLY_STOP = Key(
    0,
    "Early stopping: epochs without a better validation after which training ends; 0 disables it. It is checked after "
    "each validation (TRAIN.EVAL_PERIOD).",
    unit="epochs",
    rule=Range(0, 10**9),
)
TRAIN.CHECKPOINT_PERIOD = Key(
    10, "Epochs between checkpoints; the last epoch is always saved.", unit="epochs", rule=Range(1, 10**9), origin="SF"
)
TRAIN.CHECKPOINT_KEEP = Key(
    0,
    "Most recent epoch checkpoints to keep; 0 keeps all. The best checkpoint is always kept.",
    unit="checkpoints",
    rule=Range(0, 10**9),
)
TRAIN.CHECKPOINT_ASYNC = Key(
    True,
    "Write checkpoints in a background thread during training. The main process needs memory for a copy of what is "
    "written: weights, EMA and optimizer state, and the best weights. False pauses training while writing.",
)
TRAIN.AUTO_RESUME = Key(
    True,
    "Resume from the last complete checkpoint in OUTPUT_DIR. False refuses to train if OUTPUT_DIR has one.",
    origin="SF",
)
TRAIN.CHECKPOINT_FILE_PATH = Key(
    "",
    "Weights to start from, or a checkpoint of another run to resume: a path or an https://, s3:// or hf:// address; "
    "empty for random weights.",
    rule=FilePath(),
    origin="SF",
)
TRAIN.CHECKPOINT_TYPE = Key(
    "pytorch",
    "Format of TRAIN.CHECKPOINT_FILE_PATH: pytorch reads files of torch.save and safetensors, paddle .pdparams files.",
    rule=Choices("pytorch", "paddle"),
    origin="SF",
)
TRAIN.CHECKPOINT_EPOCH_RESET = Key(
    False,
    "Load only the weights of TRAIN.CHECKPOINT_FILE_PATH. False resumes a checkpoint of this project, including "
    "optimizer state and epoch.",
    origin="SF",
)
TRAIN.MIXED_PRECISION = Key(
    False,
    "Run the forward pass under autocast in TRAIN.AMP_DTYPE, on GPU and CPU, in training and evaluation.",
    origin="SF",
)
TRAIN.AMP_DTYPE = Key(
    "bfloat16", "Data type of autocast; float16 uses loss scaling.", rule=Choices("bfloat16", "float16")
)
TRAIN.ACCUMULATION_STEPS = Key(
    1,
    "Gradient accumulation: forward and backward passes per optimizer step. TRAIN.BATCH_SIZE is their total.",
    unit="passes",
    rule=Range(1, 10**6),
)

TRAIN.COMPILE = Key(
    False,
    "Train with torch.compile: the first step takes minutes, later ones may be faster. Needs a C++ compiler on a CPU, "
    "triton on a GPU.",
)

TEST = Section("TEST", "Testing")

TEST.ENABLE = Key(True, "Test after training.", origin="SF")
TEST.DATASET = Key(
    "kinetics",
    "Dataset for testing.",
    rule=DATASETS,
    origin="SF",
)
TEST.BATCH_SIZE = Key(
    8,
    "Clips (views x crops) per forward pass, summed over all processes. Results do not depend on it, except with "
    "EVENT2VEC.T_HEADS above 1.",
    unit="clips",
    rule=Range(1, 10**6),
    origin="SF",
)
TEST.CHECKPOINT_FILE_PATH = Key(
    "",
    "Checkpoint to test: a path or an https://, s3:// or hf:// address. If empty, the checkpoint in OUTPUT_DIR that "
    "TEST.CHECKPOINT selects.",
    rule=FilePath(),
    origin="SF",
)
TEST.CHECKPOINT = Key(
    "last",
    "Checkpoint in OUTPUT_DIR to test if TEST.CHECKPOINT_FILE_PATH is empty: the last one, or the one with the best "
    "validation. Without a last one, random weights are tested, with a warning.",
    rule=Choices("last", "best"),
)
TEST.CHECKPOINT_TYPE = Key(
    "pytorch",
    "Format of TEST.CHECKPOINT_FILE_PATH: pytorch reads files of torch.save and safetensors, paddle .pdparams files.",
    rule=Choices("pytorch", "paddle"),
    origin="SF",
)
TEST.CHECKPOINT_WEIGHTS = Key(
    "auto",
    "Weights to use from a file with both raw and EMA weights (ema_state of MODEL.EMA, model_ema, ...); auto prefers "
    "the EMA.",
    rule=Choices("auto", "raw", "ema"),
)
TEST.SAVE_RESULTS_PATH = Key(
    "",
    "File for the logits of all videos: an .npz with names (N,), labels (N,) and logits (N, classes), ensembled by "
    "DATA.ENSEMBLE_METHOD; NaN for unreadable videos. Relative to OUTPUT_DIR; the suffix of a pickle is replaced by "
    ".npz; empty for none.",
    rule=FilePath(),
    origin="SF",
)
TEST.NUM_ENSEMBLE_VIEWS = Key(10, "Temporal views (clips) per video.", unit="views", rule=Range(1, 10_000), origin="SF")
TEST.NUM_SPATIAL_CROPS = Key(
    3,
    "Spatial crops per view: 1 (center) or 3 (start, center and end of the long side).",
    unit="crops",
    rule=Choices(1, 3),
    origin="SF",
)
TEST.SINGLE_CROP = Key(
    "center",
    "Something-Something with TEST.NUM_SPATIAL_CROPS 1: position of the crop. The published accuracies of 1 x 1 views "
    "were measured with left (the top of upright videos).",
    rule=Choices("center", "left"),
    origin="M",
)
TEST.ENSEMBLE_ON = Key(
    "logits",
    "Scores to ensemble over views; the published MorphMLP accuracies use logits.",
    rule=Choices("logits", "probabilities"),
)
TEST.FRAME_ORDER = Key(
    "normal",
    "Order of the frames of a clip. repeated (the middle frame only) and shuffled show how much a network depends on "
    "motion.",
    rule=Choices("normal", "repeated", "shuffled"),
)
TEST.COMPILE = Key(False, "Test with torch.compile; a smaller last batch runs uncompiled.")


TENSORBOARD = Section("TENSORBOARD", "TensorBoard")

TENSORBOARD.ENABLE = Key(
    False,
    "Write TensorBoard event files, like tensorboard in TRACKING.BACKENDS. If the tensorboard extra is missing, a "
    "warning is logged.",
    origin="SF",
)
TENSORBOARD.LOG_DIR = Key(
    "", "Folder of the event files; empty for OUTPUT_DIR/tensorboard.", rule=FilePath(), origin="SF"
)

TRACKING = Section("TRACKING", "Trackers")

TRACKING.BACKENDS = Key(
    [],
    "Trackers that record metrics, config and images of trainings and tests, such as [wandb,mlflow].",
    type=list[str],
    rule=RegistryNames(
        "slowfast.engine.trackers",
        "TRACKER_REGISTRY",
        ("mlflow", "tensorboard", "wandb"),
        "slowfast.engine.trackers.base",
    ),
)
TRACKING.PROJECT = Key("slowfast", "Project of wandb and experiment of MLflow.", rule=Name(required=True))
TRACKING.RUN_NAME = Key("", "Name of the run in wandb and MLflow; empty for the name of OUTPUT_DIR.", rule=Name())
TRACKING.WRONG_PREDICTIONS = Key(
    16, "Wrong predictions of a test to record as images, the most confident first.", unit="videos", rule=Range(0, 1000)
)

WANDB = Section("WANDB", "Weights & Biases")

WANDB.MODE = Key(
    "online",
    "How runs are recorded: online uploads data during the run; offline writes it to OUTPUT_DIR/wandb, for "
    "`wandb sync`. The environment variable WANDB_MODE offline has the same effect.",
    rule=Choices("online", "offline"),
)
WANDB.ENTITY = Key("", "User or team that owns the project; empty for the account's default.", rule=Name())

MLFLOW = Section("MLFLOW", "MLflow")

MLFLOW.TRACKING_URI = Key(
    "",
    "Address of the tracking server, or a local folder; empty for the environment variable MLFLOW_TRACKING_URI, else "
    "OUTPUT_DIR/mlruns.",
    rule=FilePath(),
)

PROFILE = Section("PROFILE", "Profiler")

PROFILE.ENABLE = Key(
    False,
    "Profile some steps of a training and some batches of a test, and write a trace and a table of operators to "
    "OUTPUT_DIR/profile.",
)
PROFILE.WAIT = Key(5, "Steps or batches before the profiler starts.", unit="steps", rule=Range(0, 10**9))
PROFILE.WARMUP = Key(
    2,
    "Steps or batches that the profiler runs and discards, because it slows the first ones down.",
    unit="steps",
    rule=Range(0, 10**6),
)
PROFILE.ACTIVE = Key(5, "Steps or batches to record.", unit="steps", rule=Range(1, 1000))
