"""Sparse models in one small file, and those that come with this package.

A stored model is a zip of a workdir whose parameters keep only their nonzero entries: ``params.npz`` holds, per tensor,
its shape, one bit per entry that says whether it is nonzero, and the float32 values of those, byte by byte. Beside it
lie the workdir's configuration, manifest, metrics, evaluation and tokenizer, and a small corpus of the same sources, so
that mean activations can be taken and contexts looked at without preparing the whole one.
"""

import contextlib
import io
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sparse_gpt import arrays
from sparse_gpt import config as configs
from sparse_gpt.data import Tokenizer, for_elsewhere
from sparse_gpt.errors import InputError
from sparse_gpt.interop.workdirs import new_folder
from sparse_gpt.io import disk_errors, parse_json
from sparse_gpt.parameters import Leaf, Params, flatten, unflatten
from sparse_gpt.records import Manifest
from sparse_gpt.training import manifest
from sparse_gpt.training.checkpoint import load_params, save_params
from sparse_gpt.training.manifest import params_sha256

SUFFIX, PARAMS = ".zip", "params.npz"
CONFIG = "config.json"
FILES = (CONFIG, "manifest.json", "metrics.jsonl", "evaluation.json")
FOLDERS = ("tokenizer", "corpus")
_DATE = (1980, 1, 1, 0, 0, 0)  # of every entry, so that equal models are equal files


def names() -> list[str]:
    """Models that come with this package."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*" + SUFFIX))


def find(name: str, asked: str = "") -> Path:
    """The file of a model that comes with this package, or a stored file of one's own.

    Raises:
      InputError: if there is neither; it begins with what `asked` for it, by default --init_from=NAME.
    """
    path = Path(__file__).parent / (name + SUFFIX) if name in names() else Path(name).expanduser()
    if path.suffix != SUFFIX or not path.is_file():
        known = f"this package has {', '.join(names()) or 'none'}"
        raise InputError(
            f"{asked or f'--init_from={name}'}: no workdir and no {SUFFIX} file of a stored model; {known}"
        )
    return path


def store(workdir: Path, output: Path, corpus: Path) -> None:
    """Writes the newest parameters of a workdir, and what belongs to them, into one file.

    Args:
      workdir: of a finished training run or an import.
      output: a .zip file; must not exist.
      corpus: a small prepared corpus of the same sources, stored instead of the workdir's own.

    Raises:
      InputError: if the workdir holds no model, or the output exists or has another suffix.
    """
    if output.exists() or output.suffix != SUFFIX:
        raise InputError(f"--output={output}: must be a new {SUFFIX} file")
    config = for_elsewhere(corpus, configs.load(workdir))
    params, _ = load_params(workdir, config.model)
    with disk_errors(output), tempfile.TemporaryDirectory(dir=output.absolute().parent) as scratch:
        partial = Path(scratch) / output.name
        with zipfile.ZipFile(partial, "w") as archive:
            _add(archive, PARAMS, _packed(params))
            _add(archive, CONFIG, (json.dumps(configs.to_dict(config), indent=1) + "\n").encode())
            for name, path in _belongings(workdir, corpus):
                _add(archive, name, path.read_bytes())
        os.replace(partial, output)


def fingerprint(name: str) -> str:
    """params_sha256 of a stored model, as its manifest says. Raises InputError as `find`, or if the file is damaged."""
    with _opened(name) as archive:
        where = f"{find(name)}: {Manifest.FILE}"
        found = Manifest.parse(archive.read(Manifest.FILE), where).params_sha256
    if found is None:
        raise InputError(f"{where}: params_sha256 is missing; {Manifest.REMEDY}")
    return found


def load(name: str) -> tuple[configs.Config, Params]:
    """Configuration and parameters (float32) of a stored model.

    Raises:
      InputError: if there is none of this name, or its file is damaged.
    """
    wanted = fingerprint(name)
    with _opened(name) as archive:
        where = f"{find(name)}: {CONFIG}"
        config = configs.from_dict(parse_json(archive.read(CONFIG), where), where)
        params = _unpacked(archive.read(PARAMS))
    if params_sha256(params) != wanted:
        raise InputError(f"{find(name)}: damaged; its parameters do not have the fingerprint in its manifest")
    return config, params


def tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a stored model.

    Raises:
      InputError: if there is none of this name, or its file is damaged.
    """
    with tempfile.TemporaryDirectory() as scratch, _opened(name) as archive:
        for entry in archive.namelist():
            if entry.split("/")[0] == "tokenizer":
                archive.extract(entry, scratch)
        return Tokenizer.load(Path(scratch) / "tokenizer")


