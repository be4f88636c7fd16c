"""The pickle inside a torch.save file: a stack machine for the few opcodes and globals that describe tensors.

Python's own unpickler runs whatever a file names. Here a global is only a label; the four functions that rebuild
tensors are acted out on descriptions, everything else is refused by name. Nothing of the file is ever imported or
called, and no tensor data is read.
"""

import dataclasses
import pickletools
import struct
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from sparse_gpt.errors import InputError

# Storage classes as torch.save names them, and what their bytes are (little endian).
STORAGE_DTYPES: dict[str, np.dtype] = {
    "torch.DoubleStorage": np.dtype(np.float64),
    "torch.FloatStorage": np.dtype(np.float32),
    "torch.HalfStorage": np.dtype(np.float16),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype(np.int64),
    "torch.IntStorage": np.dtype(np.int32),
    "torch.ShortStorage": np.dtype(np.int16),
    "torch.CharStorage": np.dtype(np.int8),
    "torch.ByteStorage": np.dtype(np.uint8),
    "torch.BoolStorage": np.dtype(np.bool_),
}
STORAGE_NAMES = {dtype: name for name, dtype in STORAGE_DTYPES.items()}
ORDERED_DICT = "collections.OrderedDict"
REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
SIZE = "torch.Size"
GLOBALS = frozenset(STORAGE_DTYPES) | {ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER, SIZE}


@dataclasses.dataclass(frozen=True)
class StorageRef:
    """A run of `size` elements in the record data/`key` of the archive."""

    key: str
    dtype: np.dtype
    size: int


@dataclasses.dataclass(frozen=True)
class TensorRef:
    """A strided view of a storage; offset and strides count elements."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Global:
    name: str


Value = Any  # what the few operations that are allowed can make: see `parse`


class _Mark:
    """The stack's mark."""


_MARK = _Mark()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLE_SIZES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def parse(stream: bytes, source: str) -> Value:
    """The object a tensor pickle describes: dicts, lists, tuples, numbers, strings and `TensorRef`s.

    Args:
      stream: contents of data.pkl.
      source: name of the file, for messages.

    Raises:
      InputError: for any global or opcode that is not needed to describe tensors, and for a damaged stream.
    """
    machine = _Machine(source)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name != "STOP":
                machine.step(opcode.name, argument)
        return machine.pop()
    except InputError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, struct.error, UnicodeError) as error:
        raise InputError(f"{source}: its pickle is damaged ({error}); download or save the file again") from error


