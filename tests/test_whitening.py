"""Whitening against an oracle written from the equations, its identities, its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cwrgp.inverse_root import inverse_sqrt
from cwrgp.whitening import smallest_eigenvalue, whiten, whitening_matrix


def oracle(
    x: Tensor, *, axis: str, method: str, num_groups: int, permutation: Tensor | None, eps: float
) -> Tensor:
    """One matrix at a time, in the order in which the paper says it; (N, D) -> (N, D)."""
    num_samples, num_channels = x.shape
    order = torch.arange(num_channels) if permutation is None else permutation
    size = num_channels // num_groups
    rows = []
    for n in range(num_samples):
        mean = sum(x[n]) / num_channels if axis == "channel" else sum(x) / num_samples
        rows.append(x[n] - mean)
    centred = torch.stack(rows)
    columns: list[Tensor] = [x[:, 0]] * num_channels
    for g in range(num_groups):
        members = order[g * size : (g + 1) * size]
        block = centred[:, members]
        block = block if axis == "channel" else block.T
        s = block @ block.T / (block.shape[1] - 1)
        s = (1 - eps) * s + eps * torch.eye(len(s), dtype=x.dtype)
        if method == "cholesky":
            w = torch.linalg.inv(torch.linalg.cholesky(s))
        else:
            u, values, _ = torch.linalg.svd(s)
            w = torch.diag(values**-0.5) @ u.T
            w = u @ w if method == "zca" else w
        z = w @ block
        z = z if axis == "channel" else z.T
        for place, member in enumerate(members.tolist()):
            columns[member] = z[:, place]
    return torch.stack(columns, dim=1)


CASES = [
    ("channel", "zca", 1, 0.0),
    ("channel", "zca", 4, 0.0),
    ("channel", "zca", 2, 0.1),
    ("channel", "cholesky", 2, 0.0),
    ("channel", "pca", 2, 0.0),
    ("batch", "zca", 8, 0.0),
    ("batch", "cholesky", 8, 0.01),
    ("batch", "pca", 16, 0.0),
]


@pytest.mark.parametrize(("axis", "method", "num_groups", "eps"), CASES)
@pytest.mark.parametrize("permute", [False, True])
def test_value_and_gradient_equal_the_oracle(axis, method, num_groups, eps, permute):
    torch.manual_seed(0)
    x = torch.randn(3, 8, 48, dtype=torch.float64, requires_grad=True)
    permutation = torch.rand(3, 48).argsort(-1) if permute else None
    weight = torch.randn(3, 8, 48, dtype=torch.float64)
    z = whiten(x, axis=axis, method=method, num_groups=num_groups, permutation=permutation, eps=eps)
    expected = torch.stack(
        [
            oracle(
                x[i],
                axis=axis,
                method=method,
                num_groups=num_groups,
                permutation=None if permutation is None else permutation[i],
                eps=eps,
            )
            for i in range(3)
        ]
    )
    if method == "pca":  # an eigenvector's sign is free: compare what does not depend on it
        z, expected = z.square(), expected.square()
    torch.testing.assert_close(z, expected, rtol=1e-9, atol=1e-10)
    (grad,) = torch.autograd.grad((z * weight).sum(), x, retain_graph=True)
    (expected_grad,) = torch.autograd.grad((expected * weight).sum(), x)
    assert (grad - expected_grad).norm() < 1e-9 * expected_grad.norm()


@pytest.mark.parametrize("method", ["zca", "pca", "cholesky"])
def test_channel_whitening_makes_the_samples_uncorrelated_in_every_group(method):
    x = torch.randn(2, 6, 40, dtype=torch.float64)
    z = whiten(x, method=method, num_groups=4)
    groups = z.unflatten(-1, (4, 10)).movedim(-2, 1)
    eye = torch.eye(6, dtype=torch.float64).expand(2, 4, 6, 6)
    torch.testing.assert_close(groups @ groups.mT / 9, eye)


@pytest.mark.parametrize("method", ["zca", "pca", "cholesky"])
def test_batch_whitening_makes_the_channels_uncorrelated_and_centred(method):
    x = torch.randn(40, 6, dtype=torch.float64)
    z = whiten(x, axis="batch", method=method)
    torch.testing.assert_close(z.T @ z / 39, torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(z.mean(0), torch.zeros(6, dtype=torch.float64))


def test_full_shrinkage_only_centres():
    x = torch.randn(6, 40, dtype=torch.float64)
    torch.testing.assert_close(
        whiten(x, eps=1 - 1e-15, num_groups=2), x - x.mean(1, keepdim=True), rtol=1e-6, atol=1e-6
    )


def test_whitening_twice_is_whitening_once():
    # With one group a whitened row is still centred, so its covariance is the identity already.
    z = whiten(torch.randn(6, 40, dtype=torch.float64))
    torch.testing.assert_close(whiten(z), z)


@pytest.mark.parametrize("eigenvalues", [[1.0, 1.0, 1.0, 1.0], [0.3, 2.0, 2.0, 2.0], [1, 2, 3, 4]])
def test_gradient_of_the_inverse_root_with_repeated_eigenvalues(eigenvalues):
    torch.manual_seed(0)
    q = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    s = (q * torch.tensor(eigenvalues, dtype=torch.float64)) @ q.T
    s.requires_grad_()
    # Symmetrised inside, since only symmetric perturbations stay in the function's domain.
    assert torch.autograd.gradcheck(lambda a: inverse_sqrt((a + a.mT) / 2), (s,))


def test_gradcheck_of_whitening_an_orthogonal_batch():
    # Rows that are orthonormal and centred: all eigenvalues of the covariance are the same.
    torch.manual_seed(0)
    x = torch.randn(4, 16, dtype=torch.float64)
    x = whiten(x).requires_grad_()
    permutation = torch.randperm(16)
    assert torch.autograd.gradcheck(lambda a: whiten(a, permutation=permutation), (x,))
    assert torch.autograd.gradcheck(lambda a: whiten(a, num_groups=2, eps=0.1), (x,))


def test_fp32_is_close_to_fp64():
    torch.manual_seed(0)
    x = torch.randn(64, 512, dtype=torch.float64, requires_grad=True)
    y = x.detach().float().requires_grad_()
    weight = torch.randn(64, 512, dtype=torch.float64)
    expected, z = whiten(x, num_groups=4), whiten(y, num_groups=4)
    (expected * weight).sum().backward()
    (z * weight.float()).sum().backward()
    assert (z - expected).norm() < 1e-4 * expected.norm()
    assert (y.grad - x.grad).norm() < 1e-4 * x.grad.norm()


@pytest.mark.parametrize("method", ["zca", "pca"])
def test_shrinkage_is_enough_whatever_the_scale_of_a_singular_covariance(method):
    """Rounding leaves computed eigenvalues below 0, and they are eps at least."""
    torch.manual_seed(0)
    x = 3 * torch.randn(40, 64, 1, dtype=torch.float64) @ torch.randn(40, 1, 256).double()
    x += 1e-4 * torch.randn_like(x)
    assert smallest_eigenvalue(x.float(), eps=1e-4) < 0
    y = x.float().requires_grad_()
    z = whiten(y, method=method, eps=1e-4)
    z.square().sum().backward()
    assert z.isfinite().all() and y.grad.isfinite().all()
    if method == "zca":
        expected = whiten(x, method=method, eps=1e-4)
        assert (z - expected).norm() < 0.02 * expected.norm()
    assert whitening_matrix(y.detach(), method=method, eps=1e-4).isfinite().all()


def test_half_precision_and_autocast_are_computed_in_fp32():
    x = torch.randn(8, 64).bfloat16()
    expected = whiten(x.float(), num_groups=2)
    with torch.autocast("cpu", torch.bfloat16):
        z = whiten(x, num_groups=2)
        z32 = whiten(x.float(), num_groups=2)
    assert z.dtype == torch.float32
    torch.testing.assert_close(z, expected)
    torch.testing.assert_close(z32, expected)


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((8, 32), {"method": "svd"}, "whitening method 'svd' is unknown"),
        ((8, 32), {"axis": "rows"}, "axis 'rows' is unknown"),
        ((8, 32), {"num_groups": 5}, "32 channels do not divide into 5 groups"),
        ((8, 32), {"eps": 1.0}, r"eps 1.0 is outside \[0, 1\)"),
        ((32, 32), {}, "singular covariance"),
        ((9, 32), {"num_groups": 4}, r"9 samples x 32 channels in 4 group\(s\) of 8"),
        ((8, 8), {"axis": "batch"}, "more samples than channels"),
        (
            (8, 8),
            {"num_groups": 8, "eps": 0.1},
            r"has 1 observation\(s\) a variable; it needs more",
        ),
        ((1, 8), {"axis": "batch", "eps": 0.1}, r"has 1 observation\(s\) a variable"),
    ],
)
def test_what_cannot_be_whitened_is_refused(shape, arguments, message):
    with pytest.raises(ValueError, match=message):
        whiten(torch.randn(shape), **arguments)


BAD = ["equal", "nan", "inf", "one nan"]


def spoil(x: Tensor, kind: str) -> Tensor:
    """(N, D): its covariance is 0 exactly, or not finite."""
    if kind == "equal":
        # Powers of two, so that the mean has no rounding error and the centred x is 0.
        return torch.full_like(x, 2.0)
    bad = x.clone()
    bad[1, 1] = torch.inf if kind == "inf" else torch.nan
    return bad * torch.nan if kind == "nan" else bad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [2, 4, 40])
@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("method", ["zca", "pca", "cholesky"])
@pytest.mark.parametrize("axis", ["channel", "batch"])
def test_one_bad_matrix_is_not_finite_and_leaves_the_others_as_they_are(
    axis, method, kind, size, dtype
):
    shape = (size, 64) if axis == "channel" else (64, size)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    x[1] = spoil(x[1], kind)
    x.requires_grad_()
    z = whiten(x, axis=axis, method=method)
    assert not z[1].isfinite().any()
    torch.testing.assert_close(z[::2], whiten(x[::2], axis=axis, method=method))
    (gradient,) = torch.autograd.grad(z.square().sum(-1).sqrt().sum(), x)
    assert not gradient[1].isfinite().all()
    (expected,) = torch.autograd.grad(
        whiten(x[::2], axis=axis, method=method).square().sum(-1).sqrt().sum(), x
    )
    torch.testing.assert_close(gradient[::2], expected[::2])


@pytest.mark.parametrize("method", ["zca", "pca", "cholesky"])
def test_shrinkage_whitens_what_is_singular(method):
    x = torch.full((8, 64), 2.0)
    assert whiten(x, method=method, eps=1e-3).isfinite().all()


def test_a_channel_without_variance_stops_cholesky():
    # The case of a dead unit. Eigenvalues of 0 are subject to rounding; the pivot here is exact.
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    x[:, 3] = 2
    assert not whiten(x, axis="batch", method="cholesky").isfinite().all()


def test_the_limits_of_the_rank_are_the_true_ones():
    x = torch.randn(8, 32, dtype=torch.float64)
    assert whiten(x, num_groups=4).isfinite().all()  # C = N
    assert whiten(torch.randn(31, 32, dtype=torch.float64)).isfinite().all()  # C = N + 1
    assert whiten(torch.randn(9, 8, dtype=torch.float64), axis="batch").isfinite().all()
    assert whiten(torch.randn(40, 32), eps=0.1).isfinite().all()


@pytest.mark.parametrize("axis", ["channel", "batch"])
def test_the_smallest_eigenvalue_is_that_of_the_covariance_that_is_inverted(axis):
    generator = torch.Generator().manual_seed(0)
    n, d = (4, 24) if axis == "channel" else (24, 4)
    x = torch.randn(3, n, d, generator=generator, dtype=torch.float64)
    expected = []
    for sample in x:
        h = sample - sample.mean(1 if axis == "channel" else 0, keepdim=True)
        for half in h.split(d // 2, dim=1):
            s = half @ half.T / (d // 2 - 1) if axis == "channel" else half.T @ half / (n - 1)
            expected.append(torch.linalg.eigvalsh(0.9 * s + 0.1 * torch.eye(len(s))).min())
    found = smallest_eigenvalue(x, axis=axis, num_groups=2, eps=0.1)
    torch.testing.assert_close(found, torch.stack(expected).min())
    assert smallest_eigenvalue(x * torch.nan).isnan()


def test_the_gradient_of_the_inverse_root_is_symmetric():
    s = torch.tensor([[2.0, 0.5], [0.5, 1.0]], requires_grad=True)
    inverse_sqrt(s).backward(torch.tensor([[1.0, 3.0], [0.0, 2.0]]))
    torch.testing.assert_close(s.grad, s.grad.T)


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("axis", ["channel", "batch"])
def test_the_gradient_of_zca_is_that_of_autograd_through_eigh(axis, eps):
    torch.manual_seed(0)
    shape = (2, 6, 40) if axis == "channel" else (2, 40, 6)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(shape, dtype=torch.float64)
    h = x - x.mean(-1 if axis == "channel" else -2, keepdim=True)
    h = h if axis == "channel" else h.mT
    s = (1 - eps) * h @ h.mT / 39 + eps * torch.eye(6, dtype=torch.float64)
    eigenvalues, u = torch.linalg.eigh(s)
    z = (u * eigenvalues.rsqrt().unsqueeze(-2)) @ u.mT @ h
    z = z if axis == "channel" else z.mT
    (expected,) = torch.autograd.grad((z * weight).sum(), x)
    (grad,) = torch.autograd.grad((whiten(x, axis=axis, eps=eps) * weight).sum(), x)
    torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("function", [whiten, lambda x: inverse_sqrt(x @ x.mT)])
def test_a_second_derivative_is_refused(function):
    x = torch.randn(4, 16, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second derivative; use create_graph=False"):
        torch.autograd.grad(function(x).pow(3).sum(), x, create_graph=True)


def test_the_last_dimension_need_not_be_contiguous():
    x = torch.randn(16, 4, 3, dtype=torch.float64).permute(2, 1, 0)
    permutation = torch.rand(3, 16).argsort(-1)
    found = whiten(x, permutation=permutation, num_groups=2)
    expected = whiten(x.contiguous(), permutation=permutation, num_groups=2)
    torch.testing.assert_close(found, expected)


def test_a_permutation_is_shared_by_leading_dimensions():
    x = torch.randn(2, 3, 4, 16, dtype=torch.float64)
    permutation = torch.rand(3, 16).argsort(-1)
    found = whiten(x, permutation=permutation, num_groups=2)
    for part, expected in zip(x, found, strict=True):
        torch.testing.assert_close(whiten(part, permutation=permutation, num_groups=2), expected)


@pytest.mark.parametrize("method", ["zca", "pca", "cholesky"])
@pytest.mark.parametrize("axis", ["channel", "batch"])
def test_the_whitening_matrix_is_what_whitens(axis, method):
    torch.manual_seed(0)
    x, permutation = torch.randn(3, 10, 16, dtype=torch.float64), torch.randperm(16)
    options = {"axis": axis, "method": method, "num_groups": 2, "eps": 0.1}
    w = whitening_matrix(x, permutation=permutation, **options)
    h = (x - x.mean(-1 if axis == "channel" else -2, keepdim=True))[..., permutation]
    groups = torch.stack(h.chunk(2, -1), 1)
    z = (w.mT @ groups) if axis == "channel" else (groups @ w)
    whitened = whiten(x, permutation=permutation, **options)[..., permutation]
    torch.testing.assert_close(torch.cat(z.unbind(1), -1), whitened)
    with pytest.raises(ValueError, match="whitening method 'qr' is unknown"):
        whitening_matrix(x, method="qr")
