"""Every configuration key: its meaning, unit and the origin of its default.

Origins: [SF] SlowFast, [M] the MorphMLP authors' YAML files; [ConvMLP], [EAT], [evMLP], [Event2Vec], [DeiT] the code of
those authors; [torch] PyTorch's default, [own] chosen here.
Only keys that some code reads are declared; `tests/config/test_config_surface.py` proves it.
"""

from slowfast.config.node import ConfigNode

_C = ConfigNode()

# Number of GPUs of this machine to use; 0 is the CPU. More than there are: what there is. [SF]
_C.NUM_GPUS = 1
# Machines in a run. Only scales SOLVER.BASE_LR; the processes themselves come from torchrun. [SF]
_C.NUM_SHARDS = 1
# Index of this machine; torchrun's node rank is what counts, this key must agree with it. [SF]
_C.SHARD_ID = 0
# Seed of everything random: weights, order, views, augmentation, stochastic depth. [SF]
_C.RNG_SEED = 0
# Folder that receives all output files. [SF]
_C.OUTPUT_DIR = "."
# Steps between two logged training steps. [SF]
_C.LOG_PERIOD = 10

# ------------------------------------------------------------------ training
_C.TRAIN = ConfigNode()
# Train before testing. [SF]
_C.TRAIN.ENABLE = True
# Registered dataset to train and validate on. [SF]
_C.TRAIN.DATASET = "kinetics"
# Videos an optimizer step sees, over all processes and accumulation steps; each
# contributes AUG.NUM_SAMPLE clips. [SF]
_C.TRAIN.BATCH_SIZE = 64
# Epochs between validations; the last epoch is always validated. [SF]
_C.TRAIN.EVAL_PERIOD = 10
# Epochs between checkpoints; the last epoch is always saved. [SF]
_C.TRAIN.CHECKPOINT_PERIOD = 10
# Checkpoints of single epochs to keep, newest first, 0 for all; the best is kept besides. [own]
_C.TRAIN.CHECKPOINT_KEEP = 0
# Go on from the last whole checkpoint in OUTPUT_DIR; False: refuse to train where there is one. [SF]
_C.TRAIN.AUTO_RESUME = True
# Weights to start from, or another run's checkpoint to go on with; empty for random weights. [SF]
_C.TRAIN.CHECKPOINT_FILE_PATH = ""
# Layout of that file: pytorch, or paddle for .pdparams. [SF, own]
_C.TRAIN.CHECKPOINT_TYPE = "pytorch"
# Take only the weights of TRAIN.CHECKPOINT_FILE_PATH; otherwise a checkpoint of this project's training is
# gone on with, optimizer and epoch included. [SF]
_C.TRAIN.CHECKPOINT_EPOCH_RESET = False
# Autocast the forward pass to TRAIN.AMP_DTYPE, on GPU and CPU, in training and evaluation. [SF]
_C.TRAIN.MIXED_PRECISION = False
# bfloat16, or float16 (with loss scaling). [own]
_C.TRAIN.AMP_DTYPE = "bfloat16"
# Parts a process's share of the batch is cut into, their gradients summed before the step. [own]
_C.TRAIN.ACCUMULATION_STEPS = 1

