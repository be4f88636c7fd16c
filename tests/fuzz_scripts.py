"""Every script with hostile folders and paths, inside this process; what would train, search or measure is left out."""

import contextlib
import dataclasses
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from unittest import mock

from launch import experiments
from tests.inprocess import launch_here

LONG_WORK = (  # whoever comes so far has been accepted
    "sparse_gpt.training.run.train_on_corpus",
    "sparse_gpt.training.loop.train",
    "sparse_gpt.interop.inference.write_files",
    "launch.jobs.bridge._bridge",
    "launch.jobs.prune.find_circuit",
    "launch.jobs.data.corpus_from_config",
    "launch.jobs.store.corpus_from_config",
    "launch.jobs.benchmark._jobs",
    "launch.jobs.compile_tpu.main",
)


class Place(NamedTuple):
    """What is where a script is told to work, and a name for it that can be printed."""

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
    "train": (("workdir", "init_from", "batches", "params_out"), ("--preset=tiny",)),
    "prune": (("workdir", "init_from"), (_TASK,)),
    "report": (("workdir", "init_from"), ()),
    "bridge": (("workdir", "dense", "independent", "config.bridge.init_from"), ("--preset=bridge_quickstart",)),
    "steer": (("workdir",), ()),
    "tasks": (("workdir", "tokenizer", "export"), (_TASK,)),
    "data": (("workdir", "config.data.corpus", "config.data.tokenizer"), ("--preset=tiny", "--inspect")),
    "logits": (("workdir", "tokens", "logits", "activations_out"), ()),
    "store": (("workdir", "output"), ()),
    "import_openai": (("workdir", "source", "tokenizer"), ()),
    "export_openai": (("workdir", "output"), ()),
    "benchmark": (("workdir",), ("--parts=selection",)),
    "reproduce": (("workdir", "model"), ("--experiment=necessity",)),
    "compile_tpu": (("workdir",), ("--preset=tiny",)),
}


def combinations() -> Iterator[tuple[str, str, Place | str]]:
    """Script, the flag that names something hostile, and what it names."""
    for script, (named, _) in SCRIPTS.items():
        for flag in named:
            yield from ((script, flag, place) for place in PLACES)
            yield from ((script, flag, value) for value in VALUES)


def check(script: str, flag: str, hostile: Place | str, folder: Path) -> None:
    """Runs a script in an empty `folder`. AssertionError unless it takes what it is told or refuses it as promised."""
    named, others = SCRIPTS[script]
    given = {name: str(folder / "new" / name) for name in named[:1]}
    given |= {name: str(folder / name) for name in ("tokens", "logits", "output", "source") if name in named}
    if isinstance(hostile, Place):
        hostile.make(folder / "place")
        given[flag] = str(folder / "place")
    else:
        given[flag] = hostile
    before = listing(folder)
    with accepting(), contextlib.ExitStack() as stack:
        stack.callback(_writable, folder / "place")
        done = launch_here(script, *(f"--{name}={value}" for name, value in given.items()), *others, cwd=folder)
    assert "Traceback" not in done.stderr, done.stderr[-600:]
    assert done.returncode in (0, 2), (done.returncode, done.stderr[-600:])
    if done.returncode == 2:
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        usage = "FATAL Flags parsing error" in done.stderr
        assert len(errors) == 1 or usage, done.stderr[-600:]
        assert listing(folder) == before, f"left {sorted(set(listing(folder)) ^ set(before))[:5]}"
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
        for name, experiment in experiments.EXPERIMENTS.items():
            patched = dataclasses.replace(experiment, run=accepted)
            stack.enter_context(mock.patch.dict(experiments.EXPERIMENTS, {name: patched}))
        yield


def _not_finite(name: str) -> NoReturn:
    raise AssertionError(f"{name} in a JSON file")


def _writable(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.chmod(stat.S_IRWXU)
