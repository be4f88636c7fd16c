"""The groups of a configuration: every field with its default, its range and what it is for.

Import them from sparse_gpt.config. Sizes are channel counts; ranges are what the programs can take at all, and
sparse_gpt/estimate.py says what a machine can take. Rules between fields are in checks.py.
"""

import dataclasses

from sparse_gpt.config.fields import choice, flag, names, numbers, quoted, real, text, texts, whole

NODE_SITES = ("attn_in", "attn_q", "attn_k", "attn_v", "attn_out", "mlp_in", "mlp_neuron", "mlp_out")
READS, WRITES = ("attn_in", "mlp_in"), ("attn_out", "mlp_out")  # of attention, of the MLP: nodes are residual channels
RESIDUAL_SITES = ("resid_post_attn", "resid_post_mlp")  # further places where the reference can apply AbsTopK
TUNE_BATCH = 8  # mask searches whose hyperparameters are tuned together

WIDEST = 1 << 20  # channels
MOST = 2**31 - 1  # counts are int32 on devices
MOST_STEPS = MOST - 1  # openai_reference takes one more
LAST_SEED = 2**32 - 1  # JAX reads 32 bits of a seed
LARGE = 1e6  # of factors whose square must be a float32


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Decoder-only, GPT-2 style, pre-norm transformer (paper, section 2 and appendix; sizes are channel counts)."""

    n_layer: int = whole(2, 1, 1 << 12, "blocks")
    d_model: int = whole(128, 1, WIDEST, "width of the residual stream")
    n_head: int = whole(8, 1, 1 << 16, "attention heads")
    d_head: int = whole(16, 1, 1 << 16, "channels of each of q, k and v per head")
    d_mlp: int = whole(512, 1, 1 << 22, "neurons of an MLP")
    vocab_size: int = whole(1024, 2, 1 << 24, "entries of the vocabulary")
    context: int = whole(128, 1, 1 << 24, "tokens that are seen at once")
    norm: str = choice("rms", ("rms", "layer"), "rms (eps = float32 machine epsilon) or layer (eps = 1e-5)")
    norm_bias: bool = flag(False, "a bias after each norm; only LayerNorm can have one")
    activation: str = choice("gelu", ("gelu", "relu"), "of neurons; gelu is the exact (erf) one")
    residual_activation: str = choice(
        "identity", ("identity", "relu"), "applied to the residual stream after each sublayer's add"
    )
    bias: bool = flag(True, "biases of the four block matrices")
    final_bias: bool = flag(True, "one learned value per vocabulary entry, added to the logits")
    attention_sink: bool = flag(True, "a learned logit per head that attention can go to")
    bigram: bool = flag(True, "a dense vocabulary x vocabulary table, added to the logits")
    position: str = choice(
        "none",
        ("none", "additive", "concat", "sinusoidal"),
        "none, additive (learned), concat (learned, concatenated) or sinusoidal (concatenated)",
    )
    d_position: int = whole(0, 0, WIDEST, "width of concatenated positions")
    tied: bool = flag(False, "unembedding = transposed embedding")


@dataclasses.dataclass(frozen=True)
class SparsityConfig:
    """Which fraction of weights and activations stays nonzero, and how training gets there (paper, section 2)."""

    density: float = real(1 / 32, "fraction of nonzero entries per projected tensor", above=0, at_most=1)
    embedding_density: float = real(
        0.0, "the same for embedding and unembedding; 0 means that of sparsity.density", at_least=0, at_most=1
    )
    min_alive: int = whole(4, 0, 1 << 22, "nonzeros every neuron and attention channel keeps on each side")
    revive_every: int = whole(
        0,
        0,
        MOST,
        "steps after which neurons without a gradient begin again (training/revival.py; no bridged run); 0: never",
    )
    activation_fraction: float = real(
        0.25, "AbsTopK keeps int(fraction * width) channels; 0 turns it off", at_least=0, at_most=1
    )
    activation_sites: tuple[str, ...] = names(NODE_SITES, NODE_SITES + RESIDUAL_SITES, "where AbsTopK acts")
    anneal_start: float = real(0.01, "when density begins to fall, as a fraction of training", at_least=0, below=1)
    anneal_stop: float = real(0.5, "when density reaches its target, as a fraction of training", above=0, at_most=1)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with controlled gradient RMS; `recipe` fixes the order of operations (see training/optimizer.py)."""

    recipe: str = choice(
        "paper",
        ("paper", "openai_reference", "fast", "muon"),
        "order of operations in a step, and direction",
    )
    learning_rate: float = real(1e-2, "highest learning rate of the paper's search", above=0, at_most=LARGE)
    warmup: float = real(0.01, "fraction of training in which the learning rate rises", at_least=0, below=1)
    sharkfin: bool = flag(True, "learning rate times sqrt(target density / current density)")
    beta1: float = real(0.9, "decay of Adam's first moment", at_least=0, below=1)
    beta2: float = real(0.95, "decay of Adam's second moment", at_least=0, below=1)
    eps: float = real(0.1, "Adam's epsilon", above=0, at_most=LARGE)
    weight_decay: float = real(0.1, "decoupled, times the learning rate", at_least=0, at_most=LARGE)
    grad_rms: float = real(
        1.0,
        "limit (paper), or what it is scaled to (all others), of the gradients' root mean square",
        above=0,
        at_most=LARGE,
    )


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The corpus: sources mixed by weight, tokenized once into shards (see data/corpus.py)."""

    sources: tuple[str, ...] = quoted(("idioms:0.75", "pinned_source:0.25"), "each kind[=location][#column][:weight]")
    seed: int = whole(0, 0, 2**63 - 1, "orders files, generates idioms and shuffles windows")
    tokens: int = whole(4_000_000, 0, 2**63 - 1, "tokens to prepare; 0 takes everything the sources have")
    corpus: str = text("", "folder of a prepared corpus; empty: prepare one in WORKDIR/corpus")
    tokenizer: str = text("", "folder of a tokenizer to use; empty: train one of model.vocab_size entries")
    validation_fraction: float = real(
        0.02, "share of documents in the validation split, and in the test split", above=0, below=0.5
    )
    max_file_bytes: int = whole(200_000, 1, 1 << 40, "longer documents are left out")
    near_duplicates: bool = flag(True, "remove near-duplicate documents, not only exact ones")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length, batch, checkpoints and logs of a training run."""

    steps: int = whole(1000, 1, MOST_STEPS, "optimizer steps")
    batch_size: int = whole(32, 1, MOST, "sequences of model.context tokens, over all devices")
    microbatches: int = whole(1, 1, MOST, "gradient accumulation: the batch is taken in this many parts")
    seed: int = whole(0, 0, LAST_SEED, "of the initial parameters")
    dtype: str = choice(
        "float32",
        ("float32", "bfloat16"),
        "of the forward and backward pass; parameters, moments and selection are float32",
    )
    remat: bool = flag(False, "recompute each block in the backward pass")
    mesh: str = text("", 'device mesh, such as "data=4,fsdp=2"; empty: all devices on "data"')
    checkpoint_every: int = whole(200, 1, MOST, "steps between checkpoints")
    keep_last: int = whole(2, 1, MOST, "newest checkpoints that are kept")
    keep_every: int = whole(0, 0, MOST, "keep every checkpoint, too, whose step is a multiple; 0: none")
    log_every: int = whole(10, 1, MOST, "steps between lines of metrics.jsonl")
    eval_every: int = whole(100, 1, MOST, "steps between evaluations")
    eval_batches: int = whole(8, 1, MOST, "validation batches of an evaluation")
    evaluate_tasks: bool = flag(True, "at the end: every task's held-out losses, into evaluation.json")


@dataclasses.dataclass(frozen=True)
class PruneConfig:
    """The mask search (paper, section 3 and appendix); centers of the authors' own search are the defaults."""

    target_loss: float = real(0.15, "binary task loss in nats that a circuit must reach", above=0, at_most=LARGE)
    selection_margin: float = real(
        0.6, "circuits are chosen at this fraction of it, for other words will do less well", above=0, at_most=1
    )
    search: str = choice(
        "paper",
        ("path", "paper"),
        "path: the penalty rises as long as the loss is at the target; paper: fixed penalties, as published",
    )
    steps: int = whole(400, 1, MOST, "optimization steps of a search")
    seeds: int = whole(4, 1, 1 << 20, "searches of each kind (starts x gates, or k_coefs), all in one program")
    starts: tuple[str, ...] = names(
        ("integrated_gradients", "flat"),
        ("integrated_gradients", "flat"),
        "what is open at the start of a path search: the first nodes of that ranking, or all",
    )
    gates: tuple[str, ...] = names(
        ("heaviside", "concrete"), ("heaviside", "concrete"), "of the path search; concrete ones are drawn"
    )
    path_rate: float = real(0.02, "learning rate of the path search", above=0, at_most=LARGE)
    objective: str = choice(
        "task",
        ("task", "match"),
        "what has to reach the target: the task loss, or (path search) the divergence from the model's own answer",
    )
    restored: float = real(
        0.0,
        "of the path search: share of the steps in which a random part of the closed nodes is restored",
        at_least=0,
        at_most=1,
    )
    above_model: float = real(
        0.0,
        "of the path search: nats that a family's loss may always be above the model's own, whatever the target",
        at_least=0,
        at_most=LARGE,
    )
    above_natural: float = real(
        0.0,
        "of the path search: nats that the loss on the family natural, places of text, may be above the target",
        at_least=0,
        at_most=LARGE,
    )
    largest_scale: float = real(16.0, "by which calibration may multiply a circuit's logits", above=0, at_most=16)
    k_coefs: tuple[float, ...] = numbers(
        (1e-4, 3e-4), 0, 1e9, "of the paper's search: cost of an open gate; a search for each"
    )
    batch_pairs: int = whole(64, 1, 1 << 24, "pairs of samples per step")
    ablation: str = choice(
        "mean",
        ("mean", "zero", "task_mean", "resample"),
        "value of a closed node: mean over the pretraining distribution, zero, mean over the task, or drawn",
    )
    norm: str = choice("live", ("live", "frozen"), "frozen: norm scales taken from the full model")
    tie_qk: bool = flag(False, "one gate for the q and the k channel of the same index")
    learning_rate: float = real(3e-3, "highest learning rate of the paper's search", above=0, at_most=LARGE)
    weight_decay: float = real(1e-3, "decoupled, times the learning rate", at_least=0, at_most=LARGE)
    beta2: float = real(0.95, "decay of Adam's second moment", at_least=0, below=1)
    warmup: float = real(0.05, "fraction of the steps in which the learning rate rises", at_least=0, below=1)
    init_noise_scale: float = real(1e-2, "standard deviation of a gate's start", at_least=0, at_most=LARGE)
    init_noise_bias: float = real(0.1, "mean of a gate's start; open above 0", at_least=-LARGE, at_most=LARGE)
    heaviside_temp: float = real(1.0, "width of the gates' pseudo-derivative", at_least=1e-6, at_most=LARGE)
    tune_trials: int = whole(0, 0, 1 << 20, "searches beside those, in eights, with hyperparameters tuned by Optuna")
    grad_clip: float = real(1.0, "largest norm of a search's gradient", above=0, at_most=LARGE)
    refine_trials: int = whole(
        3, 1, 1 << 20, "of the smallest circuits found, refined until no node can go; the smallest wins"
    )
    refine_most: int = whole(1024, 1, MOST, "nodes; larger circuits stay as they are, for refining takes hours")
    edges: bool = flag(True, "then remove single edges too")
    evaluation_pairs: int = whole(256, 1, 1 << 24, "of validation, of training beside them, and of held-out samples")
    random_draws: int = whole(20, 1, 1 << 24, "random circuits to compare with")
    card: str = choice(
        "cheap",
        ("cheap", "full", "none"),
        "rows of the report card at the end: those that take seconds; all, of which some search again; none",
    )
    seed: int = whole(0, 0, LAST_SEED, "of the searches' starts, samples and controls")
    families: tuple[str, ...] = texts(
        (),
        "main,arguments",
        "template families of the task that are searched on, or all; empty: main alone; natural: occurrences in "
        "training text beside them",
    )


@dataclasses.dataclass(frozen=True)
class BridgeConfig:
    """Coupling of a sparse model to a trained dense one (paper, section on bridges)."""

    boundaries: tuple[str, ...] = texts((), "0:0,4:2,8:4", "bridged boundaries, pairs dense:sparse; empty: one to one")
    encoder_fraction: float = real(
        0.0,
        "channels kept by AbsTopK after an encoder; 0: that of sparsity.activation_fraction, 1: all",
        at_least=0,
        at_most=1,
    )
    cross_entropy: float = real(
        1.0, "weight of the sparse model's own loss in the objective", at_least=0, at_most=LARGE
    )
    nmse: float = real(
        1.0, "weight of the encoders' and decoders' normalized squared errors", at_least=0, at_most=LARGE
    )
    kl_to_sparse: float = real(
        1.0, "weight of the hybrids that start in the dense model and end in the sparse one", at_least=0, at_most=LARGE
    )
    kl_to_dense: float = real(
        1.0, "weight of those that start in the sparse model and end in the dense one", at_least=0, at_most=LARGE
    )
    sampled: int = whole(0, 0, 1 << 20, "hybrids run per step and direction, drawn anew each step; 0: all of them")
    init_from: str = text(
        "", "workdir, or stored model, that the sparse model starts as, and bridges as least squares maps"
    )
    dense_d_model: int = whole(
        64, 1, WIDEST, "of the dense model that is trained when none is given; its d_mlp is 4 times that"
    )
    dense_steps: int = whole(1000, 1, MOST_STEPS, "steps of that training")
    dense_learning_rate: float = real(1e-2, "of that training", above=0, at_most=LARGE)


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