class _Machine:
    """Stack, memo and the opcodes."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.stack: list[Value] = []
        self.memo: dict[int, Value] = {}

    def pop(self) -> Value:
        return self.stack.pop()

    def step(self, name: str, argument: Value) -> None:
        if name in ("PROTO", "FRAME"):
            return
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            self.stack.append(argument)
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLE_SIZES:
            count = _TUPLE_SIZES[name]
            items = tuple(self.pop() for _ in range(count))
            self.stack.append(items[::-1])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self._global(argument)
        elif hasattr(self, f"_op_{name}"):
            getattr(self, f"_op_{name}")(argument)
        else:
            raise InputError(f"{self.source}: refused: pickle opcode {name} is not needed to describe tensors")

    def _global(self, argument: str | None) -> None:
        if argument is None:  # STACK_GLOBAL
            attribute, module = self.pop(), self.pop()
            argument = f"{module} {attribute}"
        name = argument.replace(" ", ".", 1)
        if name not in GLOBALS:
            raise InputError(
                f"{self.source}: refused: it names {name!r}, which is not needed to describe tensors "
                "(nothing was executed); save a plain state dict with torch.save(model.state_dict(), path)"
            )
        self.stack.append(_Global(name))

    def _op_MARK(self, _: Value) -> None:
        self.stack.append(_MARK)

    def _marked(self) -> list[Value]:
        """Everything above the last mark."""
        items: list[Value] = []
        while (item := self.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _op_TUPLE(self, _: Value) -> None:
        self.stack.append(tuple(self._marked()))

    def _op_BINPUT(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    _op_LONG_BINPUT = _op_BINPUT

    def _op_MEMOIZE(self, _: Value) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _op_BINGET(self, index: int) -> None:
        self.stack.append(self.memo[index])

    _op_LONG_BINGET = _op_BINGET

    def _op_APPEND(self, _: Value) -> None:
        item = self.pop()
        self._container(list).append(item)

    def _op_APPENDS(self, _: Value) -> None:
        items = self._marked()
        self._container(list).extend(items)

    def _op_SETITEM(self, _: Value) -> None:
        value, key = self.pop(), self.pop()
        self._set_items([key, value])

    def _op_SETITEMS(self, _: Value) -> None:
        self._set_items(self._marked())

    def _set_items(self, items: list[Value]) -> None:
        target = self._container(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int):
                raise InputError(f"{self.source}: refused: a {type(key).__name__} as a dictionary key")
            target[key] = value

    def _container(self, kind: type) -> Value:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"a {kind.__name__} was expected")
        return self.stack[-1]

    def _op_BUILD(self, _: Value) -> None:
        """State of an object: state dicts carry their format version as an attribute, which is not needed."""
        self.pop()
        self._container(dict)

    def _op_BINPERSID(self, _: Value) -> None:
        reference = self.pop()
        match reference:
            case ("storage", _Global(name=name), str(key), str(), int(size)) if name in STORAGE_DTYPES:
                self.stack.append(StorageRef(key, STORAGE_DTYPES[name], size))
            case _:
                raise InputError(f"{self.source}: refused: a persistent reference that is not a tensor's storage")

    def _op_REDUCE(self, _: Value) -> None:
        arguments, function = self.pop(), self.pop()
        match function, arguments:
            case _Global(name=n), () if n == ORDERED_DICT:
                self.stack.append({})
            case _Global(name=n), (tuple() as sizes,) if n == SIZE:
                self.stack.append(sizes)
            case _Global(name=n), (TensorRef() as data, *_rest) if n == REBUILD_PARAMETER:
                self.stack.append(data)
            case _Global(name=n), (
                StorageRef() as storage,
                int(offset),
                tuple() as shape,
                tuple() as strides,
                *_rest,
            ) if n == REBUILD_TENSOR:
                self.stack.append(self._tensor(storage, offset, shape, strides))
            case _:
                what = function.name if isinstance(function, _Global) else f"a {type(function).__name__}"
                raise InputError(f"{self.source}: refused: {what} called with arguments that torch.save never writes")

    def _tensor(self, storage: StorageRef, offset: int, shape: tuple, strides: tuple) -> TensorRef:
        numbers = (offset, *shape, *strides)
        plain = all(type(number) is int and 0 <= number < 2**63 for number in numbers)
        if not plain or len(shape) != len(strides):
            raise InputError(f"{self.source}: a tensor with shape {shape} and strides {strides} cannot be")
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if 0 not in shape and last >= storage.size:
            raise InputError(f"{self.source}: a tensor of shape {shape} reaches beyond its storage of {storage.size}")
        return TensorRef(storage, offset, shape, strides)


def emit(tensors: Mapping[str, TensorRef]) -> bytes:
    """The protocol 2 pickle of an OrderedDict of CPU tensors; torch.load(weights_only=True) accepts it."""
    parts = [b"\x80\x02", _emit_global(ORDERED_DICT), b")R"]
    if tensors:
        parts.append(b"(")
        for name, tensor in tensors.items():
            parts += [_emit_string(name), _emit_tensor(tensor)]
        parts.append(b"u")
    return b"".join([*parts, b"."])


def _emit_tensor(tensor: TensorRef) -> bytes:
    storage = tensor.storage
    return b"".join(
        [
            _emit_global(REBUILD_TENSOR),
            b"((",
            _emit_string("storage"),
            _emit_global(STORAGE_NAMES[storage.dtype]),
            _emit_string(storage.key),
            _emit_string("cpu"),
            _emit_integer(storage.size),
            b"tQ",
            _emit_integer(tensor.offset),
            _emit_tuple(tensor.shape),
            _emit_tuple(tensor.strides),
            b"\x89",
            _emit_global(ORDERED_DICT),
            b")RtR",
        ]
    )


def _emit_global(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def _emit_string(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _emit_integer(value: int) -> bytes:
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def _emit_tuple(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(_emit_integer(value) for value in values) + b"t"
