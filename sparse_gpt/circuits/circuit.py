"""The Circuit: nodes, the edges between them, and the values of everything else. The schema is "sparse_gpt.circuit/1".

An edge is a nonzero entry of a block's weight matrix that joins two nodes of the circuit: attn_in to q, k, v; v to
attn_out (a head's output channel is its v channel); mlp_in to neuron; neuron to mlp_out.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparse_gpt import records
from sparse_gpt.arrays import read_npz
from sparse_gpt.circuits.nodes import SOURCES, GateArrays, empty
from sparse_gpt.config import NODE_SITES, ModelConfig
from sparse_gpt.drawing.notebook import circuit_html
from sparse_gpt.drawing.svg import draw_circuit
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree, replacing
from sparse_gpt.records import Node


class Edge(NamedTuple):
    """A nonzero weight between two nodes."""

    source: Node
    target: Node
    weight: float


@dataclasses.dataclass(frozen=True)
class Circuit:
    """A circuit and everything needed to compute with it, given the model's weights.

    Attributes:
      task: name.
      params_sha256: fingerprint of the weights it belongs to.
      ablation: "mean", "zero", "task_mean" or "resample".
      norm: "live" or "frozen".
      target_loss: nats; None in files that do not say it.
      scale: of the calibration, logits -> scale * logits + shift.
      shift: (token id, value) pairs.
      edge_pruned: whether `edges` was pruned; else it holds every nonzero weight between nodes.
      nodes: in the order site, layer, channel.
      edges: in the order of matrices, then entries.
      metrics: losses on held-out samples, and counts.
      values: ablation values, site -> (n_layer, width) float32.
      path_statistics: of the circuit as a graph, see evidence/paths.py.
      tie_qk: whether q and k channels of the same index had to be in it together.
      tasks: of a circuit that several tasks share, an entry for each with its name and its own losses; else empty.
      families: an entry for each template family of the task with its name, its role and its losses.
      minimal: the smaller circuit inside this one that was chosen on one family alone, where this one was on several.
      viewer: makes the view of a circuit and a task's name; of circuits that a `Model` has given.
    """

    task: str
    params_sha256: str
    ablation: str
    norm: str
    target_loss: float | None
    scale: float
    shift: tuple[tuple[int, float], ...]
    edge_pruned: bool
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    metrics: Mapping[str, float]
    values: GateArrays = dataclasses.field(repr=False, compare=False)
    path_statistics: records.PathStatistics = dataclasses.field(
        default_factory=records.PathStatistics, repr=False, compare=False
    )
    tie_qk: bool = False
    tasks: tuple[records.TaskLosses, ...] = ()
    families: tuple[records.FamilyLosses, ...] = ()
    minimal: "Circuit | None" = None
    viewer: Callable[["Circuit", str], Any] | None = dataclasses.field(default=None, repr=False, compare=False)

    def gates(self, model: ModelConfig) -> GateArrays:
        """1 at the circuit's nodes: site -> (n_layer, width) float32."""
        return gates_of(self.nodes, model)

    def require_fit(self, model: ModelConfig) -> None:
        """InputError if nodes, edges, values or calibration are not of a model of these sizes. Other weights may have
        them."""
        if wrong := self.misfit(model):
            raise InputError(
                f"circuit {self.task} of weights {self.params_sha256[:12]} does not fit this model: {wrong}; "
                "use the model it was found in, or find_circuit on this one"
            )

    def misfit(self, model: ModelConfig) -> str:
        """What of it, or of the minimal circuit inside it, a model of these sizes does not have; "" if it has all."""
        shapes = {site: value.shape for site, value in empty(model).items()}
        found = {site: np.shape(value) for site, value in self.values.items()}
        wrong = [
            f"its values of {site} are {found.get(site)}, the model's {shape}"
            for site, shape in shapes.items()
            if found.get(site) != shape
        ]
        for node in self.nodes:
            layers, width = shapes.get(node.site, (0, 0))
            if not (0 <= node.layer < layers and 0 <= node.channel < width):
                wrong.append(f"the model has no node {node.key}")
        wrong += [
            f"no weight of the model joins {edge.source.key} and {edge.target.key}"
            for edge in self.edges
            if SOURCES.get(edge.target.site, ("",))[0] != edge.source.site or edge.source.layer != edge.target.layer
        ]
        wrong += [f"the model has no token {token}" for token, _ in self.shift if not 0 <= token < model.vocab_size]
        if self.minimal is not None:
            wrong.append(self.minimal.misfit(model))
        return next(filter(None, wrong), "")

    def record(self) -> records.Circuit:
        """What circuit.json holds."""
        entries = tuple(records.NodeEntry.of(*node) for node in self.nodes)
        return records.Circuit(
            task=self.task,
            params_sha256=self.params_sha256,
            ablation=self.ablation,
            norm=self.norm,
            tie_qk=self.tie_qk,
            target_loss=self.target_loss,
            calibration=records.Calibration(scale=self.scale, shift=self.shift),
            edge_pruned=self.edge_pruned,
            nodes=entries,
            edges=tuple(records.Edge(source=e.source, target=e.target, weight=e.weight) for e in self.edges),
            metrics=records.converted(dict(self.metrics), records.CircuitMetrics),
            tasks=self.tasks,
            families=self.families,
            minimal=None if self.minimal is None else self.minimal._inner(),
            path_statistics=self.path_statistics,
        )

    def _inner(self) -> records.InnerCircuit:
        whole = self.record()
        names = ("calibration", "edge_pruned", "nodes", "edges", "metrics", "families")
        return records.InnerCircuit(**{name: getattr(whole, name) for name in names})

    def to_dict(self) -> Tree:
        """The object in circuit.json, as a JSON reader gives it."""
        tree: Tree = json.loads(json.dumps(self.record().tree()))
        return tree

    @property
    def sha256(self) -> str:
        """Fingerprint of what circuit.json holds, as cards and formations name the circuit they are of."""
        return records.card.circuit_sha256(self.to_dict())

    def draw(self, traces: records.Traces | None = None) -> str:
        """The circuit as SVG; with its traces also tokens, logits and what nodes respond to.

        Examples:
            >>> model.circuit("single_double_quote").draw()[:4]
            '<svg'
        """
        return draw_circuit(self.record(), traces)

    def view(self, task: str = "") -> Any:
        """The circuit's page in a cell of a notebook, where the model runs: edit the prompt, choose nodes, switch them
        off. What is done there can be read here, and set: `prompt`, `node`, `off`.

        Args:
          task: whose samples are offered; default: the circuit's own. Of a task from a file, the file.

        Raises:
          InputError: anywidget is not installed; no model has given this circuit; or its task is not found.

        Examples:
            >>> view = model.circuit("single_double_quote").view()
            >>> view.node = view.circuit.nodes[0]
            >>> view.off = view.circuit.nodes[:1]
            >>> [change["kind"] for change in view.changes]
            ['off']
        """
        if self.viewer is None:
            raise InputError("only circuits that a model has given can be viewed: sg.open(...).circuit(...).view()")
        return self.viewer(self, task)

    def _repr_html_(self) -> str:
        return circuit_html(self.record())

    def save(self, folder: Path) -> None:
        """Writes circuit.json and ablation.npz, each under a temporary name first."""
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "ablation.npz") as temporary:
            np.savez(temporary, allow_pickle=False, **{site: self.values[site] for site in NODE_SITES})
        self.record().write(folder / "circuit.json")


