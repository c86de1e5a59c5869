"""A small wheel in the place of the one that holds Detectron2."""

from __future__ import annotations

import hashlib
import zipfile

from cwrgp.detectron2_wheel import Patch, Recipe

INFO = "detectron2-0.6.dist-info"


PATCH = Patch("detectron2/data/common.py", old="sample(names)\n", new="sample(tuple(names))\n")
# Five times the name, in four files.
SOURCE = {
    "LabGym/detectron2/__init__.py": "from LabGym.detectron2.data import common\n",
    "LabGym/detectron2/data/__init__.py": "",
    "LabGym/detectron2/data/common.py": "import LabGym.detectron2 as d2\nindex = sample(names)\n",
    "LabGym/detectron2/data/notes.txt": "See LabGym.detectron2.data, naïve as it is.\r\n",
    "LabGym/detectron2/engine.py": "name = 'LabGym.detectron2.engine'  # LabGym.detectron2\n",
}
RENAMES = 5
BESIDE = {
    "LabGym/__init__.py": "__version__ = '3.1.2'\n",
    "LabGym/detectron2.py": "import this\n",
    "LabGym/detectron2_more/__init__.py": "import LabGym.detectron2\n",
    "detectron2/other.py": "import this\n",
    "labgym-3.1.2.dist-info/METADATA": "Name: LabGym\n",
}


def write_source(folder, changes=None):
    """A source wheel with folders, other packages and ``changes`` to the files; and its recipe."""
    path = folder / "labgym-3.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("LabGym/detectron2/", "")
        wheel.writestr("LabGym/detectron2/data/", "")
        for name, content in {**BESIDE, **SOURCE, **(changes or {})}.items():
            wheel.writestr(name, content)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path, Recipe(digest, num_files=5, num_renames=RENAMES, patches=(PATCH,))
