"""Every key of a pretraining configuration, with its default and what it means."""

from __future__ import annotations

import math
from typing import Any

from fvcore.common.config import CfgNode as CN

_C = CN()

_C.DATA = CN()
# imagefolder (any folder tree of images, labels or not), cifar10, cifar100, stl10, tiny_imagenet,
# imagenet, imagenet100, webdataset
_C.DATA.NAME = "imagefolder"
# For imagenet100: a file with the names of its classes, one a line.
_C.DATA.CLASS_LIST = ""
# For webdataset, where DATA.ROOT names the shards (a path or URL, with braces or wildcards): how
# many samples they hold.
_C.DATA.NUM_SAMPLES = 0
# How many of the images to pretrain on, drawn once by SEED; 0: all.
_C.DATA.MAX_IMAGES = 0
# Folder of the data set. An image folder with `train` in it may have `val` or `test` for the k-NN
# probe.
_C.DATA.ROOT = ""
# Processes that load and augment, for each training process; 0 loads in the training process.
_C.DATA.NUM_WORKERS = 4
# How many images may be unreadable before the run stops; they are replaced by their neighbours.
_C.DATA.MAX_UNREADABLE = 0
# Views of each image.
_C.DATA.NUM_VIEWS = 2
# Side of a view in pixels.
_C.DATA.IMAGE_SIZE = 224
# Shorter side, in pixels, to which the probe resizes images before it cuts the central square.
_C.DATA.PROBE_RESIZE = 256
# Of the three channels (RGB), in units of [0, 1].
_C.DATA.MEAN = [0.485, 0.456, 0.406]
_C.DATA.STD = [0.229, 0.224, 0.225]

_C.AUGMENT = CN()
# Share of the image's area that a crop covers: least and most.
_C.AUGMENT.CROP_SCALE = [0.2, 1.0]
# bilinear or bicubic
_C.AUGMENT.INTERPOLATION = "bilinear"
# Crop before the colours change (ImageNet) or after it (small images).
_C.AUGMENT.CROP_FIRST = True
# Strength of the change in brightness, contrast, saturation and hue, and its probability.
_C.AUGMENT.JITTER = [0.4, 0.4, 0.4, 0.1]
_C.AUGMENT.JITTER_PROB = 0.8
_C.AUGMENT.GRAYSCALE_PROB = 0.2
# Gaussian blur with sigma in [0.1, 2] pixels.
_C.AUGMENT.BLUR_PROB = 0.0
# Inversion of all pixels above half of the range.
_C.AUGMENT.SOLARIZE_PROB = 0.0
_C.AUGMENT.FLIP_PROB = 0.5
# For views that differ: one dictionary for each of the NUM_VIEWS, with keys of this section and
# IMAGE_SIZE that are different there, such as {IMAGE_SIZE: 96, BLUR_PROB: 0.1}. []: all are alike.
_C.AUGMENT.PER_VIEW = []

_C.MODEL = CN()
# resnet18, resnet34, resnet50, resnet101, resnet152
_C.MODEL.ARCH = "resnet50"
# imagenet; small (3x3 convolution, no pooling: CIFAR); small_pool (3x3, pooling: STL-10,
# Tiny-ImageNet). Detectron2 has the first only.
_C.MODEL.STEM = "imagenet"
_C.MODEL.ZERO_INIT_RESIDUAL = True
_C.MODEL.PROJECTOR = CN()
_C.MODEL.PROJECTOR.LAYERS = 2
_C.MODEL.PROJECTOR.HIDDEN = 1024
# Width D of the embedding.
_C.MODEL.PROJECTOR.OUT = 512
# Bias of the hidden linear layers, which the BatchNorm after them makes superfluous.
_C.MODEL.PROJECTOR.HIDDEN_BIAS = True
# BatchNorm without affine parameters after the last layer (SimSiam).
_C.MODEL.PROJECTOR.LAST_BN = False
# For byol and simsiam: Linear-BN-ReLU-Linear on top of the projector.
_C.MODEL.PREDICTOR = CN()
_C.MODEL.PREDICTOR.HIDDEN = 1024

