"""Finished stages of a pipeline, kept in a folder until its result stands: a stage whose record is there, for the same
inputs, is not run again."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np

from sparse_gpt import records
from sparse_gpt.arrays import read_npz
from sparse_gpt.compilation_cache import release_programs
from sparse_gpt.errors import InputError
from sparse_gpt.io import Json, parse_json, read_json, replacing, write_json

LABEL = "made_for.json"
TREE = "tree"
T = TypeVar("T")
Result = Json  # what a stage gives: as a JSON file has it, and arrays


class Stages:
    """Keeps what stages have found, in a folder or (None) nowhere."""

    def __init__(self, folder: Path | None = None, made_for: Mapping[str, Json] | None = None):
        """
        Args:
            folder: it is emptied when it was made for something else.
            made_for: what every stage depends on, as plain JSON values.
        """
        self.folder = folder
        self.seconds_before = 0.0  # that stages took which an earlier process has finished
        self._results: dict[str, tuple[Json, Result]] = {}  # name -> inputs, result of this process
        if folder is None:
            return
        try:
            same = read_json(folder / LABEL) == made_for
        except InputError:  # not there, or damaged
            same = False
        if not same:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_json(folder / LABEL, made_for)

    def path(self, name: str) -> Path | None:
        """Where a stage may keep a file of its own."""
        return None if self.folder is None else self.folder / name

    def run_record(self, name: str, inputs: Json, kind: type[T], stage: Callable[[], T]) -> T:
        """As `run`, of a stage that gives a record, a part of one, or a tuple of them: of `kind`."""
        return records.converted(self.run(name, inputs, lambda: msgspec.to_builtins(stage())), kind)

    def run(self, name: str, inputs: Json, stage: Callable[[], Result]) -> Result:
        """What `stage` gives: a tree of dicts with string keys, lists, plain values and arrays.

        Args:
            name: of its file.
            inputs: what it depends on beside `made_for`, as plain JSON values.
            stage: is not called when its result for these inputs is there.
        """
        path, plain = self.path(f"stage {name}.npz"), json.loads(json.dumps(inputs))
        if name in self._results and self._results[name][0] == plain:
            return self._results[name][1]
        kept = None if path is None else _read(path)
        if kept is not None and kept.inputs == plain:
            self.seconds_before += kept.seconds
            self._results[name] = plain, kept.result
            return kept.result
        release_programs()  # each stage brings some of its own, and one process may search circuit after circuit
        started = time.perf_counter()
        result = stage()
        self._results[name] = plain, result
        if path is None:
            return result
        arrays: list[np.ndarray] = []
        seconds = time.perf_counter() - started
        tree = json.dumps({"inputs": inputs, "seconds": seconds, "result": _without_arrays(result, arrays)})
        with replacing(path) as temporary:
            named: dict[str, np.ndarray] = {
                TREE: np.frombuffer(tree.encode(), np.uint8),
                **{f"array {i}": a for i, a in enumerate(arrays)},
            }
            np.savez(temporary, allow_pickle=False, **named)
        return result


def _without_arrays(value: Result, arrays: list[np.ndarray]) -> Json:
    """`value` with {"array": i} in the place of arrays, which are appended to `arrays`."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, Mapping):
        return {key: _without_arrays(inner, arrays) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(inner, arrays) for inner in value]
    return value


def _with_arrays(value: Json, arrays: Mapping[str, np.ndarray]) -> Result:
    """Inverse of `_without_arrays`."""
    if isinstance(value, dict):
        if set(value) == {"array"}:
            return arrays[f"array {value['array']}"]
        return {key: _with_arrays(inner, arrays) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_arrays(inner, arrays) for inner in value]
    return value


class _Kept(NamedTuple):
    """A finished stage."""

    inputs: Json
    seconds: float  # 0 of an older version, which did not keep them
    result: Result


def _read(path: Path) -> _Kept | None:
    """None where there is none that can be read."""
    if not path.is_file():
        return None
    try:
        arrays = read_npz(path)
        tree = _with_arrays(parse_json(arrays[TREE].tobytes(), str(path)), arrays)
        return _Kept(tree["inputs"], tree.get("seconds", 0.0), tree["result"])
    except (InputError, KeyError):
        return None