# ------------------------------------------------------------------ testing
_C.TEST = ConfigNode()
# Test after training. [SF]
_C.TEST.ENABLE = True
# Registered dataset to test on. [SF]
_C.TEST.DATASET = "kinetics"
# Clips (views x crops) in one forward pass, over all processes. Changes no result but as EVENT2VEC.T_HEADS says. [SF]
_C.TEST.BATCH_SIZE = 8
# Checkpoint to test; empty: the last in OUTPUT_DIR, or random weights (with a warning) where there is none. [SF]
_C.TEST.CHECKPOINT_FILE_PATH = ""
# Layout of that file: pytorch, or paddle for .pdparams. [SF, own]
_C.TEST.CHECKPOINT_TYPE = "pytorch"
# Weights of a file that holds raw ones and ones averaged over training (ema_state of MODEL.EMA, model_ema, ...): auto
# (averaged where there are any), raw or ema. [own]
_C.TEST.CHECKPOINT_WEIGHTS = "auto"
# File for the scores of all videos: .npz with names (N,), labels (N,) and logits (N, classes), which are joined over
# the views as DATA.ENSEMBLE_METHOD says (sum: their mean), NaN where a video could not be read. A relative path is one
# in OUTPUT_DIR; the name of a pickle becomes that of an .npz file; empty: none. [SF]
_C.TEST.SAVE_RESULTS_PATH = ""
# Temporal views (clips) of a video. [SF]
_C.TEST.NUM_ENSEMBLE_VIEWS = 10
# Spatial crops of a view: 1 (centre) or 3 (start, centre, end of the long side). [SF]
_C.TEST.NUM_SPATIAL_CROPS = 3
# Something-Something with NUM_SPATIAL_CROPS 1: center, or left (the top in upright videos), with which the published
# accuracies of 1 x 1 views were reached. [M]
_C.TEST.SINGLE_CROP = "center"
# What is ensembled over views: logits (as published for MorphMLP) or probabilities. [own]
_C.TEST.ENSEMBLE_ON = "logits"
# Order of a clip's frames: normal; repeated (the middle frame T times) or shuffled, to show
# what a network owes to motion. [own]
_C.TEST.FRAME_ORDER = "normal"

# ------------------------------------------------------------------ data
_C.DATA = ConfigNode()
# Folder of the index files: train.csv, val.csv, test.csv and categories.txt of kinetics, the lists of sth; the folder
# of train/ and val/ of imagenet. [SF]
_C.DATA.PATH_TO_DATA_DIR = ""
# Prefix of the media paths in the index files; no path may leave it; "": anywhere. [SF]
_C.DATA.PATH_PREFIX = ""
# Separator between path and label in an index line. [SF]
_C.DATA.PATH_LABEL_SEPARATOR = " "
# sth: name of the lists of a split, {} is train or validation (test, where there is one); one that ends in .json or
# .csv means the official lists, their table of labels among them: of V2's videos, of V1's folders of frames. [M]
_C.DATA.LABEL_PATH_TEMPLATE = "somesomev1_rgb_{}_split.txt"
# sth: name of a video's extracted frames, {} is their number from 1. [M]
_C.DATA.IMAGE_TEMPLATE = "{:05d}.jpg"
# Training videos of an epoch: uniform (each once) or balanced (as many of each class). [own]
_C.DATA.SAMPLING = "uniform"
# Frames of a clip. [SF]
_C.DATA.NUM_FRAMES = 8
# Distance of a clip's frames, in frames at TARGET_FPS. [SF]
_C.DATA.SAMPLING_RATE = 8
# Frame rate (1/s) that SAMPLING_RATE refers to. [SF]
_C.DATA.TARGET_FPS = 30
# Test views start at multiples of floor(delta / (views - 1)) instead of delta / views. [SF]
_C.DATA.USE_OFFSET_SAMPLING = False
# Short side (pixels): drawn from this range in training, its first value in tests of kinetics with 1 crop. [SF]
_C.DATA.TRAIN_JITTER_SCALES = [256, 320]
# Range of the crop's share of the frame's area; empty: short-side jitter instead. [SF]
_C.DATA.TRAIN_JITTER_SCALES_RELATIVE = []
# Range of the crop's aspect ratio (width / height) before resizing. [SF]
_C.DATA.TRAIN_JITTER_ASPECT_RELATIVE = []
# Side of a training crop (pixels). [SF]
_C.DATA.TRAIN_CROP_SIZE = 224
# Side of a validation and test crop (pixels). [SF, M: 224]
_C.DATA.TEST_CROP_SIZE = 224
# imagenet: the centre crop's share of the short side in evaluation. [SF]
_C.DATA.IN_VAL_CROP_RATIO = 0.875
# imagenet: how whole images are scaled in evaluation, always antialiased: bicubic or bilinear. [ConvMLP, EAT]
_C.DATA.IN_VAL_INTERPOLATION = "bicubic"
# Flip training clips left to right with probability 1/2. [SF]
_C.DATA.RANDOM_FLIP = True
# Mean of each channel in [0, 1] units, in the order fed to the network. [SF]
_C.DATA.MEAN = [0.45, 0.45, 0.45]
# Standard deviation of each channel in [0, 1] units. [SF]
_C.DATA.STD = [0.225, 0.225, 0.225]
# Feed B G R instead of R G B. [SF]
_C.DATA.REVERSE_INPUT_CHANNEL = False
# Video decoder: pyav, or torchcodec (an optional package). [SF]
_C.DATA.DECODING_BACKEND = "pyav"
# Decoder threads of one process; 0 lets FFmpeg choose. Never changes a frame. [own]
_C.DATA.DECODING_THREADS = 1
# How views are joined into a video's score: sum (the mean) or max. [SF]
_C.DATA.ENSEMBLE_METHOD = "sum"
# Share of the training videos that may be unreadable in an epoch before the run ends. Unless it is 0, at least 3 videos
# may be, but never all. [own]
_C.DATA.MAX_FAILED = 0.01

