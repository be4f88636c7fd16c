"""Checkpoints: orbax, asynchronous, atomic, with the parameters as an item of their own.

DIR/checkpoints/STEP/ holds "params" and, for a run that can be resumed, "optimizer". STEP counts finished steps. Its
metadata hold the format's number and, of trained models, the configuration. Of several processes, each writes its part.
"""

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from sparse_gpt.config import Config, ModelConfig, to_dict
from sparse_gpt.errors import InputError
from sparse_gpt.folders import disk_full
from sparse_gpt.io import Tree
from sparse_gpt.parameters import Params, PyTree, abstract_params, flatten

FORMAT = 1  # raise it when older code can no longer read what is written


class Checkpoints:
    """The checkpoints of one workdir. Use as a context manager: leaving waits for the last asynchronous write."""

    def __init__(self, workdir: Path, keep_last: int = 2, keep_every: int = 0, config: Config | None = None):
        self.folder = workdir / "checkpoints"
        _refuse_pipes(self.folder)
        self._saving = False
        self._damaged: set[int] = set()  # steps that restore_newest could not read
        self._metadata: Tree = {"sparse_gpt_format": FORMAT}
        if config is not None:
            self._metadata["config"] = to_dict(config)
        self._manager = ocp.CheckpointManager(
            self.folder.absolute(),
            # Named here, because metadata are given only of items whose handler is known.
            item_handlers={name: ocp.StandardCheckpointHandler() for name in ("params", "optimizer")},
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep_last, keep_period=keep_every or None, create=True, enable_async_checkpointing=True
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, params: Params, optimizer: PyTree = None) -> None:
        """Starts writing; the arrays may be donated as soon as this returns.

        A step that exists is left alone, unless `restore_newest` found it damaged: then it is replaced.
        """
        # Later ones go too: orbax saves no step before the newest that it has, and says nothing of that.
        for damaged in sorted(at for at in self._damaged if at >= step):
            self._manager.delete(damaged)
            self._damaged.remove(damaged)
        if step in self._manager.all_steps():
            return
        items: dict[str, object] = {"params": ocp.args.StandardSave(params)}
        if optimizer is not None:
            items["optimizer"] = ocp.args.StandardSave(optimizer)
        self._saving = True
        try:
            self._manager.save(step, args=ocp.args.Composite(**items), custom_metadata=self._metadata)
        finally:
            self._saving = False

    def is_saving(self) -> bool:
        """Whether a checkpoint is not on disk yet. Of several processes, for all of them to ask together."""
        return self._saving or self._manager.is_saving_in_progress()

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def restore(self, step: int, params: Params, optimizer: PyTree = None) -> tuple[Params, PyTree]:
        """The checkpoint of `step`, laid out as the given abstract (or real) trees are."""
        items: dict[str, object] = {"params": ocp.args.StandardRestore(params)}
        if optimizer is not None:
            items["optimizer"] = ocp.args.StandardRestore(optimizer)
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        return restored["params"], restored["optimizer"] if optimizer is not None else None

    def check(self, step: int, params: Params) -> None:
        """InputError if the checkpoint's metadata say that it is of a newer format, or not of the model of `params`.

        A checkpoint whose metadata cannot be read passes: restoring it tells what is wrong.
        """
        try:
            metadata = self._manager.metadata(step)
            written = (metadata.custom_metadata or {}).get("sparse_gpt_format", FORMAT)
            found = flatten(metadata.item_metadata["params"].tree)
        except Exception:  # damaged files raise anything; see above
            return
        if written > FORMAT:
            raise InputError(
                f"{self.folder / str(step)}: checkpoint format {written}; this version reads up to {FORMAT}: update it"
            )
        wanted = flatten(params)
        for path in sorted(wanted.keys() | found.keys()):
            name, here = "/".join(path), f"{self.folder / str(step)}: of another model"
            if path not in found or path not in wanted:
                where = "has no" if path not in found else "has a"
                raise InputError(f"{here}: it {where} tensor {name}; use its own config.json, or a new --workdir")
            if tuple(found[path].shape) != tuple(wanted[path].shape):
                raise InputError(
                    f"{here}: {name} has shape {tuple(found[path].shape)} there, {tuple(wanted[path].shape)} here; "
                    "use its own config.json, or a new --workdir"
                )

    def restore_newest(self, params: Params, optimizer: PyTree) -> tuple[int, Params, PyTree, list[str]] | None:
        """(step, params, optimizer, notes) of the newest checkpoint that can be read, or None when there is none.

        A damaged one is named in the notes and the one before it is tried; `save` replaces it.

        Raises:
          InputError: all are damaged; or one holds another model, or was written in a newer format.
        """
        notes: list[str] = []
        for step in reversed(self.steps()):
            self.check(step, params)
            try:
                return step, *self.restore(step, params, optimizer), notes
            except Exception as error:  # orbax raises many types for damaged files; each is reported below
                notes.append(f"{self.folder / str(step)}: damaged ({_first_line(error)}); trying the one before")
                self._damaged.add(step)
        if notes:
            raise InputError(f"{self.folder}: no readable checkpoint; {'; '.join(notes)}")
        return None


