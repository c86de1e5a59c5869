"""Fine-tuning: Detectron2's DefaultTrainer with strict weights, full resuming and evaluators."""

from __future__ import annotations

import logging
import os
import weakref
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import (
    AMPTrainer,
    DefaultTrainer,
    HookBase,
    SimpleTrainer,
    TrainerBase,
    create_ddp_model,
    hooks,
)
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)
from detectron2.utils.logger import setup_logger
from torch import nn

from cwrgp.preemption import Preempted
from cwrgp.seeding import Stream, derive_seed
from cwrgp.shared_memory import check_shared_memory, worker_failure
from d2_transfer.checkpoint import TransferCheckpointer, starting_point
from d2_transfer.data.mapper import TransferMapper
from d2_transfer.data.train_loader import TrainLoader
from d2_transfer.evaluators import build_evaluator
from d2_transfer.mask_loss import omit_maskless
from d2_transfer.mixed_precision import use_number_format
from d2_transfer.number_format import number_format_of, resolve_number_format
from d2_transfer.shown_predictions import ShowPredictions
from d2_transfer.validation import EarlyStop, Validation
from d2_transfer.writers import TrackerWriter

logger = logging.getLogger(__name__)


def prefetched_bytes(cfg: CfgNode) -> int:
    """Bytes of the images that the training loader's workers hold ready, if these are square."""
    side = min(max(cfg.INPUT.MIN_SIZE_TRAIN), cfg.INPUT.MAX_SIZE_TRAIN)
    return 3 * side**2 * 2 * cfg.DATALOADER.NUM_WORKERS  # torch prefetches 2 images


