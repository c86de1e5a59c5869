"""How far whitened targets move: closed forms, limits, and the paper's finding about PCA."""

from __future__ import annotations

import math

import pytest
import torch

from cwrgp.losses.batch_whitening import WhiteningLoss
from cwrgp.losses.contrastive import NTXentLoss
from cwrgp.losses.cwrgp import CWRGPLoss
from cwrgp.volatility import target_volatility
from cwrgp.whitening import whiten

METHODS = ("zca", "pca", "cholesky")


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("axis", "num_groups"), [("channel", 2), ("batch", 4)])
def test_scaled_embeddings_have_the_same_target_and_a_scaled_matrix(axis, num_groups, method):
    x = draw(3, 8, 24) if axis == "channel" else draw(3, 16, 24)
    options = {"axis": axis, "num_groups": num_groups, "method": method}
    same = target_volatility(x, x, **options)
    assert same.matrix == 0 and same.target == 0
    scaled = target_volatility(x, 4 * x, **options)
    assert math.isclose(scaled.matrix, 0.75, rel_tol=1e-9) and scaled.target < 1e-9
    opposite = target_volatility(x, -x, **options)
    assert opposite.matrix < 1e-9 and math.isclose(opposite.target, 2, rel_tol=1e-9)


def test_against_loops_with_a_fixed_permutation():
    before, after = draw(2, 3, 8, 24)
    permutation = torch.randperm(24)
    options = {"num_groups": 2, "permutation": permutation}
    matrices, targets = [], []
    for a, b in zip(before, after, strict=True):
        za, zb = whiten(a, **options), whiten(b, **options)
        targets.append((zb - za).norm() / za.norm())
        for group in permutation.chunk(2):
            roots = []
            for h in (a, b):
                g = (h - h.mean(1, keepdim=True))[:, group]
                values, u = torch.linalg.eigh(g @ g.T / 11)
                roots.append(u @ torch.diag(values**-0.5) @ u.T)
            matrices.append((roots[1] - roots[0]).norm() / roots[0].norm())
    got = target_volatility(before, after, **options)
    torch.testing.assert_close(got.matrix, torch.stack(matrices).mean())
    torch.testing.assert_close(got.target, torch.stack(targets).mean())


def test_axes_that_swap_move_the_target_of_pca_only():
    """Weng et al., section 3: two variances that cross by a small update exchange their axes."""
    x = torch.linalg.qr(draw(12, 3) - draw(12, 3).mean(0)).Q
    spread = torch.tensor([1.01, 1.0, 0.5], dtype=torch.float64)
    before, after = x * spread, x * spread[[1, 0, 2]]
    moved = {m: target_volatility(before, after, axis="batch", method=m) for m in METHODS}
    # Two of three columns become orthogonal to what they were, or the opposite.
    assert moved["pca"].target > math.sqrt(2 * 2 / 3) - 0.01
    assert moved["zca"].target < 0.02 and moved["cholesky"].target < 0.02


def test_batches_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"same samples are compared: got \(8, 24\) and \(7, 24\)"):
        target_volatility(draw(8, 24), draw(7, 24))


def test_losses_know_their_whitening():
    before, after = draw(2, 40, 24)
    loss = CWRGPLoss(2, 8)
    again = loss.target_volatility(before[:8], after[:8])
    # One partition of the channels
    assert loss.target_volatility(before[:8], after[:8]) == again and again.target > 0.1
    assert loss.target_volatility(before[:8], before[:8]).target == 0
    expected = target_volatility(before, after, axis="batch", method="pca", eps=0.1)
    assert WhiteningLoss("batch", "pca", eps=0.1).target_volatility(before, after) == expected
    for loss in (WhiteningLoss("batch", "standardize"), NTXentLoss()):
        assert loss.target_volatility(before, after) is None and not loss.inverts_covariance


def test_the_state_of_the_generator_is_left_alone():
    state = torch.get_rng_state()
    CWRGPLoss(2, 8).target_volatility(*draw(2, 8, 24))
    assert torch.equal(torch.get_rng_state(), state)