_C.METHOD = CN()
# cwrgp, wmse, intl, simclr, byol, simsiam, barlow_twins, vicreg, zero_icl; for the analysis of
# whitening also plain, bn, pca, zca_bw
_C.METHOD.NAME = "cwrgp"
_C.METHOD.CWRGP = CN()
# Groups into which the D channels are cut; each is whitened on its own.
_C.METHOD.CWRGP.NUM_GROUPS = 4
# Samples that are whitened together; divides the batch of a process.
_C.METHOD.CWRGP.SUBBATCH_SIZE = 64
# Redraws of sub-batches and partition at each step, averaged.
_C.METHOD.CWRGP.NUM_DRAWS = 1
# Permute the channels before they are cut into groups.
_C.METHOD.CWRGP.RANDOM_PARTITION = True
# Cosine form of the loss; False: mean squared error.
_C.METHOD.CWRGP.NORMALIZE = True
# Shrinks the covariance towards the identity; needed where a group has fewer channels than samples.
_C.METHOD.CWRGP.EPS = 0.0
# Weight of the covariance penalty, and the epoch from which on it is off (0: never).
_C.METHOD.CWRGP.COVARIANCE_WEIGHT = 0.0
_C.METHOD.CWRGP.COVARIANCE_EPOCHS = 0

# For wmse, zero_icl, bn, pca, zca_bw: samples that are whitened together (0: a process's batch),
# redraws of the sub-batches at each step, and the shrinkage of the covariance.
_C.METHOD.WHITENING = CN()
_C.METHOD.WHITENING.SUBBATCH_SIZE = 0
_C.METHOD.WHITENING.NUM_DRAWS = 1
_C.METHOD.WHITENING.EPS = 0.0

_C.METHOD.INTL = CN()
# Newton-Schulz iterations T.
_C.METHOD.INTL.ITERATIONS = 4
# Weight beta of the trace loss; negative: 0.01 (log2 N - 3) of the global batch N, as in the paper.
_C.METHOD.INTL.TRACE_WEIGHT = -1.0

# For byol, and for intl with a momentum network: its momentum at the first step, rising to 1 along
# a cosine. 0: none (intl only).
_C.METHOD.EMA = 0.0

_C.METHOD.SIMCLR = CN()
_C.METHOD.SIMCLR.TEMPERATURE = 0.5

_C.METHOD.BARLOW_TWINS = CN()
# Weight of the off-diagonal correlations, and of the whole loss.
_C.METHOD.BARLOW_TWINS.OFF_DIAGONAL = 0.0051
_C.METHOD.BARLOW_TWINS.SCALE = 1.0

_C.METHOD.VICREG = CN()
_C.METHOD.VICREG.INVARIANCE = 25.0
_C.METHOD.VICREG.VARIANCE = 25.0
_C.METHOD.VICREG.COVARIANCE = 1.0

_C.SOLVER = CN()
_C.SOLVER.EPOCHS = 100
# Samples in a step, over all processes.
_C.SOLVER.BATCH_SIZE = 256
# Parts into which a process cuts its share of the batch, one after the other: for GPUs that cannot
# hold it. See docs/pretraining.md for what stays equal.
_C.SOLVER.ACCUMULATE = 1
# adam, sgd, lars, or larc (sgd with LARC's local rates)
_C.SOLVER.OPTIMIZER = "adam"
_C.SOLVER.BASE_LR = 3e-3
# Where positive, the learning rate is BASE_LR x BATCH_SIZE / REFERENCE_BATCH_SIZE.
_C.SOLVER.REFERENCE_BATCH_SIZE = 0
# For sgd, lars and larc.
_C.SOLVER.MOMENTUM = 0.9
_C.SOLVER.WEIGHT_DECAY = 1e-6
# Whether biases and BatchNorm's parameters are decayed too.
_C.SOLVER.DECAY_ONE_DIMENSIONAL = True
# For lars and larc: trust coefficient.
_C.SOLVER.TRUST = 0.001
# step, cosine (a value each epoch) or cosine_iter (each iteration)
_C.SOLVER.SCHEDULE = "step"
# For the cosines: the last rate, as a share of the first.
_C.SOLVER.FINAL_LR_RATIO = 0.0
# For step: epochs before the end at which the rate is multiplied by GAMMA.
_C.SOLVER.DROP_EPOCHS = [50, 25]
_C.SOLVER.GAMMA = 0.2
# Iterations of the linear warm-up.
_C.SOLVER.WARMUP_ITERS = 500
# Epochs of it, instead of iterations, where positive.
_C.SOLVER.WARMUP_EPOCHS = 0.0
_C.SOLVER.AMP = CN()
# bf16 and channels_last where the hardware has bf16 instructions, CPU or GPU. Whitening and loss
# stay fp32.
_C.SOLVER.AMP.ENABLED = True
# bf16, or fp16 with a loss scaler (GPUs without bf16)
_C.SOLVER.AMP.DTYPE = "bf16"

