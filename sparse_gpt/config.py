"""Typed, frozen configuration; named ones are in presets.py.

Every field is a plain int, float, bool or str, so that a configuration is a flat table a flag can override
(``--config.model.d_model=256``), a JSON file can hold, and two runs can be compared by equality.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparse_gpt.errors import InputError

NODE_SITES = ("attn_in", "attn_q", "attn_k", "attn_v", "attn_out", "mlp_in", "mlp_neuron", "mlp_out")
RESIDUAL_SITES = ("resid_post_attn", "resid_post_mlp")  # further places where the reference can apply AbsTopK
ALL_SITES = ",".join(NODE_SITES)
TUNE_BATCH = 8  # mask searches whose hyperparameters are tuned together


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Decoder-only, GPT-2 style, pre-norm transformer (paper, section 2 and appendix; sizes are channel counts)."""

    n_layer: int = 2
    d_model: int = 128
    n_head: int = 8
    d_head: int = 16
    d_mlp: int = 512
    vocab_size: int = 1024
    context: int = 128
    norm: str = "rms"  # "rms" (eps = float32 machine epsilon) or "layer" (eps = 1e-5)
    norm_bias: bool = False  # only LayerNorm can have one
    activation: str = "gelu"  # exact (erf) "gelu" or "relu"
    residual_activation: str = "identity"  # or "relu", applied to the stream after each sublayer's add
    bias: bool = True  # biases of the four block matrices
    final_bias: bool = True  # one learned value per vocabulary entry, added to the logits
    attention_sink: bool = True
    bigram: bool = True
    position: str = "none"  # "none", "additive" (learned), "concat" (learned) or "sinusoidal" (concatenated)
    d_position: int = 0  # width of concatenated positions
    tied: bool = False  # unembedding = transposed embedding


