"""Encoders, projectors and the order in which a method runs them."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from cwrgp.losses.batch_whitening import WhiteningLoss
from cwrgp.models.encoders import build_encoder
from cwrgp.models.heads import build_projector
from cwrgp.models.methods import JointEmbedding


@pytest.mark.parametrize(("arch", "width"), [("resnet18", 512), ("resnet50", 2048)])
def test_an_encoder_is_torchvisions_network_without_its_classifier(arch, width):
    encoder = build_encoder(arch, zero_init_residual=False).eval()
    assert encoder.inplanes == width
    reference = getattr(torchvision.models, arch)().eval()
    reference.load_state_dict({**reference.state_dict(), **encoder.state_dict()})
    reference.fc = nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoder(x), reference(x))


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 1), ("small", 4), ("small_pool", 2)])
def test_stems_keep_the_resolution_that_they_promise(stem, side):
    encoder = build_encoder("resnet18", stem=stem)
    sizes = []
    encoder.layer4.register_forward_hook(lambda *args: sizes.append(args[2].shape[-1]))
    encoder(torch.randn(2, 3, 32, 32))
    assert sizes == [side]


def test_zero_init_residual_makes_blocks_start_as_the_identity():
    encoder = build_encoder("resnet18")
    block = encoder.layer1[0].eval()
    x = torch.rand(1, 64, 8, 8)
    torch.testing.assert_close(block(x), x)


def test_a_projector_has_the_papers_layers():
    kinds = [
        type(layer).__name__ for layer in build_projector(8, hidden_features=16, out_features=4)
    ]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    three = build_projector(8, hidden_features=16, out_features=4, num_layers=3)
    assert [layer.out_features for layer in three if isinstance(layer, nn.Linear)] == [16, 16, 4]
    assert len(build_projector(8, hidden_features=16, out_features=4, num_layers=1)) == 1


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="^arch 'resnet20' is unknown; choose one of .*resnet18"):
        build_encoder("resnet20")
    with pytest.raises(ValueError, match="^stem 'tiny' is unknown; choose one of .*small_pool"):
        build_encoder("resnet18", stem="tiny")
    with pytest.raises(ValueError, match="^num_layers 0 is below 1"):
        build_projector(8, hidden_features=16, out_features=4, num_layers=0)


def test_the_encoder_sees_views_alone_and_the_projector_all_of_them():
    # BatchNorm tells: its statistics are those of what it is given at once.
    batches = {"encoder": [], "projector": []}

    class Watch(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            batches[self.name].append(len(x))
            return x

    method = JointEmbedding(Watch("encoder"), Watch("projector"), WhiteningLoss("batch", "none"))
    output = method(list(torch.randn(3, 5, 7)))
    assert batches == {"encoder": [5, 5, 5], "projector": [15]}
    assert output.embeddings.shape == (3, 5, 7) and output.losses["loss_cwrgp"].ndim == 0
