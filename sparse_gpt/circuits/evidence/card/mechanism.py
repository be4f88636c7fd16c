"""Rows about how the circuit does it: whether its nodes, heads and norms do in it what they do in the model."""

import numpy as np

from sparse_gpt.circuits.evidence.attention import head_attention
from sparse_gpt.circuits.evidence.card.closing import recalibrated
from sparse_gpt.circuits.evidence.card.inside import Inside, Place, Recording, run_within
from sparse_gpt.circuits.evidence.card.subject import (
    Measurement,
    Samples,
    Subject,
    losses,
    measured,
    not_applicable,
)
from sparse_gpt.circuits.run import statistics
from sparse_gpt.config import READS
from sparse_gpt.io import Tree
from sparse_gpt.model.taps import NORM_TAPS
from sparse_gpt.records import Node

SAME_ROLE = 0.9  # correlation
CONSTANT = 1e-6  # share of a node's mean square that its variance must exceed, else it counts as constant
NORM_SHARE = 0.95  # of the positions where a norm has a say
NEAREST = 4  # prompts among which a donor is drawn
MOST_SINGLE = 4  # nodes that are interchanged one by one
SHOWN = 10


def roles(subject: Subject, samples: Samples) -> Measurement:
    """Share of the circuit's nodes whose activations in circuit and model correlate above SAME_ROLE over the positions
    that count; a node that is constant in both keeps its role, in one of them it has lost it."""
    inner = run_within(subject, samples)
    if not inner.nodes:
        return not_applicable("the circuit has no nodes")
    entries = [_role(inner, node) for node in inner.nodes]
    kept = [entry["correlation"] > SAME_ROLE for entry in entries]
    entries.sort(key=lambda entry: entry["correlation"])
    return Measurement(float(np.mean(kept)), details={"changed": sum(not k for k in kept), "nodes": entries[:SHOWN]})


def _role(inner: Inside, node: Node) -> Tree:
    at = inner.matters(node.site, node.layer)
    circuit, model = (
        np.asarray(recording[node.site, node.layer])[:, :, node.channel][at].astype(np.float64)
        for recording in (inner.circuit[1], inner.model[1])
    )
    constant = [x.var() <= CONSTANT * np.mean(x**2) for x in (circuit, model)]
    if any(constant):
        correlation = float(all(constant))
    else:
        correlation = float(np.corrcoef(circuit, model)[0, 1])
    unexplained = float(np.mean((circuit - model) ** 2) / max(float(model.var()), 1e-12))
    return {**node._asdict(), "correlation": correlation, "fvu": min(unexplained, 1e6)}


