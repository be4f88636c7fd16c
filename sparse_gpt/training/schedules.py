"""Learning rate, density and nonzero counts as pure functions of the step, in float64 on the host.

They are inputs of the compiled step rather than part of it, so that int(density * size) is the same integer on every
machine and a log line states exactly what the step used (paper, section 2; reference train.py for its recipe).
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from sparse_gpt.config import Config, embedding_density
from sparse_gpt.parameters import BIAS, EMBEDDING, MATRIX, POSITION, ParameterSpec, Path, parameter_table


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """Settings of one training step: learning rate, weight density, and entries to keep per projected tensor."""

    learning_rate: float
    density: float
    keep: np.ndarray  # (projected tensors,) int32, in the order of `projected_tensors`


def iterations(config: Config) -> int:
    """Optimizer steps in a run. The reference counts i = 0 ... N and has learning rate 0 at both ends."""
    return config.train.steps + (config.optimizer.recipe == "openai_reference")


def annealing(config: Config, step: float) -> float:
    """Progress of annealing in [0, 1]: 0 dense, 1 at the target density."""
    start, stop = (
        fraction * config.train.steps for fraction in (config.sparsity.anneal_start, config.sparsity.anneal_stop)
    )
    stop = min(stop, iterations(config) - 1)  # the last step is at the target, however late annealing may end
    if step >= stop:
        return 1.0
    # The double subtraction is the reference's: it decides the last bit, and the last bit can decide an integer count.
    return 1.0 - (1.0 - min(1.0, max(0.0, (step - start) / (stop - start))))


def density(config: Config, step: float, target: float) -> float:
    """Density at a step, linear from 1 to `target`."""
    return 1.0 + (target - 1.0) * annealing(config, step)


def learning_rate(config: Config, step: int) -> float:
    """Linear warm-up, linear decay to 0, times sqrt(target density / current density) (the sharkfin factor)."""
    o, steps = config.optimizer, config.train.steps
    warmup = int(o.warmup * steps)
    if step < warmup:
        # The reference starts at exactly 0; the paper's text leaves the offset open, so no step is wasted there.
        rate = o.learning_rate * (step if o.recipe == "openai_reference" else step + 1) / warmup
    else:
        rate = o.learning_rate * min(1.0, 1.0 - (step - warmup) / (steps - warmup))
    target = config.sparsity.density
    return rate * (target / density(config, step, target)) ** 0.5 if o.sharkfin else rate


def projected_tensors(config: Config) -> Mapping[Path, ParameterSpec]:
    """The tensors that the projection acts on, in table order.

    The paper projects block matrices, biases, embedding and unembedding. The reference never zeroes biases, and
    projects additive positions although it meant to freeze them; recipe `fast` does neither.
    """
    kinds = {MATRIX, EMBEDDING}
    if config.optimizer.recipe == "paper":
        kinds.add(BIAS)
    if config.optimizer.recipe == "openai_reference" and config.model.position == "additive":
        kinds.add(POSITION)
    return {path: spec for path, spec in parameter_table(config.model).items() if spec.kind in kinds}


def keep_counts(config: Config, step: float) -> np.ndarray:
    """(projected tensors,) int32: entries that each tensor keeps after this step, int(density * size)."""
    weights = density(config, step, config.sparsity.density)
    target, embeddings = config.sparsity.density, embedding_density(config.sparsity)
    # Embeddings follow the weights' own way down, scaled to their target.
    progress = (weights - target) / (1.0 - target) if target < 1 else 1.0 - annealing(config, step)
    embeddings = embeddings + (1.0 - embeddings) * progress
    return np.array(
        [
            int((embeddings if spec.kind == EMBEDDING else weights) * spec.size)
            for spec in projected_tensors(config).values()
        ],
        np.int32,
    )


def settings(config: Config, step: int) -> StepSettings:
    """Everything scheduled, for one step."""
    return StepSettings(
        learning_rate(config, step), density(config, step, config.sparsity.density), keep_counts(config, step)
    )
