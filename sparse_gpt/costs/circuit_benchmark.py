"""What launch.benchmark measures of circuits: the mask search, and a circuit on its own against the gated model."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.circuits import TaskBatch
from sparse_gpt.circuits.circuit import Circuit, nodes_of
from sparse_gpt.circuits.liveness import searchable
from sparse_gpt.circuits.nodes import to_vector
from sparse_gpt.circuits.problem import LoadedModel, Problem
from sparse_gpt.circuits.run.evaluator import NO_TOKENS, Evaluator
from sparse_gpt.circuits.run.gated_model import gated_model
from sparse_gpt.circuits.run.masks import PER_CALL, Masks
from sparse_gpt.circuits.run.samples import TaskSamples
from sparse_gpt.circuits.run.standalone.build import extract
from sparse_gpt.circuits.run.standalone.model import StandaloneCircuit
from sparse_gpt.circuits.run.subcircuits import build_subcircuits
from sparse_gpt.circuits.search import hyperparameters, mask_search, paper_search
from sparse_gpt.config import Config
from sparse_gpt.costs.benchmark import side_by_side
from sparse_gpt.costs.sizes import SIZES
from sparse_gpt.io import Tree
from sparse_gpt.model.taps import site_widths
from sparse_gpt.parameters import Params, PyTree, parameter_table, unflatten

CHUNK_STEPS = 4  # of a mask search, in one call


def search_steps(populations: tuple[int, ...], time_steps: int, rounds: int, pairs: int = 64) -> list[Tree]:
    """Mask-optimization steps per second with 1, 4, 8, ... parallel searches on a random sparse model."""
    config = configs.replace(configs.Config(), dict(SIZES["small"]))
    runner, count = search_runner(config, time_steps, pairs), 2 * pairs
    seconds = side_by_side({str(size): runner(size) for size in populations}, rounds)
    alone = seconds[str(populations[0])]
    return [
        {
            "searches": size,
            "sequences": count,
            "tokens": time_steps,
            "step_ms": 1e3 * seconds[str(size)] / CHUNK_STEPS,
            "ms_per_search": 1e3 * seconds[str(size)] / CHUNK_STEPS / size,
            "steps_per_second": CHUNK_STEPS / seconds[str(size)],
            "cost_against_one": seconds[str(size)] / alone,
        }
        for size in populations
    ]


def search_runner(config: Config, time_steps: int, pairs: int) -> Callable[[int], Callable[[], PyTree]]:
    """``runner(size)()`` takes CHUNK_STEPS steps of a population of searches, each call from where the last ended, on a
    random sparse model and random prompts. It returns the searches' states and metrics."""
    rng = np.random.default_rng(0)
    params = _random_sparse(config, rng)
    ablation = {
        site: np.zeros((config.model.n_layer, width), np.float32) for site, width in site_widths(config.model).items()
    }
    gated = gated_model(config, params, ablation)
    mask = {site: jnp.asarray(value, jnp.float32) for site, value in searchable(config.model, params).items()}
    count, steps = 2 * pairs, CHUNK_STEPS

    def ids(*shape: int) -> np.ndarray:
        return rng.integers(0, config.model.vocab_size, shape).astype(np.int32)

    positions = np.full((steps, count), time_steps - 1, np.int32)
    batches = TaskBatch(ids(steps, count, time_steps), positions, ids(steps, count), ids(steps, count))

    def runner(size: int) -> Callable[[], PyTree]:
        h = hyperparameters.population(dataclasses.replace(config.prune, seeds=size, k_coefs=(1e-4,)))
        states = [paper_search.initial_states(h, mask)]

        def run() -> PyTree:
            states[0], metrics = mask_search.advance(gated, mask, h, states[0], jnp.int32(0), batches, 400)
            return states[0], metrics

        return run

    return runner