# ------------------------------------------------------------------ event cameras
_C.DVS = ConfigNode()
# Pixels of the sensor (height, width). [Event2Vec]
_C.DVS.SENSOR_SIZE = [180, 240]
# Seconds that one unit of time in the files stands for. [own]
_C.DVS.TIME_UNIT = 1e-6
# Order of class folders that are numbers: number (0, 1, 2, ... 10) or name (0, 1, 10, 2, ..., as text: what weights
# trained with the authors' code have). [own]
_C.DVS.CLASS_ORDER = "number"
# Events that a sample of a recording has; a recording of fewer gives all it has; 0: all events. [Event2Vec]
_C.DVS.NUM_EVENTS = 255
# How they are chosen: random_sample, uniform_sample, deterministic_uniform_sample, gaussian_sample,
# multivariate_gaussian_sample (one in each interval), or random_chunk_sample_n (chunks of n events). [Event2Vec]
_C.DVS.SAMPLER = "random_sample"
# Unit of the times that the network gets: none (microseconds), sample (the sample's longest) or dataset (the training
# split's longest). [Event2Vec]
_C.DVS.TIME_NORM = "dataset"
# The longest recording of the training split, microseconds; 0: found once by each first and last event, and kept in the
# user's cache. [Event2Vec]
_C.DVS.LONGEST = 0
# dvsframes: what the DATA.NUM_FRAMES frames of a recording hold: counts of events, or voxels (each event shared by the
# two frames nearest in time). [own]
_C.DVS.FRAMES = "counts"
# dvsframes: grey levels (of 255) an event. [own]
_C.DVS.FRAME_GAIN = 64.0
# Training augmentation, with AUG.ENABLE: probability of each change that is on. [Event2Vec]
_C.DVS.AUG_PROB = 0.5
# Flip left to right, top to bottom; exchange the polarities. [Event2Vec, own]
_C.DVS.FLIP_X = False
_C.DVS.FLIP_Y = False
_C.DVS.FLIP_POLARITY = False
# Largest shift on each axis (pixels), turn (degrees), shear; range of the factor of size. [Event2Vec]
_C.DVS.TRANSLATE = 0
_C.DVS.ROTATE = 0.0
_C.DVS.SHEAR = 0.0
_C.DVS.SCALE = [1.0, 1.0]
# Standard deviation of each event's time, as a share of the sample's duration. [own]
_C.DVS.TIME_JITTER = 0.0
# Largest probability with which each event is dropped; largest share of random ones added. [own]
_C.DVS.DROP = 0.0
_C.DVS.NOISE = 0.0
# Largest side of a square whose events are erased (pixels). [Event2Vec]
_C.DVS.ERASE = 0

# ------------------------------------------------------------------ loading
_C.DATA_LOADER = ConfigNode()
# Worker processes of one training process; 0 decodes in the process itself. [SF]
_C.DATA_LOADER.NUM_WORKERS = 8
# Copy batches to page-locked memory first (GPUs only). [SF]
_C.DATA_LOADER.PIN_MEMORY = True
# Batches a worker prepares ahead. [torch]
_C.DATA_LOADER.PREFETCH_FACTOR = 2
# Seconds that reading one file may take. Then the file counts as unreadable and its worker is replaced; 0 sets no
# limit. [own]
_C.DATA_LOADER.TIMEOUT = 300
# Samples of the first batch of a training and of a test that are drawn to OUTPUT_DIR, and to TensorBoard where it is
# on, as the network gets them; 0: none. [own]
_C.DATA_LOADER.DRAW_SAMPLES = 8

