"""torch.save files without PyTorch: a lazy reader and a writer of the zip format.

An archive holds NAME/data.pkl (which tensors there are), NAME/data/KEY (their bytes, stored uncompressed) and small
records such as NAME/byteorder. Reading maps the file into memory and copies nothing; writing streams.
"""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from sparse_gpt import arrays
from sparse_gpt.errors import InputError
from sparse_gpt.interop.tensor_pickle import STORAGE_NAMES, StorageRef, TensorRef, emit, parse
from sparse_gpt.io import replacing

ALIGNMENT = 64  # of every storage in the file, as torch.save does it, so that it can be memory-mapped
MAX_PICKLE_BYTES = 256 * 2**20  # a state dict's pickle has about 200 bytes per tensor
CHUNK_BYTES = 16 * 2**20
_AGAIN = "download or save the file again"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # so that equal tensors give equal files


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a saved state dict by name, as read-only views of the mapped file.

    Memory is only touched where a tensor is used. bfloat16 comes as ml_dtypes.bfloat16; shared storages and any
    strides are kept.

    Raises:
      InputError: if the file is not a zip-format torch.save of a plain dict of tensors, is damaged, is big-endian, or
        names anything that is not needed to describe tensors.
    """
    path = Path(path)
    with _open_archive(path) as archive:
        prefix = _prefix(archive, path)
        _check_byte_order(archive, prefix, path)
        state = parse(_pickle_bytes(archive, f"{prefix}data.pkl", path), str(path))
        if not isinstance(state, dict):
            raise InputError(f"{path}: holds a {type(state).__name__}, expected a state dict (names to tensors)")
        for name, value in state.items():
            if not isinstance(value, TensorRef):
                kind = type(value).__name__
                raise InputError(f"{path}: entry {name!r} is a {kind}, expected only tensors; save model.state_dict()")
        storages = _Storages(archive, prefix, path)
        return {str(name): storages.tensor(name, reference) for name, reference in state.items()}


def _open_archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(arrays.regular_file(path))
    except InputError:
        raise
    except arrays.DAMAGE as error:
        head = _head(path)
        if head.startswith(b"PK\x03\x04"):
            problem = "is a truncated or damaged zip file; download or save it again"
        elif head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04") or head[257:262] == b"ustar":
            problem = (
                "is in PyTorch's format from before 1.6 (or a plain pickle), which is not read here; "
                "load and save it again with a current PyTorch"
            )
        else:
            problem = f"is not a torch.save file ({arrays.reason(error)})"
        raise InputError(f"{path}: {problem}") from error


def _head(path: Path) -> bytes:
    with arrays.refuse_damage(f"{path}: cannot be read"), path.open("rb") as file:
        return file.read(512)


def _record_bytes(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    """A record as it is in the archive, decompressed if need be."""
    with arrays.refuse_damage(f"{path}: record {name} cannot be read", _AGAIN):
        return archive.read(name)


def _prefix(archive: zipfile.ZipFile, path: Path) -> str:
    names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        raise InputError(f"{path}: is a TorchScript program, which is not read here; save model.state_dict()")
    pickles = [name for name in names if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise InputError(f"{path}: expected one data.pkl in the archive, found {len(pickles)}; not a torch.save file")
    return pickles[0].removesuffix("data.pkl")


def _check_byte_order(archive: zipfile.ZipFile, prefix: str, path: Path) -> None:
    name = f"{prefix}byteorder"
    order = _record_bytes(archive, name, path) if name in archive.namelist() else b"little"
    if order != b"little":
        raise InputError(
            f"{path}: byte order {order[:16]!r}, only little-endian files are read; save it on such a machine"
        )


def _pickle_bytes(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    size = archive.getinfo(name).file_size
    if size > MAX_PICKLE_BYTES:
        raise InputError(f"{path}: its data.pkl has {size} bytes, more than a state dict of tensors can need")
    return _record_bytes(archive, name, path)


class _Storages:
    """The data records of one archive, each made available once."""

    def __init__(self, archive: zipfile.ZipFile, prefix: str, path: Path) -> None:
        self.archive, self.prefix, self.path = archive, prefix, path
        self.file = np.memmap(path, np.uint8, mode="r")
        self.bytes: dict[str, np.ndarray] = {}

    def tensor(self, name: str, reference: TensorRef) -> np.ndarray:
        storage = reference.storage
        data = self._record(storage.key)
        if len(data) < storage.size * storage.dtype.itemsize:
            raise InputError(
                f"{self.path}: tensor {name} needs {storage.size} elements of {storage.dtype} in record "
                f"data/{storage.key}, found {len(data)} bytes; download or save the file again"
            )
        elements = data[: storage.size * storage.dtype.itemsize].view(storage.dtype)[reference.offset :]
        strides = tuple(stride * storage.dtype.itemsize for stride in reference.strides)
        try:
            return np.lib.stride_tricks.as_strided(elements, reference.shape, strides, writeable=False)
        except (ValueError, OverflowError) as error:
            raise InputError(f"{self.path}: tensor {name} has an impossible shape {reference.shape}") from error

    def _record(self, key: str) -> np.ndarray:
        if key not in self.bytes:
            self.bytes[key] = self._load(f"{self.prefix}data/{key}")
        return self.bytes[key]

    def _load(self, name: str) -> np.ndarray:
        try:
            info = self.archive.getinfo(name)
        except KeyError:
            raise InputError(f"{self.path}: record {name} is missing; download or save the file again") from None
        if info.compress_type != zipfile.ZIP_STORED:
            return np.frombuffer(_record_bytes(self.archive, name, self.path), np.uint8)
        # The local header repeats the name and has its own extra field (torch.save pads there).
        header = self.file[info.header_offset : info.header_offset + 30].tobytes()
        if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
            raise InputError(f"{self.path}: record {name} is damaged; download or save the file again")
        start = (
            info.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        )
        return self.file[start : start + info.file_size]


def write_tensors(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict that ``torch.load(path, weights_only=True)`` reads.

    Arrays may be views in any order of strides; they are written in C order, a piece at a time. Names that hold the
    same array object share one storage (tied weights). Equal inputs give equal bytes. The file appears whole or not
    at all.
    """
    path = Path(path)
    keys: dict[int, str] = {}
    references = {name: _reference(array, keys) for name, array in tensors.items()}
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        _write_record(archive, "archive/data.pkl", [emit(references)])
        _write_record(archive, "archive/byteorder", [b"little"])
        written: set[str] = set()
        for name, array in tensors.items():
            key = references[name].storage.key
            if key not in written:
                _write_record(archive, f"archive/data/{key}", pieces(array), array.nbytes)
                written.add(key)
        _write_record(archive, "archive/version", [b"3\n"])


