"""Named configurations, from a minute on a laptop to the paper's sizes on a pod."""

import dataclasses
from collections.abc import Callable, Mapping

from sparse_gpt.config import (
    BridgeConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    PruneConfig,
    SparsityConfig,
    TrainConfig,
)
from sparse_gpt.errors import InputError
from sparse_gpt.io import Json, Tree

SHORT_SEARCH = PruneConfig(
    steps=200, learning_rate=5e-3, seeds=2, k_coefs=(1e-3, 3e-3), batch_pairs=32, evaluation_pairs=128, refine_trials=1
)
"""Minutes per task on two cores."""


def quickstart() -> Config:
    """A sparse model on a laptop, in minutes: 5.3 million tokens in batches of 16 x 128.

    Command: ``bash launch/quickstart.sh`` or ``python -m launch.train --preset=quickstart --workdir=runs/quickstart``.
    Expected: 6 to 12 minutes on two idle cores, by processor; validation loss 2.58 and a quote task loss of the full
    model of 0.018 with seed 0, 0.012 to 0.027 with seeds 0 to 4 (docs/results/2026-11-27.md).
    """
    return Config(
        sparsity=SparsityConfig(density=1 / 16, embedding_density=0.25),
        optimizer=OptimizerConfig(recipe="openai_reference", learning_rate=0.1),
        data=DataConfig(sources=("idioms:0.75", "pinned_source:0.25"), tokens=5_400_000),
        train=TrainConfig(
            steps=2600, batch_size=16, checkpoint_every=400, log_every=20, eval_every=200, eval_batches=16
        ),
        prune=SHORT_SEARCH,
    )


def laptop() -> Config:
    """As many of the twenty tasks as fit into one sparse model on a laptop: 37 million tokens in batches of 16 x 144.

    Command: ``python -m launch.train --preset=laptop --workdir=runs/laptop``.
    Expected: 80 minutes on two idle cores; validation loss 1.58, 16 of 20 tasks below 0.15
    (docs/results/laptop_model.md). That model is stored in this package: ``--init_from=laptop``.
    """
    return Config(
        model=ModelConfig(
            n_layer=3, d_model=192, n_head=12, d_head=16, d_mlp=768, vocab_size=1024, context=144, bigram=True
        ),
        sparsity=SparsityConfig(density=1 / 16),
        optimizer=OptimizerConfig(recipe="openai_reference", learning_rate=0.06),
        data=DataConfig(sources=("idioms:0.95", "pinned_source:0.05"), tokens=36_500_000),
        train=TrainConfig(
            steps=16_000, batch_size=16, checkpoint_every=500, log_every=20, eval_every=1000, eval_batches=16
        ),
        prune=dataclasses.replace(SHORT_SEARCH, seeds=3, k_coefs=(3e-3, 1e-2), refine_trials=3),
    )


def laptop_dense() -> Config:
    """A dense model with preset laptop's loss and as many block weights as that leaves nonzero (82,944), so narrower.

    Its learning rate is the best of quickstart's dense models.

    Command: ``python -m launch.train --preset=laptop_dense --workdir=runs/laptop_dense``, for the stored sparse model's
    tokenizer with ``--config.data.tokenizer=RUN/tokenizer``, RUN a workdir of that model.
    Expected: 50 minutes on one idle core with AVX2, by its 5.4 steps a second; validation loss 1.54, 15 of 20 tasks
    below 0.15 (docs/results/laptop_dense.md). That model is stored in this package: ``--init_from=laptop_dense``.
    """
    config = laptop()
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, d_model=48, n_head=3, d_mlp=192),
        sparsity=SparsityConfig(density=1, embedding_density=1, activation_fraction=0),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=0.03),
    )


def laptop_half() -> Config:
    """The stored laptop model, trained on with half of its nonzeros: 11.5 million tokens, at half of its learning rate.

    Command: ``python -m launch.train --preset=laptop_half --init_from=laptop --workdir=runs/laptop_half
    --config.data.tokenizer=RUN/tokenizer``, RUN a workdir of the stored model.
    Expected: 90 minutes on one core with AVX2 (docs/results/laptop_half.md). That model is stored in this package:
    ``--init_from=laptop_half``.
    """
    config = laptop()
    return dataclasses.replace(
        config,
        sparsity=dataclasses.replace(config.sparsity, density=1 / 32, anneal_stop=0.4),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=0.03),
        train=dataclasses.replace(config.train, steps=5000),
    )