@dataclasses.dataclass(frozen=True)
class SparsityConfig:
    """Which fraction of weights and activations stays nonzero, and how training gets there (paper, section 2)."""

    density: float = 1 / 32  # fraction of nonzero entries per projected tensor, in (0, 1]
    embedding_density: float = 0.0  # the same for embedding and unembedding; 0 means `density`
    min_alive: int = 4  # nonzeros every neuron and attention channel keeps on each side
    activation_fraction: float = 0.25  # AbsTopK keeps int(fraction * width) channels; 0 turns it off
    activation_sites: str = (
        ALL_SITES  # where AbsTopK acts: comma list of node sites (and resid_post_attn, resid_post_mlp)
    )
    anneal_start: float = 0.01  # as fractions of training
    anneal_stop: float = 0.5


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with controlled gradient RMS; `recipe` fixes the order of operations (see training/optimizer.py)."""

    recipe: str = "paper"  # or "openai_reference"
    learning_rate: float = 1e-2
    warmup: float = 0.01  # fraction of training
    sharkfin: bool = True  # learning rate times sqrt(target density / current density)
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 0.1
    weight_decay: float = 0.1
    grad_rms: float = 1.0  # limit (paper) or unit (openai_reference) of the root mean square over all gradients


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The corpus: sources mixed by weight, tokenised once into shards (see data/corpus.py)."""

    sources: str = "idioms:0.75,pinned_source:0.25"  # comma list of kind[=location][#column][:weight]
    seed: int = 0
    tokens: int = 4_000_000  # tokens to prepare; 0 takes everything the sources have
    corpus: str = ""  # folder of a prepared corpus; empty: prepare one in WORKDIR/corpus
    tokenizer: str = ""  # folder of a tokenizer to use; empty: train one of model.vocab_size entries
    validation_fraction: float = 0.02
    max_file_bytes: int = 200_000
    near_duplicates: bool = True  # remove near-duplicate documents, not only exact ones


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length, batch and bookkeeping of a training run."""

    steps: int = 1000
    batch_size: int = 32  # sequences of model.context tokens, over all devices
    microbatches: int = 1  # gradient accumulation: the batch is taken in this many parts
    seed: int = 0
    dtype: str = "float32"  # of the forward and backward pass; parameters, moments and selection are float32
    remat: bool = False  # recompute each block in the backward pass
    mesh: str = ""  # device mesh, such as "data=4,fsdp=2"; empty: all devices on "data"
    checkpoint_every: int = 200
    keep_last: int = 2
    keep_every: int = 0  # additionally keep every checkpoint whose step is a multiple; 0: none
    log_every: int = 10
    eval_every: int = 100
    eval_batches: int = 8
    evaluate_tasks: bool = True  # at the end: every task's held-out losses, into evaluation.json


@dataclasses.dataclass(frozen=True)
class PruneConfig:
    """The mask search (paper, section 3 and appendix); centres of the authors' own search are the defaults."""

    target_loss: float = 0.15  # nats, binary task loss
    selection_margin: float = 0.6  # circuits are chosen at this fraction of it, for other words will do less well
    steps: int = 400
    seeds: int = 4
    k_coefs: str = "1e-4,3e-4"  # one search per seed and value, all in one program
    batch_pairs: int = 64
    ablation: str = "mean"  # "mean" (over the pretraining distribution), "zero", "task_mean" or "resample" (from it)
    norm: str = "live"  # or "frozen": norm scales taken from the full model
    tie_qk: bool = False  # one gate for the q and the k channel of the same index
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    beta2: float = 0.95
    warmup: float = 0.05
    init_noise_scale: float = 1e-2
    init_noise_bias: float = 0.1
    heaviside_temp: float = 1.0
    tune_trials: int = 0  # searches beside those, in eights, with the eight values tuned by Optuna
    grad_clip: float = 1.0
    refine_trials: int = 3  # of the smallest circuits found, refined until no node can go; the smallest wins
    refine_most: int = 1024  # nodes; larger ones stay as they are, for refining them takes hours
    edges: bool = True  # then remove single edges too
    evaluation_pairs: int = 256  # of validation, of training beside them, and of held-out samples
    random_draws: int = 20
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class BridgeConfig:
    """Coupling of a sparse model to a trained dense one (paper, section on bridges)."""

    boundaries: str = ""  # bridged boundaries, pairs dense:sparse such as "0:0,4:2,8:4"; empty: one to one
    encoder_fraction: float = 0.0  # channels kept by AbsTopK after an encoder; 0: sparsity.activation_fraction, 1: all
    cross_entropy: float = 1.0  # weight of the sparse model's own loss in the objective
    nmse: float = 1.0  # of the encoders' and decoders' normalised squared errors
    kl_to_sparse: float = 1.0  # of the hybrids that start in the dense model and end in the sparse one
    kl_to_dense: float = 1.0  # of those that start in the sparse model and end in the dense one
    sampled: int = 0  # hybrids run per step and direction, drawn anew each step; 0: all of them
    init_from: str = ""  # workdir, or stored model, that the sparse model starts as, and bridges as least squares maps
    dense_d_model: int = 64  # of the dense model that launch.bridge trains when none is given; d_mlp is 4 times that
    dense_steps: int = 1000
    dense_learning_rate: float = 1e-2


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that defines a run. Groups mirror the flags."""

    model: ModelConfig = ModelConfig()
    sparsity: SparsityConfig = SparsityConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    prune: PruneConfig = PruneConfig()
    bridge: BridgeConfig = BridgeConfig()


def replace(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Config with dotted fields replaced: ``{"model.d_model": 256}``. Raises InputError for unknown fields."""
    for name, value in overrides.items():
        group, _, field = name.partition(".")
        known = {f.name for f in dataclasses.fields(getattr(config, group))} if hasattr(config, group) else set()
        if field not in known:
            raise InputError(
                f"--config.{name}: no such field; {group or 'config'} has {', '.join(sorted(known)) or 'none'}"
            )
        current = getattr(getattr(config, group), field)
        value = _coerce(name, current, value)
        config = dataclasses.replace(config, **{group: dataclasses.replace(getattr(config, group), **{field: value})})
    return config


def _coerce(name: str, current: Any, value: Any) -> Any:
    """`value` in the type of `current`, or InputError."""
    wanted = type(current)
    if wanted is bool and isinstance(value, bool):
        return value
    if wanted is int and isinstance(value, int | float) and not isinstance(value, bool) and int(value) == value:
        return int(value)
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if wanted is str and isinstance(value, str):
        return value
    raise InputError(f"--config.{name}={value!r}: expected {wanted.__name__}")


def to_dict(config: Config) -> dict[str, Any]:
    """Nested plain dict, as written to config.json."""
    return dataclasses.asdict(config)


def from_dict(tree: Mapping[str, Any]) -> Config:
    """Inverse of `to_dict`; fields that are absent keep their defaults. Raises InputError for unknown fields."""
    flat = {f"{group}.{field}": value for group, fields in tree.items() for field, value in fields.items()}
    return replace(Config(), flat)