def load(folder: Path, params_sha256: str | None = None, model: ModelConfig | None = None) -> Circuit:
    """Reads circuit.json and ablation.npz. InputError if they are missing, broken, or (when the fingerprint of the
    weights is given) belong to other weights, or (when the model's sizes are given) have what the model has not."""
    path = folder / "circuit.json"
    if not os.path.lexists(path):
        raise InputError(f"{path}: not found; {_instead(folder)}")
    stored = read_npz(folder / "ablation.npz", names=NODE_SITES)
    record = records.Circuit.read(path)
    circuit = from_record(record, {site: stored[site] for site in NODE_SITES})
    for node in circuit.nodes:
        shape = np.shape(stored[node.site])
        if len(shape) != 2 or node.layer >= shape[0] or node.channel >= shape[1]:
            raise InputError(f"{path}: node {node.key} is outside of the values in ablation.npz")
    if params_sha256 is not None and circuit.params_sha256 != params_sha256:
        raise InputError(
            f"{path}: belongs to weights {circuit.params_sha256[:12]}, these are {params_sha256[:12]}; prune this model"
        )
    if model is not None and (wrong := circuit.misfit(model)):
        raise InputError(f"{path}: {wrong}; {record.REMEDY}")
    return circuit


def _instead(folder: Path) -> str:
    """What to do where a folder has no circuit."""
    there = sorted(path.parent.name for path in folder.parent.glob("*/circuit.json"))
    of_workdir = f" --workdir={folder.parent.parent}" if folder.parent.name == "circuits" else ""
    makes = f"python -m launch.prune{of_workdir} --task={folder.name} writes it"
    return f"{makes}; there are: {', '.join(there)}" if there else makes


def from_record(record: records.Circuit, values: GateArrays) -> Circuit:
    """Inverse of `Circuit.record`; `values` come from ablation.npz."""
    circuit = Circuit(
        task=record.task,
        params_sha256=record.params_sha256,
        ablation=record.ablation,
        norm=record.norm,
        target_loss=record.target_loss,
        values=values,
        path_statistics=record.path_statistics,
        tie_qk=record.tie_qk,
        tasks=record.tasks,
        **_parts(record),
    )
    if record.minimal is None:
        return circuit
    inner = dataclasses.replace(circuit, path_statistics=records.PathStatistics(), tasks=(), **_parts(record.minimal))
    return dataclasses.replace(circuit, minimal=inner)


def _parts(record: records.Circuit | records.InnerCircuit) -> Tree:
    """What a circuit and the one inside it each have of their own."""
    return {
        "scale": record.calibration.scale,
        "shift": record.calibration.shift,
        "edge_pruned": record.edge_pruned,
        "nodes": tuple(entry.node for entry in record.nodes),
        "edges": tuple(Edge(edge.source, edge.target, edge.weight) for edge in record.edges),
        "metrics": record.metrics.tree(),
        "families": record.families,
    }


def nodes_of(gates: GateArrays) -> tuple[Node, ...]:
    """Open nodes in the order site, layer, channel."""
    return tuple(
        Node(int(layer), site, int(channel)) for site in NODE_SITES for layer, channel in np.argwhere(gates[site] > 0)
    )


def gates_of(nodes: tuple[Node, ...], model: ModelConfig) -> GateArrays:
    """Inverse of `nodes_of`."""
    gates = empty(model)
    for node in nodes:
        gates[node.site][node.layer, node.channel] = 1
    return gates
