"""The only reader of a pretraining configuration: turns its sections into objects."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from fvcore.common.config import CfgNode

from cwrgp.config import validate_cfg
from cwrgp.data.augment import Normalize, build_probe_transform, build_view_transform
from cwrgp.data.datasets import LabelledImages, Views, build_dataset
from cwrgp.data.loaders import ProbeImages, StepSampler, iterate_views
from cwrgp.engine import distributed
from cwrgp.engine.checkpoint import Checkpoints, write_atomically
from cwrgp.engine.loop import Plan, restore, train
from cwrgp.engine.metrics import MetricWriter, setup_logging
from cwrgp.engine.optim import build_optimizer
from cwrgp.engine.precision import autocast, has_fast_bf16
from cwrgp.engine.schedule import build_schedule
from cwrgp.evaluation.features import extract_features
from cwrgp.evaluation.knn import knn_accuracy
from cwrgp.losses import CWRGPLoss
from cwrgp.models.encoders import build_encoder
from cwrgp.models.heads import build_projector
from cwrgp.models.methods import JointEmbedding
from cwrgp.seeding import derive_seed

logger = logging.getLogger("cwrgp")


def build_cwrgp(cfg: CfgNode) -> JointEmbedding:
    """Encoder, projector and CW-RGP loss; checks that batches of this size can be whitened."""
    c = cfg.METHOD.CWRGP
    loss = CWRGPLoss(
        num_groups=c.NUM_GROUPS,
        subbatch_size=c.SUBBATCH_SIZE,
        num_draws=c.NUM_DRAWS,
        random_partition=c.RANDOM_PARTITION,
        normalize=c.NORMALIZE,
        eps=c.EPS,
        covariance_weight=c.COVARIANCE_WEIGHT,
    )
    loss.check(local_batch_size(cfg), cfg.MODEL.PROJECTOR.OUT)
    encoder = build_encoder(
        cfg.MODEL.ARCH, stem=cfg.MODEL.STEM, zero_init_residual=cfg.MODEL.ZERO_INIT_RESIDUAL
    )
    projector = build_projector(
        encoder.inplanes,
        hidden_features=cfg.MODEL.PROJECTOR.HIDDEN,
        out_features=cfg.MODEL.PROJECTOR.OUT,
        num_layers=cfg.MODEL.PROJECTOR.LAYERS,
    )
    return JointEmbedding(encoder, projector, loss)


METHODS: dict[str, Callable[[CfgNode], JointEmbedding]] = {"cwrgp": build_cwrgp}


def build_method(cfg: CfgNode) -> JointEmbedding:
    """The method that ``METHOD.NAME`` names, with weights drawn from ``SEED``.

    Raises:
        ValueError: unknown name, or values that cannot work together.
    """
    if cfg.METHOD.NAME not in METHODS:
        raise ValueError(
            f"METHOD.NAME {cfg.METHOD.NAME!r} is unknown; choose one of {list(METHODS)}"
        )
    torch.manual_seed(derive_seed(cfg.SEED))
    return METHODS[cfg.METHOD.NAME](cfg)


def local_batch_size(cfg: CfgNode) -> int:
    """Samples of a step on one process.

    Raises:
        ValueError: the batch does not divide among the processes.
    """
    size, processes = cfg.SOLVER.BATCH_SIZE, distributed.world_size()
    if size % processes:
        raise ValueError(
            f"SOLVER.BATCH_SIZE {size} does not divide among {processes} processes; "
            f"{size // processes * processes} would"
        )
    return size // processes


def build_views(cfg: CfgNode) -> Views:
    """The training images and their random views.

    Raises:
        ValueError: fewer images than a batch holds.
    """
    images = build_dataset(cfg.DATA.NAME, cfg.DATA.ROOT, "pretrain")
    assert images is not None
    if len(images) < cfg.SOLVER.BATCH_SIZE:
        raise ValueError(
            f"SOLVER.BATCH_SIZE {cfg.SOLVER.BATCH_SIZE} is more than the {len(images)} images "
            f"of DATA.ROOT {cfg.DATA.ROOT}; choose a smaller batch"
        )
    transform = build_view_transform(
        image_size=cfg.DATA.IMAGE_SIZE,
        crop_scale=tuple(cfg.AUGMENT.CROP_SCALE),
        interpolation=cfg.AUGMENT.INTERPOLATION,
        jitter=tuple(cfg.AUGMENT.JITTER),
        jitter_prob=cfg.AUGMENT.JITTER_PROB,
        grayscale_prob=cfg.AUGMENT.GRAYSCALE_PROB,
        blur_prob=cfg.AUGMENT.BLUR_PROB,
        flip_prob=cfg.AUGMENT.FLIP_PROB,
        crop_first=cfg.AUGMENT.CROP_FIRST,
    )
    return Views(
        images,
        transform,
        num_views=cfg.DATA.NUM_VIEWS,
        seed=cfg.SEED,
        max_unreadable=cfg.DATA.MAX_UNREADABLE,
    )


def build_plan(cfg: CfgNode, num_images: int) -> Plan:
    """When things happen, in steps."""
    steps_per_epoch = num_images // cfg.SOLVER.BATCH_SIZE
    return Plan(
        total_steps=cfg.SOLVER.EPOCHS * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        log_period=cfg.LOG_PERIOD,
        checkpoint_period=cfg.CHECKPOINT_PERIOD * steps_per_epoch,
        eval_period=cfg.EVAL.PERIOD * steps_per_epoch,
    )


def build_learning_rate(cfg: CfgNode, plan: Plan) -> Callable[[int], float]:
    """The learning rate of a step."""
    reference = cfg.SOLVER.REFERENCE_BATCH_SIZE
    scale = cfg.SOLVER.BATCH_SIZE / reference if reference else 1.0
    return build_schedule(
        cfg.SOLVER.SCHEDULE,
        cfg.SOLVER.BASE_LR * scale,
        total_steps=plan.total_steps,
        steps_per_epoch=plan.steps_per_epoch,
        warmup_steps=cfg.SOLVER.WARMUP_ITERS,
        drop_epochs=tuple(cfg.SOLVER.DROP_EPOCHS),
        gamma=cfg.SOLVER.GAMMA,
    )


def build_probe(
    cfg: CfgNode, encoder: torch.nn.Module, device: torch.device
) -> Callable[[], dict[str, float]]:
    """The k-NN accuracy of the encoder as a function without arguments; gives {} without labels.

    Where a data set has no held-out images, every training image asks the others.
    """
    transform = build_probe_transform(image_size=cfg.DATA.IMAGE_SIZE, resize=cfg.DATA.PROBE_RESIZE)

    def images_of(split: str) -> ProbeImages | None:
        dataset = build_dataset(cfg.DATA.NAME, cfg.EVAL.ROOT or cfg.DATA.ROOT, split)
        if dataset is None or max(dataset.labels) < 0:
            return None
        return ProbeImages(dataset, transform, _some(dataset, cfg.EVAL.MAX_IMAGES, cfg.SEED))

    splits = [images for images in map(images_of, ("train", "test")) if images is not None]
    if splits and len(splits[0]) < cfg.EVAL.KNN_K:
        raise ValueError(
            f"EVAL.KNN_K {cfg.EVAL.KNN_K} is more than the {len(splits[0])} images that vote"
        )

    def probe() -> dict[str, float]:
        if not splits:
            return {}
        features: list[torch.Tensor] = []
        for images in splits:
            features += extract_features(
                encoder,
                images,
                normalize=Normalize(cfg.DATA.MEAN, cfg.DATA.STD).to(device),
                batch_size=cfg.EVAL.BATCH_SIZE,
                num_workers=cfg.DATA.NUM_WORKERS,
                device=device,
                autocast=autocast(device, cfg.SOLVER.AMP.ENABLED),
            )
            skipped = len(images) - len(features[-1])
            if skipped > cfg.DATA.MAX_UNREADABLE:
                raise ValueError(
                    f"{skipped} of {len(images)} images of the probe cannot be read, more than "
                    f"DATA.MAX_UNREADABLE {cfg.DATA.MAX_UNREADABLE}"
                )
        return {"knn/top1": knn_accuracy(*features, k=cfg.EVAL.KNN_K)}

    return probe


def _some(dataset: LabelledImages, limit: int, seed: int) -> list[int]:
    if not 0 < limit < len(dataset):
        return list(range(len(dataset)))
    generator = torch.Generator().manual_seed(derive_seed(seed, len(dataset)))
    return torch.randperm(len(dataset), generator=generator)[:limit].tolist()


def pretrain(cfg: CfgNode, *, resume: bool = False, eval_only: bool = False) -> dict[str, float]:
    """A whole run: from the configuration to ``OUTPUT_DIR/model_final.pth``.

    Args:
        cfg: merged; validated and frozen here.
        resume: go on from the last checkpoint of OUTPUT_DIR.
        eval_only: evaluate that checkpoint, do not train.

    Returns:
        The last evaluation.

    Raises:
        ValueError: a value that cannot work.
        FileNotFoundError: missing data, or nothing to resume or evaluate.
    """
    validate_cfg(cfg)
    cfg.freeze()
    main = distributed.rank() == 0
    device = distributed.local_device()
    fast = cfg.SOLVER.AMP.ENABLED and has_fast_bf16(device)
    memory_format = torch.channels_last if fast else torch.contiguous_format

    views = build_views(cfg)
    plan = build_plan(cfg, len(views))
    learning_rate = build_learning_rate(cfg, plan)
    method = build_method(cfg).to(device).to(memory_format=memory_format)
    distributed.synchronize_batch_norm(method, device)
    optimizer = build_optimizer(
        cfg.SOLVER.OPTIMIZER,
        method,
        lr=learning_rate(0),
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        momentum=cfg.SOLVER.MOMENTUM,
        decay_one_dimensional=cfg.SOLVER.DECAY_ONE_DIMENSIONAL,
    )
    probe = build_probe(cfg, method.encoder, device)

    folder = Path(cfg.OUTPUT_DIR)
    checkpoints = Checkpoints(folder, keep=cfg.CHECKPOINTS_KEPT)
    state = checkpoints.load_last()
    if state is None and (resume or eval_only):
        raise FileNotFoundError(f"OUTPUT_DIR {folder} holds no checkpoint to go on from")
    if state is not None and not (resume or eval_only):
        raise ValueError(
            f"OUTPUT_DIR {folder} holds a run already; add --resume, or choose another folder"
        )
    if main:
        folder.mkdir(parents=True, exist_ok=True)
    setup_logging(folder if main else None)
    start = 0 if state is None else restore(state, method, optimizer, config=cfg.dump())
    if start > plan.total_steps and not eval_only:
        raise ValueError(
            f"the last checkpoint is of iteration {start}, SOLVER.EPOCHS {cfg.SOLVER.EPOCHS} ends "
            f"at {plan.total_steps}; train longer, or choose another OUTPUT_DIR"
        )
    if main and not eval_only:
        write_atomically(folder / "config.yaml", lambda file: file.write(cfg.dump().encode()))
    if start == plan.total_steps and not eval_only:
        logger.info("the run is finished, nothing is left to do")
        return {}
    logger.info(
        "%s on %d x %s in %s, %d images, %d parameters, iterations %d to %d",
        cfg.METHOD.NAME,
        distributed.world_size(),
        device.type,
        "bf16" if fast else "fp32",
        len(views),
        sum(p.numel() for p in method.parameters()),
        start + 1,
        plan.total_steps,
    )
    if eval_only:
        result = probe()
        logger.info("evaluation  %s", result or "none: the images have no labels")
        return result

    result = {}

    def evaluate() -> dict[str, float]:
        result.update(probe())
        return result

    sampler = StepSampler(
        len(views),
        cfg.SOLVER.BATCH_SIZE,
        start_step=start,
        total_steps=plan.total_steps,
        seed=cfg.SEED,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
    )
    batches = iterate_views(
        views, sampler, num_workers=cfg.DATA.NUM_WORKERS, pin_memory=device.type == "cuda"
    )
    writer = MetricWriter(
        folder,
        start_step=start,
        total_steps=plan.total_steps,
        steps_per_epoch=plan.steps_per_epoch,
    ) if main else None  # fmt: skip
    with writer.shown() if writer is not None else contextlib.nullcontext():
        train(
            method,
            optimizer,
            batches,
            plan=plan,
            learning_rate=learning_rate,
            normalize=Normalize(cfg.DATA.MEAN, cfg.DATA.STD).to(device),
            device=device,
            autocast=autocast(device, cfg.SOLVER.AMP.ENABLED),
            memory_format=memory_format,
            seed=cfg.SEED,
            start_step=start,
            checkpoints=checkpoints if main else None,
            config=cfg.dump(),
            writer=writer,
            evaluate=evaluate,
        )
    skipped = len(views.unreadable)
    if skipped:
        logger.warning("%d of %d images could not be read and were replaced", skipped, len(views))
    return result
