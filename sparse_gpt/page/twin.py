"""What two models predict after the same prompts, for the page of all circuits."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt import tasks
from sparse_gpt.report.overview import Prediction, SharedPrompt
from sparse_gpt.tasks import AnyTask, Sample, TaskError
from sparse_gpt.visible import visible
from sparse_gpt.workdir import Workdir

TOP = 5  # tokens of each


def shared_prompts(run: Workdir, twin: Workdir, members: Sequence[AnyTask]) -> list[SharedPrompt]:
    """The first held-out pair of every task, as both models continue it.

    Tasks that one of them cannot express, or whose prompts it cannot hold, are left out.
    """
    found = []
    for task in members:
        try:
            split, family = next((part for part in task.parts if part[0] == "heldout"), next(iter(task.parts)))
            (pair,) = task.pairs(split, 1, 0, family, run.tokenizer)
            found += [_shared(run, twin, task.name, sample) for sample in (pair.first, pair.second)]
        except TaskError:
            continue
    return found


def _shared(run: Workdir, twin: Workdir, task: str, sample: Sample) -> SharedPrompt:
    predictions = [_prediction(each, sample) for each in (run, twin)]
    return SharedPrompt(task, sample.prompt, sample.answer, sample.foil, predictions)


def _prediction(run: Workdir, sample: Sample) -> Prediction:
    tokens, answer, foil = tasks.encode_sample(sample, run.tokenizer)
    if len(tokens) > run.config.model.context:
        raise TaskError(f"{sample.prompt!r} is longer than the context {run.config.model.context}")
    logits = np.asarray(run.model.apply({"params": run.params}, jnp.asarray([tokens], jnp.int32)))[0, -1]
    shares = np.asarray(jax.nn.softmax(logits))
    top = [(visible(run.token_text(int(i))), float(shares[i])) for i in np.argsort(-shares)[:TOP]]
    return Prediction(run.folder.resolve().name, top, float(logits[answer] - logits[foil]))
