"""How a trained model does on every task its tokenizer can express: WORKDIR/evaluation.json, which training writes."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from sparse_gpt import tasks
from sparse_gpt.config import Config
from sparse_gpt.data import Tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.io import read_json_if_any, write_json
from sparse_gpt.model import Params, Transformer, build
from sparse_gpt.schema import NUMBER, PLAIN, TEXT
from sparse_gpt.tasks import EncodedTask, TaskError

FORMAT = "sparse_gpt.evaluation/1"
IMPOSSIBLE = -1e30  # log-probability of what overflowed: JSON has finite numbers only
SCHEMA = {"params_sha256": TEXT, "tasks": [{"task": TEXT, "task_loss?": NUMBER, "*": PLAIN}]}
PAIRS, ROWS = 128, 64  # of held-out pairs per task and variant; rows per call of the compiled program


def write(workdir: Path, config: Config, params: Params, params_sha256: str) -> str:
    """Writes WORKDIR/evaluation.json unless it is there for these parameters. Returns one line for a person."""
    path = workdir / "evaluation.json"
    found = _held(path)
    if found.get("params_sha256") != params_sha256:
        scores = evaluate(config, params, Tokenizer.load(workdir / "tokenizer"))
        found = {"format": FORMAT, "params_sha256": params_sha256, **scores}
        write_json(path, found)
    return summary(found)


def _held(path: Path) -> dict[str, Any]:
    """evaluation.json; {} where there is none, or one to be made again."""
    try:
        found: dict[str, Any] = read_json_if_any(path, SCHEMA)
    except InputError as error:
        print(f"{error}: it is made again")
        return {}
    return found


def evaluate(
    config: Config, params: Params, tokenizer: Tokenizer, names: Sequence[str] = tuple(tasks.TASKS)
) -> dict[str, Any]:
    """Rows per task, on held-out samples and on its shifted template variant.

    A row has the task loss (nats, answer against foil alone; chance is ln 2), the full-vocabulary loss (nats), and
    the share of samples whose answer beats its foil. A task that the tokenizer cannot express, or whose prompts are
    longer than the context, has a `reason` instead.
    """
    on_device = jax.tree.map(jnp.asarray, params)
    model, rows, context = build(config), [], config.model.context
    for name in tqdm(names, desc="evaluate tasks", unit="task"):
        try:
            main, shifted = (
                tasks.sample(tasks.TASKS[name], tokenizer, "heldout", PAIRS, 0, variant, context)
                for variant in ("main", "shifted")
            )
        except TaskError as error:
            rows.append({"task": name, "reason": str(error)})
            continue
        row = _scores(model, on_device, main, context)
        other = _scores(model, on_device, shifted, context)
        rows.append({"task": name, **row, **{f"shifted_{key}": value for key, value in other.items()}})
    return {"pairs": PAIRS, "tasks": rows}


def summary(evaluation: dict[str, Any], solved: float = 0.15) -> str:
    """One line: how many tasks have a held-out task loss below `solved`."""
    rows = [row for row in evaluation["tasks"] if "task_loss" in row]
    count = sum(row["task_loss"] < solved for row in rows)
    return f"held-out task loss below {solved:g} on {count} of {len(rows)} tasks (evaluation.json)"


def _scores(model: Transformer, params: Params, encoded: EncodedTask, context: int) -> dict[str, float]:
    """Task loss, full-vocabulary loss and accuracy, ROWS samples at a time and padded to one of three lengths."""
    longest = int(encoded.lengths.max())
    width = next(length for length in (max(8, context // 4), max(8, context // 2), context) if length >= longest)
    tokens = np.zeros((len(encoded.tokens), width), np.int32)
    tokens[:, :longest] = encoded.tokens[:, :longest]
    pieces = []
    for first in range(0, len(tokens), ROWS):
        at = slice(first, first + ROWS)
        pieces.append(_log_probabilities(model, params, tokens[at], encoded.lengths[at] - 1))
    logs = np.nan_to_num(np.concatenate(pieces).astype(np.float64), nan=IMPOSSIBLE, neginf=IMPOSSIBLE)
    each = np.arange(len(logs))
    answer, foil = logs[each, encoded.answer_id], logs[each, encoded.foil_id]
    return {
        "task_loss": float(np.mean(np.logaddexp(0.0, foil - answer))),
        "full_vocabulary_loss": float(-np.mean(answer)),
        "accuracy": float(np.mean(answer > foil)),
    }


@functools.partial(jax.jit, static_argnums=0)
def _log_probabilities(model: Transformer, params: Params, tokens: jax.Array, positions: jax.Array) -> jax.Array:
    """(B, V) log-probabilities of the next token at `positions` (B,), in float32."""
    logits: Any = model.apply({"params": params}, tokens, positions=positions)
    return jax.nn.log_softmax(jnp.asarray(logits)[:, 0].astype(jnp.float32))