# ------------------------------------------------------------------ augmentation
_C.AUG = ConfigNode()
# Apply AA_TYPE and random erasing in training. [SF]
_C.AUG.ENABLE = False
# Augmented clips taken from one decoded video (or image) a step, all in its batch, which becomes that many times as
# large: repeated augmentation (Hoffer et al. 2020, arXiv 1901.09335). [SF]
_C.AUG.NUM_SAMPLE = 1
# Repeated augmentation in the sampler: each drawn image (or video) comes this often in a row, each copy with its own
# augmentation and, where there are as many, in another process. Batches and epochs keep their size, so that an epoch
# sees one in REPEATED of the images. [EAT: 3 with its option repeated-aug]
_C.AUG.REPEATED = 1
# Strength of colour jitter, used when AA_TYPE is empty; 0 for none. [SF]
_C.AUG.COLOR_JITTER = 0.4
# RandAugment in timm's notation: rand-m(agnitude)-n(umber)-mstd(deviation)-inc(reasing); or AutoAugment's ImageNet
# policy: autoaugment, autoaugment-mstd0.5 (timm), autoaugment_torchvision; empty: none. [SF, timm, evMLP]
_C.AUG.AA_TYPE = "rand-m9-mstd0.5-inc1"
# Interpolation of training warps: nearest, bilinear, bicubic, random. [SF]
_C.AUG.INTERPOLATION = "bicubic"
# Probability that a clip has boxes erased. [SF]
_C.AUG.RE_PROB = 0.25
# What a box is filled with: pixel (noise per pixel), rand (a color per box), const (the mean color, which is 0 once
# normalized). [SF]
_C.AUG.RE_MODE = "pixel"
# Most boxes erased from a clip. [SF]
_C.AUG.RE_COUNT = 1

_C.MIXUP = ConfigNode()
# Mix the clips and labels of a training batch. [SF]
_C.MIXUP.ENABLE = False
# Beta parameter of MixUp; 0 for none. [SF]
_C.MIXUP.ALPHA = 0.8
# Beta parameter of CutMix; 0 for none. [SF]
_C.MIXUP.CUTMIX_ALPHA = 1.0
# Probability that a batch is mixed. [SF]
_C.MIXUP.PROB = 1.0
# Probability of CutMix where both are on. [SF]
_C.MIXUP.SWITCH_PROB = 0.5
# Label smoothing; used by soft_cross_entropy whether or not batches are mixed. [SF]
_C.MIXUP.LABEL_SMOOTH_VALUE = 0.1

# ------------------------------------------------------------------ optimization
_C.SOLVER = ConfigNode()
# sgd, adam, adamw, or a name that your own file registers in OPTIMIZER_REGISTRY (slowfast/engine/optim.py). [SF]
_C.SOLVER.OPTIMIZING_METHOD = "sgd"
# Learning rate after warm-up, for TRAIN.BATCH_SIZE videos a step. [SF]
_C.SOLVER.BASE_LR = 0.1
# Multiply the rates by NUM_SHARDS. [SF]
_C.SOLVER.BASE_LR_SCALE_NUM_SHARDS = False
# cosine, steps_with_relative_lrs. [SF]
_C.SOLVER.LR_POLICY = "cosine"
# Learning rate at the end of the cosine. [SF]
_C.SOLVER.COSINE_END_LR = 0.0
# Start the cosine after warm-up instead of under it. [SF]
_C.SOLVER.COSINE_AFTER_WARMUP = False
# steps_with_relative_lrs: epochs at which a new factor holds (the first is 0), and the factors. [SF]
_C.SOLVER.STEPS = []
_C.SOLVER.LRS = []
# Epochs at the end of the training that keep the cosine's last rate; included in MAX_EPOCH. [ConvMLP]
_C.SOLVER.COOLDOWN_EPOCHS = 0.0
# Epochs of training. [SF: 300]
_C.SOLVER.MAX_EPOCH = 60
# Epochs of linear warm-up, and the rate at their start. [SF]
_C.SOLVER.WARMUP_EPOCHS = 0.0
_C.SOLVER.WARMUP_START_LR = 0.01
# Momentum, dampening, Nesterov form of sgd. With MOMENTUM 0 the Nesterov form is plain SGD, too; it allows no
# dampening. [SF]
_C.SOLVER.MOMENTUM = 0.9
_C.SOLVER.DAMPENING = 0.0
_C.SOLVER.NESTEROV = True
# Coefficients of adam and adamw. [SF]
_C.SOLVER.BETAS = [0.9, 0.999]
# Weight decay. [SF]
_C.SOLVER.WEIGHT_DECAY = 1e-4
# No weight decay on parameters of one dimension (biases, norms), nor on those that a network's own recipe spares
# (EAT: position embedding and learned queries). [SF, EAT]
_C.SOLVER.ZERO_WD_1D_PARAM = False
# Further parameters without weight decay: the ends of their names, such as head.weight, or patterns, such as
# "blocks.*.fc1.weight". [own]
_C.SOLVER.NO_WD_PARAMS = []
# Layer-wise learning-rate decay: the top layer (last norm and head) has the scheduled rate, each layer below it this
# share of the rate of the one above; 1: all the same. Layers are the blocks; the embedding is below the first. [SF]
_C.SOLVER.LAYER_DECAY = 1.0
# Multiply the head's learning rate by this, such as 10 for a new head on pre-trained weights. [own]
_C.SOLVER.HEAD_LR_MULT = 1.0
# Clip each gradient element to this; 0 for none. [SF]
_C.SOLVER.CLIP_GRAD_VAL = 0.0
# Clip the norm of all gradients to this; 0 for none. [SF]
_C.SOLVER.CLIP_GRAD_L2NORM = 0.0

