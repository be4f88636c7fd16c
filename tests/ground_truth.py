"""A sparse model made by hand, whose circuit is known, and a task that it does; and circuits that deserve to fail.

The task: a mark (one of two tokens) stands among words; at the end, the same mark is the answer. The model does it as
the paper's quote circuit does. Layer 0: two neurons tell the marks apart (channel 4) and say that one is there (channel
5). Layer 1: head 0 looks at the mark by channel 5 and carries channel 4 to channel 8, which the unembedding reads. Some
words write into channel 4 too ("noisy"), so averaging over the prompt, a shortcut, works only without them.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from sparse_gpt.circuits.circuit import Node, gates_of
from sparse_gpt.circuits.nodes import to_vector
from sparse_gpt.circuits.problem import LoadedModel, Problem
from sparse_gpt.circuits.run.samples import TaskSamples
from sparse_gpt.circuits.run.support import Candidate, Support
from sparse_gpt.circuits.run.task_batch import TaskBatch
from sparse_gpt.config import Config, ModelConfig, PruneConfig, SparsityConfig, TrainConfig
from sparse_gpt.parameters import Params, parameter_table, unflatten

MARKS, VOCABULARY, TIME, PLACE = (3, 7), 40, 8, 2
CLEAN = {"train": range(8, 14), "heldout": range(14, 20)}  # words by split
NOISY = {"train": range(20, 28), "heldout": range(28, 36)}

TRUE = (
    Node(0, "mlp_in", 0),
    Node(0, "mlp_neuron", 0),
    Node(0, "mlp_neuron", 1),
    Node(0, "mlp_out", 4),
    Node(0, "mlp_out", 5),
    Node(1, "attn_in", 4),
    Node(1, "attn_in", 5),
    Node(1, "attn_q", 0),
    Node(1, "attn_k", 0),
    Node(1, "attn_v", 0),
    Node(1, "attn_out", 8),
)
"""The circuit, when closed nodes are zero: 11 nodes, 9 edges (head 0's query is a bias)."""
SHORTCUT = tuple(n for n in TRUE if n.site not in ("attn_k", "attn_q") and n.channel != 5)
"""The average of channel 4 over the prompt."""
OTHER_ROLE = tuple(
    Node(0, "mlp_neuron", 5) if n == Node(0, "mlp_neuron", 0) else n for n in TRUE if n != Node(0, "mlp_neuron", 1)
)
"""Neuron 5 instead of 0 and 1 in the model with the option `disguise`: in the model it follows channel 12; with channel
12 closed, it tells one mark from the other."""

PRUNE = PruneConfig(
    ablation="zero",
    steps=60,
    seeds=1,
    k_coefs=(1e-3, 3e-3),
    batch_pairs=16,
    learning_rate=2e-2,
    evaluation_pairs=64,
    random_draws=4,
    refine_trials=1,
)


def config(prune: PruneConfig = PRUNE) -> Config:
    """Two layers of 16 channels, no AbsTopK."""
    sizes = ModelConfig(
        n_layer=2, d_model=16, n_head=2, d_head=4, d_mlp=24, vocab_size=VOCABULARY, context=16, activation="relu"
    )
    sparsity = SparsityConfig(density=0.3, activation_fraction=0.0, min_alive=0)
    return Config(model=sizes, sparsity=sparsity, train=TrainConfig(steps=1), prune=prune)


def params(
    model: ModelConfig, *, disguise: bool = False, backup: bool = False, rivals: bool = False, loud: bool = False
) -> Params:
    """Weights of the circuit, and some hundreds of weak ones that mean nothing.

    Args:
        model: of `config`.
        disguise: neuron 5 adds a little of channel 0 to much of channel 12, which neuron 6 takes away again.
        backup: channels 2, 6, 7 and 9, neurons 2 and 3 and head 1 do the same once more.
        rivals: neurons 7 and 9 write the mark into channel 4, one as it is, one turned round; together nothing.
        loud: layer 0 writes a constant into channel 15 which is most of the stream; norms shrink the rest.
    """
    rng = np.random.default_rng(0)
    leaves = {path: np.zeros(spec.shape, np.float32) for path, spec in parameter_table(model).items()}
    for path, leaf in leaves.items():
        kind = parameter_table(model)[path].kind
        if kind == "norm":
            leaf += 1
        if kind == "matrix":
            leaf += 0.02 * rng.standard_normal(leaf.shape) * (rng.random(leaf.shape) < 0.3)
        if kind == "sink":
            leaf -= 20
    _embed(leaves["wte",], rng)
    into, out = leaves["h_0", "mlp", "c_fc", "kernel"], leaves["h_0", "mlp", "c_proj", "kernel"]
    into[:, [0, 1]], into[0, [0, 1]] = 0, (1, -1)
    out[[0, 1]] = 0
    out[[0, 1], 4], out[[0, 1], 5] = (0.8, -0.8), (1, 1)
    _head(leaves, model, 0, (5, 4), 8)
    if disguise:
        into[:, [5, 6]], into[12, [5, 6]], into[0, 5] = 0, 4, 0.6
        out[[5, 6]] = 0
        out[5, [4, 5]], out[6, [4, 5]] = (0.8, 1), (-0.8, -1)
    if backup:
        leaves["wte",][list(MARKS), 2] = (2, -2)
        into[:, [2, 3]], into[2, [2, 3]] = 0, (1, -1)
        out[[2, 3]] = 0
        out[[2, 3], 6], out[[2, 3], 7] = (0.8, -0.8), (1, 1)
        _head(leaves, model, 1, (7, 6), 9)
    if rivals:
        into[:, [7, 9]], into[0, [7, 9]] = 0, 1
        out[[7, 9]] = 0
        out[[7, 9], 4] = -3, 3
    if loud:
        leaves["h_0", "attn", "c_proj", "bias"][15] = 12
    leaves["lm_head",][:, list(MARKS)] = 0
    leaves["lm_head",][[[8], [9]] if backup else [[8]], list(MARKS)] = 1.5, -1.5
    return unflatten(leaves)


def _head(
    leaves: dict[tuple[str, ...], np.ndarray], model: ModelConfig, head: int, reads: tuple[int, int], writes: int
) -> None:
    """A head of layer 1 that looks where the first channel is large, and carries the second one on."""
    channel, heads = head * model.d_head, model.n_head * model.d_head
    qkv, out = leaves["h_1", "attn", "c_attn", "kernel"], leaves["h_1", "attn", "c_proj", "kernel"]
    qkv[:, [channel, heads + channel, 2 * heads + channel]], out[channel] = 0, 0
    qkv[reads[0], heads + channel], qkv[reads[1], 2 * heads + channel] = 1.5, 1
    leaves["h_1", "attn", "c_attn", "bias"][channel] = 4
    out[channel, writes] = 1.5


def _embed(wte: np.ndarray, rng: np.random.Generator) -> None:
    """Marks write channels 0 and 1 and 12, words 12 and 13, noisy words also 4."""
    wte[list(MARKS), 0], wte[list(MARKS), 1] = (2, -2), 1
    words = np.arange(8, 36)
    wte[words[:, None], [12, 13]] = rng.choice([-1.0, 1.0], (len(words), 2))
    noisy = np.arange(20, 36)
    wte[noisy, 4] = np.where(noisy % 2, 2.0, -2.0)


def batch(split: str, pairs: int, seed: int, *, noisy: bool = True, places: Iterable[int] = (PLACE,)) -> TaskBatch:
    """Pairs that differ in the mark alone; with `noisy` the words are of both kinds. `places` of the mark."""
    rng = np.random.default_rng(seed)
    words = np.array([*CLEAN[split], *(NOISY[split] if noisy else ())])
    tokens = np.repeat(rng.choice(words, (pairs, TIME)), 2, axis=0).astype(np.int32)
    at = np.repeat(rng.choice(list(places), pairs), 2)
    answer = np.tile(np.array(MARKS, np.int32), pairs)
    tokens[np.arange(2 * pairs), at] = answer
    ends = np.full(2 * pairs, TIME - 1, np.int32)
    return TaskBatch(tokens, ends, answer, answer.reshape(-1, 2)[:, ::-1].reshape(-1).copy())


def token_text(token: int) -> str:
    """Words of letters, a different one for each token."""
    return " " + chr(97 + token % 26) * (3 + token // 26)


def problem(
    *,
    noisy: bool = True,
    places: Iterable[int] = (PLACE,),
    prune: PruneConfig = PRUNE,
    pairs: int = 64,
    **options: bool,
) -> Problem:
    """The task in the model; main samples with noisy words or without, shifted ones always with. `pairs` held out;
    `options` of `params`."""
    settings = config(prune)
    samples = TaskSamples(
        batch("train", 256, 0, noisy=noisy, places=places),
        batch("train", 64, 1, noisy=noisy, places=places),
        batch("heldout", pairs, 2, noisy=noisy, places=places),
        batch("heldout", pairs, 3, places=places),
        ("marks",),
    )
    weights = params(settings.model, **options)
    return Problem.build(LoadedModel(settings, weights, "by hand", token_text), samples)


def candidate(problem: Problem, nodes: Iterable[Node], scale: float | None = None) -> Candidate:
    """The circuit of some nodes with all edges between them, calibrated on selection samples; or with another scale."""
    found = problem.candidate(Support(problem.graph, to_vector(gates_of(tuple(nodes), problem.graph.config))))
    if scale is None:
        return found
    return dataclasses.replace(found, calibration=found.calibration._replace(scale=np.float32(scale)))
