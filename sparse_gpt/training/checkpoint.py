"""Checkpoints: orbax, asynchronous, atomic, with the parameters as an item of their own.

DIR/checkpoints/STEP/ holds "params" and, for a run that can be resumed, "optimizer". STEP counts finished steps.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from sparse_gpt.config import ModelConfig
from sparse_gpt.errors import InputError
from sparse_gpt.model.parameters import Params, abstract_params, flatten


class Checkpoints:
    """The checkpoints of one workdir. Use as a context manager: leaving waits for the last asynchronous write."""

    def __init__(self, workdir: Path, keep_last: int = 2, keep_every: int = 0):
        self.folder = workdir / "checkpoints"
        self._manager = ocp.CheckpointManager(
            self.folder.absolute(),
            item_names=("params", "optimizer"),
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

    def save(self, step: int, params: Params, optimizer: Any = None) -> None:
        """Starts writing; the arrays may be donated as soon as this returns. A step that exists is left alone."""
        if step in self._manager.all_steps():
            return
        items: dict[str, Any] = {"params": ocp.args.StandardSave(params)}
        if optimizer is not None:
            items["optimizer"] = ocp.args.StandardSave(optimizer)
        self._manager.save(step, args=ocp.args.Composite(**items))

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def restore(self, step: int, params: Params, optimizer: Any = None) -> tuple[Params, Any]:
        """The checkpoint of `step`, laid out as the given abstract (or real) trees are."""
        items: dict[str, Any] = {"params": ocp.args.StandardRestore(params)}
        if optimizer is not None:
            items["optimizer"] = ocp.args.StandardRestore(optimizer)
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        return restored["params"], restored["optimizer"] if optimizer is not None else None

    def restore_newest(self, params: Params, optimizer: Any) -> tuple[int, Params, Any, list[str]] | None:
        """(step, params, optimizer, notes) of the newest checkpoint that can be read, or None when there is none.

        A damaged one is named in the notes and the one before it is tried. InputError when all are damaged.
        """
        notes: list[str] = []
        for step in reversed(self.steps()):
            try:
                return step, *self.restore(step, params, optimizer), notes
            except Exception as error:  # orbax raises many types for damaged files; each is reported below
                notes.append(f"{self.folder / str(step)}: damaged ({_first_line(error)}); trying the one before")
        if notes:
            raise InputError(f"{self.folder}: no readable checkpoint; {'; '.join(notes)}")
        return None


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


def load_params(workdir: Path, model: ModelConfig) -> tuple[Params, int]:
    """Newest parameters of a workdir as numpy arrays, and their step. InputError if none are there or they misfit."""
    if not (workdir / "checkpoints").is_dir():
        raise InputError(f"{workdir}: no checkpoints; train or import a model into it first")
    with Checkpoints(workdir) as checkpoints:
        if not checkpoints.steps():
            raise InputError(f"{workdir / 'checkpoints'}: empty; train longer or import a model first")
        step = checkpoints.steps()[-1]
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        wanted = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), abstract_params(model)
        )
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
