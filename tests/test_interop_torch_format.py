"""torch.save files: reading without executing anything, writing what PyTorch accepts."""

import io
import pickle
import pickletools
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from sparse_gpt.errors import InputError
from sparse_gpt.interop import tensor_pickle
from sparse_gpt.interop.torch_format import ALIGNMENT, read_tensors, write_tensors
from tests import reference_files as files

ARRAYS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.linspace(-2, 2, 5).astype(np.float16),
    "brain": np.linspace(-2, 2, 5).astype(ml_dtypes.bfloat16),
    "double": np.array([1 / 3]),
    "integers": np.array([[-(2**40)]], np.int64),
    "flags": np.array([True, False]),
    "scalar": np.array(2.5, np.float32),
    "empty": np.zeros((0, 4), np.float32),
}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype), name
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("compress", [False, True])
def test_reads_every_dtype(tmp_path: Path, protocol: int, compress: bool) -> None:
    assert_same(read_tensors(files.save(tmp_path / "a.pt", ARRAYS, protocol=protocol, compress=compress)), ARRAYS)


def test_reads_strides_offsets_and_shared_storages(tmp_path: Path) -> None:
    flat = np.arange(24, dtype=np.float32)
    state = {
        "transposed": files.Tensor(flat, (4, 6), (1, 4)),
        "tail": files.Tensor(flat, (2, 3), (3, 1), offset=18),
        "expanded": files.Tensor(flat, (3, 4), (0, 1)),
        "parameter": files.Parameter(flat, (24,), (1,)),
    }
    found = read_tensors(files.save(tmp_path / "a.pt", state))
    np.testing.assert_array_equal(found["transposed"], flat.reshape(6, 4).T)
    np.testing.assert_array_equal(found["tail"], flat[18:].reshape(2, 3))
    np.testing.assert_array_equal(found["expanded"], np.broadcast_to(flat[:4], (3, 4)))
    np.testing.assert_array_equal(found["parameter"], flat)
    assert np.shares_memory(found["transposed"], found["parameter"])


def test_reading_maps_the_file(tmp_path: Path) -> None:
    array = read_tensors(files.save(tmp_path / "a.pt", ARRAYS))["matrix"]
    base = array
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
        base = getattr(base, "base", base) if not isinstance(base, np.ndarray) else base
    assert isinstance(base, np.memmap)
    assert not array.flags.writeable


def test_writes_what_it_reads(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.pt", ARRAYS)
    assert_same(read_tensors(tmp_path / "a.pt"), ARRAYS)
    write_tensors(tmp_path / "b.pt", ARRAYS)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "b.pt"]


def test_writes_views_in_c_order_and_tied_tensors_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparse_gpt.interop.torch_format.CHUNK_BYTES", 64)  # several pieces
    matrix = np.random.default_rng(0).standard_normal((7, 11)).astype(np.float32)
    view = matrix.T
    write_tensors(tmp_path / "a.pt", {"x": view, "y": view})
    found = read_tensors(tmp_path / "a.pt")
    np.testing.assert_array_equal(found["x"], view)
    assert np.shares_memory(found["x"], found["y"])
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert [name for name in archive.namelist() if "/data/" in name] == ["archive/data/0"]


