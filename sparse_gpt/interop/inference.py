"""Logits and activations of a stored model on given tokens, batch by batch."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from sparse_gpt.arrays import read_npy
from sparse_gpt.config import Config, ModelConfig
from sparse_gpt.errors import InputError
from sparse_gpt.interop.hooks import Place, name
from sparse_gpt.io import replacing
from sparse_gpt.model.taps import recorder
from sparse_gpt.model.transformer import apply, build
from sparse_gpt.parameters import Leaf, Params


def read_tokens(path: str | Path, model: ModelConfig) -> np.ndarray:
    """Token ids (sequences, time) as int32 from an .npy file.

    Raises:
      InputError: unless the file holds integers of that shape, within the model's vocabulary and context.
    """
    path = Path(path)
    tokens = read_npy(path)
    if tokens.dtype.kind not in "iu":
        raise InputError(f"{path}: holds {tokens.dtype}, expected integer token ids; convert them with astype")
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise InputError(f"{path}: shape {tokens.shape}, expected (sequences, time), both at least 1")
    if tokens.shape[1] > model.context:
        raise InputError(
            f"{path}: {tokens.shape[1]} tokens per sequence, more than the model's context of {model.context}"
        )
    outside = (tokens < 0) | (tokens >= model.vocab_size)
    if outside.any():
        row, column = (int(i) for i in np.argwhere(outside)[0])
        raise InputError(
            f"{path}: token {tokens[row, column]} at [{row}, {column}] is outside the model's vocabulary "
            f"of 0 to {model.vocab_size - 1}"
        )
    return tokens.astype(np.int32)


def batches(
    config: Config, params: Params, tokens: np.ndarray, batch_size: int, places: Sequence[Place] = ()
) -> Iterator[tuple[slice, np.ndarray, dict[Place, np.ndarray]]]:
    """Runs the model over `tokens` (sequences, time), `batch_size` sequences at a time.

    Yields:
      (rows, logits, activations): the slice of sequences, float32 logits (rows, time, vocab), and the activations at
      `places` as float32 arrays (rows, time, width).
    """
    model = build(config)
    batch_size = min(batch_size, len(tokens))
    wanted = frozenset(places)
    sites = tuple({site for site, _ in wanted})

    @jax.jit
    def forward(params: Params, tokens: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        seen: dict[Place, jax.Array] = {}
        logits = apply(model, params, tokens, tap=recorder(seen, sites))
        return logits, [seen[place].astype(jnp.float32) for place in places]

    on_device = jax.tree.map(jnp.asarray, params)
    with jax.default_matmul_precision("highest"):  # accelerators would round products to bfloat16 otherwise
        for start in range(0, len(tokens), batch_size):
            rows = slice(start, min(start + batch_size, len(tokens)))
            count = rows.stop - rows.start
            part = np.pad(tokens[rows], ((0, batch_size - count), (0, 0)))  # one shape, one compilation
            logits, seen = jax.device_get(forward(on_device, part))
            yield rows, logits[:count], {place: x[:count] for place, x in zip(places, seen, strict=True)}


class ActivationsFile(NamedTuple):
    """An .npz file of the activations at `places`, under our names or those of the reference's hooks."""

    path: Path
    places: Sequence[Place]
    openai_names: bool = False


def write_files(
    config: Config,
    params: Params,
    tokens: np.ndarray,
    logits_path: Path,
    activations: ActivationsFile | None = None,
    batch_size: int = 32,
) -> None:
    """Logits of `tokens` (sequences, time) to an .npy file and activations to an .npz file, a batch at a time, with a
    bar if there are several.

    Nothing but one batch is held in memory, and both files appear only when everything is computed.
    """
    places = activations.places if activations else ()
    with (
        tempfile.TemporaryDirectory(prefix=".logits-", dir=logits_path.parent) as folder,
        tqdm(total=len(tokens), unit="sequence", desc="logits", disable=len(tokens) <= batch_size) as bar,
    ):
        arrays: dict[Place | None, np.ndarray] = {}  # None: the logits
        for rows, logits, seen in batches(config, params, tokens, batch_size, places):
            for key, values in [(None, logits), *seen.items()]:
                if key not in arrays:
                    file, shape = Path(folder) / f"{len(arrays)}.npy", (len(tokens), *values.shape[1:])
                    arrays[key] = np.lib.format.open_memmap(file, "w+", np.float32, shape)
                arrays[key][rows] = values
            bar.update(rows.stop - rows.start)
        if activations is not None:
            named: dict[str, Leaf] = {name(place, activations.openai_names): arrays[place] for place in places}
            with replacing(activations.path) as temporary, temporary.open("wb") as archive:
                np.savez(archive, **named)
        del arrays  # closes the mappings
        os.replace(Path(folder) / "0.npy", logits_path)
