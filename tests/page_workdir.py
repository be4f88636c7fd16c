"""A small workdir for the page's tests: random weights, a tokenizer, a task from a file and a random circuit.

Beside it, what JAX makes of circuits."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from sparse_gpt import config as configs
from sparse_gpt.circuits.circuit import Circuit, nodes_of
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import GateArrays, to_vector
from sparse_gpt.circuits.run.edge_ablation import removable, without_pruned_edges
from sparse_gpt.circuits.run.gated_model import gated_model
from sparse_gpt.config import NODE_SITES, Config
from sparse_gpt.data import train_tokenizer
from sparse_gpt.model import build
from sparse_gpt.model.taps import chain, recorder
from sparse_gpt.model.transformer import EVERYWHERE
from sparse_gpt.parameters import Params
from sparse_gpt.training.checkpoint import save_params
from sparse_gpt.training.manifest import params_sha256
from tests import circuits_model as toy
from tests.own_files import WORDS, jsonl, split_entries

TASK = "pairs"


def write_workdir(folder: Path) -> Path:
    """The workdir, with `pairs.jsonl` in it and circuits/pairs/. Returns `folder`."""
    texts = [f"for {word} in {word}_list:\n    pass\nwhile {word}:\n" for word in WORDS]
    tokenizer = train_tokenizer(texts, 300)
    config = toy.config(0.25, vocab_size=tokenizer.vocab_size, context=32)
    params = toy.params(config, 1)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(configs.to_dict(config)))
    tokenizer.save(folder / "tokenizer")
    save_params(folder, params)
    (folder / f"{TASK}.jsonl").write_bytes(jsonl(split_entries()))
    circuit = random_circuit(config, params, toy.random_vectors(config, 2), True, TASK)
    circuit.save(folder / "circuits" / TASK)
    return folder


def random_circuit(config: Config, params: Params, values: GateArrays, pruned: bool, task: str = "toy") -> Circuit:
    """Half of all nodes and, where edges are pruned, half of those between them that can be removed."""
    rng = np.random.default_rng(5)
    gates = toy.random_gates(config, 3)
    every = ModelGraph(config.model, params).edges(to_vector(gates))
    stays = ~removable(config.model, every, gates) | (rng.random(len(every)) < 0.5) | (not pruned)
    return Circuit(
        task=task,
        params_sha256=params_sha256(params),
        ablation="mean",
        norm=config.prune.norm,
        target_loss=None,
        scale=1.7,
        shift=((3, 0.25), (7, -0.5)),
        edge_pruned=pruned,
        nodes=nodes_of(gates),
        edges=tuple(edge for edge, kept in zip(every, stays, strict=True) if kept),
        metrics={},
        values=values,
    )


def by_jax(
    config: Config, params: Params, circuit: Circuit, tokens: np.ndarray, changes: Any = None
) -> tuple[np.ndarray, np.ndarray, dict[tuple[str, int], Any]]:
    """Logits (T, V) of the full model and, calibrated, of the circuit, and the circuit's activations."""
    batch, gates, store = jnp.asarray(tokens[None]), circuit.gates(config.model), {}
    full: Any = build(config).apply({"params": params}, batch)
    gated = without_pruned_edges(gated_model(config, params, circuit.values), circuit)
    tap = chain(gated.tap(gates, batch, EVERYWHERE), *([changes] if changes else []), recorder(store, NODE_SITES))
    logits: Any = gated.model.apply({"params": gated.params}, batch, tap=tap)
    shifted = circuit.scale * np.asarray(logits)[0]
    for token, value in circuit.shift:
        shifted[:, token] += value
    return np.asarray(full)[0], shifted, store
