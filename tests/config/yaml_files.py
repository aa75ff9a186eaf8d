"""YAML files for tests."""

from __future__ import annotations

from pathlib import Path

from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode

# Keys and values of the authors' K400_MLP_S16x4.yaml, including a duplicate key.
PUBLISHED_K400_S16 = """
TRAIN: {ENABLE: True, DATASET: kinetics, BATCH_SIZE: 64, EVAL_PERIOD: 5, CHECKPOINT_PERIOD: 2, AUTO_RESUME: True}
DATA:
  {USE_OFFSET_SAMPLING: True, DECODING_BACKEND: torchvision, NUM_FRAMES: 16, SAMPLING_RATE: 4,
   TRAIN_JITTER_SCALES: [256, 320], TRAIN_CROP_SIZE: 224, TEST_CROP_SIZE: 224, INPUT_CHANNEL_NUM: [3],
   PATH_LABEL_SEPARATOR: ",", PATH_TO_DATA_DIR: 'data_list/k400', TRAIN_JITTER_SCALES_RELATIVE: [0.08, 1.0],
   TRAIN_JITTER_ASPECT_RELATIVE: [0.75, 1.3333]}
MORPH:
  {LAYERS: [3, 4, 9, 3], TRANSITIONS: [True, True, True, True], SEGMENT_DIM: [14, 28, 28, 49], T_STRIDE: 4,
   MLP_RATIOS: [3, 3, 3, 3], EMBED_DIMS: [112, 224, 392, 784], PATCH_SIZE: 7, DROP_DEPTH_RATE: 0.1,
   PRETRAIN_PATH: 'pretrained/video_morphmlp_s.pth'}
AUG:
  {NUM_SAMPLE: 2, ENABLE: True, COLOR_JITTER: 0.4, AA_TYPE: rand-m7-n4-mstd0.5-inc1, INTERPOLATION: bicubic,
   RE_PROB: 0.25, RE_MODE: pixel, RE_COUNT: 1, RE_SPLIT: False}
MIXUP: {ENABLE: True, ALPHA: 0.8, CUTMIX_ALPHA: 1.0, PROB: 1.0, SWITCH_PROB: 0.5, LABEL_SMOOTH_VALUE: 0.1}
BN: {USE_PRECISE_STATS: False, NUM_BATCHES_PRECISE: 200}
SOLVER:
  ZERO_WD_1D_PARAM: True
  BASE_LR_SCALE_NUM_SHARDS: True
  BASE_LR: 2e-4
  COSINE_AFTER_WARMUP: True
  COSINE_END_LR: 1e-6
  WARMUP_START_LR: 1e-6
  WARMUP_EPOCHS: 10.0
  LR_POLICY: cosine
  MAX_EPOCH: 60
  MOMENTUM: 0.9
  WEIGHT_DECAY: 0.05
  OPTIMIZING_METHOD: adamw
  COSINE_AFTER_WARMUP: True
MODEL: {NUM_CLASSES: 400, ARCH: morph, MODEL_NAME: MorphMLP, LOSS_FUNC: soft_cross_entropy, DROPOUT_RATE: 0.5}
TEST: {ENABLE: True, DATASET: kinetics, BATCH_SIZE: 64, NUM_SPATIAL_CROPS: 1, NUM_ENSEMBLE_VIEWS: 1}
DATA_LOADER: {NUM_WORKERS: 8, PIN_MEMORY: True}
TENSORBOARD: {ENABLE: True}
NUM_GPUS: 8
NUM_SHARDS: 1
RNG_SEED: 0
OUTPUT_DIR: .
"""


def merge_text(folder: Path, text: str, name: str = "a.yaml") -> ConfigNode:
    """Write a YAML file and merge it into the defaults."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    cfg = get_cfg()
    cfg.merge_from_file(path)
    return cfg
