"""A workdir as the home of one run: it belongs to one configuration, and is left as it was found by a run that is
refused before there is anything to go on with."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sparse_gpt import config as configs
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.folders import Snapshot
from sparse_gpt.io import Tree, read_json, write_json
from sparse_gpt.records import Manifest
from sparse_gpt.training import distributed

UNBOUND_FIELDS = {  # may differ between a run and its resumption: they do not change what is computed
    "train.checkpoint_every", "train.keep_last", "train.keep_every",
    "data.corpus",  # may have moved; `check_corpus` sees to it that it is the same one
    "train.mesh",  # changes the order of sums, so the last bits, but any mesh can take over
}  # fmt: skip


def claim_workdir(config: Config, workdir: Path) -> None:
    """Writes config.json into a new workdir; refuses a workdir that holds another configuration."""
    check_workdir(config, workdir)
    if not (workdir / "config.json").is_file():
        found = configs.replace(config, {"data.corpus": _corpus_folder(config)})
        write_json(workdir / "config.json", configs.to_dict(found))


def follow_corpus(config: Config, workdir: Path) -> None:
    """Where a run goes on with its corpus in another folder than before, config.json names that one from now on; all
    else in the file, which an older version may have written, stays."""
    tree, folder = read_json(workdir / "config.json"), _corpus_folder(config)
    data = tree.setdefault("data", {})
    if data.get("corpus", "") != folder:
        data["corpus"] = folder
        write_json(workdir / "config.json", tree)


def check_workdir(config: Config, workdir: Path) -> None:
    """InputError if the workdir holds a run of another configuration."""
    if not (workdir / "config.json").is_file():
        return
    held, wanted = (_flat(configs.to_dict(c)) for c in (configs.load(workdir), config))
    differing = [
        f"{name} is {held[name]!r} there, {wanted[name]!r} here" for name in held if held[name] != wanted[name]
    ]
    differing = [text for text in differing if not text.startswith(("prune.", *UNBOUND_FIELDS))]
    if differing:
        raise InputError(
            f"{workdir}: holds a run of another configuration ({'; '.join(differing)}); choose a new --workdir"
        )


def check_corpus(workdir: Path, folder: Path, sha256: str) -> None:
    """InputError if the workdir holds a run that has begun on another corpus than the one of this hash in `folder`."""
    if not has_begun(workdir):
        return
    try:
        manifest = Manifest.read_if_any(workdir / Manifest.FILE)
    except InputError:  # damaged: what writes it next says so, and goes on without it
        return
    held = manifest.corpus_sha256 if manifest else None  # older runs, and given batches, have none
    if held is not None and held != sha256:
        raise InputError(
            f"data.corpus={folder}: SHA-256 {sha256[:12]}… is not the corpus of the run in {workdir} ({held[:12]}…); "
            "name that one, or choose a new --workdir"
        )


def has_begun(workdir: Path) -> bool:
    """Whether the workdir holds work that the same command goes on with: a logged step, a checkpoint, or a part of the
    corpus."""
    metrics, part = workdir / "metrics.jsonl", workdir / "corpus" / "progress.json"
    logged = metrics.is_file() and metrics.stat().st_size > 0
    return logged or part.is_file() or any((workdir / "checkpoints").glob("[0-9]*"))


@contextlib.contextmanager
def leave_as_found(workdir: Path, before: Snapshot | None = None, parts: Sequence[str] = ()) -> Iterator[None]:
    """The workdir is left as it was (`before`, or on entering) when the body raises InputError before there is work to
    go on with, in it or in the workdirs within it that `parts` names."""
    if not distributed.is_first():
        yield
        return
    snapshot = before or Snapshot(workdir)
    with snapshot.restore_if_refused(lambda: any(has_begun(workdir / part) for part in ("", *parts))):
        yield


def _corpus_folder(config: Config) -> str:
    """`data.corpus` so that it is right in any working directory."""
    return str(Path(config.data.corpus).expanduser().absolute()) if config.data.corpus else ""


def _flat(tree: Mapping[str, Mapping[str, object]]) -> Tree:
    return {f"{group}.{field}": value for group, fields in tree.items() for field, value in fields.items()}
