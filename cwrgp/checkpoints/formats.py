"""The table of known checkpoint formats: where a file has its ResNets.

To add a format, add a row to `SOURCES`; `cwrgp.checkpoints.extract` reads by it. Several publishers
may write the same structure: then all their names are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cwrgp.checkpoints.pixel_statistics import IMAGENET, PixelStatistics, from_unit_range
from cwrgp.images import IMAGENET_MEAN

BRANCHES = ("online", "momentum")
TRANSFORMERS = "transformers"  # told by its names, wherever they stand


class Layout:
    """The places of the ResNets in one kind of file.

    A place is written "container: prefix". The container is the path to a dictionary in the file,
    with dots, or nothing; the prefix precedes torchvision's names and is matched whole,
    including its dot.

    Args:
        online: place of the network that is trained by gradients.
        momentum: places that its moving average may have.
        copies: places of exact copies of the same tensors.
        default: the branch that is taken unless another is requested: the one that the publishers
            evaluate.
        complete: a file has this layout only if it has both branches.
    """

    def __init__(
        self,
        online: str,
        *momentum: str,
        copies: tuple[str, ...] = (),
        default: str = "online",
        complete: bool = False,
    ) -> None:
        self.branches: dict[str, tuple[tuple[str, str], ...]] = {
            "online": (_place(online),),
            "momentum": tuple(map(_place, momentum)),
        }
        self.copies = tuple(map(_place, copies))
        self.default = default
        self.complete = complete

    @classmethod
    def of(
        cls,
        online: tuple[str, str],
        others: Mapping[str, Sequence[tuple[str, str]]] | None = None,
        copies: Sequence[tuple[str, str]] = (),
    ) -> Layout:
        """The layout of a file of no known format.

        Args:
            online: place of the network, as container and prefix.
            others: branch -> places.
            copies: places of exact copies of the network.
        """
        layout = cls("")
        layout.branches = {"online": (online,)}
        layout.branches |= {branch: tuple(places) for branch, places in (others or {}).items()}
        layout.copies = tuple(copies)
        return layout

    def places(self) -> set[tuple[str, str]]:
        """All of them."""
        return {*self.branches["online"], *self.branches["momentum"], *self.copies}


def _place(text: str) -> tuple[str, str]:
    container, _, prefix = text.partition(":")
    return container.strip(), prefix.strip()


@dataclass(frozen=True)
class Source:
    """A publisher's or a library's way to store a ResNet.

    Attributes:
        name: what a user calls it.
        note: whose files these are.
        layouts: the kinds of file.
        mark: a beginning of keys in the container that only this row has among the rows of the
            same places.
        pixels: normalisation of the input in the publisher's training code; None where users of
            the code choose it, or where it depends on the data set.
    """

    name: str
    note: str
    layouts: tuple[Layout, ...]
    mark: str = ""
    pixels: PixelStatistics | None = IMAGENET


# SwAV's code divides by 0.228 where others divide by 0.229.
_SWAV = from_unit_range(IMAGENET_MEAN, (0.228, 0.224, 0.225))

SOURCES: tuple[Source, ...] = (
    Source(
        "cwrgp",
        "this project: cwrgp-pretrain, cwrgp-publish",
        (Layout("model: encoder.", "model: momentum_encoder."),),
        mark="projector.",
        pixels=None,  # the file itself states them
    ),
    Source("cwrgp-ddp", "CW-RGP's authors, ImageNet", (Layout("state_dict: module.model."),)),
    Source(
        "cwrgp-small",
        "CW-RGP's authors, small images",
        (Layout("state_dict: model.module."),),
        pixels=None,
    ),
    Source(
        "cwrgp-linear",
        "CW-RGP's authors, linear probe",
        (Layout("state_dict: module."),),
        mark="module.fc.",
    ),
    Source("wmse", "W-MSE's authors", (Layout(": model.module."),), pixels=None),
    Source(
        "intl",
        "INTL's authors",
        (Layout("state_dict: module.backbone.", "state_dict: module.momentum_backbone."),),
    ),
    Source(
        "moco",
        "MoCo v1 and v2",
        (Layout("state_dict: module.encoder_q.", "state_dict: module.encoder_k."),),
    ),
    Source(
        "moco_v3",
        "MoCo v3",
        (Layout("state_dict: module.base_encoder.", "state_dict: module.momentum_encoder."),),
    ),
    Source("simsiam", "SimSiam", (Layout("state_dict: module.encoder."),)),
    Source(
        "barlow_twins",
        "Barlow Twins: backbone, full",
        (Layout(":"), Layout("model: module.backbone.")),
    ),
    Source("vicreg", "VICReg: backbone, full", (Layout(":"), Layout("model: module.backbone."))),
    Source(
        "swav",
        "SwAV, DeepCluster-v2: released, while training",
        (Layout(": module."), Layout("state_dict: module.")),
        mark="module.projection_head.",
        pixels=_SWAV,
    ),
    Source(
        "dino",
        "DINO: backbone, full (its publishers evaluate the teacher)",
        (
            Layout(":"),
            Layout(
                "student: module.backbone.",
                "teacher: module.backbone.",
                "teacher: backbone.",
                default="momentum",
            ),
            Layout("student: backbone.", "teacher: backbone.", default="momentum"),
        ),
    ),
    Source(
        "densecl",
        "DenseCL: extracted, full",
        (
            Layout("state_dict:"),
            Layout(
                "state_dict: backbone.",
                "state_dict: encoder_k.0.",
                copies=("state_dict: encoder_q.0.",),
            ),
        ),
    ),
    Source(
        "mmselfsup",
        "OpenSelfSup, mmselfsup, mmpretrain: extracted, full",
        (
            Layout("state_dict:"),
            Layout(
                "state_dict: backbone.",
                "state_dict: encoder_k.0.",
                "state_dict: encoder_k.module.0.",
                "state_dict: target_net.0.",
                "state_dict: target_net.module.0.",
                copies=("state_dict: encoder_q.0.", "state_dict: online_net.0."),
            ),
        ),
    ),
    Source("pixpro", "PixPro", (Layout("model: module.encoder.", "model: module.encoder_k."),)),
    Source(
        "pycontrast",
        "PyContrast: InfoMin, CMC and others",
        (
            Layout("model: module.encoder.", "model_ema: module.encoder.", "model_ema: encoder."),
            Layout("model: encoder.", "model_ema: module.encoder.", "model_ema: encoder."),
        ),
        pixels=None,
    ),
    Source(
        "byol",
        "BYOL in PyTorch",
        (
            Layout(
                "model: module.online_network.encoder.", "model: module.target_network.encoder."
            ),
            Layout("model: online_network.encoder.", "model: target_network.encoder."),
        ),
        pixels=None,
    ),
    Source(
        "solo_learn",
        "solo-learn, and before 2021",
        (
            Layout("state_dict: backbone.", "state_dict: momentum_backbone."),
            Layout("state_dict: encoder.", "state_dict: momentum_encoder."),
        ),
        pixels=None,
    ),
    Source(
        "lightly",
        "lightly: benchmarks, DINO's, tutorials",
        (
            Layout(
                "state_dict: backbone.",
                "state_dict: teacher_backbone.",
                "state_dict: key_backbone.",
                "state_dict: backbone_momentum.",
            ),
            Layout(
                "state_dict: student_backbone.",
                "state_dict: backbone.",
                default="momentum",
                complete=True,
            ),
            Layout("state_dict: student_backbone.", "state_dict: teacher_backbone."),
            Layout("state_dict: query_backbone.", "state_dict: backbone.", complete=True),
            Layout(": backbone.", ": teacher_backbone.", ": backbone_momentum."),
        ),
        pixels=None,
    ),
    Source(
        "vissl",
        "VISSL",
        (
            Layout("classy_state_dict.base_model.model.trunk: _feature_blocks."),
            Layout("model_state_dict: _feature_blocks."),
        ),
    ),
    Source(
        "torchvision",
        "torchvision's own names",
        (Layout(":"), Layout("state_dict:"), Layout("model:", "model_ema: module.")),
    ),
    Source("timm", "timm", (Layout(":"), Layout("state_dict:", "state_dict_ema:", "model_ema:"))),
)

# Tensors beside a backbone under the same prefix: classifiers, projectors, queues, prototypes.
HEADS: tuple[str, ...] = ("fc.", "head.", "heads.", "classifier.", "prototypes.", "neck.", "queue")
HEADS += ("projector.", "projection_head.", "predictor.")


def source_names() -> list[str]:
    """The names that a user may give as the source."""
    return ["auto", *(row.name for row in SOURCES), TRANSFORMERS]


def describe_sources() -> str:
    """The table for a terminal: name, publisher, places of the networks."""
    lines = []
    for row in SOURCES:
        lines.append(f"{row.name:<13} {row.note}")
        for layout in row.layouts:
            for branch, places in layout.branches.items():
                for container, prefix in places:
                    where = f"{container}: {prefix}" if container else prefix or "(no prefix)"
                    lines.append(f"{'':<13}   {branch:<9} {where}")
    lines.append(f"{TRANSFORMERS:<13} Hugging Face: their names, under any prefix")
    lines.append(
        "Any other file that holds one ResNet, or a network and its average, is read, too."
    )
    return "\n".join(lines)
