"""Random connected circuits: a stronger null than random nodes, most of which are not even joined to a logit."""

import numpy as np

from sparse_gpt.circuits.liveness import embedded
from sparse_gpt.circuits.nodes import SOURCES, GateArrays, from_vector, to_vector
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.config import ModelConfig

_PATIENCE = 50  # paths per wanted node
SUBLAYERS = (("attn_in", "attn_v", "attn_out"), ("mlp_in", "mlp_neuron", "mlp_out"))


def random_connected_circuits(problem: Problem, gates: np.ndarray, draws: int, seed: int) -> np.ndarray | None:
    """(draws, nodes): circuits with as many nodes as `gates` (nodes,), each a union of random paths from the embedding
    to the final norm along nonzero weights; None where the model has none of this size.

    A path through attention takes, in half of the cases, a q and k channel of its head and what they read. The last
    path is cut to the number of nodes.
    """
    rng, wanted = np.random.default_rng(seed), int(gates.sum())
    walk = _Walk(problem, rng)
    found = [_one(problem, walk, wanted) for _ in range(draws)]
    return None if any(each is None for each in found) else np.array(found, np.float32)


def _one(problem: Problem, walk: "_Walk", wanted: int) -> np.ndarray | None:
    opened = {site: np.zeros_like(value) for site, value in problem.searchable.items()}
    count = 0
    for _ in range(_PATIENCE * max(1, wanted)):
        if count >= wanted:
            return to_vector(opened).astype(np.float32)
        for site, layer, channel in walk.path():
            if count < wanted and not opened[site][layer, channel]:
                opened[site][layer, channel] = 1
                count += 1
    return None


class _Walk:
    """Draws paths backwards: from a node that writes into the stream, through its sublayer, to what wrote before."""

    def __init__(self, problem: Problem, rng: np.random.Generator):
        self.graph, self.rng = problem.graph, rng
        self.config: ModelConfig = problem.graph.config
        self.embedded = embedded(self.config, problem.model.params)
        self.open: GateArrays = from_vector(problem.searchable_nodes, self.config)
        self.sources: dict[tuple[str, int, int], np.ndarray] = {}  # found so far, open ones of each node
        ends = (
            (index, int(channel))
            for index in range(2 * self.config.n_layer)
            for channel in np.flatnonzero(self.open[SUBLAYERS[index % 2][2]][index // 2])
        )
        self.writers: dict[int | None, list[tuple[int, int]]] = {None: []}  # into each channel, and into any
        for writer in ends:
            self.writers[None].append(writer)
            self.writers.setdefault(writer[1], []).append(writer)

    def path(self) -> list[tuple[str, int, int]]:
        """Nodes (site, layer, channel) of one path, from the end; none where it comes from a bias alone."""
        config = self.config
        nodes: list[tuple[str, int, int]] = []
        channel: int | None = None
        before = 2 * config.n_layer
        while True:
            writers = [writer for writer in self.writers.get(channel, ()) if writer[0] < before]
            starts = channel is not None and bool(self.embedded[channel])
            if starts and self.rng.random() < 1 / (1 + len(writers)):
                return nodes
            if not writers:
                return []
            before, out = writers[self.rng.integers(len(writers))]
            channel = self._sublayer(before, out, nodes)
            if channel is None:
                return []
            if channel >= config.d_model:  # a position
                return nodes

    def _sublayer(self, index: int, out: int, nodes: list[tuple[str, int, int]]) -> int | None:
        """Appends one way through a sublayer to `nodes`; the channel that it reads, None at a dead end."""
        layer, (read, middle, end) = index // 2, SUBLAYERS[index % 2]
        inner = self._into(end, layer, out)
        source = None if inner is None else self._into(middle, layer, inner)
        if inner is None or source is None:
            return None
        nodes += [(end, layer, out), (middle, layer, inner), (read, layer, source)]
        if middle == "attn_v" and self.rng.random() < 0.5:
            width = self.config.d_head
            pair = inner // width * width + int(self.rng.integers(width))
            reads = [self._into(site, layer, pair) for site in ("attn_q", "attn_k")]
            for site, channel in zip(("attn_q", "attn_k"), reads, strict=True):
                if channel is not None:
                    nodes += [(site, layer, pair), (read, layer, channel)]
        return source

    def _into(self, site: str, layer: int, channel: int) -> int | None:
        """A random open source of a node."""
        key = site, layer, channel
        if key not in self.sources:
            joined = (self.graph.matrix(site, layer)[:, channel] != 0) & (self.open[SOURCES[site][0]][layer] > 0)
            self.sources[key] = np.flatnonzero(joined & bool(self.open[site][layer, channel]))
        at = self.sources[key]
        return int(self.rng.choice(at)) if len(at) else None
