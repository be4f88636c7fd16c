"""Every script with hostile folders and paths, inside this process; what would train, search or measure is left out."""

import atexit
import contextlib
import dataclasses
import functools
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from unittest import mock

import numpy as np

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.data.tokenizer import train_tokenizer
from sparse_gpt.experiments import registry
from sparse_gpt.io import write_json
from sparse_gpt.parameters import parameter_table, unflatten
from sparse_gpt.training import manifest
from sparse_gpt.training.checkpoint import save_params
from tests.damaged_archives import OBSTACLES
from tests.inprocess import launch_here

LONG_WORK = (  # whoever comes so far has been accepted
    "sparse_gpt.training.run.train_on_corpus",
    "sparse_gpt.training.loop.train",
    "sparse_gpt.interop.inference.write_files",
    "launch.jobs.bridge.train_bridges",
    "sparse_gpt.workdir.find_circuit",
    "launch.jobs.data.corpus_from_config",
    "launch.jobs.store.corpus_from_config",
    "launch.jobs.benchmark.plan",
    "launch.jobs.compile_tpu.main",
)


class Place(NamedTuple):
    """What is where a script is asked to work, and a name for it that can be printed."""

    name: str
    make: Callable[[Path], object]


def _foreign(folder: Path) -> None:
    """As somebody's home."""
    (folder / "Documents" / "letters").mkdir(parents=True)
    (folder / ".bashrc").write_text("alias ll='ls -l'\n")
    (folder / "Documents" / "letters" / "a.txt").write_text("Dear all\n")
    (folder / "package.json").write_text('{"name": "x"}')
    (folder / "link").symlink_to("Documents")


def _damaged(content: bytes, *names: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    return make


def _pipes(folder: Path) -> None:
    folder.mkdir()
    for name in ("config.json", "manifest.json", "metrics.jsonl", "final_model.pt", "beeg_config.json"):
        os.mkfifo(folder / name)


def _read_only(folder: Path) -> None:
    _foreign(folder)
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)


PLACES = (
    Place("missing", lambda folder: None),
    Place("empty", lambda folder: folder.mkdir()),
    Place("foreign", _foreign),
    Place("read-only", _read_only),
    Place("a file", lambda path: path.write_text("x")),
    Place("a pipe", os.mkfifo),
    Place("link to nothing", lambda path: path.symlink_to("nothing")),
    Place("link to itself", lambda path: path.symlink_to(path.name)),
    Place("pipes inside", _pipes),
    Place("config.json cut", _damaged(b'{"model": {', "config.json", "manifest.json")),
    Place("config.json a list", _damaged(b"[]", "config.json", "manifest.json")),
    Place("config.json of others", _damaged(b'{"architectures": ["GPT2LMHeadModel"]}', "config.json")),
    Place("config.json bytes", _damaged(b"\xff\xfe\x00", "config.json")),
    Place("beeg_config.json a list", _damaged(b"[1]", "beeg_config.json", "final_model.pt")),
    Place("checkpoints a file", _damaged(b"x", "checkpoints", "tokenizer", "corpus", "circuits")),
    Place("checkpoints of others", _damaged(b"x", "checkpoints/5/x", "tokenizer/x", "corpus/x", "circuits/x/y")),
)
VALUES = (
    "",
    " ",
    "gs://bucket/run",
    "https://host/x",
    "n" * 300,
    "a/" * 3000,
    "~nosuchuser/x",
    "no/such/x",
    "-",
    "é\n",
)
_TASK = "--task=single_double_quote"
SCRIPTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # flags that name paths, and others that are needed
    "train": (("workdir", "init_from", "batches", "params_out"), ("--preset=tiny", "--config.model.n_layer=1")),
    "prune": (("workdir", "init_from"), (_TASK,)),
    "card": (("workdir", "init_from"), (_TASK,)),
    "report": (("workdir", "init_from"), ()),
    "page": (("workdir", "init_from"), (_TASK,)),
    "evaluate": (("workdir", "init_from"), ()),
    "bridge": (("workdir", "dense", "independent", "config.bridge.init_from"), ("--preset=bridge_quickstart",)),
    "steer": (("workdir",), ()),
    "tasks": (("workdir", "export"), (_TASK, "--show=1")),
    "tasks ": (("tokenizer", "export"), (_TASK, "--show=1")),  # with one of the two
    "data": (("workdir", "config.data.corpus", "config.data.tokenizer"), ("--preset=tiny", "--inspect")),
    "logits": (("workdir", "tokens", "logits", "activations_out"), ()),
    "store": (("workdir", "output"), ()),
    "import_openai": (("workdir", "source", "tokenizer"), ()),
    "export_openai": (("workdir", "output"), ()),
    "benchmark": (("workdir",), ("--parts=selection",)),
    "reproduce": (("workdir", "model"), ("--experiment=necessity",)),
    "compile_tpu": (("workdir",), ("--preset=tiny",)),
}


