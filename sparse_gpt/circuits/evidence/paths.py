"""The circuit as a graph: what share of its nodes' edges it uses, and its paths from input tokens to logits.

A path starts with an embedding entry of a token that occurs in the prompts, on a residual channel that a node reads,
goes through nodes and ends with an unembedding entry of a token that occurs as answer or foil. From node to node it
takes an edge of the circuit; or the residual stream, from a write to any later read of the channel; or, from q and k,
the attention pattern, to every v channel of the same head. Its strength is the product of the absolute values of
entries and edges on it. Norms, activation functions and attention count as 1, so strengths rank paths and are no
contributions to a logit.
"""

import heapq
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from sparse_gpt.circuits.circuit import Edge
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.config import NODE_SITES, READS, WRITES
from sparse_gpt.records import Node
from sparse_gpt.records.circuit import NodeEdges, Paths, PathStatistics, TokenPath

STRONGEST = 5
ORDER = dict(zip(NODE_SITES, range(len(NODE_SITES)), strict=True))  # of computation; v after the q and k that move it


class Entries(NamedTuple):
    """Embedding or unembedding entries of one residual channel: how many, and the largest one's token and size."""

    present: int
    token: int
    size: float


class Path(NamedTuple):
    """A path so far: strength, first token, nodes."""

    strength: float
    token: int
    nodes: tuple[Node, ...]


def path_statistics(
    nodes: Sequence[Node],
    edges: Sequence[Edge],
    graph: ModelGraph,
    prompt_tokens: np.ndarray,
    answers: np.ndarray,
    token_text: Callable[[int], str] | None = None,
) -> PathStatistics:
    """The circuit as a graph: how much of its nodes' edges it uses, and its paths.

    Args:
      nodes: of the circuit.
      edges: of the circuit.
      graph: the model.
      prompt_tokens: distinct tokens of the prompts.
      answers: distinct answers and foils.
      token_text: text of a token id, for reading.
    """
    found = paths(nodes, edges, graph, prompt_tokens, answers)
    if token_text is not None:
        named = (
            msgspec.structs.replace(path, token=token_text(path.token_id), answer=token_text(path.answer_id))
            for path in found.strongest
        )
        found = msgspec.structs.replace(found, strongest=tuple(named))
    return PathStatistics(nodes=used_edges(nodes, edges, graph), paths=found)


def used_edges(nodes: Sequence[Node], edges: Sequence[Edge], graph: ModelGraph) -> tuple[NodeEdges, ...]:
    """Per node: how many of the nonzero block weights into and out of it are edges of the circuit."""
    total = graph.sums_of_each(lambda weights: weights != 0)
    used = dict.fromkeys(nodes, 0)
    for edge in edges:
        used[edge.source] += 1
        used[edge.target] += 1
    entries = []
    for node in nodes:
        count = int(total[node.site][node.layer, node.channel])
        share = used[node] / count if count else None
        entries.append(NodeEdges(**node._asdict(), used_edges=used[node], total_edges=count, fraction=share))
    return tuple(entries)


def paths(
    nodes: Sequence[Node], edges: Sequence[Edge], graph: ModelGraph, prompt_tokens: np.ndarray, answers: np.ndarray
) -> Paths:
    """Number of paths, and the strongest ones with different nodes: at most STRONGEST chains, each with its strongest
    token and logit."""
    onward = _hops(nodes, edges, graph.config.d_head)
    embedding = np.asarray(graph.params["wte"]).T
    head = graph.unembedding
    from_tokens, chains = dict.fromkeys(nodes, 0), dict.fromkeys(nodes, 0)
    best: dict[Node, list[Path]] = {node: [] for node in nodes}
    count = total_chains = 0
    ends: list[tuple[Path, int]] = []
    for node in sorted(nodes, key=_place):
        if node.site in READS and node.channel < graph.config.d_model:
            start = _entries(embedding[node.channel], prompt_tokens)
            from_tokens[node] += start.present
            chains[node] += start.present > 0
            best[node] += [Path(start.size, start.token, (node,))] * (start.present > 0)
        best[node] = heapq.nlargest(STRONGEST, best[node])
        for following, strength in onward[node]:
            from_tokens[following] += from_tokens[node]
            chains[following] += chains[node]
            best[following] += [Path(p.strength * strength, p.token, (*p.nodes, following)) for p in best[node]]
        if node.site in WRITES:
            end = _entries(head[node.channel], answers)
            count += from_tokens[node] * end.present
            total_chains += chains[node] * (end.present > 0)
            ends += [(p._replace(strength=p.strength * end.size), end.token) for p in best[node] if end.present]
    strongest = tuple(
        TokenPath(token_id=path.token, nodes=path.nodes, answer_id=answer, strength=path.strength)
        for path, answer in heapq.nlargest(STRONGEST, ends)
    )
    return Paths(count=count, chains=total_chains, strongest=strongest)


def _place(node: Node) -> tuple[int, int]:
    """When it is computed."""
    return node.layer, ORDER[node.site]


def _hops(nodes: Sequence[Node], edges: Sequence[Edge], d_head: int) -> dict[Node, list[tuple[Node, float]]]:
    """Where a path can go from each node, and by how much that multiplies its strength."""
    onward: dict[Node, list[tuple[Node, float]]] = {node: [] for node in nodes}
    for edge in edges:
        onward[edge.source].append((edge.target, abs(edge.weight)))
    heads = {node: (node.layer, node.channel // d_head) for node in nodes}
    for node in nodes:
        if node.site in ("attn_q", "attn_k"):
            onward[node] += [(v, 1.0) for v in nodes if v.site == "attn_v" and heads[v] == heads[node]]
    for node in nodes:
        if node.site in WRITES:
            reads = (n for n in nodes if n.site in READS and n.channel == node.channel and _place(n) > _place(node))
            onward[node] += [(read, 1.0) for read in reads]
    return onward


def _entries(row: np.ndarray, tokens: np.ndarray) -> Entries:
    """Of one channel's row over the vocabulary, for some tokens."""
    sizes = np.abs(row[tokens])
    at = int(np.argmax(sizes))
    return Entries(int(np.count_nonzero(sizes)), int(tokens[at]), float(sizes[at]))
