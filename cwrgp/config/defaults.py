"""Every key of a pretraining configuration: its default, what it means, and what it may be."""

from __future__ import annotations

from cwrgp.config.keys import POSITIVE, SHARE, Key, Range, at_least
from cwrgp.images import IMAGENET_MEAN, IMAGENET_STD

_PROBABILITY = Range(low=0, high=1)

KEYS: dict[str, Key] = {
    # ---- the images
    "DATA.NAME": Key(
        "imagefolder",
        "Kind of data set. imagefolder is any folder tree of images, with labels or without.",
        choices=(
            *("imagefolder", "cifar10", "cifar100", "stl10", "tiny_imagenet"),
            *("imagenet", "imagenet100", "webdataset"),
        ),
    ),
    "DATA.ROOT": Key(
        "",
        "Folder of the data set. An image folder that contains `train` may contain `val` or `test`"
        " for the k-NN probe. For webdataset: the shards, as a path or URL with braces or"
        " wildcards.",
        path=True,
    ),
    "DATA.CLASS_LIST": Key(
        "", "For imagenet100: a file with the names of its classes, one per line.", path=True
    ),
    "DATA.NUM_SAMPLES": Key(
        0, "For webdataset: number of samples in the shards; 0: not checked.", at_least(0)
    ),
    "DATA.MAX_IMAGES": Key(
        0, "Pretrain on this many images, sampled once by SEED; 0: all.", at_least(0)
    ),
    "DATA.NUM_WORKERS": Key(
        4,
        "Loader processes for each training process; 0 loads in the training process.",
        at_least(0),
    ),
    "DATA.MAX_UNREADABLE": Key(
        0,
        "Number of unreadable images that a run tolerates. Each is replaced by its neighbour.",
        at_least(0),
    ),
    "DATA.MAX_UNREADABLE_SHARE": Key(
        0.01,
        "The same as a share of the images, rounded up. The larger of the two limits counts.",
        SHARE,
    ),
    "DATA.PIXEL_RANGE": Key(
        [],
        "Values [low, high] of 16-bit and floating-point images that become 0 and 255; others are"
        " clipped. []: 16-bit values are divided by 257, and floating-point images are refused. It"
        " has no effect on images of 8 bits.",
    ),
    "DATA.NUM_VIEWS": Key(2, "Views of each image.", at_least(2)),
    "DATA.IMAGE_SIZE": Key(224, "Side of a view in pixels.", at_least(1)),
    "DATA.PROBE_RESIZE": Key(
        256, "The probe resizes the shorter side to this many pixels, then crops the centre."
    ),
    "DATA.MEAN": Key([*IMAGENET_MEAN], "Mean of R, G, B in units of [0, 1].", length=3),
    "DATA.STD": Key(
        [*IMAGENET_STD], "Standard deviation of R, G, B, likewise.", POSITIVE, length=3
    ),
    # ---- augmentation
    "AUGMENT.CROP_SCALE": Key(
        [0.2, 1.0], "Smallest and largest share of the image's area that a crop covers.", length=2
    ),
    "AUGMENT.INTERPOLATION": Key(
        "bilinear", "Interpolation of the crop.", choices=("bilinear", "bicubic")
    ),
    "AUGMENT.CROP_FIRST": Key(
        True, "Crop before the colours change (ImageNet) or after it (small images)."
    ),
    "AUGMENT.JITTER": Key(
        [0.4, 0.4, 0.4, 0.1],
        "Strength of the colour jitter: brightness, contrast, saturation, hue.",
        at_least(0),
        length=4,
    ),
    "AUGMENT.JITTER_PROB": Key(0.8, "Probability of the colour jitter.", _PROBABILITY),
    "AUGMENT.GRAYSCALE_PROB": Key(0.2, "Probability of grayscale.", _PROBABILITY),
    "AUGMENT.BLUR_PROB": Key(
        0.0, "Probability of a Gaussian blur with sigma in [0.1, 2] pixels.", _PROBABILITY
    ),
    "AUGMENT.SOLARIZE_PROB": Key(
        0.0, "Probability of solarization: pixels of 128 and above are inverted.", _PROBABILITY
    ),
    "AUGMENT.FLIP_PROB": Key(0.5, "Probability of a horizontal flip.", _PROBABILITY),
    "AUGMENT.BACKEND": Key(
        "auto",
        "How the loader's processes make views: fast (libjpeg-turbo, OpenCV), reference (Pillow,"
        " torchvision), or auto: fast where its packages are installed. The distribution is the"
        " same; pixels differ by rounding.",
        choices=("auto", "fast", "reference"),
    ),
    "AUGMENT.DEVICE": Key(
        "auto",
        "Where views are made: workers (in the loader's processes), training (in batches on the"
        " device of the training, with all images in its memory: for small images of one size), or"
        " auto: training for CIFAR, STL-10 and Tiny-ImageNet, workers for others.",
        choices=("auto", "workers", "training"),
    ),
    "AUGMENT.PER_VIEW": Key(
        [],
        "For views that differ: one dictionary for each of the NUM_VIEWS views, with the keys of"
        " this section and IMAGE_SIZE that differ there, such as {IMAGE_SIZE: 96, BLUR_PROB: 0.1}."
        " []: all views are alike.",
        items=dict,
    ),
    # ---- the networks
    "MODEL.ARCH": Key(
        "resnet50",
        "Architecture of the encoder.",
        choices=("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    ),
    "MODEL.WEIGHTS": Key(
        "",
        "A new run starts from the encoder of this checkpoint: cwrgp://NAME, a file or a URL, of"
        " any format that cwrgp-convert reads. The projector is new. A resumed run does not read"
        " it. Empty: random weights.",
        path=True,
    ),
    "MODEL.STEM": Key(
        "imagenet",
        "First layers: imagenet (7x7 convolution of stride 2, pooling), small (3x3 convolution, no"
        " pooling: CIFAR), small_pool (3x3 convolution, pooling: STL-10, Tiny-ImageNet). Detectron2"
        " has the first only.",
        choices=("imagenet", "small", "small_pool"),
    ),
    "MODEL.ZERO_INIT_RESIDUAL": Key(True, "Every residual branch starts at zero."),
    "MODEL.ACTIVATION_CHECKPOINTING": Key(
        False,
        "Keep only the inputs of the encoder's stem and residual blocks for the backward pass,"
        " which computes the rest again: the same result in less memory and more time.",
    ),
    "MODEL.PROJECTOR.LAYERS": Key(2, "Linear layers of the projector.", at_least(1)),
    "MODEL.PROJECTOR.HIDDEN": Key(1024, "Width of its hidden layers.", at_least(1)),
    "MODEL.PROJECTOR.OUT": Key(512, "Width D of the embedding.", at_least(1)),
    "MODEL.PROJECTOR.HIDDEN_BIAS": Key(
        True, "Bias of the hidden linear layers. The BatchNorm that follows makes it redundant."
    ),
    "MODEL.PROJECTOR.LAST_BN": Key(
        False, "BatchNorm without affine parameters after the last layer (SimSiam)."
    ),
    "MODEL.PREDICTOR.HIDDEN": Key(
        1024, "For byol and simsiam: width of the hidden layer of the predictor.", at_least(1)
    ),
    # ---- the method
    "METHOD.NAME": Key(
        "cwrgp",
        "The method. plain, bn, pca, zca_bw and zca_cw are for the analysis of whitening.",
        choices=(
            *("cwrgp", "wmse", "intl", "simclr", "byol", "simsiam", "barlow_twins", "vicreg"),
            *("plain", "bn", "pca", "zca_bw", "zca_cw"),
        ),
    ),
    "METHOD.CWRGP.NUM_GROUPS": Key(
        4, "Groups of channels; each group is whitened on its own.", at_least(1)
    ),
    "METHOD.CWRGP.SUBBATCH_SIZE": Key(
        64, "Samples that are whitened together; divides the batch of a process.", at_least(2)
    ),
    "METHOD.CWRGP.NUM_DRAWS": Key(
        1, "Redraws of sub-batches and partition in each step; the loss is their mean.", at_least(1)
    ),
    "METHOD.CWRGP.RANDOM_PARTITION": Key(
        True, "Permute the channels before they are cut into groups."
    ),
    "METHOD.CWRGP.NORMALIZE": Key(True, "Cosine form of the loss; False: mean squared error."),
    "METHOD.CWRGP.EPS": Key(
        0.0,
        "Shrinks the covariance towards the identity. Needed where a group has fewer channels than"
        " samples.",
        SHARE,
    ),
    "METHOD.CWRGP.COVARIANCE_WEIGHT": Key(0.0, "Weight of the covariance penalty.", at_least(0)),
    "METHOD.CWRGP.COVARIANCE_EPOCHS": Key(
        0, "The covariance penalty ends after this many epochs; 0: never.", at_least(0)
    ),
    "METHOD.WHITENING.SUBBATCH_SIZE": Key(
        0,
        "For wmse, bn, pca, zca_bw, zca_cw: samples that are whitened together; 0: the batch of a"
        " process.",
        at_least(0),
    ),
    "METHOD.WHITENING.NUM_DRAWS": Key(
        1, "Redraws of the sub-batches in each step; the loss is their mean.", at_least(1)
    ),
    "METHOD.WHITENING.EPS": Key(0.0, "Shrinks the covariance towards the identity.", SHARE),
    "METHOD.INTL.ITERATIONS": Key(4, "Newton-Schulz iterations T.", at_least(1)),
    "METHOD.INTL.TRACE_WEIGHT": Key(
        -1.0,
        "Weight beta of the trace loss; negative: the paper's 0.01 (log2 N - 3) of the global batch"
        " N.",
    ),
    "METHOD.EMA": Key(
        0.0,
        "For byol, and for intl with a momentum network: momentum at the first step. It rises to 1"
        " along a cosine. 0: no momentum network (intl only).",
        Range(low=0, high=1, open_high=True),
    ),
    "METHOD.SIMCLR.TEMPERATURE": Key(0.5, "Divides the cosines.", POSITIVE),
    "METHOD.BARLOW_TWINS.OFF_DIAGONAL": Key(
        0.0051, "Weight of the off-diagonal correlations.", at_least(0)
    ),
    "METHOD.BARLOW_TWINS.SCALE": Key(1.0, "Weight of the whole loss.", POSITIVE),
    "METHOD.VICREG.INVARIANCE": Key(25.0, "Weight of the invariance term.", at_least(0)),
    "METHOD.VICREG.VARIANCE": Key(25.0, "Weight of the variance term.", at_least(0)),
    "METHOD.VICREG.COVARIANCE": Key(1.0, "Weight of the covariance term.", at_least(0)),
    # ---- optimisation
    "SOLVER.EPOCHS": Key(
        100,
        "Epochs of the run. 0: as many as give 50,000 iterations, but at least 10 and at most 800.",
        at_least(0),
    ),
    "SOLVER.BATCH_SIZE": Key(256, "Samples in a step, over all processes.", at_least(2)),
    "SOLVER.ACCUMULATE": Key(
        1,
        "Parts into which a process cuts its share of the batch, for GPUs that cannot hold it."
        " docs/pretraining.md says what stays equal.",
        at_least(1),
    ),
    "SOLVER.OPTIMIZER": Key(
        "adam",
        "larc is sgd with LARC's layer-wise rates.",
        choices=("adam", "sgd", "lars", "larc"),
    ),
    "SOLVER.BASE_LR": Key(3e-3, "Learning rate after the warm-up.", POSITIVE),
    "SOLVER.REFERENCE_BATCH_SIZE": Key(
        0,
        "Where positive, the learning rate is BASE_LR x BATCH_SIZE / REFERENCE_BATCH_SIZE.",
        at_least(0),
    ),
    "SOLVER.MOMENTUM": Key(0.9, "For sgd, lars and larc.", SHARE),
    "SOLVER.WEIGHT_DECAY": Key(1e-6, "Weight decay, as L2 in the gradient.", at_least(0)),
    "SOLVER.DECAY_BIAS_AND_NORM": Key(
        True, "Whether weight decay includes biases and the parameters of BatchNorm."
    ),
    "SOLVER.TRUST_COEFFICIENT": Key(0.001, "For lars and larc.", POSITIVE),
    "SOLVER.SCHEDULE": Key(
        "step",
        "cosine gives a new rate each epoch, cosine_iter each iteration.",
        choices=("step", "cosine", "cosine_iter"),
    ),
    "SOLVER.FINAL_LR_RATIO": Key(
        0.0, "For the cosines: the last rate as a share of the first.", SHARE
    ),
    "SOLVER.DROP_EPOCHS": Key(
        [50, 25], "For step: epochs before the end at which the rate is multiplied by GAMMA."
    ),
    "SOLVER.GAMMA": Key(0.2, "For step: factor of the rate at each drop.", SHARE),
    "SOLVER.WARMUP_ITERS": Key(500, "Iterations of the linear warm-up.", at_least(0)),
    "SOLVER.WARMUP_EPOCHS": Key(
        0.0, "Where positive, epochs of the warm-up, instead of WARMUP_ITERS.", at_least(0)
    ),
    "SOLVER.AMP.ENABLED": Key(
        True, "Mixed precision in DTYPE. Whitening and loss stay fp32. False: fp32 throughout."
    ),
    "SOLVER.AMP.DTYPE": Key(
        "auto",
        "Number format of the networks: fp32, or autocast in bf16, where the hardware has"
        " instructions for it, or fp16, with a loss scaler, for GPUs without bf16. auto: on a GPU"
        " bf16; on a CPU what is fastest there, measured once for each model and cached.",
        choices=("auto", "fp32", "bf16", "fp16"),
    ),
    "SOLVER.AMP.MEMORY_FORMAT": Key(
        "auto",
        "Memory format of networks and images. auto: what was measured with DTYPE auto on a CPU;"
        " otherwise channels_last in bf16 and fp16, contiguous in fp32.",
        choices=("auto", "contiguous", "channels_last"),
    ),
    # ---- evaluation
    "EVAL.PERIOD": Key(
        10, "Epochs between k-NN evaluations of data sets with labels; 0: none.", at_least(0)
    ),
    "EVAL.ROOT": Key(
        "",
        "Labelled images for the probe where they are not those of DATA.ROOT; of the same"
        " DATA.NAME.",
        path=True,
    ),
    "EVAL.TEST_ROOT": Key(
        "",
        "For webdataset: the shards of the held-out images. Without them there is only k-NN.",
        path=True,
    ),
    "EVAL.KNN_K": Key(5, "Neighbours of the k-NN probe.", at_least(1)),
    "EVAL.MAX_IMAGES": Key(
        0, "The k-NN probe of a run uses this many images of each split; 0: all.", at_least(0)
    ),
    "EVAL.BATCH_SIZE": Key(256, "Images at a time when features are extracted.", at_least(1)),
    "EVAL.LINEAR.OPTIMIZER": Key(
        "adam",
        "The linear probe: adam on features that are extracted once (small images), sgd or larc on"
        " augmented images (ImageNet). Learning rates are for a batch of BATCH_SIZE.",
        choices=("adam", "sgd", "larc"),
    ),
    "EVAL.LINEAR.EPOCHS": Key(500, "Epochs of the linear probe.", at_least(1)),
    "EVAL.LINEAR.BATCH_SIZE": Key(1000, "Its batch.", at_least(1)),
    "EVAL.LINEAR.LR": Key(0.01, "Its learning rate in the first epoch.", POSITIVE),
    "EVAL.LINEAR.FINAL_LR": Key(
        1e-6, "Its learning rate in the last epoch; positive for adam.", at_least(0)
    ),
    "EVAL.LINEAR.STEPS": Key(
        [],
        "For sgd and larc: epochs at which the rate is divided by 10, instead of the cosine from LR"
        " to FINAL_LR.",
    ),
    "EVAL.LINEAR.WEIGHT_DECAY": Key(5e-6, "Its weight decay.", at_least(0)),
    "EVAL.FINETUNE.FRACTION": Key(
        0.01,
        "Semi-supervised fine-tuning: share of the labelled images of each class.",
        Range(low=0, high=1, open_low=True),
    ),
    "EVAL.FINETUNE.EQUAL_COUNTS": Key(
        False,
        "Use FRACTION of all labelled images, with the same number of each class (to within one),"
        " as in the published 1 % and 10 % subsets of ImageNet.",
    ),
    "EVAL.FINETUNE.EPOCHS": Key(20, "Its epochs.", at_least(1)),
    "EVAL.FINETUNE.BATCH_SIZE": Key(256, "Its batch.", at_least(1)),
    "EVAL.FINETUNE.LR_CLASSIFIER": Key(0.2, "Learning rate of the classifier.", at_least(0)),
    "EVAL.FINETUNE.LR_ENCODER": Key(0.004, "Learning rate of the encoder.", at_least(0)),
    "EVAL.FINETUNE.WEIGHT_DECAY": Key(0.0, "Weight decay of both.", at_least(0)),
    # ---- the run
    "LOGGERS": Key(
        ["tensorboard"],
        "Trackers that get the records besides OUTPUT_DIR/metrics.json. wandb needs pip install"
        " 'cwrgp[wandb]'. []: none.",
        items=str,
    ),
    "LOG_PERIOD": Key(20, "Iterations between records of the losses.", at_least(1)),
    "MONITOR.TARGET_VOLATILITY": Key(
        False,
        "Record how far the whitened targets of a fixed batch move in the step of a record, for"
        " methods that whiten by a covariance. It embeds one sub-batch of one view twice.",
    ),
    "CHECKPOINT_PERIOD": Key(10, "Epochs between checkpoints; 0: at the end only.", at_least(0)),
    "CHECKPOINTS_TO_KEEP": Key(2, "Periodic checkpoints to keep on disk; 0: all.", at_least(0)),
    "SEED": Key(
        0, "Runs with the same seed, configuration and machine are the same run.", at_least(0)
    ),
    "OUTPUT_DIR": Key("output/pretrain", "Folder of the run.", path=True),
}
