"""Every pretraining YAML builds, has the published values, and starts with its command."""

from __future__ import annotations

import math
import re

import pytest
import torch
from repository import REPOSITORY

from cwrgp.builders.data import build_specs
from cwrgp.builders.methods import build_method, build_networks
from cwrgp.builders.solver import build_learning_rate, build_plan, build_precision, build_solver
from cwrgp.cli import load_config
from cwrgp.config import get_cfg, unused_keys, validate_cfg

FOLDER = REPOSITORY / "configs" / "pretrain"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
CONFIGS += sorted((REPOSITORY / "configs" / "quick").glob("pretrain*.yaml"))

# Number of training images.
IMAGES = {
    "cifar10": 50_000,
    "cifar100": 50_000,
    "stl10": 105_000,
    "tiny_imagenet": 100_000,
    "imagenet": 1_281_167,
    "imagenet100": 126_689,
}
STEMS = {"cifar10": "small", "cifar100": "small", "stl10": "small_pool"}
STEMS |= {"tiny_imagenet": "small_pool"}

# The recipes, written a second time. CW-RGP: data set, epochs, learning rate after the warm-up,
# batch, views, embedding, hidden, sub-batch, groups, draws.
CWRGP = {
    "cifar10_cwrgp4_r18": ("cifar10", 1000, 3e-3, 256, 4, 512, 1024, 64, 4, 1),
    "cifar10_cwrgp2_r18": ("cifar10", 1000, 3e-3, 256, 2, 512, 1024, 64, 4, 4),
    "cifar100_cwrgp4_r18": ("cifar100", 1000, 3e-3, 256, 4, 512, 1024, 64, 4, 1),
    "cifar100_cwrgp2_r18": ("cifar100", 1000, 3e-3, 512, 2, 512, 1024, 64, 4, 1),
    "stl10_cwrgp4_r18": ("stl10", 2000, 2e-3, 256, 4, 512, 1024, 64, 4, 1),
    "stl10_cwrgp2_r18": ("stl10", 2000, 2e-3, 512, 2, 512, 1024, 64, 4, 1),
    "tiny_imagenet_cwrgp4_r18": ("tiny_imagenet", 1000, 2e-3, 256, 4, 1024, 2048, 128, 2, 1),
    "tiny_imagenet_cwrgp2_r18": ("tiny_imagenet", 1000, 2e-3, 512, 2, 1024, 2048, 128, 2, 1),
    "imagenet_cwrgp4_r50_100ep": ("imagenet", 100, 0.1, 512, 4, 1024, 2048, 128, 2, 1),
    "imagenet_cwrgp4_r50_200ep": ("imagenet", 200, 0.1, 512, 4, 1024, 2048, 128, 2, 1),
    "imagenet_cwrgp4_r50_100ep_cov": ("imagenet", 100, 0.1, 512, 4, 1024, 2048, 128, 2, 1),
    "imagenet_cwrgp4_r50_200ep_cov": ("imagenet", 200, 0.1, 512, 4, 1024, 2048, 128, 2, 1),
}  # fmt: skip


# INTL: data set, architecture, epochs, learning rate after the warm-up, batch, weight decay,
# hidden, embedding, momentum.
def _mc_ema(epochs, lr):
    return "imagenet", "resnet50", epochs, lr, 256, 1e-5, 8192, 8192, 0.996


