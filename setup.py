"""Metadata and extras only: nothing heavy is imported, so that a bare interpreter can build it."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
README = ROOT / "README.md"


def read_version() -> str:
    """The version that ``cwrgp/version.py`` states, read without importing the package."""
    match = re.search(r'^__version__ = "([^"]+)"$', (ROOT / "cwrgp/version.py").read_text(), re.M)
    assert match, "cwrgp/version.py states no __version__"
    return match.group(1)


# Lower bounds: the oldest versions with what the code uses; the tested ones are in constraints.txt.
# Detectron2, which d2_transfer needs, cannot stand here: it is not on PyPI under its own name.
# cwrgp-install-detectron2 installs it, and `make setup` runs that.
INSTALL_REQUIRES = [
    "torch>=2.14",
    "torchvision>=0.29",
    "fvcore>=0.1.5,<0.1.6",
    "iopath>=0.1.7,<0.1.11",
    "pycocotools>=2.0.7",
    "hotcoco>=1.3",
    "orjson>=3.9",
    "numpy>=1.26",
    "scipy>=1.11",
    "pillow>=10.0",
    "tensorboard>=2.14",
    "tqdm>=4.60",
    "tabulate>=0.9",
    "pyyaml>=6.0",
    "safetensors>=0.4",
    # Pages and charts; no extra, since PyTorch brings jinja2 and Detectron2 matplotlib in any case.
    "jinja2>=3.1",
    "matplotlib>=3.8",
]

# For the zoo's files at Google Drive; it brings eight packages that nothing else here needs.
DRIVE = ["gdown>=6.5"]

# For hf://OWNER/NAME.
HUB = ["huggingface_hub>=0.30"]

# For DATA.NAME webdataset: the rules for shards, and ranges of files behind https. For s3:// and gs://
# add s3fs or gcsfs.
WEBDATASET = ["webdataset>=1.0", "fsspec[http]>=2024.2"]

# For Detectron2's Visualizer. OpenCV's distributions overwrite each other's files, so whoever has
# another one must be able to keep it.
VISUALIZE = ["opencv-python-headless>=4.8"]

# For AUGMENT.BACKEND fast: the kernels of libjpeg-turbo and OpenCV.
FAST = ["simplejpeg>=1.7", *VISUALIZE]

# For the tests that open pages in a browser; it drives an installed Chromium.
BROWSER = ["playwright>=1.48"]

# For LOGGERS wandb.
WANDB = ["wandb>=0.18"]

EXTRAS_REQUIRE = {
    "drive": DRIVE,
    "hub": HUB,
    "webdataset": WEBDATASET,
    "visualize": VISUALIZE,
    "fast": FAST,
    "wandb": WANDB,
    "browser": BROWSER,
    "dev": [
        "pytest>=8.0",
        "pytest-timeout>=2.2",
        "pytest-xdist>=3.5",
        "scikit-learn>=1.5",
        # Their own modules write files that the converter reads.
        "timm>=1.0",
        "lightly>=1.5",
        "ruff>=0.9",
        "mypy>=1.14",
        "setuptools>=64",
        *DRIVE,
        *HUB,
        *WEBDATASET,
        *FAST,
        *WANDB,
        *BROWSER,
    ],
}

CONSOLE_SCRIPTS = [
    "cwrgp-analyze = cwrgp.commands.analyze:main",
    "cwrgp-check-data = d2_transfer.commands.check_data:main",
    "cwrgp-convert = d2_transfer.commands.convert:main",
    "cwrgp-embed = cwrgp.commands.embed:main",
    "cwrgp-evaluate = cwrgp.commands.evaluate:main",
    "cwrgp-install-detectron2 = cwrgp.install_detectron2:main",
    "cwrgp-predict = d2_transfer.commands.predict:main",
    "cwrgp-pretrain = cwrgp.commands.pretrain:main",
    "cwrgp-publish = cwrgp.commands.publish:main",
    "cwrgp-score = d2_transfer.commands.score:main",
    "cwrgp-train-net = d2_transfer.train_net:main",
    "cwrgp-trials = d2_transfer.commands.trials:main",
]

# The configs are installed as cwrgp/configs, where cwrgp.config.packaged looks for them; an
# editable installation reads this checkout's.
PACKAGE_DIR = {"cwrgp.configs": "configs"}
PACKAGE_DATA = {
    "cwrgp": ["py.typed"],
    "cwrgp.analysis": ["*.j2"],
    "cwrgp.configs": ["*/*.yaml"],
    "cwrgp.report": ["templates/*"],
    "d2_transfer": ["py.typed"],
    "d2_transfer.checking": ["*.j2"],
    "d2_transfer.trials": ["*.yaml", "*.j2"],
}

setup(
    name="cwrgp",
    version=read_version(),
    description="Self-supervised pretraining with CW-RGP, and its transfer to detection",
    long_description=README.read_text() if README.is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=[
        *find_packages(include=["cwrgp", "cwrgp.*", "d2_transfer", "d2_transfer.*"]),
        *PACKAGE_DIR,
    ],
    package_dir=PACKAGE_DIR,
    package_data=PACKAGE_DATA,
    entry_points={"console_scripts": CONSOLE_SCRIPTS},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
)
