"""Checkpoints in the layouts in which others publish ResNets, with all that stands beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from encoders import authors_checkpoint, make_encoder, own_checkpoint, under
from torch import Tensor

ONLINE, MOMENTUM = 0, 1  # seeds of the encoders
_NUMBERS = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


@dataclass
class Published:
    """A file in one layout of a row of the table.

    Attributes:
        source: the row's name.
        build: depth -> the file.
        container: path to the dictionary with the encoder that is taken by default.
        prefix: before its names.
        dropped: keys, or their beginnings, that must be listed as dropped; all others are used.
        taken: seed of the encoder that is taken by default.
        other: name of the other branch, where there is one.
        numbered: named as in ``Sequential(*resnet.children())``.
    """

    source: str
    build: Callable[[int], dict[str, Any]]
    container: str
    prefix: str
    dropped: list[str] = field(default_factory=list)
    taken: int = ONLINE
    other: str = ""
    numbered: bool = False

    def key(self, name: str) -> str:
        """The key of a tensor in the file."""
        module, dot, rest = name.partition(".")
        return self.prefix + (_NUMBERS[module] if self.numbered else module) + dot + rest


_encoder = cache(make_encoder)  # its tensors are shared: replace them, do not change them


def numbered(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {_NUMBERS[k.partition(".")[0]] + "." + k.partition(".")[2]: v for k, v in state.items()}


def tensors(*names: str) -> dict[str, Tensor]:
    return {name: torch.randn(4, 4) for name in names}


def online(prefix: str, depth: int) -> dict[str, Tensor]:
    return under(prefix, _encoder(depth, ONLINE))


def momentum(prefix: str, depth: int) -> dict[str, Tensor]:
    return under(prefix, _encoder(depth, MOMENTUM))


def _moco(depth: int) -> dict[str, Any]:
    heads = tensors("module.encoder_q.fc.0.weight", "module.encoder_k.fc.0.weight", "module.queue")
    state = online("module.encoder_q.", depth) | momentum("module.encoder_k.", depth) | heads
    state["module.queue_ptr"] = torch.zeros(1, dtype=torch.long)
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []}
    return {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": optimizer}


def _mmselfsup(depth: int) -> dict[str, Any]:
    state = online("backbone.", depth) | online("encoder_q.0.", depth)
    state |= momentum("encoder_k.0.", depth) | tensors("encoder_q.1.mlp.0.weight", "queue")
    return {"meta": {"epoch": 200, "mmcv_version": "1.3"}, "state_dict": state}


def _vissl(depth: int) -> dict[str, Any]:
    model = {
        "trunk": online("_feature_blocks.", depth),
        "heads": tensors("0.clf.0.weight", "0.clf.0.bias"),
    }
    return {
        "phase_idx": 99,
        "loss": {"queue": torch.zeros(3)},
        "classy_state_dict": {"base_model": {"model": model, "meta": {}}, "train": True},
    }


def _with(container: str, state: dict[str, Tensor], **rest: Any) -> dict[str, Any]:
    return {container: state, **rest}


PUBLISHED: dict[str, Published] = {
    "cwrgp": Published(
        "cwrgp", own_checkpoint, "model", "encoder.", ["projector.", "iteration", "config"]
    ),
    "cwrgp with momentum": Published(
        "cwrgp",
        lambda d: _with(
            "model",
            own_checkpoint(d)["model"] | momentum("momentum_encoder.", d),  # type: ignore[operator]
        ),
        "model",
        "encoder.",
        ["projector.", "momentum_encoder."],
        other="momentum",
    ),
    "cwrgp-ddp": Published(
        "cwrgp-ddp",
        authors_checkpoint,
        "state_dict",
        "module.model.",
        ["module.head.", "epoch", "arch", "optimizer"],
    ),
    "cwrgp-small": Published(
        "cwrgp-small",
        lambda d: _with("state_dict", online("model.module.", d) | tensors("head.0.weight"), ep=1),
        "state_dict",
        "model.module.",
        ["head.", "ep"],
    ),
    "cwrgp-linear": Published(
        "cwrgp-linear",
        lambda d: _with("state_dict", online("module.", d) | tensors("module.fc.weight"), epoch=9),
        "state_dict",
        "module.",
        ["module.fc.", "epoch"],
    ),
    "wmse": Published(
        "wmse",
        lambda d: online("model.module.", d) | tensors("head.0.weight", "head.1.running_mean"),
        "",
        "model.module.",
        ["head."],
    ),
    "intl": Published(
        "intl",
        lambda d: _with(
            "state_dict",
            online("module.backbone.", d)
            | momentum("module.momentum_backbone.", d)
            | tensors("module.projector.0.weight", "module.momentum_projector.0.weight"),
            epoch=100,
        ),
        "state_dict",
        "module.backbone.",
        ["module.projector.", "module.momentum_", "epoch"],
        other="momentum",
    ),
    "intl, backbone": Published(
        "intl",
        lambda d: _with("state_dict", online("module.backbone.", d)),
        "state_dict",
        "module.backbone.",
    ),
    "moco": Published(
        "moco",
        _moco,
        "state_dict",
        "module.encoder_q.",
        ["module.encoder_q.fc.", "module.encoder_k.", "module.queue", "epoch", "arch", "optimizer"],
        other="momentum",
    ),
    "moco_v3": Published(
        "moco_v3",
        lambda d: _with(
            "state_dict",
            online("module.base_encoder.", d)
            | momentum("module.momentum_encoder.", d)
            | tensors("module.base_encoder.fc.0.weight", "module.predictor.0.weight"),
            scaler={"scale": 1.0},
        ),
        "state_dict",
        "module.base_encoder.",
        ["module.base_encoder.fc.", "module.momentum_encoder.", "module.predictor.", "scaler"],
        other="momentum",
    ),
    "simsiam": Published(
        "simsiam",
        lambda d: _with(
            "state_dict",
            online("module.encoder.", d)
            | tensors("module.encoder.fc.0.weight", "module.predictor.0.weight"),
        ),
        "state_dict",
        "module.encoder.",
        ["module.encoder.fc.", "module.predictor."],
    ),
    "barlow_twins, backbone": Published("barlow_twins", lambda d: online("", d), "", ""),
    "barlow_twins": Published(
        "barlow_twins",
        lambda d: _with(
            "model", online("module.backbone.", d) | tensors("module.projector.0.weight"), epoch=9
        ),
        "model",
        "module.backbone.",
        ["module.projector.", "epoch"],
    ),
    "vicreg, backbone": Published("vicreg", lambda d: online("", d), "", ""),
    "vicreg": Published(
        "vicreg",
        lambda d: _with(
            "model", online("module.backbone.", d) | tensors("module.projector.0.weight")
        ),
        "model",
        "module.backbone.",
        ["module.projector."],
    ),
    "swav, released": Published(
        "swav",
        lambda d: (
            online("module.", d)
            | tensors("module.projection_head.0.weight", "module.prototypes.weight")
        ),
        "",
        "module.",
        ["module.projection_head.", "module.prototypes."],
    ),
    "swav": Published(
        "swav",
        lambda d: _with(
            "state_dict",
            online("module.", d)
            | tensors("module.projection_head.0.weight", "module.prototypes.weight"),
            amp={},
        ),
        "state_dict",
        "module.",
        ["module.projection_head.", "module.prototypes.", "amp"],
    ),
    "dino, backbone": Published("dino", lambda d: online("", d), "", ""),
    "dino": Published(
        "dino",
        lambda d: {
            "student": online("module.backbone.", d) | tensors("module.head.mlp.0.weight"),
            "teacher": momentum("module.backbone.", d) | tensors("module.head.last_layer.weight_g"),
            "epoch": 800,
        },
        "teacher",
        "module.backbone.",
        ["module.head.", "student", "epoch"],
        taken=MOMENTUM,
        other="online",
    ),
    "densecl, extracted": Published(
        "densecl",
        lambda d: _with("state_dict", online("", d), author="x"),
        "state_dict",
        "",
        ["author"],
    ),
    "densecl": Published(
        "densecl",
        _mmselfsup,
        "state_dict",
        "backbone.",
        ["encoder_q.", "encoder_k.", "queue", "meta"],
        other="momentum",
    ),
    "mmselfsup, extracted": Published(
        "mmselfsup", lambda d: _with("state_dict", online("", d)), "state_dict", ""
    ),
    "mmselfsup": Published(
        "mmselfsup",
        _mmselfsup,
        "state_dict",
        "backbone.",
        ["encoder_q.", "encoder_k.", "queue", "meta"],
        other="momentum",
    ),
    "mmselfsup, BYOL": Published(
        "mmselfsup",
        lambda d: _with(
            "state_dict",
            online("backbone.", d) | online("online_net.0.", d) | momentum("target_net.0.", d),
        ),
        "state_dict",
        "backbone.",
        ["online_net.", "target_net."],
        other="momentum",
    ),
    "pixpro": Published(
        "pixpro",
        lambda d: _with(
            "model",
            online("module.encoder.", d)
            | momentum("module.encoder_k.", d)
            | tensors("module.projector.linear1.weight"),
            epoch=400,
        ),
        "model",
        "module.encoder.",
        ["module.encoder_k.", "module.projector.", "epoch"],
        other="momentum",
    ),
    "pycontrast": Published(
        "pycontrast",
        lambda d: {
            "model": online("module.encoder.", d) | tensors("module.head.0.weight"),
            "model_ema": momentum("module.encoder.", d),
            "contrast": tensors("memory_1"),
        },
        "model",
        "module.encoder.",
        ["module.head.", "model_ema", "contrast"],
        other="momentum",
    ),
    "byol": Published(
        "byol",
        lambda d: _with(
            "model",
            under("module.online_network.encoder.", numbered(_encoder(d, ONLINE)))
            | under("module.target_network.encoder.", numbered(_encoder(d, MOMENTUM)))
            | tensors("module.online_network.projection.net.0.weight", "module.predictor.net.0.w"),
            epoch=300,
        ),
        "model",
        "module.online_network.encoder.",
        ["module.online_network.projection.", "module.target_network.", "module.predictor.", "ep"],
        other="momentum",
        numbered=True,
    ),
    "solo_learn": Published(
        "solo_learn",
        lambda d: _with(
            "state_dict",
            online("backbone.", d)
            | momentum("momentum_backbone.", d)
            | tensors("classifier.weight", "projector.0.weight"),
            epoch=400,
        ),
        "state_dict",
        "backbone.",
        ["momentum_backbone.", "classifier.", "projector.", "epoch"],
        other="momentum",
    ),
    "solo_learn, old": Published(
        "solo_learn",
        lambda d: _with("state_dict", online("encoder.", d) | momentum("momentum_encoder.", d)),
        "state_dict",
        "encoder.",
        ["momentum_encoder."],
        other="momentum",
    ),
    "lightly": Published(
        "lightly",
        lambda d: _with(
            "state_dict",
            online("backbone.", d)
            | momentum("teacher_backbone.", d)
            | tensors("projection_head.layers.0.weight", "online_classifier.weight"),
        ),
        "state_dict",
        "backbone.",
        ["teacher_backbone.", "projection_head.", "online_classifier."],
        other="momentum",
    ),
    "lightly, DINO": Published(
        "lightly",
        lambda d: _with("state_dict", online("student_backbone.", d) | momentum("backbone.", d)),
        "state_dict",
        "backbone.",
        ["student_backbone."],
        taken=MOMENTUM,
        other="online",
    ),
    "lightly, tutorial": Published(
        "lightly",
        lambda d: (
            under("backbone.", numbered(_encoder(d, ONLINE))) | tensors("projection_head.0.w")
        ),
        "",
        "backbone.",
        ["projection_head."],
        numbered=True,
    ),
    "vissl": Published(
        "vissl",
        _vissl,
        "classy_state_dict.base_model.model.trunk",
        "_feature_blocks.",
        ["phase_idx", "loss"],
    ),
    "torchvision": Published(
        "torchvision", lambda d: online("", d) | tensors("fc.weight", "fc.bias"), "", "", ["fc."]
    ),
    "timm": Published(
        "timm",
        lambda d: {
            "state_dict": online("", d) | tensors("fc.weight"),
            "state_dict_ema": momentum("", d) | tensors("fc.weight"),
            "epoch": 300,
        },
        "state_dict",
        "",
        ["fc.", "state_dict_ema", "epoch"],
        other="momentum",
    ),
    "dino, without DDP": Published(
        "dino",
        lambda d: {"student": online("backbone.", d), "teacher": momentum("backbone.", d)},
        "teacher",
        "backbone.",
        ["student"],
        taken=MOMENTUM,
        other="online",
    ),
    "mmselfsup 1": Published(
        "mmselfsup",
        lambda d: _with("state_dict", online("backbone.", d) | momentum("target_net.module.0.", d)),
        "state_dict",
        "backbone.",
        ["target_net."],
        other="momentum",
    ),
    "torchvision's reference training": Published(
        "torchvision",
        lambda d: {"model": online("", d), "model_ema": momentum("module.", d)},
        "model",
        "",
        ["model_ema"],
        other="momentum",
    ),
    "lightly, DINO's example": Published(
        "lightly",
        lambda d: _with(
            "state_dict", online("student_backbone.", d) | momentum("teacher_backbone.", d)
        ),
        "state_dict",
        "student_backbone.",
        ["teacher_backbone."],
        other="momentum",
    ),
    "lightly, MoCo": Published(
        "lightly",
        lambda d: _with("state_dict", online("query_backbone.", d) | momentum("backbone.", d)),
        "state_dict",
        "query_backbone.",
        ["backbone."],
        other="momentum",
    ),
}
