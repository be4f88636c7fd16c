"""Every function that reads an archive or an array, with a sound file for it and what may damage that."""

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparse_gpt import arrays, presets, stored
from sparse_gpt.circuits.search import populations
from sparse_gpt.interop import torch_format
from sparse_gpt.interop.inference import read_tokens
from sparse_gpt.training.run import fit_to_batches, read_batches
from tests.damaged_archives import NPY, ZIP, Damage, npy, zipped

TINY = presets.preset("tiny")


class Reader(NamedTuple):
    """A function that reads a file, and what a sound one holds."""

    name: str
    file: str
    read: Callable[[Path], Any]
    sound: bytes
    damages: tuple[Damage, ...]


def npz(**named: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **named)
    return file.getvalue()


def _saved_tensors() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "final_model.pt"
        torch_format.write_tensors(path, {"a": np.ones((2, 3), np.float32), "b": np.zeros(0, np.float32)})
        return path.read_bytes()


READERS = (
    Reader("read_npy", "a.npy", arrays.read_npy, npy(), NPY),
    Reader("npy_shape", "a.npy", arrays.npy_shape, npy(), NPY),
    Reader("logits --tokens", "t.npy", lambda path: read_tokens(path, TINY.model), npy(), NPY),
    Reader("train --batches", "b.npy", lambda path: read_batches(path, TINY), npy(), NPY),
    Reader("shape of --batches", "b.npy", lambda path: fit_to_batches(TINY, path), npy(), NPY),
    Reader("read_npz", "a.npz", lambda path: arrays.read_npz(path, names=("a",)), npz(a=np.ones(9)), ZIP),
    Reader("searches", "searches_000.npz", populations._load, npz(arr_0=np.ones(9)), ZIP),
    Reader("torch.save", "final_model.pt", torch_format.read_tensors, _saved_tensors(), ZIP),
    Reader("stored model", "laptop.zip", lambda path: stored.load(str(path)), zipped({"manifest.json": b"{}"}), ZIP),
)