_C.EVAL = CN()
# Epochs between k-NN evaluations, of data sets with labels; 0: none.
_C.EVAL.PERIOD = 10
# Labelled images for the probe, where they are not those of DATA.ROOT; of the same DATA.NAME.
_C.EVAL.ROOT = ""
# For webdataset: the shards of the held-out images, without which there is the k-NN probe only.
_C.EVAL.TEST_ROOT = ""
_C.EVAL.KNN_K = 5
# Images of each split that the probe uses at most, drawn once; 0: all.
_C.EVAL.MAX_IMAGES = 0
_C.EVAL.BATCH_SIZE = 256

# The probes of tools/evaluate.py. Learning rates are for a batch of BATCH_SIZE.
_C.EVAL.LINEAR = CN()
# adam (features are extracted once; small images), or sgd or larc (augmented images; ImageNet)
_C.EVAL.LINEAR.OPTIMIZER = "adam"
_C.EVAL.LINEAR.EPOCHS = 500
_C.EVAL.LINEAR.BATCH_SIZE = 1000
_C.EVAL.LINEAR.LR = 0.01
_C.EVAL.LINEAR.FINAL_LR = 1e-6
# For sgd and larc: epochs from which on the rate is a tenth of what it was, instead of the cosine
# from LR to FINAL_LR.
_C.EVAL.LINEAR.STEPS = []
_C.EVAL.LINEAR.WEIGHT_DECAY = 5e-6
_C.EVAL.FINETUNE = CN()
# Share of the labelled images, class by class.
_C.EVAL.FINETUNE.FRACTION = 0.01
_C.EVAL.FINETUNE.EPOCHS = 20
_C.EVAL.FINETUNE.BATCH_SIZE = 256
_C.EVAL.FINETUNE.LR_CLASSIFIER = 0.2
_C.EVAL.FINETUNE.LR_ENCODER = 0.004
_C.EVAL.FINETUNE.WEIGHT_DECAY = 0.0

# Where records are kept besides OUTPUT_DIR/metrics.json: tensorboard, wandb (pip install
# 'cwrgp[wandb]'), or none with [].
_C.LOGGERS = ["tensorboard"]
# Iterations between records of the losses.
_C.LOG_PERIOD = 20
# Epochs between checkpoints.
_C.CHECKPOINT_PERIOD = 10
# Periodic checkpoints that stay on disk; 0: all.
_C.CHECKPOINTS_KEPT = 2
# Every run with the same seed, configuration and machine is the same run.
_C.SEED = 0
_C.OUTPUT_DIR = "output/pretrain"


