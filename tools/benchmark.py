"""Measures ratios: A and B in turn, A B A B ..., in one process; the medians and the median ratio.

python tools/benchmark.py            # on the GPU where there is one
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from cwrgp.cli import run_main
from cwrgp.engine.precision import Precision, has_fast_bf16
from cwrgp.launch import local_device
from cwrgp.losses.base import pair_loss
from cwrgp.losses.cwrgp import CWRGPLoss
from cwrgp.models.encoders import build_encoder
from cwrgp.models.heads import build_projector
from cwrgp.models.methods import JointEmbedding


def looped_loss(views: Tensor, num_groups: int, subbatch_size: int) -> Tensor:
    """The same loss in the obvious way: an SVD for each view, sub-batch and group."""
    num_views, batch, channels = views.shape
    whitened = torch.empty_like(views)
    for members in torch.randperm(batch, device=views.device).split(subbatch_size):
        for v in range(num_views):
            h = views[v, members]
            h = h - h.mean(1, keepdim=True)
            for group in torch.randperm(channels, device=views.device).chunk(num_groups):
                x = h[:, group]
                u, s, _ = torch.linalg.svd(x @ x.T / (len(group) - 1))
                whitened[v, members.unsqueeze(1), group] = u @ torch.diag(s.rsqrt()) @ u.T @ x
    return pair_loss(whitened)


def in_turn(name: str, a: Callable[[], object], b: Callable[[], object], rounds: int) -> None:
    """Prints the seconds of ``a`` and ``b`` and how many times faster ``a`` is."""
    times: list[tuple[float, float]] = []
    for _ in range(rounds + 2):
        pair = []
        for function in (a, b):
            start = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            pair.append(time.perf_counter() - start)
        times.append((pair[0], pair[1]))
    times = times[2:]  # the first two warm up
    median_a, median_b = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(second / first for first, second in times)
    print(f"{name:<58} {1e3 * median_a:9.1f} ms {1e3 * median_b:9.1f} ms {ratio:7.2f} x")


def main(args: argparse.Namespace) -> None:
    device = local_device()
    on_gpu = device.type == "cuda"
    hardware = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {device.type}, {hardware}, {args.rounds} rounds")
    print(f"{'':<58} {'A':>12} {'B':>12} {'B / A':>9}")

    for views, batch, width, groups, sub in [(4, 256, 512, 4, 64), (4, 512, 1024, 2, 128)]:
        h = torch.randn(views, batch, width, device=device, requires_grad=True)
        loss = CWRGPLoss(groups, sub)

        def batched(h: Tensor = h, loss: CWRGPLoss = loss) -> None:
            loss(h).backward()

        def looped(h: Tensor = h, num_groups: int = groups, subbatch_size: int = sub) -> None:
            looped_loss(h, num_groups, subbatch_size).backward()

        name = f"loss {views} x {batch} x {width}: A batched eigh, B looped SVD"
        in_turn(name, batched, looped, args.rounds)

    encoder = build_encoder("resnet18")
    projector = build_projector(512, hidden_features=1024, out_features=512)
    method = JointEmbedding(encoder, projector, CWRGPLoss(4, 64)).to(device)
    images = [torch.randn(64, 3, 64, 64, device=device) for _ in range(2)]

    def step(fast: bool) -> None:
        precision = Precision.choose(device, enabled=fast)
        layout = precision.memory_format
        method.to(memory_format=layout)
        with precision.ieee_fp32():
            with precision.autocast():
                output = method([view.to(memory_format=layout) for view in images])
            output.losses["loss_cwrgp"].backward()
        method.zero_grad()

    if has_fast_bf16(device):
        name = "step of ResNet-18, 2 x 64 x 64 px: A bf16 channels_last, B fp32"
        in_turn(name, lambda: step(True), lambda: step(False), args.rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="pairs that are measured")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    sys.exit(run_main(main, parser.parse_args()))
