"""The allow-list: known types of other packages are passed over, and everything else is refused."""

from __future__ import annotations

import argparse
import builtins
import datetime
import functools
import importlib
import io
import operator
import os
import pathlib
import pickle
import runpy
import subprocess
import sys
import types
import zipfile
from collections import Counter, defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.torch_version import TorchVersion

from cwrgp.checkpoints.pickle_stand_ins import STAND_INS, StandIn
from cwrgp.checkpoints.reader import read_checkpoint

KINDS = ["pickle2", "pickle4", "zip", "stream"]
TENSOR = torch.arange(6.0).reshape(2, 3)


def write(content: dict[str, Any], path: Path, kind: str) -> None:
    """Writes tensors, or arrays where it is a plain pickle."""
    if kind.startswith("pickle"):
        arrays = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in content.items()}
        path.write_bytes(pickle.dumps(arrays, int(kind[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")


def write_archive(code: bytes, path: Path) -> None:
    """A zip archive as torch writes it, around hand-written opcodes."""
    buffer = io.BytesIO()
    torch.save({}, buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(path, "w") as written:
        for name in whole.namelist():
            written.writestr(name, code if name.endswith("/data.pkl") else whole.read(name))


class Call:
    """Calls something when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def hostile_calls(folder: Path, witness: Path) -> dict[str, Call]:
    """Name that the message must give -> a call that creates ``witness``, or leads there."""
    touch = f"open({str(witness)!r}, 'w').close()"
    (folder / "hubconf.py").write_text(f"{touch}\ndef entry(): return {{}}\n")
    np.save(folder / "array.npy", np.ones(2))
    return {
        "system": Call(os.system, f"touch {witness}"),
        "eval": Call(eval, touch),
        "exec": Call(exec, touch),
        "Popen": Call(subprocess.Popen, ["touch", str(witness)]),
        "torch.hub.load": Call(torch.hub.load, str(folder), "entry", "local"),
        "runpy.run_path": Call(runpy.run_path, str(folder / "hubconf.py")),
        "importlib.import_module": Call(importlib.import_module, "hubconf"),
        "getattr": Call(getattr, argparse.Namespace(), "__class__"),
        "setattr": Call(builtins.setattr, argparse.Namespace(), "a", 1),
        "operator.attrgetter": Call(operator.attrgetter, "__class__"),
        "functools.partial": Call(functools.partial, print),
        "numpy.load": Call(np.load, str(folder / "array.npy")),
        "argparse.Namespace.__init__": Call(argparse.Namespace.__init__, argparse.Namespace()),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", list(hostile_calls(Path("/tmp"), Path("x"))))
def test_a_hostile_file_is_refused_in_one_line_and_executes_nothing(
    tmp_path: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, witness = tmp_path / "hostile.pth", tmp_path / "executed"
    monkeypatch.syspath_prepend(tmp_path)
    call = hostile_calls(tmp_path, witness)[name]
    if name.endswith("__init__"):  # a name with dots, which protocol 2 spells otherwise
        code = b"}U\x01acargparse\nNamespace.__init__\n)Rs."
        path.write_bytes(code) if kind[0] == "p" else write_archive(b"\x80\x02" + code, path)
    else:
        write({"model": {"a": 1}, "extra": call}, path, kind)
    with pytest.raises(ValueError, match=rf"is refused: it needs the type '[\w.]*{name}'") as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value) and "unsafe=True" in str(error.value)
    assert not witness.exists() and "hubconf" not in sys.modules


@pytest.mark.parametrize("name", ["system", "eval", "exec", "Popen", "runpy.run_path"])
def test_those_calls_do_work_elsewhere(tmp_path: Path, name: str) -> None:
    witness = tmp_path / "executed"
    result = pickle.loads(pickle.dumps(hostile_calls(tmp_path, witness)[name]))
    if isinstance(result, subprocess.Popen):
        result.wait()
    assert witness.exists()


def foreign(monkeypatch: pytest.MonkeyPatch, name: str, base: type = object) -> Any:
    """A class under the name that another package gives it, until the patch is undone."""
    module, _, short = name.rpartition(".")
    made = type(short, (base,), {"__module__": module})
    parts = module.split(".")
    for package in (".".join(parts[: i + 1]) for i in range(len(parts))):
        if package not in sys.modules:
            monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    monkeypatch.setattr(sys.modules[module], short, made, raising=False)
    return made


def omegaconf_config(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``OmegaConf.create({"lr": 1})`` in the layout that omegaconf 2.3 pickles."""
    metadata = foreign(monkeypatch, "omegaconf.base.Metadata")()
    vars(metadata).update(ref_type=Any, object_type=None, resolver_cache=defaultdict(dict))
    about = foreign(monkeypatch, "omegaconf.base.ContainerMetadata")()
    vars(about).update(ref_type=Any, object_type=dict, key_type=int, resolver_cache=None)
    node = foreign(monkeypatch, "omegaconf.nodes.AnyNode")()
    config = foreign(monkeypatch, "omegaconf.dictconfig.DictConfig")()
    vars(node).update(_metadata=metadata, _parent=config, _val=1)
    vars(config).update(_metadata=about, _parent=None, _content={"lr": node})
    return config


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_other_packages_open_without_them(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lightning.ckpt"
    packages = set(sys.modules)
    with monkeypatch.context() as patch:
        attributes = foreign(patch, "pytorch_lightning.utilities.parsing.AttributeDict", dict)
        node = foreign(patch, "yacs.config.CfgNode", dict)(LR=0.1)
        vars(node)["__immutable__"] = True
        callback = foreign(patch, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")
        other = foreign(patch, "pytorch_lightning.callbacks.early_stopping.EarlyStopping")
        write(
            {
                "a": TENSOR,
                "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("/out")),
                "config": omegaconf_config(patch),
                "hyper_parameters": attributes(depth=18),
                "node": node,
                "callbacks": {callback: {"best": 1}, other: {"best": 2}},
                "counts": Counter("aab"),
                "defaults": defaultdict(list, x=[1]),
                "queue": deque([1, 2], maxlen=5),
                "time": datetime.datetime(2024, 1, 1),
                "version": TorchVersion("2.1.0"),
                "accuracy": np.float32(0.5),
                "array": np.arange(3),
                "dtype": np.float32,
            },
            path,
            kind,
        )
    found = read_checkpoint(path)
    assert torch.equal(found["a"], TENSOR)
    assert repr(found["args"]) == "<argparse.Namespace, not read>"
    assert repr(found["config"]) == "<omegaconf.dictconfig.DictConfig, not read>"
    assert isinstance(found["time"], StandIn) and not hasattr(found["args"], "lr")
    assert found["hyper_parameters"] == {"depth": 18} and found["node"] == {"LR": 0.1}
    assert list(found["callbacks"].values()) == [{"best": 1}, {"best": 2}]
    assert found["counts"] == {"a": 2, "b": 1} and found["defaults"] == {"x": [1]}
    assert found["queue"] == [1, 2] and found["version"] == "2.1.0"
    assert found["accuracy"] == 0.5 and torch.equal(found["array"], torch.arange(3))
    assert not {name for name in set(sys.modules) - packages if "light" in name or "omega" in name}


@pytest.mark.parametrize("in_torch", [False, True])
def test_every_stand_in_takes_arguments_state_and_items(tmp_path: Path, in_torch: bool) -> None:
    for name, made in STAND_INS.items():
        if not (isinstance(made, type) and issubclass(made, StandIn)):
            continue  # NumPy's
        if in_torch and name.endswith((".set", ".complex")):
            continue  # torch has them
        module, _, short = name.rpartition(".")
        spelled = f"c{module}\n{short}\n".encode()
        # {"type": it, "instance": it(None)}, with items where it makes dictionaries
        items = b"K\x01K\x02s" if "Dict" in made.__mro__[1].__name__ else b""
        code = b"\x80\x02}(X\x04\x00\x00\x00type%sX\x08\x00\x00\x00instance%sN\x85R%su." % (
            *(spelled, spelled, items),
        )
        path = tmp_path / "one"
        if in_torch:
            write_archive(code, path)
        else:
            path.write_bytes(code)
        found = read_checkpoint(path)
        assert found["type"].__name__ == short or in_torch, name
        assert not callable(found["instance"]), name
        assert not items or found["instance"] == {1: 2}, name


def test_nothing_can_be_set_on_a_stand_in() -> None:
    one, other = STAND_INS["argparse.Namespace"](lr=1), STAND_INS["typing.Any"]
    one.__class__ = other
    one.lr = 2
    one.__setstate__({"lr": 3})
    assert type(one) is STAND_INS["argparse.Namespace"] and not hasattr(one, "lr")


@pytest.mark.parametrize("kind", ["pickle", "zip"])
def test_an_array_takes_its_type_from_a_dtype_only(tmp_path: Path, kind: str) -> None:
    """A dictionary with an attribute ``numpy`` stands where the dtype should."""
    fake = b"ccollections\nOrderedDict\n)R}U\x05numpyU\x01Osb"
    data = b"c_codecs\nencode\nX\x08\x00\x00\x00AAAAAAAAX\x06\x00\x00\x00latin1\x86R"
    code = b"\x80\x02}U\x01acnumpy.core.multiarray\nscalar\n" + fake + data + b"\x86Rs."
    path = tmp_path / "fake"
    path.write_bytes(code) if kind == "pickle" else write_archive(code, path)
    with pytest.raises(ValueError, match="refused: it needs the type 'numpy.dtype"):
        read_checkpoint(path)