# What single values may be: least, most, keys.
_RANGES: tuple[tuple[float, float, str], ...] = (
    (
        0,
        math.inf,
        """
        DATA.MAX_IMAGES DATA.NUM_SAMPLES DATA.NUM_WORKERS DATA.MAX_UNREADABLE
        METHOD.CWRGP.COVARIANCE_WEIGHT METHOD.CWRGP.COVARIANCE_EPOCHS
        METHOD.WHITENING.SUBBATCH_SIZE METHOD.BARLOW_TWINS.OFF_DIAGONAL
        METHOD.VICREG.INVARIANCE METHOD.VICREG.VARIANCE METHOD.VICREG.COVARIANCE
        SOLVER.WARMUP_ITERS SOLVER.WARMUP_EPOCHS SOLVER.WEIGHT_DECAY SOLVER.REFERENCE_BATCH_SIZE
        EVAL.PERIOD EVAL.MAX_IMAGES CHECKPOINT_PERIOD CHECKPOINTS_KEPT SEED
        """,
    ),
    (
        1,
        math.inf,
        """
        DATA.IMAGE_SIZE MODEL.PROJECTOR.OUT MODEL.PROJECTOR.HIDDEN MODEL.PREDICTOR.HIDDEN
        METHOD.CWRGP.NUM_GROUPS METHOD.CWRGP.NUM_DRAWS METHOD.WHITENING.NUM_DRAWS
        METHOD.INTL.ITERATIONS SOLVER.EPOCHS SOLVER.ACCUMULATE
        EVAL.KNN_K EVAL.BATCH_SIZE LOG_PERIOD
        """,
    ),
    (2, math.inf, "DATA.NUM_VIEWS METHOD.CWRGP.SUBBATCH_SIZE SOLVER.BATCH_SIZE"),
    (
        0,
        1,
        """
        METHOD.CWRGP.EPS METHOD.WHITENING.EPS
        SOLVER.FINAL_LR_RATIO SOLVER.GAMMA SOLVER.MOMENTUM
        """,
    ),
)
# What lists hold, where it is not numbers.
_ELEMENTS: dict[str, tuple[tuple[type, ...], str]] = {
    "AUGMENT.PER_VIEW": ((dict,), "dictionaries"),
    "LOGGERS": ((str,), "names"),
}
_POSITIVE = "METHOD.SIMCLR.TEMPERATURE METHOD.BARLOW_TWINS.SCALE SOLVER.BASE_LR SOLVER.TRUST"


def get_cfg() -> CN:
    """A copy of the defaults."""
    return _C.clone()


def validate_cfg(cfg: CN) -> None:
    """Says what is wrong with single values. What takes more than one is said by what uses them.

    Raises:
        ValueError: naming the key, its value and what it may be.
    """
    _check_types(cfg, _C)
    if not cfg.DATA.ROOT:
        raise ValueError("DATA.ROOT is empty; set it to the folder of the images")
    if not cfg.OUTPUT_DIR:
        raise ValueError("OUTPUT_DIR is empty; set it to a folder for the run")
    for low, high, keys in _RANGES:
        for key in keys.split():
            value = _value(cfg, key)
            if not low <= value <= high:
                raise ValueError(
                    f"{key} {value} is below {low}"
                    if high == math.inf
                    else f"{key} {value} is outside [{low}, {high}]"
                )
    for key in _POSITIVE.split():
        if _value(cfg, key) <= 0:
            raise ValueError(f"{key} {_value(cfg, key)} is not positive")
    for key, length in {
        "DATA.MEAN": 3,
        "DATA.STD": 3,
        "AUGMENT.CROP_SCALE": 2,
        "AUGMENT.JITTER": 4,
    }.items():
        if len(_value(cfg, key)) != length:
            raise ValueError(f"{key} {_value(cfg, key)} must have {length} numbers")
    if min(cfg.DATA.STD) <= 0:
        raise ValueError(f"DATA.STD {cfg.DATA.STD} must be positive")
    if cfg.DATA.PROBE_RESIZE < cfg.DATA.IMAGE_SIZE:
        raise ValueError(
            f"DATA.PROBE_RESIZE {cfg.DATA.PROBE_RESIZE} is below "
            f"DATA.IMAGE_SIZE {cfg.DATA.IMAGE_SIZE}"
        )
    if min(cfg.AUGMENT.JITTER) < 0 or cfg.AUGMENT.JITTER[3] > 0.5:
        raise ValueError(
            f"AUGMENT.JITTER {cfg.AUGMENT.JITTER} must be 0 or more, and the last, of hue, at "
            "most .5"
        )


def _check_types(cfg: CN, defaults: CN, prefix: str = "") -> None:
    """fvcore's merge lets None and the elements of lists pass."""
    for name, default in defaults.items():
        value, key = cfg[name], f"{prefix}{name}"
        if isinstance(default, CN):
            _check_types(value, default, f"{key}.")
        elif isinstance(default, list):
            kinds, what = _ELEMENTS.get(key, ((int, float), "numbers"))
            if not isinstance(value, list | tuple) or not all(type(v) in kinds for v in value):
                raise ValueError(f"{key} {value} must be a list of {what}")
        elif type(value) is not type(default) and (type(value), type(default)) != (int, float):
            raise ValueError(f"{key} {value!r} must be of type {type(default).__name__}")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key} {value} is not a finite number")


def _value(cfg: CN, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg
