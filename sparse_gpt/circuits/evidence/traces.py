"""What a circuit does on sample prompts, for drawing."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits.circuit import Circuit
from sparse_gpt.circuits.evidence.attention import head_attention
from sparse_gpt.circuits.model_graph import ModelGraph, residual_channels
from sparse_gpt.circuits.nodes import Gates
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.edge_ablation import without_pruned_edges
from sparse_gpt.circuits.run.evaluator import NO_TOKENS, Evaluator
from sparse_gpt.circuits.run.gated_model import GatedModel
from sparse_gpt.circuits.run.objective import LARGEST, bounded
from sparse_gpt.circuits.run.task_batch import TaskBatch, rows
from sparse_gpt.config import NODE_SITES, READS, WRITES
from sparse_gpt.model.taps import chain, recorder, site_widths
from sparse_gpt.model.transformer import EVERYWHERE, apply
from sparse_gpt.records import Traces
from sparse_gpt.records.base import Number
from sparse_gpt.records.traces import Sample, VocabularyEntry

TRACED_SAMPLES = 6


def trace(problem: Problem, circuit: Circuit) -> Traces | None:
    """Activations, attention and logits of a circuit on the first held-out samples; its calibration enters
    `logit_difference_circuit`. None when the model has no `token_text`."""
    token_text, gated = problem.model.token_text, problem.heldout.gated
    if token_text is None:
        return None
    samples = rows(problem.samples.heldout, slice(TRACED_SAMPLES))
    gates = circuit.gates(gated.model.config)
    full = Evaluator(gated, samples, NO_TOKENS).full_logits()
    gated_logits, seen = jax.device_get(_record(without_pruned_edges(gated, circuit), gates, samples))
    shift = dict(circuit.shift)
    entries = []
    for row in range(len(samples.positions)):
        length = int(samples.positions[row]) + 1
        answer, foil = int(samples.answer[row]), int(samples.foil[row])
        calibrated = circuit.scale * bounded(gated_logits[row]) + np.array(
            [shift.get(answer, 0.0), shift.get(foil, 0.0)]
        )
        entries.append(
            Sample(
                split="heldout",
                tokens=tuple(token_text(int(token)) for token in samples.tokens[row, :length]),
                answer=token_text(answer),
                foil=token_text(foil),
                logit_difference_full=float(full[row, 0] - full[row, 1]),
                logit_difference_circuit=float(calibrated[0] - calibrated[1]),
                values=_values(circuit, seen, row, length),
                attention=_attention(gated, circuit, seen, row, length),
            )
        )
    of_prompts, of_answers = _vocabulary_entries(problem.graph, gates, samples, token_text)
    return Traces(
        task=circuit.task,
        site_widths=site_widths(gated.model.config),
        d_head=gated.model.config.d_head,
        samples=tuple(entries),
        embedding=of_prompts,
        unembedding=of_answers,
    )


@jax.jit
def _record(gated: GatedModel, gates: Gates, batch: TaskBatch) -> tuple[jax.Array, dict[str, list[jax.Array]]]:
    """Answer and foil logits (B, 2) of the gated model, and site -> per layer (B, T, width), gated."""
    store: dict[tuple[str, int], jax.Array] = {}
    tap = chain(gated.tap(gates, batch.tokens, EVERYWHERE), recorder(store, NODE_SITES))
    logits = apply(gated.model, gated.params, batch.tokens, tap=tap)
    rows = jnp.arange(batch.tokens.shape[0])
    choices = jnp.stack([batch.answer, batch.foil], axis=1)
    at_end = jnp.take_along_axis(jnp.asarray(logits)[rows, batch.positions], choices, axis=1)
    layers = range(gated.model.config.n_layer)
    return at_end, {site: [store[site, layer] for layer in layers] for site in NODE_SITES}


def _values(
    circuit: Circuit, seen: dict[str, list[np.ndarray]], row: int, length: int
) -> dict[str, tuple[Number | None, ...]]:
    """ "layer.site.channel" -> one value per token."""
    return {
        f"{node.layer}.{node.site}.{node.channel}": _rounded(seen[node.site][node.layer][row, :length, node.channel])
        for node in circuit.nodes
    }


def _attention(
    gated: GatedModel, circuit: Circuit, seen: dict[str, list[np.ndarray]], row: int, length: int
) -> dict[str, tuple[tuple[Number | None, ...], ...]]:
    """ "layer.head" -> attention weights per query, for heads with a node in the circuit. Rows sum to less than one
    where a sink takes its share."""
    m = gated.model.config
    heads = sorted(
        {(n.layer, n.channel // m.d_head) for n in circuit.nodes if n.site in ("attn_q", "attn_k", "attn_v")}
    )
    found = {}
    for layer, head in heads:
        q, k = (seen[site][layer][row, :length] for site in ("attn_q", "attn_k"))
        weights = head_attention(m, gated.params, q, k, layer, head)
        found[f"{layer}.{head}"] = tuple(_rounded(each) for each in weights[:, :-1])
    return found


def _vocabulary_entries(
    graph: ModelGraph, gates: dict[str, np.ndarray], samples: TaskBatch, token_text: Callable[[int], str]
) -> tuple[tuple[VocabularyEntry, ...], tuple[VocabularyEntry, ...]]:
    """Embedding entries of the samples' tokens on channels the circuit reads, unembedding entries of answers and foils
    on channels it writes or reads."""
    read, written = (residual_channels(gates, sites, graph.config.d_model) for sites in (READS, WRITES))
    seen = np.arange(samples.tokens.shape[1])[None, :] <= samples.positions[:, None]
    wte, head = np.asarray(graph.params["wte"]), graph.unembedding.T

    def entries(table: np.ndarray, tokens: np.ndarray, channels: np.ndarray) -> tuple[VocabularyEntry, ...]:
        return tuple(
            VocabularyEntry(token=token_text(int(t)), token_id=int(t), channel=int(c), weight=float(table[t, c]))
            for t in tokens
            for c in channels
            if table[t, c] != 0
        )

    answers = np.unique(np.concatenate([samples.answer, samples.foil]))
    of_prompts = entries(wte, np.unique(samples.tokens[seen]), read)
    return of_prompts, entries(head, answers, np.union1d(read, written))


def _rounded(values: np.ndarray) -> tuple[Number | None, ...]:
    """Floats short enough for a file that people open, and finite."""
    return tuple(float(f"{value:.5g}") for value in np.nan_to_num(values, posinf=LARGEST, neginf=-LARGEST))
