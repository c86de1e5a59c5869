"""Metadata and extras only: nothing heavy is imported, so that a bare interpreter can build it."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
README = ROOT / "README.md"


def read_version() -> str:
    """The version that ``cwrgp/__init__.py`` states, read without importing the package."""
    match = re.search(r'^__version__ = "([^"]+)"$', (ROOT / "cwrgp/__init__.py").read_text(), re.M)
    assert match, "cwrgp/__init__.py states no __version__"
    return match.group(1)


# Lower bounds: the oldest versions with what the code uses; the tested ones are in constraints.txt.
# Detectron2, which d2_transfer needs, cannot stand here: it is not on PyPI under its own name.
# tools/install_detectron2.py installs it, and `make setup` runs that.
INSTALL_REQUIRES = [
    "torch>=2.14",
    "torchvision>=0.29",
    "fvcore>=0.1.5,<0.1.6",
    "iopath>=0.1.7,<0.1.11",
    "pycocotools>=2.0.7",
    "numpy>=1.26",
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

# For DATA.NAME webdataset: the rules for shards, and ranges of files behind https. For s3:// and gs://
# add s3fs or gcsfs.
WEBDATASET = ["webdataset>=1.0", "fsspec[http]>=2024.2"]

# For Detectron2's Visualizer. OpenCV's distributions overwrite each other's files, so whoever has
# another one must be able to keep it.
VISUALIZE = ["opencv-python-headless>=4.8"]

EXTRAS_REQUIRE = {
    "drive": DRIVE,
    "webdataset": WEBDATASET,
    "visualize": VISUALIZE,
    "dev": [
        "pytest>=8.0",
        "pytest-timeout>=2.2",
        "pytest-xdist>=3.5",
        "scikit-learn>=1.5",
        "ruff>=0.9",
        "mypy>=1.14",
        *DRIVE,
        *WEBDATASET,
        *VISUALIZE,
    ],
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
    packages=find_packages(include=["cwrgp", "cwrgp.*", "d2_transfer", "d2_transfer.*"]),
    package_data={"cwrgp.report": ["templates/*"]},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
)