def gpu() -> Config:
    """The largest model that should solve all twenty tasks after seven minutes of one H100: 21 million parameters, one
    in 32 nonzero, in bfloat16; batches of 64 x 144 tokens.

    How the size was chosen, before any GPU ran it: 799 TFLOP/s of matrix products and 3.0 TB/s were measured there. A
    step moves about 100 bytes for each of the 34,000 activations of a token, 31 GB or 10 ms, and multiplies for 1.5 ms
    at the full rate, say 6 ms; with 4 ms to launch its kernels, 20 ms, so 290 s have 14,500 steps, 134 million tokens:
    3.6 times those of preset laptop, with eight times its parameters and nonzeros.

    Command: ``python tests/gpu_check/train.py``, which sets the number of steps by the time that a step takes.
    Expected: never run; 20 of 20 tasks below 0.15 is the aim.
    """
    return Config(
        model=ModelConfig(
            n_layer=6, d_model=512, n_head=32, d_head=16, d_mlp=2048, vocab_size=1024, context=144, bigram=True
        ),
        sparsity=SparsityConfig(density=1 / 32, embedding_density=0.25),
        optimizer=OptimizerConfig(recipe="openai_reference", learning_rate=0.03),
        data=DataConfig(sources=("idioms:1",), tokens=120_000_000),
        train=TrainConfig(
            steps=14_500,
            batch_size=64,
            dtype="bfloat16",
            checkpoint_every=4000,
            log_every=100,
            eval_every=2000,
            eval_batches=16,
        ),
        prune=dataclasses.replace(SHORT_SEARCH, seeds=3, k_coefs=(3e-3, 1e-2), refine_trials=3),
    )


def bridge_quickstart() -> Config:
    """A trained model of preset quickstart with bridges to a dense one of width 64, trained first when none is given.

    Command: ``python -m launch.bridge --workdir=runs/bridge --config.bridge.init_from=runs/quickstart``
    (``--dense=DIR`` for a dense model of one's own).
    Expected: about 12 minutes on two idle cores; hybrids within 0.31 nats of the dense model
    (docs/results/bridge_quickstart.md).
    """
    config = quickstart()
    return dataclasses.replace(
        config,
        optimizer=dataclasses.replace(config.optimizer, learning_rate=0.01),
        train=dataclasses.replace(config.train, steps=1300, eval_batches=4, evaluate_tasks=False),
        bridge=BridgeConfig(sampled=2, dense_d_model=64, dense_steps=2600, dense_learning_rate=0.03),
    )


def bridge_laptop() -> Config:
    """The stored laptop model with bridges to a dense one of width 96, which is trained first when none is given.

    A fresh sparse model would need far more steps than the dense one: so it starts as the stored one, at its density
    from the first steps on, and the bridges as the best linear maps to it.

    Command: ``python -m launch.bridge --preset=bridge_laptop --workdir=runs/bridge``; ``python -m launch.reproduce
    --experiment=bridge --workdir=DIR`` adds circuits and steering.
    Expected: about 65 minutes on two idle cores; hybrids within 0.28 nats of the dense model (docs/results/bridge.md).
    """
    config = laptop()
    return dataclasses.replace(
        config,
        optimizer=dataclasses.replace(config.optimizer, learning_rate=0.004),
        data=dataclasses.replace(config.data, tokens=9_300_000),
        train=dataclasses.replace(config.train, steps=4500, eval_every=500, eval_batches=4, evaluate_tasks=False),
        prune=SHORT_SEARCH,
        bridge=BridgeConfig(
            sampled=2, init_from="laptop", dense_d_model=96, dense_steps=4000, dense_learning_rate=0.03
        ),
    )


def tiny() -> Config:
    """The smallest model that exercises everything; seconds. For tests and for trying flags."""
    return Config(
        model=ModelConfig(n_layer=2, d_model=32, n_head=2, d_head=8, d_mlp=64, vocab_size=512, context=64),
        sparsity=SparsityConfig(density=0.25),
        data=DataConfig(tokens=120_000, sources=("idioms:1",)),
        train=TrainConfig(
            steps=40,
            batch_size=8,
            checkpoint_every=20,
            log_every=5,
            eval_every=20,
            eval_batches=2,
            evaluate_tasks=False,
        ),
        prune=PruneConfig(steps=20, seeds=2, k_coefs=(1e-4,), batch_pairs=8, random_draws=4),
    )