def _reference(array: np.ndarray, keys: dict[int, str]) -> TensorRef:
    if array.dtype not in STORAGE_NAMES:
        raise ValueError(f"no torch storage for dtype {array.dtype}")
    key = keys.setdefault(id(array), str(len(keys)))
    strides = tuple(int(np.prod(array.shape[axis + 1 :], dtype=np.int64)) for axis in range(array.ndim))
    return TensorRef(StorageRef(key, array.dtype, array.size), 0, array.shape, strides)


def pieces(array: np.ndarray) -> Iterator[bytes]:
    """Bytes of the array in C order; a transposed matrix is copied a few rows at a time."""
    if array.ndim < 2:
        yield array.tobytes()
        return
    rows = max(1, CHUNK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield array[start : start + rows].tobytes()


def _write_record(archive: zipfile.ZipFile, name: str, pieces: Iterator[bytes] | list[bytes], size: int = 0) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 0  # the same bytes on every platform
    large = size >= 2**30
    assert archive.fp is not None
    header = 30 + len(name) + (20 if large else 0)  # zipfile adds 20 bytes for 64-bit sizes
    padding = -(archive.fp.tell() + header + 4) % ALIGNMENT
    info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    record: IO[bytes]
    with archive.open(info, "w", force_zip64=large) as record:
        for piece in pieces:
            record.write(piece)
