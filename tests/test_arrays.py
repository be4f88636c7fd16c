"""Damaged archives and arrays: every reader of one refuses each damage with one line that names the file."""

import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from sparse_gpt import arrays, records
from sparse_gpt.circuits import circuit
from sparse_gpt.circuits.search import pause
from sparse_gpt.config import NODE_SITES
from sparse_gpt.errors import InputError
from sparse_gpt.interop import torch_format
from tests.archive_readers import READERS, Reader, npz
from tests.damaged_archives import OBSTACLES, ZIP, Damage, Obstacle, zipped_again


def refused(reader: Reader, path: Path) -> None:
    """The reader refuses the file with one line that names it."""
    with pytest.raises(InputError) as reported:
        reader.read(path)
    line = str(reported.value)
    assert path.name in line, line
    assert "\n" not in line
    assert len(line) < 1000


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_bytes_are_one_line(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / reader.file
    harmless = []
    for damage in reader.damages:
        path.write_bytes(damage.of(reader.sound))
        try:
            refused(reader, path)
        except pytest.fail.Exception:
            harmless.append(damage.name)
    # Nothing in it is read that the damage touches.
    allowed = {"torch.save": {"wrong checksums", "claims 4 GB"}}.get(reader.name, set())
    assert set(harmless) <= allowed


@pytest.mark.parametrize("obstacle", OBSTACLES, ids=lambda obstacle: obstacle.name)
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_what_is_no_file_is_one_line(reader: Reader, obstacle: Obstacle, tmp_path: Path) -> None:
    path = tmp_path / reader.file
    obstacle.at(path)
    refused(reader, path)


@pytest.mark.parametrize("damage", ZIP, ids=lambda damage: damage.name)
def test_a_circuit_with_damaged_values_is_one_line(damage: Damage, tmp_path: Path) -> None:
    (tmp_path / "circuit.json").write_text(f'{{"format": "{records.Circuit.FORMAT}"}}')
    (tmp_path / "ablation.npz").write_bytes(damage.of(npz(**dict.fromkeys(NODE_SITES, np.ones(9)))))
    with pytest.raises(InputError, match=r"ablation\.npz"):
        circuit.load(tmp_path)


@pytest.mark.parametrize("damage", ZIP, ids=lambda damage: damage.name)
def test_a_damaged_paused_search_begins_again(damage: Damage, tmp_path: Path) -> None:
    path = tmp_path / "paused.npz"
    pause.write(path, 3, np.ones(2), np.zeros(4), [(np.ones(3),)])
    assert pause.read(path, np.ones(2), np.zeros(4))[0] == 3
    path.write_bytes(damage.of(path.read_bytes()))
    assert pause.read(path, np.ones(2), np.zeros(4))[0] == 0


def test_a_paused_search_goes_by_names(tmp_path: Path) -> None:
    """A state of other names, of as many arrays and the same shapes, is another program's."""
    path, h = tmp_path / "paused.npz", {"seed": np.arange(2)}
    states, history = {"slope": np.zeros(4), "tau": np.ones(4)}, [(np.ones(3), np.full(3, 2.0))]
    pause.write(path, 3, h, states, history)
    done, found, kept = pause.read(path, h, jax.tree.map(np.zeros_like, states))
    assert done == 3
    jax.tree.map(np.testing.assert_array_equal, found, states)
    np.testing.assert_array_equal(kept, history)
    assert pause.read(path, h, {"tau": np.ones(4), "theta": np.ones(4)})[0] == 0
    assert pause.read(path, h, {"slope": np.zeros(4), "tau": np.ones(4, np.float32)})[0] == 0
    assert pause.read(path, {"k_coef": np.arange(2)}, states)[0] == 0
    assert pause.read(path, {"seed": np.arange(1, 3)}, states)[0] == 0


@pytest.mark.parametrize("order", ["C", "F"])
def test_sound_arrays_come_back(order: Any, tmp_path: Path) -> None:
    array = np.asarray(np.arange(24, dtype=np.int64).reshape(2, 3, 4), order=order)
    np.save(tmp_path / "a.npy", array)
    read = arrays.read_npy(tmp_path / "a.npy")
    assert np.array_equal(read, array)
    assert read.flags.c_contiguous
    assert read.flags.writeable
    assert arrays.npy_shape(tmp_path / "a.npy") == (2, 3, 4)
    np.savez_compressed(tmp_path / "a.npz", a=array, b=np.float32(3), c=np.zeros((0, 2)))
    read_all = arrays.read_npz(tmp_path / "a.npz")
    assert set(read_all) == {"a", "b", "c"}
    assert np.array_equal(read_all["a"], array)
    assert read_all["b"].shape == ()


def test_compressed_tensors_come_back(tmp_path: Path) -> None:
    path, array = tmp_path / "m.pt", np.arange(6, dtype=np.float32)
    torch_format.write_tensors(path, {"a": array})
    path.write_bytes(zipped_again(path.read_bytes(), zipfile.ZIP_LZMA))
    assert np.array_equal(torch_format.read_tensors(path)["a"], array)