def _refuse_pipes(folder: Path) -> None:
    """InputError if something in the folder is neither file nor folder: what restores checkpoints would wait for it,
    and no signal would end that."""
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # gone again, or a link to nowhere, which counts as damage
            mode = path.stat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise InputError(f"{path}: not a regular file; remove the checkpoint that it is in")


@contextlib.contextmanager
def full_disk(workdir: Path) -> Iterator[None]:
    """Turns "no space left" of any library into one line; finished checkpoints are not touched by it."""
    try:
        yield
    except Exception as error:
        if not disk_full(error):
            raise
        raise InputError(
            f"{workdir}: the disk is full; finished checkpoints are intact: free some space and run the same command "
            "again, it resumes from the newest"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


@contextlib.contextmanager
def opened(workdir: Path, keep_last: int = 2, keep_every: int = 0) -> Iterator[Checkpoints]:
    """Checkpoints of a workdir, closed on exit."""
    with Checkpoints(workdir, keep_last, keep_every) as checkpoints:
        yield checkpoints


def save_params(workdir: Path, params: Params, step: int = 0) -> None:
    """Writes parameters alone, for models that were not trained here."""
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(step, params)


def kept_steps(workdir: Path) -> list[int]:
    """Steps of the checkpoints of a workdir, oldest first. InputError if there is none."""
    if not (workdir / "checkpoints").is_dir():
        raise InputError(f"{workdir}: no checkpoints; train or import a model into it first")
    with Checkpoints(workdir) as checkpoints:
        steps = checkpoints.steps()
    if not steps:
        raise InputError(f"{workdir / 'checkpoints'}: empty; train longer or import a model first")
    return steps


def load_params(workdir: Path, model: ModelConfig, step: int | None = None) -> tuple[Params, int]:
    """Parameters of a workdir as numpy arrays, the newest or those of a kept `step`, and their step. InputError if none
    are there or they misfit."""
    step = kept_steps(workdir)[-1] if step is None else step
    with Checkpoints(workdir) as checkpoints:
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        wanted = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), abstract_params(model)
        )
        checkpoints.check(step, wanted)
        try:
            params, _ = checkpoints.restore(step, wanted)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{workdir}/checkpoints/{step}: does not hold this model ({_first_line(error)})"
            ) from error
    for path, leaf in flatten(params).items():
        if leaf.shape != flatten(wanted)[path].shape:
            raise InputError(
                f"{workdir}: {'/'.join(path)} has shape {leaf.shape}, expected {flatten(wanted)[path].shape}"
            )
    return jax.tree.map(np.asarray, params), step