INTL = {
    "imagenet_intl_r50_800ep": ("imagenet", "resnet50", 800, 0.3, 256, 1e-5, 8192, 8192, 0),
    "imagenet_intl_mc_ema_r50_100ep": _mc_ema(100, 0.5),
    "imagenet_intl_mc_ema_r50_200ep": _mc_ema(200, 0.4),
    "imagenet_intl_mc_ema_r50_400ep": _mc_ema(400, 0.4),
    "imagenet_intl_mc_ema_r50_800ep": _mc_ema(800, 0.3),
    "imagenet100_intl_r18": ("imagenet100", "resnet18", 400, 0.25, 128, 2.5e-5, 4096, 8192, 0),
    "cifar10_intl_r18": ("cifar10", "resnet18", 1000, 0.3, 256, 1e-4, 2048, 2048, 0),
    "cifar100_intl_r18": ("cifar100", "resnet18", 1000, 0.3, 256, 1e-4, 2048, 2048, 0),
}  # fmt: skip
# Of those with a covariance penalty: its weight and the epoch of its end.
PENALTIES = {
    "imagenet_cwrgp4_r50_100ep_cov": (0.005, 50),
    "imagenet_cwrgp4_r50_200ep_cov": (0.01, 100),
}
# Iterations of an epoch, of data set and batch.
ITERATIONS = {
    ("cifar10", 256): 195,
    ("cifar100", 256): 195,
    ("cifar100", 512): 97,
    ("stl10", 256): 410,
    ("stl10", 512): 205,
    ("tiny_imagenet", 256): 390,
    ("tiny_imagenet", 512): 195,
    ("imagenet", 512): 2502,
    ("imagenet", 256): 5004,
    ("imagenet100", 128): 989,
}
# What is expected of them, as the headers say it: linear, and 5-NN.
EXPECTED = {
    "cifar10_cwrgp4_r18": "92.47, 5-NN 90.74",
    "cifar10_cwrgp2_r18": "91.92, 5-NN 89.54",
    "cifar100_cwrgp4_r18": "68.26, 5-NN 58.67",
    "cifar100_cwrgp2_r18": "67.51, 5-NN 57.35",
    "stl10_cwrgp4_r18": "92.04, 5-NN 88.95",
    "stl10_cwrgp2_r18": "90.76, 5-NN 87.34",
    "tiny_imagenet_cwrgp4_r18": "50.24, 5-NN 35.99",
    "tiny_imagenet_cwrgp2_r18": "49.23, 5-NN 34.04",
    "imagenet_cwrgp4_r50_100ep": "69.7 top-1",
    "imagenet_cwrgp4_r50_200ep": "71.0 top-1",
    "imagenet_cwrgp4_r50_100ep_cov": "69.7 top-1",
    "imagenet_cwrgp4_r50_200ep_cov": "71.0 top-1",
    "imagenet_intl_r50_800ep": "73.1 top-1",
    "imagenet_intl_mc_ema_r50_100ep": "73.5 top-1",
    "imagenet_intl_mc_ema_r50_200ep": "75.2 top-1",
    "imagenet_intl_mc_ema_r50_400ep": "76.1 top-1",
    "imagenet_intl_mc_ema_r50_800ep": "76.6 top-1",
    "imagenet100_intl_r18": "81.68, 5-NN 73.46",
    "cifar10_intl_r18": "92.60, 5-NN 90.03",
    "cifar100_intl_r18": "70.88, 5-NN 61.90",
}
# Of a data set: mean, std, side of a view, of the probe's images.
COLOURS = {
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010], 32, 32),
    "cifar100": ([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761], 32, 32),
    "stl10": ([0.43, 0.42, 0.39], [0.27, 0.26, 0.27], 64, 70),
    "tiny_imagenet": ([0.480, 0.448, 0.398], [0.277, 0.269, 0.282], 64, 64),
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 224, 256),
    "imagenet100": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 224, 256),
}
# The comparisons on CIFAR-10, which have no published recipe of the paper's own.
OTHERS = {f"cifar10_{name}_r18" for name in (
    "wmse", "simclr", "byol", "simsiam", "barlow_twins", "vicreg",
    "plain", "bn", "pca", "zca_bw", "zca_cw",
)}  # fmt: skip
# Recipes that continue from published weights on photos of one's own.
ADAPT = {"adapt_r18", "adapt_r50"}


def read(path, *opts):
    cfg = get_cfg()
    load_config(cfg, str(path), ["DATA.ROOT", "data", *map(str, opts)])
    validate_cfg(cfg)
    return cfg