_C.BN = ConfigNode()
# Weight decay of batch-norm parameters, where ZERO_WD_1D_PARAM is off. [SF]
_C.BN.WEIGHT_DECAY = 0.0
# batchnorm, or sync_batchnorm (statistics over all processes; CPU and GPU). [SF]
_C.BN.NORM_TYPE = "batchnorm"
# Recompute the statistics over NUM_BATCHES_PRECISE training batches before each evaluation. [SF]
_C.BN.USE_PRECISE_STATS = False
_C.BN.NUM_BATCHES_PRECISE = 200

# ------------------------------------------------------------------ model
_C.MODEL = ConfigNode()
# Registered network: MorphMLP for clips (MorphMLP_32, the published name for 32 frames, is the same network);
# MorphMLPImage, ConvMLP, EAT, evMLP and the teachers EfficientNetV2, RegNetY for images; Event2Vec for events. [M, own]
_C.MODEL.MODEL_NAME = "MorphMLP"
# Classes of the head. [SF]
_C.MODEL.NUM_CLASSES = 400
# cross_entropy, soft_cross_entropy (label smoothing, MixUp). [SF]
_C.MODEL.LOSS_FUNC = "cross_entropy"
# Weight of each class in the loss: empty (all 1), balanced (the rarer in training, the heavier), or a file of one
# number a line, in the order of the labels. [own]
_C.MODEL.CLASS_WEIGHTS = ""
# An image network on clips, frame by frame: empty (no), logits or features (what is averaged over time). [own]
_C.MODEL.FRAMEWISE = ""
# Train the head alone: everything else keeps the weights to start from and works as in evaluation. [own]
_C.MODEL.FREEZE_BACKBONE = False
# Layers that keep the weights to start from and work as in evaluation, batch norms included: names of layers or
# parameters, such as patch_embed1, patterns, such as "blocks[12].*", and stages, such as stage1 (with the embedding
# before it). With FREEZE_BACKBONE what either of them names. [own]
_C.MODEL.FREEZE = []
# Recompute activations in the backward pass: False, True (every block) or a number of
# blocks per stage, counted from its first. [own]
_C.MODEL.ACT_CHECKPOINT = False
# Keep an average of the weights over training, evaluated and saved beside the raw ones; tests of the checkpoint take
# the average unless TEST.CHECKPOINT_WEIGHTS is raw. [own]
_C.MODEL.EMA = False
# Share of the old average kept at each step. [ConvMLP, EAT]
_C.MODEL.EMA_DECAY = 0.99996

