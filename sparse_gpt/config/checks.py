"""Rules between fields of a configuration. What one field may hold is declared beside it, in groups.py."""

import itertools
import math
from collections.abc import Iterable

from sparse_gpt.config.fields import shown
from sparse_gpt.config.groups import (
    MOST,
    READS,
    RESIDUAL_SITES,
    TUNE_BATCH,
    WRITES,
    Config,
    ModelConfig,
    PruneConfig,
    SparsityConfig,
)
from sparse_gpt.errors import InputError

SHORTEST_ANNEALING = 1e-6  # of training; below it the first and the last step of annealing can coincide


def activation_sites(config: SparsityConfig) -> tuple[str, ...]:
    """Names of the sites where AbsTopK acts; empty when it is off."""
    return config.activation_sites if config.activation_fraction else ()


def embedding_density(config: SparsityConfig) -> float:
    """Target density of embedding and unembedding."""
    return config.embedding_density or config.density


def path_kinds(p: PruneConfig) -> tuple[tuple[str, str], ...]:
    """(start, gates) of each kind of path search."""
    return tuple(itertools.product(p.starts, p.gates))


def kinds(p: PruneConfig) -> int:
    """How many searches there are per seed."""
    return len(path_kinds(p)) if p.search == "path" else len(p.k_coefs)


def check_rules(config: Config, prefix: str) -> None:
    """Raises InputError on the first rule between fields that does not hold, naming the field as `prefix` + name."""
    _require(
        config.model.position != "sinusoidal" or config.model.d_position % 2 == 0,
        f"{prefix}model.d_position",
        config.model.d_position,
        "must be even with position=sinusoidal (sin half, cos half)",
    )
    check_model(config.model, prefix)
    _check_annealing(config.sparsity, prefix)
    _require(
        config.sparsity.revive_every == 0 or config.optimizer.beta2 > 0,
        f"{prefix}sparsity.revive_every",
        config.sparsity.revive_every,
        f"tells dead neurons by Adam's second moments, so {prefix}optimizer.beta2 must be above 0",
    )
    _check_tensors(config, prefix)
    t, p = config.train, config.prune
    _require(
        t.batch_size % t.microbatches == 0,
        f"{prefix}train.microbatches",
        t.microbatches,
        f"must divide batch_size={t.batch_size}",
    )
    _require(
        p.tune_trials % TUNE_BATCH == 0,
        f"{prefix}prune.tune_trials",
        p.tune_trials,
        f"must be a multiple of {TUNE_BATCH}, or 0 for no tuning",
    )
    _require(
        p.objective == "task" or p.search == "path",
        f"{prefix}prune.objective",
        p.objective,
        f"goes with {prefix}prune.search=path only",
    )
    for name in ("starts", "gates"):
        _require(bool(getattr(p, name)), f"{prefix}prune.{name}", getattr(p, name), "name at least one")


def check_model(m: ModelConfig, prefix: str) -> None:
    """The rules that decide whether there is such a model at all, trained or not."""
    _require(
        not (m.norm == "rms" and m.norm_bias),
        f"{prefix}model.norm_bias",
        m.norm_bias,
        "RMSNorm has no bias; use norm=layer",
    )
    _require(
        (m.d_position > 0) == (m.position in ("concat", "sinusoidal")),
        f"{prefix}model.d_position",
        m.d_position,
        "must be positive with position=concat or sinusoidal, and 0 otherwise",
    )


def _check_annealing(s: SparsityConfig, prefix: str) -> None:
    _require(
        s.anneal_stop - s.anneal_start >= SHORTEST_ANNEALING,
        f"{prefix}sparsity.anneal_start",
        s.anneal_start,
        f"must be at least {SHORTEST_ANNEALING:g} below anneal_stop={s.anneal_stop:g}",
    )


def _check_tensors(config: Config, prefix: str) -> None:
    """Entries that can be counted, and enough nonzeros for what min_alive protects."""
    s, m = config.sparsity, config.model
    heads, read = m.n_head * m.d_head, m.d_model + m.d_position
    tensors = (
        ("attention c_attn", read * 3 * heads, 3 * heads, read),
        ("attention c_proj", heads * m.d_model, heads, m.d_model),
        ("mlp c_fc", read * m.d_mlp, m.d_mlp, read),
        ("mlp c_proj", m.d_mlp * m.d_model, m.d_mlp, m.d_model),
        ("wte", m.vocab_size * m.d_model, 0, 1),
    )
    needs = [(size, min(s.min_alive, other) * neurons) for _, size, neurons, other in tensors]
    fewest = min(_kept(s.density, size) // neurons for _, size, neurons, _ in tensors if neurons)
    for (name, *_), (size, need) in zip(tensors, needs, strict=True):
        _require(
            size <= MOST, f"{prefix}model.d_model", m.d_model, f"makes {size} entries of {name}, at most {MOST} can be"
        )
        kept = _kept(s.density, size)
        _require(
            need <= kept,
            f"{prefix}sparsity.min_alive",
            s.min_alive,
            f"needs {need} nonzeros in {name}, but density {s.density:g} keeps {kept}; "
            f"lower min_alive to {fewest} or raise density to {_enough(needs):g}",
        )


def _kept(density: float, size: int) -> int:
    """Entries of a tensor that the projection keeps at the target density."""
    # The schedule's own expression at its end (training/schedules.py, density): 1.0 + (0.1 - 1.0) is less than 0.1 in
    # floats, and int() of it times 40 is 3.
    return int((1.0 + (density - 1.0) * 1.0) * size)


def _enough(needs: Iterable[tuple[int, int]]) -> float:
    """The smallest density in whole ten-thousandths that keeps, in tensors of (size, need), what each of them needs."""
    needs = tuple(needs)
    first = max(math.ceil(1e4 * need / size) for size, need in needs)
    return next(i / 1e4 for i in itertools.count(first) if all(need <= _kept(i / 1e4, size) for size, need in needs))


def check_trainable(config: Config) -> None:
    """InputError unless AbsTopK keeps at least one channel wherever it acts: what is always zero cannot learn. Imported
    models may have such fractions, so `validate` does not ask."""
    s, m = config.sparsity, config.model
    heads, read = m.n_head * m.d_head, m.d_model + m.d_position
    widths = dict.fromkeys((*WRITES, *RESIDUAL_SITES), m.d_model) | dict.fromkeys(READS, read)
    widths |= dict.fromkeys(("attn_q", "attn_k", "attn_v"), heads) | {"mlp_neuron": m.d_mlp}
    sites = activation_sites(s)
    if sites:
        narrowest = min(sites, key=lambda site: widths[site])
        check_fraction(s.activation_fraction, widths[narrowest], narrowest, "--config.sparsity.activation_fraction")


def check_fraction(fraction: float, width: int, where: str, name: str) -> None:
    """InputError unless AbsTopK with such a fraction, of the field `name`, keeps a channel of so many."""
    smallest = 1 / width
    while int(smallest * width) < 1:  # 1 / 49 * 49 is less than 1 in floats
        smallest = math.nextafter(smallest, 1.0)
    _require(
        int(fraction * width) >= 1,
        name,
        fraction,
        f"keeps no channel of {where}, which has {width}; the smallest that keeps one there is {smallest!r}",
    )


def _require(ok: bool, name: str, value: object, rule: str) -> None:
    if not ok:
        raise InputError(f"{name}={shown(value)}: {rule}")
