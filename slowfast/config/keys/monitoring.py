"""Keys of trackers (TensorBoard, Weights & Biases, MLflow) and of the profiler."""

from slowfast.config.key import Key, Section
from slowfast.config.rules import Choices, FilePath, Name, Range, RegistryNames

TENSORBOARD = Section("TENSORBOARD", "TensorBoard")

TENSORBOARD.ENABLE = Key(
    False,
    "Write TensorBoard event files: the same as tensorboard in TRACKING.BACKENDS. Without the tensorboard extra, one "
    "warning.",
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