def header_of(path):
    lines = path.read_text().splitlines()
    return "\n".join(line for line in lines[: lines.index(next(x for x in lines if x[0] != "#"))])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_builds_at_its_full_size(path):
    cfg = read(path)
    with torch.device("meta"):  # shapes without numbers: projectors of 150 million parameters
        method = build_method(cfg)
        features = method.encoder(torch.zeros(2, 3, 32, 32))
        assert features.shape == (2, method.encoder.inplanes)
        assert method.projector(features).shape == (2, cfg.MODEL.PROJECTOR.OUT)
    assert len(build_specs(cfg)) == cfg.DATA.NUM_VIEWS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_sets_no_key_without_effect(path):
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    with torch.device("meta"):
        method = build_method(cfg)
    plan = build_plan(cfg, 10_000_000)
    build_solver(cfg, method, build_learning_rate(cfg, plan)(0))
    build_specs(cfg)
    build_precision(cfg, torch.device("cpu"))
    built = ("MODEL.", "METHOD.", "SOLVER.", "AUGMENT.")
    unused = set(unused_keys(cfg)) - {"MODEL.WEIGHTS"}  # it is read where a run starts
    assert not [key for key in unused if key.startswith(built)]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_starts_with_its_command_and_what_to_expect(path):
    header = header_of(path)
    name = re.escape(f"{path.parent.name}/{path.name}")
    assert re.search(rf"^# Command: cwrgp-pretrain .*--config-file {name} ", header, re.M)
    assert "# Expected: " in header
    if path.parent == FOLDER:
        assert re.search("^# Time and hardware: ", header, re.M)
        assert re.search("not (reproduced|measured) here", header)
    assert f"output/{path.stem}" == read(path).OUTPUT_DIR or path.parent != FOLDER


@pytest.mark.parametrize("name", EXPECTED)
def test_a_header_says_what_is_expected_and_who_says_so(name):
    header = header_of(FOLDER / f"{name}.yaml").replace(" of a linear classifier", "")
    assert f"{EXPECTED[name]} (Weng et al., {2022 if name in CWRGP else 2024}" in header