def openai_reference() -> Config:
    """The recipe of the reference's train.py, for comparing runs step by step.

    Command: ``python -m launch.train --preset=openai_reference --workdir=DIR --init_from=INIT.npz --batches=B.npy``.
    Expected: learning rate, densities and nonzero counts equal at every step; losses to 1e-5 for ten steps.
    """
    return Config(
        model=ModelConfig(position="additive", attention_sink=True, bigram=True),
        optimizer=OptimizerConfig(recipe="openai_reference", learning_rate=1.28e-2),
        train=TrainConfig(log_every=1),
    )


def _paper(d_model: int, density: float, mesh: str, **model: Json) -> Config:
    """The paper's shape: 8 layers, heads of 16 channels, d_mlp 4 d_model, context 256, 32B tokens in batches of 512."""
    sizes: Tree = {"d_model": d_model, "n_head": d_model // 16, "d_mlp": 4 * d_model}
    return Config(
        model=ModelConfig(n_layer=8, d_head=16, vocab_size=2048, context=256, **sizes, **model),
        sparsity=SparsityConfig(density=density, anneal_stop=0.5),
        optimizer=OptimizerConfig(learning_rate=1.28e-2),
        data=DataConfig(tokens=1_000_000_000),
        train=TrainConfig(
            steps=244_141, batch_size=512, dtype="bfloat16", mesh=mesh, checkpoint_every=1000, eval_every=1000
        ),
    )


def paper_118m() -> Config:
    """The paper's d_model 1024 (109M parameters with these sizes; the released csp_yolo1 is of this kind), no sinks.

    Command: ``python -m launch.train --distributed --preset=paper_118m --config.data.corpus=FOLDER --workdir=DIR``
    on 256 devices.
    Expected: never run on a TPU; `launch.compile_tpu` says what compiling for one tells (docs/results/tpu.md).
    """
    return _paper(1024, 1 / 64, "data=4,fsdp=64", attention_sink=False)


def paper_475m() -> Config:
    """The paper's d_model 2048 (415M parameters with these sizes; the released csp_yolo2 is of this kind), with sinks.

    Command: as for paper_118m. Expected: never run; compiled for 256 chips of v5e it takes 2.0 of their 16 GB each, and
    a step takes at least 26 ms.
    """
    return _paper(2048, 1 / 256, "data=2,fsdp=128")


def paper_bridge() -> Config:
    """Four layers of paper_475m with bridges to a dense model of width 1024.

    Command: ``python -m launch.bridge --distributed --preset=paper_bridge --config.data.corpus=FOLDER --workdir=DIR``
    on 256 devices, with ``--dense=DIR`` for a trained dense model.
    Expected: never run; its step compiles for 256 chips of v5e (3.62 of 16 GB per chip).
    """
    config = paper_475m()
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, n_layer=4),
        bridge=BridgeConfig(dense_d_model=1024, dense_steps=100_000, dense_learning_rate=1e-2),
    )


def paper_1_9b() -> Config:
    """The paper's d_model 4096 (1.63B parameters with these sizes), one weight in 512; annealing ends later (80%).

    Command: as for paper_118m, with --preset=paper_1.9b. Expected: never run; compiled with one layer only.
    """
    config = _paper(4096, 1 / 512, "data=2,fsdp=128")
    return dataclasses.replace(config, sparsity=dataclasses.replace(config.sparsity, anneal_stop=0.8))


PRESETS: Mapping[str, Callable[[], Config]] = {
    "quickstart": quickstart,
    "laptop": laptop,
    "laptop_dense": laptop_dense,
    "laptop_half": laptop_half,
    "gpu": gpu,
    "bridge_quickstart": bridge_quickstart,
    "bridge_laptop": bridge_laptop,
    "tiny": tiny,
    "openai_reference": openai_reference,
    "paper_118m": paper_118m,
    "paper_475m": paper_475m,
    "paper_1.9b": paper_1_9b,
    "paper_bridge": paper_bridge,
}


def preset(name: str) -> Config:
    """The named preset.

    Raises:
        InputError: there is no such preset.

    Examples:
        >>> sg.preset("quickstart").model.d_model
        128
    """
    if name not in PRESETS:
        raise InputError(f"--preset={name}: unknown; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]()
