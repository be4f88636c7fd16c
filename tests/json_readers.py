"""Every function that reads JSON, with a good file for it: tests damage the file and call the function."""

import dataclasses
import functools
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparse_gpt import config as configs
from sparse_gpt import presets, stored
from sparse_gpt.circuits import circuit, storage
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.config import NODE_SITES
from sparse_gpt.data import shards
from sparse_gpt.data.builder import PROGRESS, Preparation, Settings
from sparse_gpt.data.cleaning import SPLITS
from sparse_gpt.data.ingest import Rules
from sparse_gpt.data.tokenizer import Tokenizer, train_tokenizer
from sparse_gpt.evaluation import tasks_solved, transfer
from sparse_gpt.experiments import harness, laptop_circuits, measures
from sparse_gpt.interop import openai_config
from sparse_gpt.io import read_json, write_json
from sparse_gpt.records import Evaluation, Search, read_circuit, read_workdir
from sparse_gpt.records.corpus import CorpusManifest
from sparse_gpt.training import manifest
from sparse_gpt.training.metrics_log import forget_after
from tests import report_workdirs

TINY = presets.preset("tiny")
SHA = "ab" * 32
VALUES: tuple[Any, ...] = (None, "x", "", [], {}, -1, 0.5, True, 10**6 + 1, [[]], "\x00")
"""What takes the place of a value in a file."""
TASK = "single_double_quote"
SETTINGS = Settings("idioms:1", 0, 100, 300, "trained", 0.01, 1000, True, "", 100)
RULES = Rules(1000, 0.01, True)


class Reader(NamedTuple):
    """`make` fills an empty folder, and `read` reads the `file` in it."""

    name: str
    file: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]


def _write(file: str, value: Any) -> Callable[[Path], object]:
    return lambda folder: write_json(folder / file, value)


def _circuit(folder: Path) -> None:
    values = {site: np.zeros((2, 9), np.float32) for site in NODE_SITES}
    nodes = circuit.Node(0, "attn_in", 1), circuit.Node(0, "attn_v", 2)
    losses = {"task_loss": 0.1, "nodes": 2, "edges": 1, "random_circuit_task_loss": [0.7, 0.8]}
    edges = (circuit.Edge(*nodes, 0.5),)
    circuit.Circuit(
        TASK, SHA, "mean", "live", 0.15, 1.0, ((3, 0.5),), True, nodes, edges, losses, values, {"nodes": []}
    ).save(folder)
    search = {"format": Search.FORMAT, "hyperparameters": {"seed": 1}, "params_sha256": SHA, "stages": []}
    write_json(folder / "search.json", {**search, "trials": [], **_SIZES})
    write_json(folder / "traces.json", {})


_SIZES = {
    "size_versus_target": {"points": [{"target_loss": 0.1, "nodes": 3, "edges": 2, "task_loss": 0.1, "reached": True}]},
    "importance": {"nodes": [{"layer": 0, "site": "attn_in", "channel": 1, "task_loss": 0.5}]},
}


@functools.cache
def _tokenizer() -> Tokenizer:
    return train_tokenizer(["def f(x):\n    return x\n" * 50], 260)