def test_written_storages_are_aligned(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.pt", ARRAYS)
    data = (tmp_path / "a.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        for info in archive.infolist():
            start = (
                info.header_offset
                + 30
                + sum(
                    int.from_bytes(data[info.header_offset + at : info.header_offset + at + 2], "little")
                    for at in (26, 28)
                )
            )
            assert start % ALIGNMENT == 0, info.filename


def test_large_sizes_are_emitted_as_long_integers() -> None:
    reference = tensor_pickle.TensorRef(
        tensor_pickle.StorageRef("0", np.dtype(np.float32), 2**31), 0, (2**16, 2**15), (2**15, 1)
    )
    stream = tensor_pickle.emit({"big": reference})
    assert tensor_pickle.parse(stream, "x") == {"big": reference}
    assert any(opcode.name == "LONG1" for opcode, _, _ in pickletools.genops(stream))


# ---------------------------------------------------------------------------------------------------------------------
# Refusals


class Evil:
    """Runs a command when unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> object:
        import os

        return os.system, (f"touch {self.marker}",)


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(InputError) as error:
        read_tensors(path)
    message = str(error.value)
    assert "\n" not in message
    for part in (str(path), *parts):
        assert part in message, message


def test_foreign_globals_are_named_and_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    files.write_archive(tmp_path / "evil.pt", pickle.dumps({"x": Evil(marker)}, protocol=2), [])
    refused(tmp_path / "evil.pt", "posix.system" if marker.drive == "" else "nt.system", "nothing was executed")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("stream", "named"),
    [
        (b"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.", "__builtin__.eval"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93.", "builtins.exec"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.", "_rebuild_tensor_v2.__globals__"),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
        (b"\x80\x02(ios\nsystem\n.", "opcode INST"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "opcode NEWOBJ"),
        (b"\x80\x02ctorch\nSize\nK\x01\x85R.", "torch.Size"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "torch.FloatStorage"),
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "persistent"),
        (b"\x80\x02}]K\x01s.", "dictionary key"),
        (b"\x80\x02K\x01", "damaged"),
        (b"\x80\x02u.", "damaged"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"not a pickle", "damaged"),
        (b"", "damaged"),
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, stream: bytes, named: str) -> None:
    refused(files.write_archive(tmp_path / "a.pt", stream, []), named)


@pytest.mark.parametrize(
    "tensor",
    [
        files.Tensor(np.zeros(4, np.float32), (5,), (1,)),
        files.Tensor(np.zeros(4, np.float32), (2, 2), (3, 1)),
        files.Tensor(np.zeros(4, np.float32), (2,), (1,), offset=3),
        files.Tensor(np.zeros(4, np.float32), (2,), (-1,), offset=3),
        files.Tensor(np.zeros(4, np.float32), (2, 2), (1,)),
        files.Tensor(np.zeros(4, np.float32), (-1,), (1,)),
        files.Tensor(np.zeros(4, np.float32), (2**62, 2**62), (0, 0)),
    ],
)
def test_impossible_views_are_refused(tmp_path: Path, tensor: files.Tensor) -> None:
    refused(files.save(tmp_path / "a.pt", {"x": tensor}), "shape")


def test_entries_that_are_no_tensors_are_named(tmp_path: Path) -> None:
    refused(files.save(tmp_path / "a.pt", {"model": {"x": files.Tensor.of(np.zeros(1))}, "step": 3}), "'model'", "dict")
    refused(files.save(tmp_path / "b.pt", {"step": 3}), "'step'", "int")


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = files.save(tmp_path / "whole.pt", ARRAYS)
    whole = path.read_bytes()
    for name, content, part in (
        ("cut.pt", whole[: len(whole) // 2], "truncated"),
        ("end.pt", whole[:-10], "truncated"),
        ("legacy.pt", pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2), "before 1.6"),
        ("tar.pt", bytes(257) + b"ustar" + bytes(250), "before 1.6"),
        ("text.pt", b"<html>404</html>", "not a torch.save file"),
        ("empty.pt", b"", "not a torch.save file"),
    ):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, part)
    refused(tmp_path / "absent.pt", "not found")
    refused(tmp_path, "is a folder")


def rewrite(source: Path, target: Path, change: dict[str, bytes | None]) -> Path:
    """A copy of an archive with some records replaced or (None) left out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change.get(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
        for name in change.keys() - set(old.namelist()):
            new.writestr(name, change[name] or b"")
    return target


def test_archives_with_wrong_records_are_refused(tmp_path: Path) -> None:
    whole = files.save(tmp_path / "whole.pt", ARRAYS)
    for name, change, part in (
        ("big_endian.pt", {"final_model/byteorder": b"big"}, "byte order"),
        ("short.pt", {"final_model/data/0": b"123"}, "tensor matrix needs 6 elements"),
        ("gone.pt", {"final_model/data/0": None}, "final_model/data/0 is missing"),
        ("no_pickle.pt", {"final_model/data.pkl": None}, "data.pkl"),
        ("script.pt", {"final_model/constants.pkl": b""}, "TorchScript"),
    ):
        refused(rewrite(whole, tmp_path / name, change), part)


def test_the_pickle_is_not_inflated_without_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparse_gpt.interop.torch_format.MAX_PICKLE_BYTES", 1000)
    buffer = io.BytesIO(b"\x80\x02" + b"0" * 2000)
    refused(files.write_archive(tmp_path / "bomb.pt", buffer.getvalue(), [], compress=True), "2002 bytes")
