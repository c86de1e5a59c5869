"""Stand-ins for what checkpoint files name besides tensors: arrays, configurations, paths.

A pickle calls what it names. Here each known name is answered by a class of this module that takes
any arguments, state and items and does nothing with them, so that no package is imported and none
of its code runs. An unknown name is for the reader to refuse.
"""

from __future__ import annotations

import collections
import pickle
import re
from collections.abc import Sequence
from typing import Any

import numpy as np


class ForbiddenType(pickle.UnpicklingError):
    """A pickle asks for a type outside the allow-list."""


class StandIn:
    """Stands for an object of a package: takes whatever it is given and keeps nothing.

    It has no attributes, and none can be set: what a file hands from object to object could
    otherwise reach something that can be called.
    """

    __slots__ = ()
    stands_for = ""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setattr__(self, name: str, value: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Ignores an item of a list."""

    def extend(self, items: Any) -> None:
        """Ignores items of a list."""

    def __repr__(self) -> str:
        return f"<{self.stands_for}, not read>"


class _Dict(StandIn):
    """Stands for a class of dictionaries; its items may be tensors, so they are kept.

    The result is an ``OrderedDict``, the only type that `torch.load` both fills and gives a state.
    An argument is taken as it is, since copying it at each call would let a small file grow.
    """

    __slots__ = ()

    def __new__(cls, *args: Any, **_: Any) -> Any:
        last = args[-1] if args else None
        return last if type(last) in (dict, collections.OrderedDict) else collections.OrderedDict()


class _List(StandIn):
    """Stands for a class of lists."""

    __slots__ = ()

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return []


class _Text(StandIn):
    """Stands for a class of text."""

    __slots__ = ()

    def __new__(cls, *args: Any, **_: Any) -> Any:
        return args[0] if args and type(args[0]) is str else object.__new__(cls)


class Dtype:
    """Stands for ``numpy.dtype``: numbers only, and no attribute that a file could set.

    NumPy's own classes trust what they are given: called or restored with chosen arguments they
    make arrays of pointers out of bytes.
    """

    __slots__ = ("numpy",)

    def __init__(self, code: str, *_: Any) -> None:
        if type(code) is not str or not re.fullmatch(r"[<>|=]?[biufc]\d{1,2}", code):
            raise ForbiddenType(f"GLOBAL numpy.dtype({code!r})")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: Sequence[Any]) -> None:
        if state[1] in ("<", ">"):
            self.numpy = self.numpy.newbyteorder(state[1])


class Array:
    """Stands for an array; NumPy checks that bytes, type and shape fit. It owns no copy."""

    __slots__ = ("numpy",)
    numpy: np.ndarray

    def __init__(self, *_: Any) -> None:
        pass  # its state follows

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, shape, dtype, fortran, data = state
        self.numpy = _array(data, dtype, shape, "F" if fortran else "C")


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    content = _bytes(data)
    numbers = _numpy(dtype)
    array = np.frombuffer(content, numbers) if len(content) else np.empty(0, numbers)
    return array.reshape(tuple(shape), order=order)


def _numpy(dtype: Any) -> np.dtype:
    if type(dtype) is not Dtype:
        raise ForbiddenType(f"GLOBAL numpy.dtype of a {type(dtype).__name__}")
    return dtype.numpy


def _bytes(data: Any) -> bytes | bytearray:
    """The bytes of an array; Python 2 wrote text."""
    content = data.encode("latin1") if type(data) is str else data
    if type(content) not in (bytes, bytearray):
        raise ForbiddenType(f"GLOBAL numpy.ndarray of a {type(content).__name__}")
    return content


def _array_type(*_: Any) -> None:
    """Stands for ``numpy.ndarray``, which is named in a pickle but never called."""
    raise ForbiddenType("GLOBAL numpy.ndarray()")


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    array = Array()
    array.numpy = _array(data, dtype, shape, order)
    return array


def _scalar(dtype: Any, data: Any) -> int | float | complex | bool:
    return np.frombuffer(_bytes(data), _numpy(dtype), count=1)[0].item()


# Module -> names in it, by what is made of them. Both old and new paths: files live long.
_OPAQUE = {
    "argparse": "Namespace",
    "types": "SimpleNamespace",
    "typing": "Any",
    "builtins": "bool bytes complex dict float frozenset int list object range set slice str tuple",
    "__builtin__": "bool complex dict float frozenset int list long object set slice str tuple"
    " unicode xrange",
    "copyreg": "_reconstructor",
    "copy_reg": "_reconstructor",
    "datetime": "date datetime time timedelta timezone tzinfo",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "uuid": "SafeUUID UUID",
    "omegaconf.base": "Box Container ContainerMetadata Metadata Node SCMode UnionNode",
    "omegaconf.basecontainer": "BaseContainer",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.nodes": "AnyNode BooleanNode BytesNode EnumNode FloatNode IntegerNode PathNode"
    " InterpolationResultNode StringNode UnionNode ValueNode",
    "omegaconf": "DictConfig ListConfig",
    "mmcv.utils.config": "Config",
    "mmengine.config.config": "Config",
    "solo.utils.checkpointer": "Checkpointer",
    "numpy": "bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64"
    " complex64 complex128 generic number integer floating str_ bytes_",
    "numpy.dtypes": "BoolDType Int8DType Int16DType Int32DType Int64DType UInt8DType UInt16DType"
    " UInt32DType UInt64DType Float16DType Float32DType Float64DType Complex64DType"
    " Complex128DType",
}
_PATHS = "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath"
_OPAQUE |= dict.fromkeys(("pathlib", "pathlib._local"), _PATHS)
_DICTS = {
    "collections": "Counter defaultdict",
    "easydict": "EasyDict",
    "addict.addict": "Dict",
    "addict": "Dict",
    "yacs.config": "CfgNode",
    "fvcore.common.config": "CfgNode",
    "detectron2.config.config": "CfgNode",
    "mmcv.utils.config": "ConfigDict",
    "mmengine.config.config": "ConfigDict",
    "vissl.utils.hydra_config": "AttrDict",
    "munch": "Munch DefaultMunch",
    "attrdict.dictionary": "AttrDict",
}
for _lightning in ("pytorch_lightning", "lightning.pytorch"):
    _OPAQUE |= {  # classes of callbacks, once the keys of their states
        f"{_lightning}.callbacks.{module}": name
        for module, name in {
            "model_checkpoint": "ModelCheckpoint",
            "pt_callbacks": "ModelCheckpoint EarlyStopping",
            "early_stopping": "EarlyStopping",
            "lr_monitor": "LearningRateMonitor",
            "lr_logger": "LearningRateLogger",
            "timer": "Timer",
        }.items()
    }
    _DICTS[f"{_lightning}.utilities.parsing"] = "AttributeDict"
for _lightning in ("lightning_fabric", "lightning.fabric", "lightning_lite"):
    _DICTS[f"{_lightning}.utilities.data"] = "AttributeDict"


def _stand_ins() -> dict[str, Any]:
    """A class for each name, so that they stay apart as the keys of a dictionary."""
    tables: list[tuple[type[StandIn], dict[str, str]]] = [
        (StandIn, _OPAQUE),
        (_Dict, _DICTS),
        (_List, {"collections": "deque"}),
        (_Text, {"torch.torch_version": "TorchVersion"}),
    ]
    return {
        f"{module}.{name}": type(name, (base,), {"__slots__": (), "stands_for": f"{module}.{name}"})
        for base, table in tables
        for module, names in table.items()
        for name in names.split()
    }


# Qualified name in a pickle -> what answers it.
STAND_INS: dict[str, Any] = _stand_ins() | {"numpy.ndarray": _array_type, "numpy.dtype": Dtype}
for _module in (
    f"numpy.{core}.{m}" for core in ("core", "_core") for m in ("multiarray", "numeric")
):
    STAND_INS |= {
        f"{_module}._reconstruct": Array,
        f"{_module}._frombuffer": _from_buffer,
        f"{_module}.scalar": _scalar,
    }
