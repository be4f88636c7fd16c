"""Tiny files in the reference's format, made by a writer of the tests' own (Python's pickler and zipfile).

It shares nothing with the project's writer: classes that carry PyTorch's names stand in for the real ones while
pickling, so the stream has the pickler's own memoisation and opcodes, as torch.save's has.
"""

import collections
import contextlib
import io
import json
import pickle
import sys
import types
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

_STORAGES = {
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
    np.dtype(np.bool_): "BoolStorage",
}


class Tensor:
    """A strided view of a flat array that several tensors may share; strides and offset count elements."""

    def __init__(self, storage: np.ndarray, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0):
        self.storage, self.shape, self.strides, self.offset = storage, shape, strides, offset

    @classmethod
    def of(cls, array: np.ndarray) -> "Tensor":
        """A contiguous tensor with its own storage."""
        flat = np.array(array, order="C")
        return cls(flat.reshape(-1), flat.shape, tuple(s // flat.itemsize for s in flat.strides))


class Parameter(Tensor):
    """The same, pickled as torch.nn.Parameter is."""


@contextlib.contextmanager
def _stand_ins() -> Iterator[dict[str, Any]]:
    """Modules torch and torch._utils with just the names that a tensor pickle mentions."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    names: dict[str, Any] = {}
    for name in [*_STORAGES.values(), "Size"]:
        names[name] = type(name, (tuple,), {"__module__": "torch", "__qualname__": name})
        setattr(torch, name, names[name])
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        names[name] = types.FunctionType((lambda *_: None).__code__, {}, name)
        names[name].__module__, names[name].__qualname__ = "torch._utils", name
        setattr(utils, name, names[name])
    held = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        yield names
    finally:
        for name, module in held.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class _StorageKey:
    def __init__(self, array: np.ndarray):
        self.array = array


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, names: dict[str, Any], storages: dict[int, np.ndarray], protocol: int):
        super().__init__(file, protocol=protocol)
        self.names, self.storages = names, storages

    def persistent_id(self, thing: Any) -> Any:
        if not isinstance(thing, _StorageKey):
            return None
        array = thing.array
        keys = list(self.storages)
        if id(array) not in self.storages:
            self.storages[id(array)] = array
            keys.append(id(array))
        kind = self.names[_STORAGES[array.dtype]]
        return ("storage", kind, str(keys.index(id(array))), "cpu", array.size)

    def reducer_override(self, thing: Any) -> Any:
        if not isinstance(thing, Tensor):
            return NotImplemented
        hooks: collections.OrderedDict[str, Any] = collections.OrderedDict()
        arguments = (_StorageKey(thing.storage), thing.offset, thing.shape, thing.strides, False, hooks)
        if not isinstance(thing, Parameter):
            return self.names["_rebuild_tensor_v2"], arguments
        inner = Tensor(thing.storage, thing.shape, thing.strides, thing.offset)
        return self.names["_rebuild_parameter"], (inner, True, hooks)


def save(
    path: Path, state: Mapping[str, Any], *, protocol: int = 2, compress: bool = False, metadata: bool = True
) -> Path:
    """Writes `state` (names to arrays, `Tensor`s or anything else) as torch.save does."""
    tied: dict[int, Tensor] = {}  # the same array under two names shares its storage

    def tensor(value: Any) -> Any:
        return tied.setdefault(id(value), Tensor.of(value)) if isinstance(value, np.ndarray) else value

    ordered = collections.OrderedDict((name, tensor(value)) for name, value in state.items())
    if metadata:  # modules' format versions, an attribute of every real state dict
        ordered._metadata = collections.OrderedDict([("", {"version": 1})])  # type: ignore[attr-defined]
    buffer, storages = io.BytesIO(), dict[int, np.ndarray]()
    with _stand_ins() as names:
        _Pickler(buffer, names, storages, protocol).dump(ordered)
    return write_archive(path, buffer.getvalue(), list(storages.values()), compress=compress)


def write_archive(path: Path, data_pkl: bytes, storages: list[np.ndarray], *, compress: bool = False) -> Path:
    """The zip file around a pickle and its storages."""
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("final_model/data.pkl", data_pkl)
        archive.writestr("final_model/byteorder", "little")
        for key, array in enumerate(storages):
            archive.writestr(f"final_model/data/{key}", array.tobytes())
        archive.writestr("final_model/version", "3\n")
    return path


def write_model(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Any], **options: Any) -> Path:
    """A folder with beeg_config.json and final_model.pt."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "beeg_config.json").write_text(json.dumps(dict(config)))
    save(folder / "final_model.pt", weights, **options)
    return folder