# ------------------------------------------------------------------ distillation (DeiT, arXiv 2012.12877)
_C.DISTILL = ConfigNode()
# Let a trained network, the teacher, have a part in the loss. [own]
_C.DISTILL.ENABLE = False
# hard (the teacher's best class is a second label) or soft (its probabilities are). [DeiT]
_C.DISTILL.TYPE = "hard"
# Share of the teacher's part in the loss. [DeiT; soft: 0.1]
_C.DISTILL.ALPHA = 0.5
# soft: temperature that divides the logits of both. [DeiT: 3.0]
_C.DISTILL.TAU = 3.0
# Config file of the teacher, any registered network; its inputs are normalized by its own DATA.MEAN, STD and
# REVERSE_INPUT_CHANNEL. [own]
_C.DISTILL.TEACHER_CFG = ""
# Weights of the teacher, its head included; TEST.CHECKPOINT_WEIGHTS of its config chooses raw or averaged ones. [own]
_C.DISTILL.TEACHER_CHECKPOINT = ""
# Layout of that file: pytorch, or paddle for .pdparams. [own]
_C.DISTILL.TEACHER_CHECKPOINT_TYPE = "pytorch"

# MorphMLP (arXiv 2111.12527); defaults are MorphMLP-S of the authors' YAML files.
_C.MORPH = ConfigNode()
# Blocks of each stage. [M]
_C.MORPH.LAYERS = [3, 4, 9, 3]
# Chunk length of each stage (tokens mixed together by one Linear). [M]
_C.MORPH.SEGMENT_DIM = [14, 28, 28, 49]
# Width of each stage (channels). [M]
_C.MORPH.EMBED_DIMS = [112, 224, 392, 784]
# Hidden width of each stage's MLPs, as a multiple of its width. [M]
_C.MORPH.MLP_RATIOS = [3, 3, 3, 3]
# Biases on the branch Linears. [M]
_C.MORPH.QKV_BIAS = True
# Stochastic depth of the last block; rises linearly from 0. [M]
_C.MORPH.DROP_DEPTH_RATE = 0.1
# Image or video weights to start training from; a missing file is an error of training. [M]
_C.MORPH.PRETRAIN_PATH = ""

# ConvMLP (arXiv 2109.04454); defaults are ConvMLP-S of the paper.
_C.CONVMLP = ConfigNode()
# Blocks of each MLP stage. [ConvMLP]
_C.CONVMLP.LAYERS = [2, 4, 2]
# Width of each MLP stage (channels). [ConvMLP]
_C.CONVMLP.EMBED_DIMS = [128, 256, 512]
# Hidden width of each stage's MLPs, as a multiple of its width. [ConvMLP]
_C.CONVMLP.MLP_RATIOS = [2, 2, 2]
# Width of the tokenizer and the convolution stage (channels). [ConvMLP]
_C.CONVMLP.CONV_DIM = 64
# Blocks of the convolution stage. [ConvMLP]
_C.CONVMLP.CONV_LAYERS = 2
# Stochastic depth of the last block of each MLP stage; rises linearly from 0 within the stage. [ConvMLP]
_C.CONVMLP.DROP_DEPTH_RATE = 0.1

# EAT (arXiv 2105.15089); defaults are EAT-Ti of the paper. Images are DATA.TEST_CROP_SIZE pixels wide and high.
_C.EAT = ConfigNode()
# Pixels of a token: the square of this. [EAT]
_C.EAT.PATCH_SIZE = 16
# Blocks on the tokens. [EAT]
_C.EAT.LAYERS = 12
# Blocks in which the learned query attends to the tokens. [EAT]
_C.EAT.CLASS_LAYERS = 2
# Width (channels). [EAT]
_C.EAT.EMBED_DIM = 192
# Attention heads of a class block; a block on the tokens has half as many, on half the channels. [EAT]
_C.EAT.HEADS = 4
# Hidden width of the MLPs, as a multiple of EMBED_DIM. [EAT]
_C.EAT.MLP_RATIO = 4
# Order of the pixels: sis (sweep in sweep), sweep, scan; zorder, hilbert for sides that are powers of two. [EAT]
_C.EAT.PIXEL_ORDER = "sis"
# What that order is of: first (the pixels, before the embedding) or second (the embedded patches). [EAT]
_C.EAT.SFC_MODE = "first"
# Blocks on the tokens: base_local (attention and a local branch) or base (attention alone). [EAT]
_C.EAT.BLOCK_TYPE = "base_local"
# Local branch: conv (a convolution over neighboring tokens) or attn (attention among them). [EAT]
_C.EAT.LOCAL = "conv"
# Share of the channels that the local branch works on. [EAT]
_C.EAT.LOCAL_RATIO = 0.5
# Number of neighboring tokens that the local branch sees, itself included; odd. [EAT]
_C.EAT.LOCAL_KS = 3
# Add a learned position embedding to the tokens. [EAT]
_C.EAT.POS_EMB = True
# Classify by a class token among the others. [EAT]
_C.EAT.CLS_TOKEN = False
# Without CLS_TOKEN: classify by CLASS_LAYERS blocks with a learned query; False: by the mean of the tokens. [EAT]
_C.EAT.CLS_TOKEN_HEAD = True
# A second query and head for a teacher's answers; the logits are the mean of both. [EAT]
_C.EAT.DISTILLED = False
# Stochastic depth of the last block; rises linearly from 0. [EAT]
_C.EAT.DROP_DEPTH_RATE = 0.1