def attention(subject: Subject, samples: Samples) -> Measurement:
    """Mean total variation between a head's attention in circuit and model, of the worst head with a node. A sink is
    one of the places it can look at. Entropies in nats beside it."""
    inner = run_within(subject, samples)
    config = subject.problem.graph.config
    width = config.d_head
    sites = ("attn_q", "attn_k", "attn_v")
    heads = sorted({(node.layer, node.channel // width) for node in inner.nodes if node.site in sites})
    if not heads:
        return not_applicable("no head has a node in the circuit")
    entries = []
    for layer, head in heads:
        at = inner.matters("attn_out", layer)
        circuit, model = (
            _pattern(subject, recording, layer, head)[at] for recording in (inner.circuit[1], inner.model[1])
        )
        moved = 0.5 * np.abs(circuit - model).sum(axis=-1)
        closed = not any(inner.layered[s][layer][head * width : (head + 1) * width].any() for s in sites[:2])
        entries.append(
            {
                "layer": layer,
                "head": head,
                "total_variation": float(moved.mean()),
                "entropy_circuit": float(_entropy(circuit).mean()),
                "entropy_model": float(_entropy(model).mean()),
                "queries_and_keys_closed": closed,
            }
        )
    worst = max(entry["total_variation"] for entry in entries)
    return Measurement(float(worst), details={"heads": entries})


def _pattern(subject: Subject, recording: Recording, layer: int, head: int) -> np.ndarray:
    """(B, T, T + 1) attention of one head, the sink's share last."""
    graph = subject.problem.graph
    q, k = (np.asarray(recording[site, layer]) for site in ("attn_q", "attn_k"))
    return head_attention(graph.config, graph.params, q, k, layer, head)


def _entropy(weights: np.ndarray) -> np.ndarray:
    return -np.sum(np.where(weights > 0, weights * np.log(np.maximum(weights, 1e-300)), 0.0), axis=-1)


def norms(subject: Subject, samples: Samples) -> Measurement:
    """Factor, either way, between the RMS that a norm sees in the circuit and in the model: of the positions where it
    has a say, NORM_SHARE stay within it; of the worst norm."""
    if subject.problem.gated.frozen:
        return not_applicable("the circuit was searched under the model's frozen norms")
    inner = run_within(subject, samples)
    entries, factors = [], []
    for place in _norm_places(subject):
        circuit, model = (np.asarray(recording[place])[:, :, 0] for recording in (inner.circuit[1], inner.model[1]))
        at = np.ones_like(circuit, bool)  # at the end, where alone something is unembedded
        if place[0] in NORM_TAPS[:2]:
            at = inner.matters(READS[NORM_TAPS.index(place[0])], place[1])
        ratio = np.log(model[at]) - np.log(circuit[at])  # of the reciprocals
        factors.append(float(np.exp(np.quantile(np.abs(ratio), NORM_SHARE))))
        mean = float(np.exp(np.mean(ratio)))
        entries.append({"norm": place[0], "layer": place[1], "rms_circuit_over_model": mean, "factor": factors[-1]})
    return Measurement(max(factors), details={"norms": entries})


def frozen_norms(subject: Subject, samples: Samples) -> Measurement:
    """Task loss of the circuit with the model's norm scales on the same tokens, calibrated anew on these samples."""
    if subject.problem.gated.frozen:
        return not_applicable("the circuit was searched under the model's frozen norms")
    inner = run_within(subject, samples)
    values = {place: inner.model[1][place] for place in _norm_places(subject)}
    logits, _ = inner.run(subject.circuit_masks, values, {place: np.ones(1) for place in values})
    own = inner.calibrated(logits)
    found = statistics.nonnegative_mean(losses(recalibrated(logits, inner.batch, samples)), inner.words)
    return measured(found, with_its_own_calibration=float(losses(own).mean()))


def _norm_places(subject: Subject) -> list[Place]:
    layers = subject.problem.graph.config.n_layer
    return [(site, layer) for layer in range(layers) for site in NORM_TAPS[:2]] + [(NORM_TAPS[2], layers)]


def interchange(subject: Subject, samples: Samples) -> Measurement:
    """Task loss with activations exchanged between circuit and model: of all its nodes, of a random half, of one (the
    worst of up to MOST_SINGLE); the circuit keeps its calibration. The worst of the six counts."""
    inner = run_within(subject, samples)
    if not inner.nodes:
        return not_applicable("the circuit has no nodes")
    rng, count = np.random.default_rng(subject.seed), len(inner.nodes)
    half = np.sort(rng.choice(count, max(1, count // 2), replace=False))
    single = np.sort(rng.choice(count, min(count, MOST_SINGLE), replace=False))
    chosen = {"all": [np.arange(count)], "half": [half], "one": [np.array([i]) for i in single]}
    found: dict[str, np.ndarray] = {}
    for name, sets in chosen.items():
        into_circuit = [losses(inner.calibrated(_exchanged(inner, some, into_circuit=True))) for some in sets]
        into_model = [losses(_exchanged(inner, some, into_circuit=False)) for some in sets]
        found[f"model's into circuit, {name}"] = max(into_circuit, key=np.mean)
        found[f"circuit's into model, {name}"] = max(into_model, key=np.mean)
    worst = max(found, key=lambda name: float(found[name].mean()))
    means = {name: float(each.mean()) for name, each in found.items()}
    return measured(statistics.nonnegative_mean(found[worst], inner.words), losses=means, worst=worst)


def _exchanged(inner: Inside, some: np.ndarray, into_circuit: bool) -> np.ndarray:
    """Logits (B, 2) of one of the two, with the other's activations of some nodes."""
    other = (inner.model if into_circuit else inner.circuit)[1]
    where = {place: np.zeros(other[place].shape[-1]) for place in {(n.site, n.layer) for n in inner.nodes}}
    for node in (inner.nodes[i] for i in some):
        where[node.site, node.layer][node.channel] = 1
    mask = inner.subject.circuit_masks if into_circuit else inner.whole
    return inner.run(mask, {place: other[place] for place in where}, where)[0]


def scrubbing(subject: Subject, samples: Samples) -> Measurement:
    """Task loss of the circuit when its nodes at one site of one layer take their values from other prompts, drawn anew
    for each node, with the same answer and length: one of the NEAREST in tokens, so that the template is mostly the
    same. The worst site counts.

    The hypothesis is that nodes carry which answer is right, and nothing else. Where the answer is found by counting or
    by position, nodes may rightly carry more, and this fails.
    """
    inner = run_within(subject, samples)
    if not len(samples.evaluator.shift_tokens):
        return not_applicable("the task has too many answers to be classes")
    donors = _donors(inner)
    some = np.array([len(each) > 0 for each in donors])
    if not inner.nodes or np.mean(some) < 0.5:
        return not_applicable("most prompts have no other one of the same answer and length")
    rng, found = np.random.default_rng(subject.seed), {}
    for site, layer in sorted({(node.site, node.layer) for node in inner.nodes}):
        own = np.asarray(inner.circuit[1][site, layer])
        width = own.shape[-1]
        chosen = np.array([rng.choice(each, width) if len(each) else [i] * width for i, each in enumerate(donors)])
        values = {(site, layer): np.take_along_axis(own, chosen[:, None, :], axis=0)}
        where = {(site, layer): inner.layered[site][layer]}
        logits = inner.calibrated(inner.run(subject.circuit_masks, values, where)[0])
        found[f"{layer}.{site}"] = losses(logits)[some]
    means = {name: float(each.mean()) for name, each in found.items()}
    worst = max(means, key=means.__getitem__)
    own_loss = float(losses(inner.calibrated(inner.circuit[0]))[some].mean())
    estimate = statistics.nonnegative_mean(found[worst], inner.words[some])
    return measured(estimate, unscrubbed=own_loss, worst=worst, sites=means, prompts=int(some.sum()))


def _donors(inner: Inside) -> list[np.ndarray]:
    """For each sample the NEAREST others with its answer and length."""
    batch, found = inner.batch, []
    tokens, counted = np.asarray(batch.tokens), inner.counted
    for i in range(len(tokens)):
        same = (batch.answer == batch.answer[i]) & (batch.positions == batch.positions[i])
        same[i] = False
        others = np.flatnonzero(same)
        distance = ((tokens[others] != tokens[i]) & counted[i]).sum(axis=1)
        found.append(others[np.argsort(distance, kind="stable")][:NEAREST])
    return found
