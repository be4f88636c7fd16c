"""How a trained model does on every task its tokenizer can express: WORKDIR/evaluation.json, which training writes."""

import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from tqdm import tqdm

from sparse_gpt import tasks
from sparse_gpt.config import Config
from sparse_gpt.data import Tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree
from sparse_gpt.model import Params, Transformer, build_exact
from sparse_gpt.model.transformer import apply
from sparse_gpt.records import Evaluation, converted
from sparse_gpt.records.run import FamilyRow, TaskRow
from sparse_gpt.tasks import EncodedTask, TaskError

IMPOSSIBLE = -1e30  # log-probability of what overflowed: JSON has finite numbers only
PAIRS, FAMILY_PAIRS = 128, 64  # of held-out pairs per task and variant, and per template family
ROWS = 64  # per call of the compiled program


def write(workdir: Path, config: Config, params: Params, params_sha256: str) -> str:
    """Writes WORKDIR/evaluation.json unless it is there for these parameters. Returns one line for a person."""
    path = workdir / Evaluation.FILE
    evaluation = read(path)
    if evaluation is None or evaluation.params_sha256 != params_sha256:
        evaluation = evaluate(config, params, Tokenizer.load(workdir / "tokenizer"), params_sha256=params_sha256)
        evaluation.write(path)
    return summary(evaluation)


def read(path: Path) -> Evaluation | None:
    """evaluation.json; None where there is none, or one to be made again."""
    try:
        return Evaluation.read_if_any(path)
    except InputError as error:
        print(f"{error}: it is made again")
        return None


def evaluate(
    config: Config,
    params: Params,
    tokenizer: Tokenizer,
    names: Sequence[str] = tuple(tasks.TASKS),
    params_sha256: str = "",
) -> Evaluation:
    """A row per task, on held-out samples and on its shifted template variant. A task that the tokenizer cannot
    express, or whose prompts are longer than the context, has a reason instead; where that is so of the shifted
    variant only, that alone is left out, with a line."""
    on_device = jax.tree.map(jnp.asarray, params)
    model, rows, context = build_exact(config), [], config.model.context
    for name in tqdm(names, desc="evaluate tasks", unit="task"):
        draw = functools.partial(tasks.sample, tasks.TASKS[name], tokenizer, "heldout", PAIRS, 0, context=context)
        try:
            row: Tree = {"task": name, **_scores(model, on_device, draw(variant="main"), context)}
        except TaskError as error:
            rows.append(TaskRow(task=name, reason=str(error)))
            continue
        try:
            shifted = _scores(model, on_device, draw(variant="shifted"), context)
            row |= {f"shifted_{key}": value for key, value in shifted.items()}
        except TaskError as error:
            tqdm.write(f"shifted samples left out: {error}")
        rows.append(converted(row, TaskRow))
    return Evaluation(params_sha256=params_sha256, pairs=PAIRS, tasks=tuple(rows))


def with_families(evaluation: Evaluation, config: Config, params: Params, tokenizer: Tokenizer) -> Evaluation:
    """The rows of an evaluation with the held-out losses of every template family beside them."""
    on_device, model = jax.tree.map(jnp.asarray, params), build_exact(config)
    rows = []
    for row in tqdm(evaluation.tasks, desc="evaluate families", unit="task"):
        task, families = tasks.TASKS[row.task], []
        for name in (*task.families, *task.novel):
            try:
                encoded = tasks.sample(task, tokenizer, "heldout", FAMILY_PAIRS, 0, name, config.model.context)
                scores = _scores(model, on_device, encoded, config.model.context)
                found: Tree = {"pairs": len(encoded.lengths) // 2, **scores}
            except TaskError as error:
                found = {"reason": str(error)}
            families.append(converted({"family": name, "novel": name in task.novel, **found}, FamilyRow))
        rows.append(msgspec.structs.replace(row, families=tuple(families)))
    return msgspec.structs.replace(evaluation, tasks=tuple(rows))


def add_families(folder: Path, config: Config, params: Params, tokenizer: Tokenizer) -> str:
    """Writes evaluation.json anew, with its tasks' template families. Returns a table and a line for a person."""
    path = folder / Evaluation.FILE
    found = with_families(Evaluation.read(path), config, params, tokenizer)
    found.write(path)
    return f"{family_table(found)}\n\n{family_summary(found)}"


def family_table(evaluation: Evaluation) -> str:
    """Task losses by task and family as a Markdown table; novel families are in italics."""
    most = max((len(row.families) for row in evaluation.tasks), default=0)
    lines = [f"| task {'| family ' * most}|", f"|---{'|---' * most}|"]
    for row in evaluation.tasks:
        cells = [f"{_named(family)} {_loss(family.task_loss)}" for family in row.families]
        lines.append(f"| {' | '.join([row.task, *cells, *[''] * (most - len(cells))])} |")
    return "\n".join(lines)


def family_summary(evaluation: Evaluation, solved: float = 0.15) -> str:
    """A line: how many families have a held-out task loss below `solved`, and how many tasks enough of them."""
    below = [[f for f in row.families if f.task_loss is not None and f.task_loss < solved] for row in evaluation.tasks]
    total = sum(len(row.families) for row in evaluation.tasks)
    enough = sum(sum(not f.novel for f in each) >= 4 and sum(f.novel for f in each) >= 2 for each in below)
    return (
        f"held-out task loss below {solved:g} on {sum(map(len, below))} of {total} families; on four or more to search "
        f"on and two novel ones in {enough} of {len(below)} tasks"
    )


def _named(family: FamilyRow) -> str:
    return f"*{family.family}*" if family.novel else family.family


def _loss(loss: float | None) -> str:
    return "–" if loss is None else f"{loss:.3f}"


def summary(evaluation: Evaluation, solved: float = 0.15) -> str:
    """One line: how many tasks have a held-out task loss below `solved`."""
    losses = [row.task_loss for row in evaluation.tasks if row.task_loss is not None]
    count = sum(loss < solved for loss in losses)
    return f"held-out task loss below {solved:g} on {count} of {len(losses)} tasks (evaluation.json)"


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
    samples = np.arange(len(logs))
    answer, foil = logs[samples, encoded.answer_id], logs[samples, encoded.foil_id]
    return {
        "task_loss": float(np.mean(np.logaddexp(0.0, foil - answer))),
        "full_vocabulary_loss": float(-np.mean(answer)),
        "accuracy": float(np.mean(answer > foil)),
    }


@functools.partial(jax.jit, static_argnums=0)
def _log_probabilities(model: Transformer, params: Params, tokens: jax.Array, positions: jax.Array) -> jax.Array:
    """(B, V) log-probabilities of the next token at `positions` (B,), in float32."""
    logits = apply(model, params, tokens, positions=positions)
    return jax.nn.log_softmax(jnp.asarray(logits)[:, 0].astype(jnp.float32))