# evMLP (arXiv 2507.01927); defaults are the paper's network for images of 224 x 224 pixels.
_C.EVMLP = ConfigNode()
# Width of each stage (channels). [evMLP]
_C.EVMLP.EMBED_DIMS = [64, 128, 512, 512, 512, 512]
# Side of each stage's patches, in pixels for the first and in tokens of the stage before for the others;
# their product is the side of the images. [evMLP]
_C.EVMLP.PATCH_SIZES = [7, 2, 2, 2, 2, 2]
# Blocks of each stage. [evMLP]
_C.EVMLP.LAYERS = [5, 5, 7, 7, 9, 9]
# Hidden width of each stage's MLPs, as a multiple of its width. [evMLP]
_C.EVMLP.MLP_RATIOS = [4, 4, 2, 2, 2, 2]
# Dropout inside each stage's MLPs. [evMLP]
_C.EVMLP.DROPOUT_RATES = [0.0, 0.0, 0.0, 0.0, 0.0, 0.2]
# Initialization of the weights: truncated_normal (standard deviation 0.02), or pytorch (its default, as published). In
# a small trial here the first reached a training loss of 0.35 where the second reached 1.40. [own]
_C.EVMLP.INIT = "truncated_normal"

# EfficientNetV2 (arXiv 2104.00298), a teacher; defaults are EfficientNetV2-S of torchvision.
_C.EFFICIENTNET = ConfigNode()
# Number of blocks of each of the six stages. [torchvision]
_C.EFFICIENTNET.LAYERS = [2, 4, 4, 6, 9, 15]
# Channels of each stage. [torchvision]
_C.EFFICIENTNET.EMBED_DIMS = [24, 48, 64, 128, 160, 256]
# Channels of the last convolution. [torchvision]
_C.EFFICIENTNET.HEAD_DIM = 1280
# Dropout before the classifier. [torchvision]
_C.EFFICIENTNET.DROPOUT_RATE = 0.2
# Stochastic depth that the last block approaches; rises linearly from 0. [torchvision]
_C.EFFICIENTNET.DROP_DEPTH_RATE = 0.2

# RegNetY (arXiv 2003.13678), a teacher; defaults are RegNetY-16GF of timm.
_C.REGNET = ConfigNode()
# Number of blocks of each of the four stages. [timm]
_C.REGNET.LAYERS = [2, 4, 11, 1]
# Channels of each stage, multiples of GROUP_WIDTH. [timm]
_C.REGNET.EMBED_DIMS = [224, 448, 1232, 3024]
# Channels of a group of the grouped convolutions. [timm]
_C.REGNET.GROUP_WIDTH = 112