def first_chunk(time_steps: int = 32) -> None:
    """The first chunk of the search of preset quickstart, on a random sparse model and random prompts."""
    config, rng = presets.quickstart(), np.random.default_rng(0)
    params = _random_sparse(config, rng)
    count, chunk = 2 * config.prune.batch_pairs, {"prune.ablation": "zero", "prune.steps": mask_search.CHUNK}

    def ids(*shape: int) -> np.ndarray:
        return rng.integers(0, config.model.vocab_size, shape).astype(np.int32)

    prompts = TaskBatch(ids(count, time_steps), np.full(count, time_steps - 1, np.int32), ids(count), ids(count))
    model = LoadedModel(configs.replace(config, chunk), params)
    problem = Problem.build(model, TaskSamples(prompts, prompts, prompts))
    mask_search.search(problem, hyperparameters.population(config.prune), progress=False)


def circuit_alone(rounds: int, nodes_per_site: int, pairs: int = 64, time_steps: int = 32) -> Tree:
    """Answer logits of a random circuit: the gated model against the circuit on its own. And of masks that are
    parts of it, as refinement tries them: in the whole model against within the circuit's nodes."""
    config = configs.replace(configs.Config(), dict(SIZES["small"]))
    rng = np.random.default_rng(0)
    widths, layers = site_widths(config.model), config.model.n_layer
    gates = {site: np.zeros((layers, width), np.float32) for site, width in widths.items()}
    for site, width in widths.items():
        for layer in range(layers):
            gates[site][layer, rng.choice(width, nodes_per_site, replace=False)] = 1
    values = {site: 0.1 * rng.normal(size=gate.shape).astype(np.float32) for site, gate in gates.items()}
    gated, nodes = gated_model(config, _random_sparse(config, rng), values), nodes_of(gates)
    circuit = Circuit("random", "", "mean", "live", 0.15, 1.0, (), False, nodes, (), {}, values)
    count, vocabulary = 2 * pairs, config.model.vocab_size
    tokens, answer, foil = (
        rng.integers(0, vocabulary, shape).astype(np.int32) for shape in ((count, time_steps), count, count)
    )
    batch = TaskBatch(tokens, np.full(count, time_steps - 1, np.int32), answer, foil)
    in_model = jax.jit(lambda gated, gates, batch: gated.answer_logits(gates, batch))
    standalone, alone = extract(gated, circuit), jax.jit(StandaloneCircuit.answer_logits)
    expected, found = in_model(gated, gates, batch), alone(standalone, batch)
    anywhere = Evaluator(gated, batch, NO_TOKENS)
    within = dataclasses.replace(anywhere, subcircuits=build_subcircuits(gated, gates))
    parts = Masks(to_vector(gates) * (rng.random((PER_CALL, anywhere.nodes)) < 0.9).astype(np.float32))
    runs = {
        "gated": lambda: in_model(gated, gates, batch),
        "alone": lambda: alone(standalone, batch),
        "candidates": lambda: anywhere.logits(parts),
        "candidates_within": lambda: within.logits(parts),
    }
    seconds = side_by_side(runs, rounds)
    return {
        "nodes": len(nodes),
        "sequences": count,
        "tokens": time_steps,
        **{f"{name}_ms": 1e3 * value for name, value in seconds.items()},
        "speedup": seconds["gated"] / seconds["alone"],
        "speedup_within": seconds["candidates"] / seconds["candidates_within"],
        "largest_difference": float(jnp.max(jnp.abs(expected - found)) / jnp.std(expected)),
    }


def _random_sparse(config: Config, rng: np.random.Generator) -> Params:
    """Parameters at the configured density; values do not matter for speed, the zeros do."""
    leaves = {}
    for path, spec in parameter_table(config.model).items():
        value = rng.normal(size=spec.shape) * (rng.random(spec.shape) < config.sparsity.density)
        leaves[path] = (np.ones(spec.shape) if spec.init == "ones" else value).astype(np.float32)
    return unflatten(leaves)