def unpack(name: str, workdir: Path) -> bool:
    """Makes a workdir of a stored model, and says so. A workdir that holds this model already is left as it is.

    Raises:
      InputError: as `load`; or the workdir holds something else.
    """
    if _holds(workdir, fingerprint(name)):
        return False
    _, params = load(name)
    with new_folder(workdir, "--workdir") as folder, _opened(name) as archive:
        for entry in archive.namelist():
            if entry.split("/")[0] in FILES + FOLDERS:
                archive.extract(entry, folder)
        save_params(folder, params, manifest.read(folder).step or 0)
    return True


@contextlib.contextmanager
def _opened(name: str) -> Iterator[zipfile.ZipFile]:
    """The archive of a stored model; what is wrong with it becomes one line."""
    with arrays.open_zip(find(name), "stored model") as archive:
        yield archive


def _holds(workdir: Path, fingerprint: str) -> bool:
    """Whether a workdir's manifest names these parameters."""
    held = Manifest.read_if_any(workdir / Manifest.FILE)
    return held is not None and held.params_sha256 == fingerprint


def _belongings(workdir: Path, corpus: Path) -> Iterator[tuple[str, Path]]:
    """Name in the archive and path of all but parameters and configuration, sorted within folders; no hidden files."""
    for name in FILES:
        if name != CONFIG and (workdir / name).is_file():
            yield name, workdir / name
    for name, folder in zip(FOLDERS, (workdir / "tokenizer", corpus), strict=True):
        for path in sorted(folder.rglob("*")):
            inner = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in inner.parts):
                yield f"{name}/{inner.as_posix()}", path


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content, zipfile.ZIP_LZMA)


def _packed(params: Params) -> bytes:
    """An npz with `PATH:shape`, `PATH:nonzero` (bits, big-endian within a byte) and `PATH:values` per tensor.

    Values are four rows of bytes, first bytes first: like bytes beside each other compress better.
    """
    packed: dict[str, Leaf] = {}
    for path, leaf in flatten(params).items():
        name, value = "/".join(path), np.asarray(leaf, np.float32)
        bits = value.ravel().view(np.uint32) != 0  # a negative zero is kept too: every bit comes back
        packed[name + ":shape"] = np.asarray(value.shape, np.int64)
        packed[name + ":nonzero"] = np.packbits(bits)
        packed[name + ":values"] = value.ravel()[bits].astype("<f4").view(np.uint8).reshape(-1, 4).T
    buffer = io.BytesIO()
    np.savez(buffer, **packed)
    return buffer.getvalue()


def _unpacked(content: bytes) -> Params:
    """Inverse of `_packed`; InputError, ValueError, TypeError, KeyError or IndexError if it is none of its."""
    flat = {}
    file = arrays.read_npz(content, PARAMS)
    for name in (key.removesuffix(":shape") for key in file if key.endswith(":shape")):
        shape, packed = tuple(map(int, file[name + ":shape"])), file[name + ":nonzero"]
        size = math.prod(shape)
        if min(shape, default=0) < 0 or len(packed) != -(-size // 8):
            raise ValueError(f"{name}: {len(packed)} bytes of bits do not fit shape {shape}")
        bits = np.unpackbits(packed, count=size).astype(bool)
        value = np.zeros(size, np.float32)
        value[bits] = np.ascontiguousarray(file[name + ":values"].T).view("<f4")[:, 0]
        flat[tuple(name.split("/"))] = value.reshape(shape)
    return unflatten(flat)