MAKES_WORKDIR = ("train", "bridge", "data", "import_openai", "benchmark", "reproduce")
READS_WORKDIR = (
    "train",
    "prune",
    "card",
    "report",
    "page",
    "steer",
    "tasks",
    "logits",
    "store",
    "export_openai",
    "compile_tpu",
)
INSIDE = (
    *("config.json", "manifest.json", "metrics.jsonl", "evaluation.json"),
    *(
        "tokenizer",
        "tokenizer/tokenizer.json",
        "checkpoints",
    ),
)
CONTENTS = (
    *(b"", b"[]", b"null", b'{"model": {', b"\xff\xfe\x00", b"[" * 200_000),
    *(b'{"step": 1e999, "x": NaN}', b"7" * 6000),
)


def _with(name: str, put: Callable[[Path], object]) -> Callable[[Path], None]:
    """A sound workdir with something else in the place of one of its parts."""

    def make(folder: Path) -> None:
        shutil.copytree(sound(), folder)
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        put(path)

    return make


def _damages() -> Iterator[Place]:
    """Sound workdirs with one part of them damaged."""
    for name in INSIDE:
        for content in CONTENTS:
            yield Place(f"{name} = {content[:12]!r}", _with(name, functools.partial(_write, content)))
        for obstacle in OBSTACLES:
            yield Place(f"{name}: {obstacle.name}", _with(name, obstacle.at))


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


@functools.cache
def sound() -> Path:
    """A workdir as a finished run leaves it, as far as scripts read it before they begin to work."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-workdir-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    config = configs.replace(presets.preset("tiny"), {"model.n_layer": 1})  # a layer's tensors are as good as two's
    table = parameter_table(config.model)
    params = unflatten({path: np.zeros(spec.shape, np.float32) for path, spec in table.items()})
    write_json(folder / "config.json", configs.to_dict(config))
    facts = {"params_sha256": manifest.params_sha256(params), "seeds": {}, "step": 7}
    manifest.describe(facts).write(folder / "manifest.json")
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    save_params(folder, params, 7)
    np.save(folder / "tokens.npy", np.zeros((1, 4), np.int32))
    train_tokenizer(["print('a')\n", 'x = "b"\n'] * 50, 260).save(folder / "tokenizer")
    return folder


def combinations() -> Iterator[tuple[str, str, Place | str]]:
    """Script, the flag that names something hostile, and what it names."""
    for script, (named, _) in SCRIPTS.items():
        for flag in named:
            yield from ((script, flag, place) for place in PLACES)
            yield from ((script, flag, value) for value in VALUES)
    for script in READS_WORKDIR:
        yield from ((script, "workdir", place) for place in _damages())


def check(script: str, flag: str, hostile: Place | str, folder: Path) -> None:
    """Runs a script in an empty `folder`. AssertionError unless it takes what it is given or refuses it as promised."""
    named, others = SCRIPTS[script]
    script = script.strip()
    new = script in MAKES_WORKDIR
    given = {name: str(folder / "new") if new else str(sound()) for name in named if name == "workdir"}
    given |= {"tokenizer": str(sound() / "tokenizer")} if "tokenizer" in named and not new else {}
    given |= {name: str(folder / name) for name in ("logits", "output", "source") if name in named}
    given |= {"tokens": str(sound() / "tokens.npy")} if "tokens" in named else {}
    if isinstance(hostile, Place):
        hostile.make(folder / "place")
        given[flag] = str(folder / "place")
    else:
        given[flag] = hostile
    before = listing(folder)
    with accepting(), contextlib.ExitStack() as stack:
        stack.callback(_writable, folder / "place")
        held = listing(sound())
        done = launch_here(script, *(f"--{name}={value}" for name, value in given.items()), *others, cwd=folder)
    assert "Traceback" not in done.stderr, done.stderr[-600:]
    assert done.returncode in (0, 2), (done.returncode, done.stderr[-600:])
    if done.returncode == 2:
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        usage = "FATAL Flags parsing error" in done.stderr
        assert len(errors) == 1 or usage, done.stderr[-600:]
        assert listing(folder) == before, f"left {sorted(set(listing(folder)) ^ set(before))[:5]}"
        assert listing(sound()) == held
    for path in folder.rglob("*.json"):
        if str(path.relative_to(folder)) not in before and path.is_file():
            json.loads(path.read_text(), parse_constant=_not_finite)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Kind and size of everything in a folder, by its path in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        size = info.st_size if stat.S_ISREG(info.st_mode) else 0
        found[str(path.relative_to(folder))] = (stat.S_IFMT(info.st_mode), size)
    return found


@contextlib.contextmanager
def accepting() -> Iterator[None]:
    """What would take minutes ends the script with 0."""

    def accepted(*_: Any, **__: Any) -> NoReturn:
        raise SystemExit(0)

    with contextlib.ExitStack() as stack:
        for name in LONG_WORK:
            stack.enter_context(mock.patch(name, accepted))
        for name, experiment in registry.EXPERIMENTS.items():
            patched = dataclasses.replace(experiment, run=accepted)
            stack.enter_context(mock.patch.dict(registry.EXPERIMENTS, {name: patched}))
        yield


def _not_finite(name: str) -> NoReturn:
    raise AssertionError(f"{name} in a JSON file")


def _writable(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.chmod(stat.S_IRWXU)