class Trainer(DefaultTrainer):
    """Trains a detector from a converted encoder.

    What differs from `DefaultTrainer`: weights that do not fill the backbone are an error (see
    `TransferCheckpointer`), checkpoints hold the optimizer whatever the version of Detectron2 and
    are written atomically, LOGGERS names the trackers, and ``train()`` returns the results of the
    last evaluation.
    """

    def __init__(self, cfg: CfgNode) -> None:
        # DefaultTrainer's constructor makes its own checkpointer, and fails in several processes
        # without GPUs: it passes the number of a GPU to DistributedDataParallel.
        TrainerBase.__init__(self)
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        cfg, _ = resolve_number_format(cfg)
        self._number_format = number_format_of(cfg)
        model = use_number_format(self.build_model(cfg), self._number_format)
        optimizer = self.build_optimizer(cfg, model)
        self._seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        loader = self.build_train_loader(cfg)
        device = {} if cfg.MODEL.DEVICE.startswith("cuda") else {"device_ids": None}
        model = create_ddp_model(model, broadcast_buffers=False, **device)
        loop = AMPTrainer if self._number_format.dtype == "fp16" else SimpleTrainer
        self._trainer = loop(model, loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = TransferCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.cfg, self.start_iter, self.max_iter = cfg, 0, cfg.SOLVER.MAX_ITER
        self._tracker_writers: list[TrackerWriter] = []
        self._validation: Validation | None = None
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase | None]:
        """Detectron2's, with `Validation` for ``DATASETS.VAL``, and `ShowPredictions`."""
        cfg = self.cfg
        found: list[HookBase | None] = super().build_hooks()
        if cfg.DATASETS.VAL:
            val_cfg = cfg.clone()
            val_cfg.defrost()
            val_cfg.DATASETS.TEST = cfg.DATASETS.VAL
            self._validation = Validation(
                cfg.TEST.EVAL_PERIOD,
                lambda: self.test(val_cfg, self.model),
                self._test_last,
                patience=cfg.TEST.PATIENCE,
            )
            found = [hook for hook in found if not isinstance(hook, hooks.EvalHook)]
            savers = [n for n, h in enumerate(found) if isinstance(h, hooks.PeriodicCheckpointer)]
            found.insert(savers[0] if savers else len(found), self._validation)
        finds_objects = cfg.MODEL.META_ARCHITECTURE != "ProposalNetwork" and cfg.DATASETS.CLASSES
        if comm.is_main_process() and cfg.LOGGERS and cfg.TEST.SHOWN_IMAGES and finds_objects:
            found.insert(-1, ShowPredictions(cfg, cfg.TEST.EVAL_PERIOD))  # before the writers
        return found

    def _test_last(self) -> Any:
        self._last_eval_results = self.test(self.cfg, self.model)
        return self._last_eval_results

    def build_writers(self) -> list[EventWriter]:
        """The log, ``metrics.json``, and what LOGGERS names."""
        folder, config = self.cfg.OUTPUT_DIR, yaml.safe_load(self.cfg.dump())
        names = self.cfg.LOGGERS
        self._tracker_writers = [
            TrackerWriter(name, Path(folder), config) for name in names if name != "tensorboard"
        ]
        # TensorBoard's comes last: it removes the pictures that it has written.
        tensorboard = [TensorboardXWriter(folder)] if "tensorboard" in names else []
        return [
            CommonMetricPrinter(self.max_iter),
            JSONWriter(os.path.join(folder, "metrics.json")),
            *self._tracker_writers,
            *tensorboard,
        ]

    def resume_or_load(self, resume: bool = True) -> None:
        """Loads the last checkpoint of ``OUTPUT_DIR`` if ``resume``, otherwise ``MODEL.WEIGHTS``.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file does not fill the backbone, or, when resuming, the detector.
        """
        path, resumed = starting_point(self.cfg.OUTPUT_DIR, self.cfg.MODEL.WEIGHTS, resume)
        if resume and not resumed:
            logger.info(f"{self.cfg.OUTPUT_DIR} has no checkpoint: a new run is started")
        if not path:
            logger.info('MODEL.WEIGHTS is "": the whole detector starts from random weights')
        super().resume_or_load(resume)
        if resumed:
            logger.info(f"Resumed from {path}, at iteration {self.start_iter}")

    def train(self) -> Any:
        """Trains up to ``SOLVER.MAX_ITER``, or until `Validation` ends it.

        Returns:
            The results of the last evaluation, on the main process; otherwise None.

        Raises:
            OSError: a checkpoint cannot be written, such as on a full disk.
            FloatingPointError: a loss is not finite.
        """
        self._go_on_with_data()
        if self._validation is not None and self._validation.stopped:
            self.max_iter = self.start_iter  # the run had ended before it was resumed
        for writer in self._tracker_writers:
            writer.open(self.start_iter)
        log = logging.getLogger("detectron2.engine.train_loop")
        log.addFilter(_in_one_line)
        try:
            super().train()
        except EarlyStop:
            pass  # its message is in the log
        finally:
            log.removeFilter(_in_one_line)
        return getattr(self, "_last_eval_results", None)

    def _go_on_with_data(self) -> None:
        """Lets the loaders begin with the batches that come after those of `start_iter` steps."""
        starts = [(self._trainer.data_loader, self._seed, self.start_iter)]
        for hook in self._hooks:
            if isinstance(hook, hooks.PreciseBN) and hasattr(hook, "_data_loader"):
                period = self.cfg.TEST.EVAL_PERIOD
                updates = self.start_iter // period if period > 0 else 0
                seed = derive_seed(Stream.PRECISE_BN, self._seed)
                starts.append((hook._data_loader, seed, updates * hook._num_iter))
        for loader, seed, start in starts:
            if isinstance(loader, TrainLoader):  # a subclass may build another
                loader.seed, loader.start = seed, start

    def run_step(self) -> None:
        """A step, whose random numbers are a function of the seed, the iteration and the rank."""
        torch.manual_seed(
            derive_seed(Stream.DETECTION_STEP, self._seed, self.iter, comm.get_rank())
        )
        super().run_step()

    # The release of Detectron2 0.6 does not save the state of the loop; its later versions save the
    # same, once more.

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "_trainer": self._trainer.state_dict(),
            "number_format": self._number_format._asdict(),
            "seed": self._seed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.cfg.SEED < 0:  # earlier versions did not save it
            self._seed = state_dict.get("seed", self._seed)
        # A loss scaler starts anew where the run so far needed none.
        loop = {**self._trainer.state_dict(), **state_dict["_trainer"]}
        super().load_state_dict({**state_dict, "_trainer": loop})
        self._trainer.load_state_dict(loop)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Detectron2's; on a CPU, one pass over each parameter does the whole update."""
        optimizer = super().build_optimizer(cfg, model)
        if not cfg.MODEL.DEVICE.startswith("cuda"):
            for group in optimizer.param_groups:
                group.update(foreach=False, fused=True)
        return optimizer

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Detectron2's model, whose mask loss omits objects without a mask."""
        model = super().build_model(cfg)
        omit_maskless(model)
        return model

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """The batches of Detectron2's loader, as `TrainLoader`.

        Raises:
            WorkerError: the shared memory is too small for the images in flight.
        """
        check_shared_memory(prefetched_bytes(cfg), comm.get_local_size())
        return TrainLoader.from_config(cfg, TransferMapper(cfg, True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Detectron2's loader."""
        mapper = TransferMapper(cfg, False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name)


def _in_one_line(record: logging.LogRecord) -> bool:
    """Logs an error without its traceback if the command reports it.

    Of several processes, one may fail only because another has ended. The traceback of a defect is
    in the error that `cwrgp.launch` raises.

    The failure of a worker is not logged at all: torch raises the death of a worker wherever the
    main thread is, in the middle of logging too.
    """
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and worker_failure(error) is not None:
        return False
    reported = isinstance(error, OSError | ValueError | FloatingPointError | Preempted | EarlyStop)
    if reported or (error is not None and comm.get_world_size() > 1):
        record.msg, record.args, record.exc_info = f"Training stopped: {error}", None, None
    return True