def _tokenizer_without(*files: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        _tokenizer().save(folder)
        for file in files:
            (folder / file).unlink()

    return make


def _corpus(folder: Path) -> None:
    counts = {split: {"documents": 1, "bytes": 2, "tokens": 2} for split in SPLITS}
    source = {"source": "idioms", "weight": 1.0, "documents_read": 3, "dropped": {"a": 1}, "splits": counts}
    shard = {"name": "a.bin", "source": 0, "split": "train", "tokens": 2, "sha256": SHA}
    content = {"format": CorpusManifest.FORMAT, "settings": {}, "tokenizer": {"sha256": SHA, "vocab_size": 260}}
    write_json(folder / "manifest.json", {**content, "dtype": "<u2", "sources": [source], "shards": [shard]})
    (folder / "shards").mkdir()
    (folder / "shards" / "a.bin").write_bytes(bytes(4))


def _progress(folder: Path) -> None:
    state = {"settings": dataclasses.asdict(SETTINGS), "fingerprints": []}
    write_json(folder / PROGRESS, {**state, "done": {}, "current": {}, "seen_keys": 0})


def _stored(folder: Path) -> None:
    params = {"a": np.ones(3, np.float32)}
    with zipfile.ZipFile(folder / "model.zip", "w") as archive:
        archive.writestr(stored.PARAMS, stored._packed(params))
    write_json(folder / "manifest.json", {"params_sha256": manifest.params_sha256(params), "step": 3})
    write_json(folder / "config.json", configs.to_dict(TINY))


def _load_stored(folder: Path) -> object:
    """With the two JSON files as members of the archive."""
    buffer = io.BytesIO((folder / "model.zip").read_bytes())
    with zipfile.ZipFile(buffer, "a") as archive:
        for name in ("manifest.json", "config.json"):
            if (folder / name).is_file():
                archive.write(folder / name, name)
    (folder / "all.zip").write_bytes(buffer.getvalue())
    return stored.load(str(folder / "all.zip"))


def _metrics(folder: Path) -> None:
    rows = [{"step": step, "loss": 1.5, "val_loss": 2.5, "nonzeros": {"a": 3}} for step in range(3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _resume(folder: Path) -> None:
    forget_after(folder / "metrics.jsonl", 2)
    assert all(row.step < 2 for row in harness.metrics(folder))


def _report(folder: Path) -> None:
    report_workdirs.write_bridge(report_workdirs.write_workdir(folder, circuits=False, steps=30))
    write_json(folder / "evaluation.json", report_workdirs.evaluation())


def _task(folder: Path) -> None:
    found, traces = report_workdirs.quote_circuit()
    contents = {
        "circuit": found,
        "traces": traces,
        "search": report_workdirs.search(found),
        "contexts": report_workdirs.contexts(found),
        "steering": report_workdirs.steering(TASK),
        "transport": report_workdirs.transport(TASK),
    }
    for name, content in contents.items():
        write_json(folder / f"{name}.json", content)


def _within(make: Callable[[Path], object], *parts: str) -> Callable[[Path], object]:
    def made(folder: Path) -> None:
        place = folder.joinpath(*parts)
        place.mkdir(parents=True)
        make(place)

    return made


_MANIFEST = {"params_sha256": SHA, "step": 3, "nonzeros": {"a": 3}, "packages": {"jax": "1"}}
_EVALUATION = {"format": Evaluation.FORMAT, "params_sha256": SHA, "tasks": [{"task": TASK, "task_loss": 0.1}]}
_PLACE = ("circuits", TASK)
_OURS = f"{'/'.join(_PLACE)}/"

READERS = (
    Reader("config.load", "config.json", _write("config.json", configs.to_dict(TINY)), configs.load),
    Reader(
        "import_openai",
        openai_config.FILE,
        _write(openai_config.FILE, openai_config.to_fields(TINY)),
        lambda folder: openai_config.from_fields(read_json(folder / openai_config.FILE)),
    ),
    Reader("stored manifest", "manifest.json", _stored, _load_stored),
    Reader("stored configuration", "config.json", _stored, _load_stored),
    Reader("tokenizer.json", "tokenizer.json", _tokenizer_without("encoder.json", "vocab.bpe"), Tokenizer.load),
    Reader("encoder.json", "encoder.json", _tokenizer_without("tokenizer.json"), Tokenizer.load),
    Reader("vocab.bpe", "vocab.bpe", _tokenizer_without("tokenizer.json"), Tokenizer.load),
    Reader(
        "corpus",
        "manifest.json",
        _corpus,
        lambda folder: shards.verify_shards(folder, shards.read_manifest(folder), "sizes"),
    ),
    Reader(
        "unfinished corpus",
        PROGRESS,
        _progress,
        lambda at: Preparation(at, SETTINGS, [], [], Rules(100, 0.01, True), None),
    ),
    Reader("circuit", "circuit.json", _circuit, lambda folder: circuit.load(folder, SHA)),
    Reader("finished search", "search.json", _circuit, lambda at: storage.is_complete(at, SHA, TINY.prune)),
    Reader("importance", "search.json", _circuit, lambda at: transfer.read_importance(at, circuit.load(at))),
    Reader("sizes", f"{_OURS}search.json", _within(_circuit, *_PLACE), lambda at: measures.target_points(at, TASK)),
    Reader("size", f"{_OURS}circuit.json", _within(_circuit, *_PLACE), lambda at: measures.minimal_size(at, TASK)),
    Reader("showcase", "circuit.json", _circuit, lambda at: laptop_circuits.read_sizes(at / "circuit.json")),
    Reader("showcase, search", "search.json", _circuit, lambda at: laptop_circuits.read_sizes(at / "circuit.json")),
    Reader("study", "made_for.json", _write("made_for.json", {"a": 1}), lambda at: Stages(at, {"a": 1})),
    Reader("manifest", "manifest.json", _write("manifest.json", _MANIFEST), manifest.read),
    Reader("resumed", "manifest.json", _write("manifest.json", _MANIFEST), lambda at: manifest.update(at, {"step": 4})),
    Reader("reproduce", "manifest.json", _write("manifest.json", _MANIFEST), harness.manifest),
    Reader("held", "manifest.json", _write("manifest.json", _MANIFEST), lambda at: stored._holds(at, SHA)),
    Reader("metrics", "metrics.jsonl", _metrics, harness.metrics),
    Reader("validation loss", "metrics.jsonl", _metrics, measures.validation_loss),
    Reader("metrics of a resumed run", "metrics.jsonl", _metrics, _resume),
    Reader(
        "evaluation",
        "evaluation.json",
        _write("evaluation.json", _EVALUATION),
        lambda at: tasks_solved.summary(tasks_solved.read(at / "evaluation.json") or Evaluation(tasks=())),
    ),
    Reader("solved", "evaluation.json", _write("evaluation.json", _EVALUATION), lambda at: measures.solved(at, 0.1)),
    *(
        Reader(f"report, {name}", name, _report, read_workdir)
        for name in ("config.json", "manifest.json", "metrics.jsonl", "evaluation.json", "bridge.json")
    ),
    *(
        Reader(f"report, {name}", f"{name}.json", _task, read_circuit)
        for name in ("circuit", "traces", "search", "contexts", "steering", "transport")
    ),
)


def wrong_values(value: Any, most: int = 3) -> Iterator[Any]:
    """The value with one part of it replaced or, in an object, left out; of long lists and objects the first parts."""
    if isinstance(value, dict):
        for key in list(value)[: most if all(isinstance(v, int) for v in value.values()) else None]:
            yield {name: held for name, held in value.items() if name != key}
            for other in (*VALUES, *wrong_values(value[key], most)):
                yield {**value, key: other}
    if isinstance(value, list):
        for index in range(min(len(value), most)):
            for other in (*VALUES, *wrong_values(value[index], most)):
                yield [*value[:index], other, *value[index + 1 :]]