@pytest.mark.parametrize("name", CWRGP)
def test_a_recipe_of_cwrgp_has_the_published_values(name):
    data, epochs, lr, batch, views, out, hidden, sub, groups, draws = CWRGP[name]
    iterations = ITERATIONS[data, batch]
    cfg = read(FOLDER / f"{name}.yaml")
    plan = build_plan(cfg, IMAGES[data])
    learning_rate = build_learning_rate(cfg, plan)
    large = data == "imagenet"
    assert (data, "cwrgp") == (cfg.DATA.NAME, cfg.METHOD.NAME)
    assert (plan.steps_per_epoch, plan.total_steps) == (iterations, epochs * iterations)
    assert learning_rate(0) == pytest.approx(lr / 500) and learning_rate(499) == pytest.approx(lr)
    if large:
        for epoch in (1, epochs // 2, epochs - 1):
            cosine = lr * (1 + math.cos(math.pi * epoch / epochs)) / 2
            assert learning_rate(epoch * iterations) == pytest.approx(cosine)
            assert learning_rate((epoch + 1) * iterations - 1) == pytest.approx(cosine)
    else:
        for epoch, share in ((51, 1), (50, 0.2), (26, 0.2), (25, 0.04), (1, 0.04)):
            assert learning_rate((epochs - epoch) * iterations) == pytest.approx(lr * share)
    assert (batch, views) == (cfg.SOLVER.BATCH_SIZE, cfg.DATA.NUM_VIEWS)
    layers = 3 if large else 2
    p = cfg.MODEL.PROJECTOR
    assert (layers, out, hidden) == (p.LAYERS, p.OUT, p.HIDDEN) and p.HIDDEN_BIAS
    c = cfg.METHOD.CWRGP
    assert (sub, groups, draws) == (c.SUBBATCH_SIZE, c.NUM_GROUPS, c.NUM_DRAWS)
    assert PENALTIES.get(name, (0, 0)) == (c.COVARIANCE_WEIGHT, c.COVARIANCE_EPOCHS)
    assert c.RANDOM_PARTITION and c.NORMALIZE and c.EPS == 0
    solver = ("sgd", 0.9, 1e-4, True) if large else ("adam", 0.9, 1e-6, True)
    s = cfg.SOLVER
    assert solver == (s.OPTIMIZER, s.MOMENTUM, s.WEIGHT_DECAY, s.DECAY_BIAS_AND_NORM)
    assert s.ACCUMULATE == 1
    assert ("resnet50" if large else "resnet18") == cfg.MODEL.ARCH and cfg.MODEL.ZERO_INIT_RESIDUAL
    assert STEMS.get(data, "imagenet") == cfg.MODEL.STEM
    assert_colours(cfg, data)
    a = cfg.AUGMENT
    assert (a.CROP_SCALE, a.JITTER, a.JITTER_PROB) == ([0.2, 1.0], [0.4, 0.4, 0.4, 0.1], 0.8)
    assert (a.FLIP_PROB, a.SOLARIZE_PROB, a.PER_VIEW) == (0.5, 0, [])
    rest = ("bilinear", True, 0.2, 0.5) if large else ("bicubic", False, 0.1, 0)
    assert rest == (a.INTERPOLATION, a.CROP_FIRST, a.GRAYSCALE_PROB, a.BLUR_PROB)
    probe = cfg.EVAL.LINEAR
    linear = ("larc", 100, 1024, 0.4, 0, 0) if large else ("adam", 500, 1000, 1e-2, 1e-6, 5e-6)
    assert linear == (probe.OPTIMIZER, probe.EPOCHS, probe.BATCH_SIZE, probe.LR, probe.FINAL_LR,
                      probe.WEIGHT_DECAY)  # fmt: skip
    assert cfg.EVAL.KNN_K == 5


@pytest.mark.parametrize("name", INTL)
def test_a_recipe_of_intl_has_the_published_values(name):
    data, arch, epochs, lr, batch, decay, hidden, out, momentum = INTL[name]
    iterations = ITERATIONS[data, batch]
    cfg = read(FOLDER / f"{name}.yaml")
    plan = build_plan(cfg, IMAGES[data])
    learning_rate = build_learning_rate(cfg, plan)
    small = data.startswith("cifar")
    assert (data, "intl", momentum) == (cfg.DATA.NAME, cfg.METHOD.NAME, cfg.METHOD.EMA)
    assert (plan.steps_per_epoch, plan.total_steps) == (iterations, epochs * iterations)
    warmup = 2 * iterations
    assert learning_rate(warmup - 1) == pytest.approx(lr)
    assert learning_rate(iterations - 1) == pytest.approx(lr / 2)
    last, middle = plan.total_steps - 1, (warmup + plan.total_steps) // 2
    # Half way between the ends; half an iteration's change is the tolerance.
    assert learning_rate(middle) == pytest.approx(lr * (1 + 0.001) / 2, rel=1e-4)
    assert learning_rate(last) == pytest.approx(0.001 * lr, rel=1e-2)
    assert learning_rate(middle + 1) < learning_rate(middle) < learning_rate(middle - 1)
    s = cfg.SOLVER
    assert ("sgd", 0.9, batch) == (s.OPTIMIZER, s.MOMENTUM, s.BATCH_SIZE)
    assert (decay, small) == (s.WEIGHT_DECAY, s.DECAY_BIAS_AND_NORM)
    assert small != s.AMP.ENABLED
    p = cfg.MODEL.PROJECTOR
    assert (3, hidden, out, False, False) == (p.LAYERS, p.HIDDEN, p.OUT, p.HIDDEN_BIAS, p.LAST_BN)
    assert (arch, STEMS.get(data, "imagenet")) == (cfg.MODEL.ARCH, cfg.MODEL.STEM)
    assert (arch == "resnet50") == cfg.MODEL.ZERO_INIT_RESIDUAL
    assert cfg.METHOD.INTL.ITERATIONS == 4 and cfg.METHOD.INTL.TRACE_WEIGHT == -1
    assert_colours(cfg, data)
    a = cfg.AUGMENT
    assert (a.JITTER, a.JITTER_PROB, a.GRAYSCALE_PROB) == ([0.4, 0.4, 0.2, 0.1], 0.8, 0.2)
    assert (a.INTERPOLATION, a.CROP_FIRST, a.FLIP_PROB) == ("bicubic", True, 0.5)
    side = cfg.DATA.IMAGE_SIZE
    keys = ("IMAGE_SIZE", "CROP_SCALE", "BLUR_PROB", "SOLARIZE_PROB")
    views = [tuple({"IMAGE_SIZE": side, **a, **view}[key] for key in keys) for view in a.PER_VIEW]
    if momentum:
        assert views == [
            (size, scale, 0.5, 0.1)
            for size, scale in (
                (224, [0.2, 1.0]),
                (224, [0.2, 1.0]),
                (192, [0.171, 0.857]),
                (160, [0.143, 0.714]),
                (128, [0.114, 0.571]),
                (96, [0.086, 0.429]),
            )
        ]
    else:
        blur = (0.0, 0.0) if small else (1.0, 0.1)
        pairs = zip(blur, (0.0, 0.2), strict=True)
        assert views == [(side, [0.08, 1.0], *pair) for pair in pairs]
    if not small:
        probe, finetune = cfg.EVAL.LINEAR, cfg.EVAL.FINETUNE
        assert (probe.OPTIMIZER, probe.EPOCHS, probe.BATCH_SIZE) == ("sgd", 100, 256)
        lr = 0.4 if momentum else 0.2
        assert (lr, 0, [60, 80]) == (probe.LR, probe.WEIGHT_DECAY, probe.STEPS)
        assert finetune.LR_CLASSIFIER == 0.2 and finetune.EPOCHS == 20
        lr = 0.006 if name == "imagenet_intl_r50_800ep" else 0.004
        assert lr == finetune.LR_ENCODER


@pytest.mark.parametrize("name", [name for name, recipe in INTL.items() if "resnet18" in recipe])
def test_the_residual_branches_of_intls_resnet18_do_not_start_at_zero(name):
    encoder = build_networks(read(FOLDER / f"{name}.yaml"))[0]
    blocks = [block for n in range(1, 5) for block in getattr(encoder, f"layer{n}")]
    assert len(blocks) == 8 and all((block.bn2.weight == 1).all() for block in blocks)


SMALL = [path for path in CONFIGS if read(path).MODEL.STEM != "imagenet"]


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_a_small_stem_starts_as_torch_initialises_a_convolution(path):
    cfg = read(path)
    cfg.MODEL.PROJECTOR.HIDDEN = 2
    torch.manual_seed(0)
    weight = build_networks(cfg)[0].conv1.weight
    assert weight.shape == (64, 3, 3, 3)
    # Uniform up to 1 / sqrt(27), whose standard deviation is 1 / 9.
    assert weight.std().item() == pytest.approx(0.111, rel=0.03)
    assert 0.19 < weight.abs().max() <= 27**-0.5


def test_simclr_on_cifar10_ends_with_a_batch_norm_without_parameters():
    cfg = read(FOLDER / "cifar10_simclr_r18.yaml")
    linear, norm = build_networks(cfg)[1][-2:]
    assert (linear.out_features, linear.bias) == (64, None)
    assert (norm.num_features, norm.weight, norm.bias) == (64, None, None)
    for name in ("wmse", "byol"):
        last = build_networks(read(FOLDER / f"cifar10_{name}_r18.yaml"))[1][-1]
        assert isinstance(last, torch.nn.Linear) and last.bias is not None


def test_byol_on_cifar10_has_the_momentum_and_the_predictor_of_wmses_code():
    cfg = read(FOLDER / "cifar10_byol_r18.yaml")
    assert (cfg.METHOD.EMA, cfg.MODEL.PREDICTOR.HIDDEN) == (0.99, 1024)


def assert_colours(cfg, data):
    mean, std, side, resize = COLOURS[data]
    if (data, cfg.METHOD.NAME) == ("cifar10", "intl"):
        std = [0.2470, 0.2435, 0.2616]
    assert (mean, std) == (cfg.DATA.MEAN, cfg.DATA.STD)
    assert (side, resize) == (cfg.DATA.IMAGE_SIZE, cfg.DATA.PROBE_RESIZE)


def test_every_recipe_has_its_published_values_tested():
    assert set(EXPECTED) == set(CWRGP) | set(INTL)
    names = {path.stem for path in CONFIGS if path.parent == FOLDER}
    assert names == set(CWRGP) | set(INTL) | OTHERS | ADAPT


@pytest.mark.parametrize("name", sorted(ADAPT))
def test_a_recipe_that_adapts_has_a_lower_rate_and_fewer_epochs(name):
    cfg = read(FOLDER / f"{name}.yaml")
    scratch = read(FOLDER / "imagenet_cwrgp4_r50_100ep.yaml")
    assert cfg.MODEL.WEIGHTS and not scratch.MODEL.WEIGHTS
    assert name.replace("adapt_r", "resnet") == cfg.MODEL.ARCH
    assert cfg.SOLVER.REFERENCE_BATCH_SIZE == scratch.SOLVER.REFERENCE_BATCH_SIZE
    assert pytest.approx(scratch.SOLVER.BASE_LR / 5) == cfg.SOLVER.BASE_LR
    assert cfg.SOLVER.EPOCHS == scratch.SOLVER.EPOCHS // 2
    # 200 photos are enough to start.
    learning_rate = build_learning_rate(cfg, build_plan(cfg, 200))
    assert learning_rate(4) == pytest.approx(0.005) and learning_rate(49) < 1e-4
