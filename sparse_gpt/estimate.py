"""What a run will need at least, from its configuration alone, and whether this machine has it.

Everything is counted analytically, in integers of any size, so that absurd configurations are answered at once. The
figures are lower bounds (decision 31 compares them with what programs take): what is refused would have been killed
or would never have ended, and what passes may still be too much.
"""

import dataclasses
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from sparse_gpt import machine
from sparse_gpt.config import Config, ModelConfig, activation_sites, kinds
from sparse_gpt.config.fields import shown
from sparse_gpt.errors import InputError

FLOAT, INT = 4, 4  # bytes
CENTURY = 100 * 365 * 86_400  # seconds
CORE_FLOPS, DEVICE_FLOPS = 10**12, 10**16  # per second, more than any core and any accelerator has
DEVICE_BYTES = 10**12  # more than any accelerator has
SPARE = 2  # a value that is said to fit leaves this factor, for these are lower bounds

TRAIN_SIZES = (
    "model.d_model", "model.d_mlp", "model.n_layer", "model.n_head", "model.d_head", "model.vocab_size",
    "model.context", "model.d_position", "train.batch_size", "train.eval_batches", "train.steps",
)  # fmt: skip
PRUNE_SIZES = (
    "prune.seeds", "prune.batch_pairs", "prune.steps", "prune.evaluation_pairs", "prune.random_draws",
    "prune.tune_trials",
)  # fmt: skip
BRIDGE_SIZES = ("bridge.dense_d_model", "bridge.dense_steps", *TRAIN_SIZES)


class Need(NamedTuple):
    """What a run needs at least: bytes by what they are for, and floating-point operations."""

    memory: Mapping[str, int]
    work: int

    @property
    def bytes(self) -> int:
        """All of `memory` together."""
        return sum(self.memory.values())


def parameters(m: ModelConfig) -> int:
    """Number of parameters, as `model.parameters.parameter_table` has them."""
    heads, read, norms = m.n_head * m.d_head, m.d_model + m.d_position, 1 + m.norm_bias
    kernels = read * 3 * heads + heads * m.d_model + read * m.d_mlp + m.d_mlp * m.d_model
    biases = m.bias * (3 * heads + m.d_model + m.d_mlp + m.d_model)
    layer = kernels + biases + m.attention_sink * m.n_head + 2 * norms * (m.d_model + m.d_position)
    positions = {"additive": m.context * m.d_model, "concat": m.context * m.d_position}.get(m.position, 0)
    embeddings = (2 - m.tied) * m.vocab_size * m.d_model + m.final_bias * m.vocab_size + m.bigram * m.vocab_size**2
    return m.n_layer * layer + norms * m.d_model + positions + embeddings


def nodes(m: ModelConfig) -> int:
    """Number of nodes that a mask search gates."""
    return m.n_layer * (4 * m.d_model + 2 * m.d_position + 3 * m.n_head * m.d_head + m.d_mlp)


def _block_weights(m: ModelConfig) -> int:
    """Multiplications per token in the matrices of all blocks."""
    return m.n_layer * (4 * m.d_model * m.n_head * m.d_head + 2 * m.d_model * m.d_mlp)


def training(config: Config) -> Need:
    """Training of a language model, on all devices and hosts together."""
    m, t = config.model, config.train
    count, tokens = parameters(m), t.batch_size * m.context
    at_once = tokens // t.microbatches  # of which activations are kept for the backward pass
    at_sites = activation_sites(config.sparsity)  # then values before and after AbsTopK are kept
    kept = 5 * m.d_model + 10 * m.n_head * m.d_head + 3 * m.d_mlp if at_sites else nodes(m) // m.n_layer
    kept = m.d_model if t.remat else kept
    operations = 6 * tokens * (_block_weights(m) + m.vocab_size * m.d_model)
    memory = {
        "parameters, their two moments and gradients": 4 * FLOAT * count,
        "activations of a step": at_once * m.n_layer * kept * (2 if t.dtype == "bfloat16" else FLOAT),
        "logits of a step": 2 * at_once * m.vocab_size * FLOAT,
        "attention scores": m.context**2 // 4 * FLOAT,
        "validation batches": t.eval_batches * t.batch_size * (m.context + 1) * INT,
    }
    return Need(memory, operations * t.steps)


def searching(config: Config) -> Need:
    """The mask search of one task, on all devices together, with samples of a single token."""
    m, p = config.model, config.prune
    searches = max(p.seeds * kinds(p), min(p.tune_trials, 8))
    samples, gates = 2 * p.batch_pairs, nodes(m)
    memory = {
        "parameters": FLOAT * parameters(m),
        "gates of all searches, their moments and attributions": (7 if p.search == "path" else 4)
        * FLOAT
        * searches
        * gates,
        "activations of a step of all searches": FLOAT * searches * samples * gates,
        "losses of all steps": 2 * FLOAT * searches * p.steps,
        "samples for evaluation": 6 * INT * p.evaluation_pairs,
        "random circuits": FLOAT * p.random_draws * gates,
    }
    trials = searches + p.tune_trials
    evaluated = p.random_draws * p.evaluation_pairs * 4
    return Need(memory, 6 * _block_weights(m) * (trials * p.steps * samples + evaluated))