# ------------------------------------------------------------------ event-driven inference with evMLP
_C.EVENT = ConfigNode()
# Compute only the patches that changed: with an image network on the videos of DATA.PATH_PREFIX (a folder, a file, the
# number of a camera, the address of a stream, or a .txt file that lists such, one a line), and nothing is trained or
# tested; with MODEL.FRAMEWISE inside the clips of the test. [own]
_C.EVENT.ENABLE = False
# How a frame of a video or camera becomes the network's square: squash (the whole frame, whatever its proportions),
# crop (as images are tested: short side, then the center), letterbox (the whole frame in proportion, the rest filled
# with DATA.MEAN). Clips of a test (MODEL.FRAMEWISE) are cropped as TEST says. [own; evMLP: squash]
_C.EVENT.RESIZE = "squash"
# A patch is computed again where its change is above this, in units of the normalized frame. [evMLP: 0.05]
_C.EVENT.THRESHOLD = 0.05
# What a patch is compared with: hold (its pixels when it was last computed) or previous (the frame before; errors of
# slow changes add up). [own; evMLP: previous]
_C.EVENT.REFERENCE = "hold"
# What counts as its change: mean (of the absolute differences of its pixels) or any (the largest). [own; evMLP: any]
_C.EVENT.GATE = "mean"
# Frames between two that are computed as a whole; 0: none but the first. [own]
_C.EVENT.KEYFRAME_EVERY = 0
# Videos that are computed together, in one batch. Never changes a result. [own]
_C.EVENT.STREAMS = 1
# Frames of a video that are computed together; 1: frame by frame, for the least delay. Never changes a result. [own]
_C.EVENT.CHUNK = 16
# Weights of the network: float32, bfloat16, int8. [own]
_C.EVENT.PRECISION = "float32"
# On CPUs, use kernels that are compiled on first use with this machine's C++ compiler, where it has one; on GPUs,
# capture the steps as CUDA graphs at the start. [own]
_C.EVENT.COMPILED = True
# Frames of each video that are looked at; 0: all, of a camera or stream until Ctrl-C. [own]
_C.EVENT.MAX_FRAMES = 0
# Seconds after which a camera or stream that broke off or ended is opened again; 0: that is its end. [own]
_C.EVENT.RECONNECT = 0.0
# Run the whole network on the same frames, too, for the speed, agreement and error against it. [own]
_C.EVENT.COMPARE = True
# Write event_frames.csv, a line a frame as soon as it is computed: some 200 MB a day for a camera of 30 frames/s. [own]
_C.EVENT.FRAME_LOG = True
# Also write each video with its changed patches and best classes drawn on it, as .mp4. [own]
_C.EVENT.ANNOTATE = False

# Event2Vec (arXiv 2504.15371); defaults are the published ones for ASL-DVS.
_C.EVENT2VEC = ConfigNode()
# Grid that events are scaled to (height, width), at most DVS.SENSOR_SIZE. [Event2Vec]
_C.EVENT2VEC.GRID_SIZE = [36, 48]
# Polarities told apart: 2, or 1 for none. [Event2Vec]
_C.EVENT2VEC.POLARITIES = 2
# Embedding of an event: naive (a row a place), naive2d (lines and columns apart), or with n neighbours on each side at
# distance k: neighbor1d-naive-n-k, neighbor1d-naive2d-n-k, neighbor2d-naive-n-k. [Event2Vec]
_C.EVENT2VEC.EMBED = "neighbor1d-naive2d-2-1"
# How the time gets into an event's token: add (in every channel) or t2v (Time2Vec). [Event2Vec]
_C.EVENT2VEC.TPE = "add"
# Width of the tokens (channels). [Event2Vec]
_C.EVENT2VEC.EMBED_DIM = 256
# Attention heads, hidden width of the MLPs and layers of the encoder. [Event2Vec]
_C.EVENT2VEC.HEADS = 16
_C.EVENT2VEC.MLP_DIM = 512
_C.EVENT2VEC.LAYERS = 2
# Consecutive slices of a recording whose tokens are averaged, event by event, before the encoder; 1: none. Slices are
# of the batch's longest recording, as published: with DVS.NUM_EVENTS 0 results depend on the batch. [Event2Vec]
_C.EVENT2VEC.T_HEADS = 1
# Self-supervised pre-training: share of events that are masked and whose places are predicted; 0 trains the
# classification. [Event2Vec]
_C.EVENT2VEC.MASK_RATIO = 0.0

# ------------------------------------------------------------------ reports
_C.TENSORBOARD = ConfigNode()
# Write TensorBoard event files (needs the tensorboard extra). [SF]
_C.TENSORBOARD.ENABLE = False
# Folder of the event files; empty: OUTPUT_DIR/tensorboard. [SF]
_C.TENSORBOARD.LOG_DIR = ""


def get_cfg() -> ConfigNode:
    """The whole tree with its defaults, as a fresh mutable copy."""
    return _C.clone()