def load(workdir: str | Path) -> Config:
    """The configuration of a workdir. Raises InputError if it has none or it cannot be read."""
    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise InputError(f"{path}: not found; is {workdir} the workdir of a training run or an import?")
    try:
        return from_dict(json.loads(path.read_text()))
    except (json.JSONDecodeError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: not a configuration ({error})") from error


def activation_sites(config: SparsityConfig) -> tuple[str, ...]:
    """Names of the sites where AbsTopK acts; empty when it is off."""
    if not config.activation_fraction:
        return ()
    return tuple(site.strip() for site in config.activation_sites.split(",") if site.strip())


def embedding_density(config: SparsityConfig) -> float:
    """Target density of embedding and unembedding."""
    return config.embedding_density or config.density


def validate(config: Config) -> Config:
    """Returns `config` unchanged, or raises InputError on the first impossible value."""
    _validate_model(config.model)
    _validate_sparsity(config)
    _validate_training(config)
    _validate_prune(config.prune)
    _validate_bridge(config.bridge)
    return config


def _require(ok: bool, name: str, value: Any, rule: str) -> None:
    if not ok:
        raise InputError(f"--config.{name}={value}: {rule}")


def _validate_model(m: ModelConfig) -> None:
    for field in ("n_layer", "d_model", "n_head", "d_head", "d_mlp", "context"):
        _require(getattr(m, field) >= 1, f"model.{field}", getattr(m, field), "must be at least 1")
    _require(m.vocab_size >= 2, "model.vocab_size", m.vocab_size, "must be at least 2")
    choices = {
        "norm": ("rms", "layer"),
        "activation": ("gelu", "relu"),
        "residual_activation": ("identity", "relu"),
        "position": ("none", "additive", "concat", "sinusoidal"),
    }
    for field, allowed in choices.items():
        _require(
            getattr(m, field) in allowed, f"model.{field}", getattr(m, field), f"choose one of {', '.join(allowed)}"
        )
    _require(
        not (m.norm == "rms" and m.norm_bias), "model.norm_bias", m.norm_bias, "RMSNorm has no bias; use norm=layer"
    )
    concatenated = m.position in ("concat", "sinusoidal")
    _require(
        (m.d_position > 0) == concatenated,
        "model.d_position",
        m.d_position,
        "must be positive with position=concat or sinusoidal, and 0 otherwise",
    )
    _require(
        m.position != "sinusoidal" or m.d_position % 2 == 0,
        "model.d_position",
        m.d_position,
        "must be even with position=sinusoidal (sin half, cos half)",
    )


def _validate_sparsity(config: Config) -> None:
    s, m = config.sparsity, config.model
    _require(0 < s.density <= 1, "sparsity.density", s.density, "must be in (0, 1]")
    _require(
        0 <= s.embedding_density <= 1,
        "sparsity.embedding_density",
        s.embedding_density,
        "must be in (0, 1], or 0 for the value of density",
    )
    _require(s.min_alive >= 0, "sparsity.min_alive", s.min_alive, "must be at least 0")
    _require(
        0 <= s.activation_fraction <= 1, "sparsity.activation_fraction", s.activation_fraction, "must be in [0, 1]"
    )
    for site in activation_sites(s):
        _require(
            site in NODE_SITES + RESIDUAL_SITES,
            "sparsity.activation_sites",
            site,
            f"unknown site; choose from {', '.join(NODE_SITES + RESIDUAL_SITES)}",
        )
    _require(
        0 <= s.anneal_start < s.anneal_stop <= 1,
        "sparsity.anneal_start",
        s.anneal_start,
        f"must lie in [0, anneal_stop={s.anneal_stop}) and anneal_stop within (0, 1]",
    )
    heads, read = m.n_head * m.d_head, m.d_model + m.d_position
    for name, size, neurons, other in (
        ("attention c_attn", read * 3 * heads, 3 * heads, read),
        ("attention c_proj", heads * m.d_model, heads, m.d_model),
        ("mlp c_fc", read * m.d_mlp, m.d_mlp, read),
        ("mlp c_proj", m.d_mlp * m.d_model, m.d_mlp, m.d_model),
    ):
        kept = int(s.density * size)
        need = min(s.min_alive, other) * neurons
        _require(
            need <= kept,
            "sparsity.min_alive",
            s.min_alive,
            f"needs {need} nonzeros in {name}, but density {s.density:g} keeps {kept}; "
            f"lower min_alive to {kept // neurons} or raise density to {math.ceil(1e4 * need / size) / 1e4:g}",
        )


def _validate_training(config: Config) -> None:
    t, o, d = config.train, config.optimizer, config.data
    for field in (
        "steps",
        "batch_size",
        "microbatches",
        "checkpoint_every",
        "keep_last",
        "log_every",
        "eval_every",
        "eval_batches",
    ):
        _require(getattr(t, field) >= 1, f"train.{field}", getattr(t, field), "must be at least 1")
    _require(
        t.batch_size % t.microbatches == 0,
        "train.microbatches",
        t.microbatches,
        f"must divide batch_size={t.batch_size}",
    )
    _require(t.keep_every >= 0, "train.keep_every", t.keep_every, "must be at least 0")
    _require(0 <= t.seed < 2**32, "train.seed", t.seed, "must be in [0, 2**32)")
    _require(t.dtype in ("float32", "bfloat16"), "train.dtype", t.dtype, "choose float32 or bfloat16")
    _require(
        o.recipe in ("paper", "openai_reference"), "optimizer.recipe", o.recipe, "choose paper or openai_reference"
    )
    _require(o.learning_rate > 0, "optimizer.learning_rate", o.learning_rate, "must be positive")
    _require(0 <= o.warmup < 1, "optimizer.warmup", o.warmup, "must be in [0, 1)")
    _require(o.weight_decay >= 0, "optimizer.weight_decay", o.weight_decay, "must be at least 0")
    for field in ("beta1", "beta2"):
        _require(0 <= getattr(o, field) < 1, f"optimizer.{field}", getattr(o, field), "must be in [0, 1)")
    for field in ("eps", "grad_rms"):
        _require(getattr(o, field) > 0, f"optimizer.{field}", getattr(o, field), "must be positive")
    _require(0 < d.validation_fraction < 0.5, "data.validation_fraction", d.validation_fraction, "must be in (0, 0.5)")
    _require(d.tokens >= 0, "data.tokens", d.tokens, "must be at least 0 (0 takes everything)")
    _require(d.max_file_bytes >= 1, "data.max_file_bytes", d.max_file_bytes, "must be at least 1")


def _validate_prune(p: PruneConfig) -> None:
    for field in ("steps", "seeds", "batch_pairs", "refine_trials", "refine_most", "evaluation_pairs", "random_draws"):
        _require(getattr(p, field) >= 1, f"prune.{field}", getattr(p, field), "must be at least 1")
    for field in ("target_loss", "learning_rate", "heaviside_temp", "grad_clip"):
        _require(getattr(p, field) > 0, f"prune.{field}", getattr(p, field), "must be positive")
    _require(0 < p.selection_margin <= 1, "prune.selection_margin", p.selection_margin, "must be in (0, 1]")
    _require(
        p.ablation in ("mean", "zero", "task_mean", "resample"),
        "prune.ablation",
        p.ablation,
        "choose mean, zero, task_mean or resample",
    )
    _require(p.norm in ("live", "frozen"), "prune.norm", p.norm, "choose live or frozen")
    _require(0 <= p.beta2 < 1, "prune.beta2", p.beta2, "must be in [0, 1)")
    _require(0 <= p.warmup < 1, "prune.warmup", p.warmup, "must be in [0, 1)")
    _require(
        p.tune_trials >= 0 and p.tune_trials % TUNE_BATCH == 0,
        "prune.tune_trials",
        p.tune_trials,
        f"must be a multiple of {TUNE_BATCH}, or 0 for no tuning",
    )
    k_coefs(p)


def _validate_bridge(b: BridgeConfig) -> None:
    _require(0 <= b.encoder_fraction <= 1, "bridge.encoder_fraction", b.encoder_fraction, "must be in [0, 1]")
    for field in ("cross_entropy", "nmse", "kl_to_sparse", "kl_to_dense", "sampled"):
        _require(getattr(b, field) >= 0, f"bridge.{field}", getattr(b, field), "must be at least 0")
    for field in ("dense_steps", "dense_d_model"):
        _require(getattr(b, field) >= 1, f"bridge.{field}", getattr(b, field), "must be at least 1")
    _require(b.dense_learning_rate > 0, "bridge.dense_learning_rate", b.dense_learning_rate, "must be positive")


def k_coefs(p: PruneConfig) -> tuple[float, ...]:
    """The penalties per open gate, parsed. Raises InputError on anything but positive numbers."""
    try:
        values = tuple(float(value) for value in p.k_coefs.split(",") if value.strip())
    except ValueError:
        values = ()
    _require(
        bool(values) and all(v >= 0 for v in values),
        "prune.k_coefs",
        p.k_coefs,
        "a comma list of numbers such as 1e-4,3e-4",
    )
    return values