def bridging(config: Config) -> Need:
    """A bridged run and the training of its dense model, on all devices and hosts together."""
    m, b = config.model, config.bridge
    width = b.dense_d_model
    dense = dataclasses.replace(
        config,
        model=dataclasses.replace(m, d_model=width, n_head=max(1, width // m.d_head), d_mlp=4 * width),
        train=dataclasses.replace(config.train, steps=b.dense_steps),
    )
    first, second = training(dense), training(config)
    # Encoder and decoder of at least one boundary, with moments and gradients, beside the frozen dense model.
    extra = {
        "the dense model": FLOAT * parameters(dense.model),
        "bridges, their two moments and gradients": 4 * FLOAT * 2 * width * m.d_model,
    }
    larger = max(first.memory, {**second.memory, **extra}, key=lambda memory: sum(memory.values()))
    return Need(larger, first.work + second.work)


KINDS: Mapping[str, tuple[Callable[[Config], Need], tuple[str, ...], str]] = {
    "train": (training, TRAIN_SIZES, "training"),
    "prune": (searching, PRUNE_SIZES, "the search"),
    "bridge": (bridging, BRIDGE_SIZES, "the bridged run"),
}


def check(config: Config, what: str = "train", devices: int = 1, hosts: int = 1, accelerator: bool = False) -> None:
    """Refuses what cannot be done here.

    Args:
      config: only its sizes are looked at, and they may be of any size.
      what: "train", "prune" or "bridge".
      devices: on which the run is, over all hosts.
      hosts: processes on machines of their own, each with as much memory as this one.
      accelerator: whether the devices have memory of their own; then only the obviously impossible is refused.

    Raises:
      InputError: names the field that is farthest from usual, the largest part of what is needed, what there is, and
        a value that would fit.
    """
    need, sizes, run = KINDS[what]
    room = hosts * machine.memory() + (devices * DEVICE_BYTES if accelerator else 0)
    speed = devices * DEVICE_FLOPS if accelerator else hosts * machine.cores() * CORE_FLOPS
    found = need(config)
    if found.bytes > room:
        part = max(found.memory, key=lambda name: found.memory[name])
        here = (
            "these devices have" if accelerator else f"{hosts} such machines have" if hosts > 1 else "this machine has"
        )
        why = (
            f"{run} would need at least {amount(found.bytes)} of memory, {amount(found.memory[part])} of them for "
            f"{part}, but {here} {amount(room)}"
        )
        raise _refusal(config, sizes, why, lambda changed: need(changed).bytes * SPARE <= room)
    if found.work > CENTURY * speed:
        power = int(math.log10(found.work))
        why = f"{run} would take about 10^{power} floating-point operations, more than a century here"
        raise _refusal(config, sizes, why, lambda changed: need(changed).work * SPARE <= CENTURY * speed)


def check_here(config: Config, what: str = "train") -> None:
    """`check` for the devices and processes that JAX has."""
    import jax  # not above: scripts estimate before they need it

    check(config, what, jax.device_count(), jax.process_count(), jax.default_backend() != "cpu")


def check_corpus(config: Config, folder: Path) -> None:
    """InputError if the tokens to prepare for a run in `folder` do not fit on its disk."""
    if config.data.corpus or (folder / "corpus").exists() or "idioms" not in ",".join(config.data.sources):
        return  # there already, or from sources that end: they may have less than what is asked for
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    each = 2 if config.model.vocab_size <= 1 << 16 else 4
    need, free = config.data.tokens * each, shutil.disk_usage(folder).free
    if need > free:
        raise InputError(
            f"--config.data.tokens={config.data.tokens}: takes {amount(need)}, but the disk of {folder} has "
            f"{amount(free)} left; {_rounded(free // each // 2)} would fit"
        )


def amount(count: float) -> str:
    """Bytes for a person: "23 GB"."""
    for unit, size in (("EB", 10**18), ("PB", 10**15), ("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            value = count / size if count < 10**30 else math.inf
            return (
                f"over a million {unit}"
                if value > 1e6
                else f"{value:.2g} {unit}"
                if value < 10
                else f"{value:.0f} {unit}"
            )
    return f"{count:.0f} bytes"


def _refusal(config: Config, sizes: tuple[str, ...], why: str, fits: Callable[[Config], bool]) -> InputError:
    """The error, naming the field that is farthest from its default of those that would help alone."""
    by_excess = sorted(sizes, key=lambda name: -_excess(config, name))
    for name in by_excess:
        if fits(_with(config, name, 1)):
            best = _rounded(_largest(config, name, fits))
            if name == "train.batch_size":  # of equal microbatches
                best = max(best // config.train.microbatches, 1) * config.train.microbatches
            return InputError(f"--config.{name}={shown(_get(config, name))}: {why}; {best} would fit")
    first, *others = by_excess[:3]
    return InputError(
        f"--config.{first}={shown(_get(config, first))}: {why}; lower it, and {' and '.join(others)} with it"
    )


def _excess(config: Config, name: str) -> float:
    """How many powers of two a field is above its default."""
    return math.log2(max(1, _get(config, name))) - math.log2(max(1, _get(Config(), name)))


def _largest(config: Config, name: str, fits: Callable[[Config], bool]) -> int:
    """The largest value of a field that fits, where 1 does and its own does not."""
    low, high = 1, _get(config, name)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(_with(config, name, middle)) else (low, middle)
    return low


def _rounded(value: int) -> int:
    """The power of two at or below `value`: it divides well."""
    return 1 << max(0, value.bit_length() - 1)


def _get(config: Config, name: str) -> int:
    group, _, field = name.partition(".")
    value: int = getattr(getattr(config, group), field)
    return value


def _with(config: Config, name: str, value: int) -> Config:
    """`config` with one field changed, without asking whether that is valid."""
    group, _, field = name.partition(".")
    return dataclasses.replace(config, **{group: dataclasses.replace(getattr(config, group), **{field: value})})
