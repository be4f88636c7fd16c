"""Workdirs for the report tests: small files with the schemas of training and pruning, without either.

`write_workdir(folder)` gives a trained model with two circuits: a tidy one like the paper's quote circuit (12 nodes,
9 edges) and a messy one (60 nodes, 80 edges) whose tokens hold markup and control characters.
"""

import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

SITES = ("attn_in", "attn_q", "attn_k", "attn_v", "attn_out", "mlp_in", "mlp_neuron", "mlp_out")
D_MODEL, D_MLP, D_HEAD = 128, 512, 16
WIDTHS = dict.fromkeys(SITES, D_MODEL) | {"mlp_neuron": D_MLP}
JOINS = {
    "attn_in": ("attn_q", "attn_k", "attn_v"),
    "attn_v": ("attn_out",),
    "mlp_in": ("mlp_neuron",),
    "mlp_neuron": ("mlp_out",),
}
HOSTILE = "</script><script>console.error('token escaped')</script>"

Json = dict[str, Any]


def write_workdir(folder: Path, circuits: bool = True, steps: int = 1000) -> Path:
    """A workdir after `train` and, with `circuits`, `prune` of two tasks and `evaluate`. Returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config())
    write_json(folder / "manifest.json", manifest())
    lines = [json.dumps(row) for row in metrics(steps)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    if circuits:
        for circuit, traces in (quote_circuit(), messy_circuit()):
            place = folder / "circuits" / circuit["task"]
            place.mkdir(parents=True)
            write_json(place / "circuit.json", circuit)
            write_json(place / "traces.json", traces)
            write_json(place / "search.json", search(circuit))
            write_json(place / "contexts.json", contexts(circuit))
        write_json(folder / "circuits" / "single_double_quote" / "card.json", card())
        write_json(folder / "evaluation.json", evaluation())
    return folder


def write_bridge(folder: Path) -> Path:
    """What `bridge` and `steer` add to a workdir of `write_workdir`. Returns `folder`."""
    write_json(folder / "bridge.json", bridge())
    for path in folder.glob("circuits/*"):
        write_json(path / "steering.json", steering(path.name))
        write_json(path / "transport.json", transport(path.name))
    return folder


def write_json(path: Path, value: Json) -> None:
    path.write_text(json.dumps(value, indent=1))


def contexts(circuit: Json) -> Json:
    def ends(sign: int) -> list[Json]:
        return [{"tokens": ["x", " =", HOSTILE, "\n"], "at": 2, "value": sign * (5.0 - i)} for i in range(5)]

    nodes = [{**node, "top": ends(1), "bottom": ends(-1)} for node in circuit["nodes"]]
    return {"format": "sparse_gpt.contexts/1", "split": "validation", "tokens": 1000, "nodes": nodes}


def card() -> Json:
    """Of the quote circuit: four rows, one of which fails on the main samples and one of which does not apply."""
    shared = {"role": "selection", "samples": "main", "sense": "at most", "threshold": 0.15, "reason": "the target"}
    loss = {
        "name": "task_loss",
        "criticism": "Only on <its> words.",
        "measure": "loss, nats",
        "end": 0.25,
        "clusters": 16,
    } | shared
    rows = [
        loss | {"value": 0.046, "interval": [0.01, 0.08], "verdict": "pass"},
        loss | {"samples": "shifted", "role": "heldout", "value": 0.1, "interval": [0.05, 0.15], "verdict": "pass"},
        shared
        | {
            "name": "restoration",
            "criticism": "Only in silence.",
            "measure": "worst loss",
            "value": 2.5,
            "verdict": "fail",
        },
        shared | {"name": "norms", "criticism": "Norms.", "value": None, "verdict": "not applicable", "note": "frozen"},
    ]
    losses = {"role": "selection", "words": ["calm", "calm"], "circuit": [0.1, 0.2], "model": [0.0, 0.01]}
    return {"format": "sparse_gpt.card/1", "task": "single_double_quote", "rows": rows, "losses": {"main": losses}}


def config() -> Json:
    return {
        "model": {"n_layer": 2, "d_model": D_MODEL, "n_head": 8, "d_head": D_HEAD, "d_mlp": D_MLP, "vocab_size": 1024}
        | {"context": 128, "position": "none", "attention_sink": True, "bigram": True},
        "sparsity": {"density": 1 / 32, "activation_fraction": 0.25, "min_alive": 4},
        "optimizer": {"recipe": "paper", "learning_rate": 0.01},
        "data": {"sources": "idioms:0.75,python_source:0.25", "tokens": 4_000_000},
        "train": {"steps": 1000, "batch_size": 32, "seed": 0},
        "prune": {"target_loss": 0.15},
    }


def manifest() -> Json:
    return {
        "format": "sparse_gpt.manifest/1",
        "packages": {"jax": "0.10.2", "flax": "0.12.8", "numpy": "2.4.6"},
        "git_revision": "0123456789abcdef",
        "python": "3.11.2",
        "device_kind": "cpu",
        "device_count": 1,
        "corpus_sha256": "ab" * 32,
        "tokenizer_sha256": "cd" * 32,
        "seeds": {"train": 0, "data": 0},
        "params_sha256": "ef" * 32,
        "step": 1000,
        "nonzeros": {"h_0/attn/c_attn/kernel": 1536, "h_0/mlp/c_fc/kernel": 2048, "wte": 4096, "bigram": 1_048_576},
    }


def metrics(steps: int) -> list[Json]:
    noise = random.Random(1)
    rows = []
    for step in range(10, steps + 1, 10):
        progress = step / steps
        density = 1 - (1 - 1 / 32) * min(1, max(0, (progress - 0.01) / 0.49))
        loss = 1.9 + 5 * math.exp(-progress * 14) + 0.25 * (1 - density) + noise.gauss(0, 0.04)
        row = {"step": step, "tokens": step * 4096, "loss": loss, "lr": 0.01 * min(1, progress / 0.01) * (1 - progress)}
        row |= {
            "density": density,
            "grad_rms": 0.002 + 0.001 * noise.random(),
            "tokens_per_second": noise.gauss(14e3, 300),
        }
        row |= {
            "nonzeros": {"h_0/mlp/c_fc/kernel": int(65536 * density), "wte": int(131072 * density), "bigram": 10**6}
        }
        row |= {"dead_neurons": int(40 * progress) if step >= 100 else None}
        if step % 100 == 0:
            row["val_loss"] = loss + 0.05
        rows.append(row)
    return rows


def quote_circuit() -> tuple[Json, Json]:
    nodes = [(0, "mlp_in", 17), (0, "mlp_in", 90), (0, "mlp_neuron", 201), (0, "mlp_neuron", 333), (0, "mlp_out", 45)]
    nodes += [(0, "mlp_out", 110), (1, "attn_in", 45), (1, "attn_in", 110), (1, "attn_q", 61), (1, "attn_k", 61)]
    nodes += [(1, "attn_v", 52), (1, "attn_out", 77)]
    edges = [(0, 2, 1.31), (1, 2, 0.92), (0, 3, 0.88), (1, 3, -1.12), (2, 4, 1.74), (3, 5, -2.05), (6, 9, 2.31)]
    edges += [(7, 10, 1.86), (10, 11, 3.07)]
    prompts = [
        ["print", "(", '"', "river", " stone", " &", " moss"],
        ["print", "(", "'", "river", " stone", " &", " moss"],
    ]
    prompts += [["x", " =", " f", "(", '"', "lamp"], ["x", " =", " f", "(", "'", "lamp"]]
    prompts += [
        ["if", " a", ":", "\n   ", " say", '("', "oak", "<b>"],
        ["if", " a", ":", "\n   ", " say", "('", "oak", "<b>"],
    ]
    answers = ['")\n', "')\n"]
    embedding = [
        ('"', 17, 0.92),
        ('"', 90, 0.61),
        ("'", 17, 0.85),
        ("'", 90, -0.74),
        ('("', 17, 0.7),
        ("('", 90, -0.55),
    ]
    unembedding = [('")\n', 77, 1.42), ("')\n", 77, -1.37)]
    circuit = _circuit("single_double_quote", nodes, edges, 0.046)
    return circuit, _traces(circuit, prompts, answers, embedding, unembedding)


def messy_circuit(n_nodes: int = 60, n_edges: int = 80) -> tuple[Json, Json]:
    draw = random.Random(7)
    pool = sorted(draw.sample(range(D_MODEL), 16))
    nodes: list[tuple[int, str, int]] = []
    for layer in (0, 1):
        for site in SITES:
            width, count = (D_MLP, 7) if site == "mlp_neuron" else (D_MODEL, 3 if site in ("attn_q", "attn_k") else 4)
            source = pool if site in ("attn_in", "attn_out", "mlp_in", "mlp_out") else range(width)
            if site == "attn_k":  # two of the three k channels have their q
                chosen = [*[node[2] for node in nodes if node[:2] == (layer, "attn_q")][:2], draw.randrange(width)]
            else:
                chosen = draw.sample(source, count)
            nodes += [(layer, site, channel) for channel in chosen]
    nodes = sorted(set(nodes), key=lambda n: (n[0], SITES.index(n[1]), n[2]))[:n_nodes]
    joins = [
        (i, j) for i, a in enumerate(nodes) for j, b in enumerate(nodes) if a[0] == b[0] and b[1] in JOINS.get(a[1], ())
    ]
    edges = [(i, j, draw.gauss(0, 1.2)) for i, j in draw.sample(joins, min(n_edges, len(joins)))]
    prompts = [["items", " =", " [[", "1", ",", " 2", "],", " [", HOSTILE, "\x00", "\t", "&amp;"]] * 2
    prompts += [["xs", " =", " [", "3", ",", " 4", ",", "\n\n", " <b", ">", '"', "é"]] * 2
    tokens = sorted({token for prompt in prompts for token in prompt})
    embedding = [(draw.choice(tokens), draw.choice(pool), draw.gauss(0, 1)) for _ in range(34)]
    embedding = list({entry[:2]: entry for entry in embedding}.values())
    unembedding = [(answer, channel, draw.gauss(0, 1)) for channel in pool[:7] for answer in ("]\n", "]]\n")]
    circuit = _circuit("bracket_counting", nodes, edges, 0.149)
    return circuit, _traces(circuit, prompts, ["]\n", "]]\n"], embedding, unembedding)


def _circuit(task: str, nodes: list[tuple[int, str, int]], edges: list[tuple[int, int, float]], loss: float) -> Json:
    metrics = {
        "nodes": len(nodes),
        "edges": len(edges),
        "embedding_edges": 6,
        "unembedding_edges": 2,
        "task_loss": loss,
    }
    metrics |= {"task_loss_uncalibrated": loss + 0.07, "accuracy": 0.992, "full_model_task_loss": 0.012}
    metrics |= {"ablated_task_loss": 0.81, "random_circuit_task_loss": 0.702, "agreement": 0.99}
    metrics |= {"shifted_task_loss": 0.31, "shifted_accuracy": 0.92, "shifted_agreement": 0.93}
    metrics |= {"shifted_full_model_task_loss": 0.21, "shifted_full_model_accuracy": 0.95}
    return {
        "format": "sparse_gpt.circuit/1",
        "task": task,
        "params_sha256": "ef" * 32,
        "ablation": "mean",
        "norm": "live",
        "target_loss": 0.15,
        "calibration": {"scale": 1.8, "shift": [[5, 0.12], [9, -0.12]]},
        "edge_pruned": True,
        "nodes": [{"layer": layer, "site": site, "channel": channel} for layer, site, channel in nodes],
        "edges": [{"from": list(nodes[i]), "to": list(nodes[j]), "weight": weight} for i, j, weight in edges],
        "metrics": metrics,
        "bookkeeping": {
            "nodes": [
                {"layer": layer, "site": site, "channel": channel, "used_edges": 2, "total_edges": 8, "fraction": 0.25}
                for layer, site, channel in nodes
            ],
            "paths": {
                "count": 24,
                "chains": 6,
                "strongest": [
                    {"token_id": 5, "token": '("', "nodes": [list(node) for node in nodes[:2]], "answer_id": 9}
                    | {"answer": "')\n", "strength": 1.72}
                ],
            },
        },
    }


def _traces(circuit: Json, prompts: list[list[str]], answers: list[str], embedding: list, unembedding: list) -> Json:
    draw = random.Random(3)
    heads = sorted({f"{n['layer']}.{n['channel'] // D_HEAD}" for n in circuit["nodes"] if n["site"] in SITES[1:4]})
    samples = []
    for i, tokens in enumerate(prompts):
        quoted = [j for j, token in enumerate(tokens) if '"' in token or "'" in token]
        values = {}
        for node in circuit["nodes"]:
            row = [draw.gauss(0, 0.1) * (draw.random() < 0.4) for _ in tokens]
            for j in quoted:
                row[j] += (1 if '"' in tokens[j] else -1) * (2 if node["channel"] % 2 else 1)
            values[f"{node['layer']}.{node['site']}.{node['channel']}"] = row
        sample = {"split": "heldout", "tokens": tokens, "answer": answers[i % 2], "foil": answers[1 - i % 2]}
        sample |= {"logit_difference_full": 6.1, "logit_difference_circuit": 3.4 - i, "values": values}
        samples.append(sample | {"attention": {head: _attention(tokens, quoted) for head in heads}})
    entry = lambda t, c, w: {"token": t, "token_id": sum(map(ord, t)) % 1024, "channel": c, "weight": w}  # noqa: E731
    return {
        "format": "sparse_gpt.traces/1",
        "task": circuit["task"],
        "site_widths": WIDTHS,
        "d_head": D_HEAD,
        "samples": samples,
        "embedding": [entry(*e) for e in embedding],
        "unembedding": [entry(*e) for e in unembedding],
    }


def _attention(tokens: list[str], quoted: list[int]) -> list[list[float]]:
    """Causal rows that look at the quote once there is one; a sink takes the rest."""
    rows = []
    for query in range(len(tokens)):
        scores = [3.0 if key in quoted else 0.2 for key in range(query + 1)]
        total = 1 + sum(math.exp(score) for score in scores)
        rows.append([math.exp(score) / total for score in scores] + [0.0] * (len(tokens) - query - 1))
    return rows


def search(circuit: Json) -> Json:
    draw = random.Random(5)
    trials = [
        {"trial": i, "seed": i % 4, "k_coef": (1e-4, 3e-4)[i // 4], "nodes": 12 + 3 * i, "edges": 9 + 4 * i}
        | {"task_loss": 0.14 + 0.003 * i, "reached": i != 7}
        for i in range(8)
    ]
    history = [
        {"step": step, "loss": [0.7 * math.exp(-step / 90) + 0.05 * draw.random() for _ in trials]}
        | {"open_nodes": [int(4100 * math.exp(-step / (60 + 5 * i))) + 30 for i in range(len(trials))]}
        for step in range(0, 401, 20)
    ]
    sizes = [1, 2, 4, 6, 9, 14, 22, 35, 60, 110, 220, 480]
    curve = [{"nodes": n, "edges": int(n**1.1) - 1, "task_loss": 0.7 / (1 + (n / 8) ** 2.2) + 0.012} for n in sizes]
    control = {"quantiles": {"task_loss": [0.691, 0.702, 0.733], "task_loss_calibrated": [0.651, 0.677, 0.684]}}
    return {
        "format": "sparse_gpt.search/1",
        "task": circuit["task"],
        "params_sha256": circuit["params_sha256"],
        "steps": 400,
        "batch_pairs": 64,
        "hyperparameters": {"learning_rate": 3e-3, "weight_decay": 1e-3, "heaviside_temp": 1.0},
        "trials": trials,
        "best_trial": 0,
        "stages": [
            {"stage": "search", "nodes": 30, "edges": 25, "task_loss": 0.14},
            {"stage": "refined", "nodes": 12, "edges": 9, "task_loss": 0.1},
        ],
        "history": history,
        "size_versus_target": {
            "points": [
                {"target_loss": t, "nodes": n, "edges": n + 3, "task_loss": 1.3 * t, "reached": t > 0.01}
                for t, n in ((0.5, 8), (0.15, 14), (0.05, 22), (0.01, 35))
            ],
            "area": 2.4,
            "mean_edges": 21.5,
            "lowest_target": 0.05,
        },
        "importance": {
            "nodes": [{**node, "task_loss": 0.15 + 0.5 * draw.random()} for node in circuit["nodes"]],
            "edges": [{"from": e["from"], "to": e["to"], "task_loss": 0.6} for e in circuit["edges"][1:]],
            "task_loss": 0.137,
        },
        "loss_versus_size": curve,
        "baselines": [
            {"ranking": name, "nodes": 90 * i, "edges": 200 * i, "task_loss": 0.1 * i, "reached": i < 3}
            | {"loss_versus_size": [{**point, "edges": point["edges"] * i} for point in curve]}
            for i, name in enumerate(("attribution", "weight_magnitude", "random"), 1)
        ],
        "random_circuit": {"draws": 20, "task_loss": [0.69 + 0.03 * draw.random() for _ in range(20)], **control},
        "redrawn_values": {"draws": 20, **control},
        "overlap": {"searches": 8, "mean_jaccard": 0.437, "interval": [0.412, 0.468], "random_jaccard": 0.013},
        "seconds": 118.4,
    }


def evaluation() -> Json:
    row = {
        "task_loss": 0.012,
        "full_vocabulary_loss": 0.31,
        "accuracy": 0.998,
        "shifted_task_loss": 0.2,
        "shifted_accuracy": 0.93,
    }
    tasks = [{"task": name} | row for name in ("single_double_quote", "bracket_counting", "for_while")]
    left_out = {"task": "class_init", "reason": "task class_init: only 3 of the 30 train names to copy are one token"}
    return {"format": "sparse_gpt.evaluation/1", "tasks": [*tasks, left_out]}


def bridge(layers: int = 1, linear: bool = True) -> Json:
    """bridge.json of models of that depth: all mixtures, each switch costing 0.01 nats."""
    draw, boundaries = random.Random(4), 2 * layers + 1
    names = ("nmse_encoder", "nmse_decoder", "kl_to_sparse", "kl_to_dense", "loss_to_sparse", "loss_to_dense")

    def measures(scale: float) -> Json:
        return {name: scale * (1 + draw.random()) + 2 * name.startswith("loss") for name in names}

    paths = ["".join(path) for path in itertools.product("ds", repeat=boundaries + 1)]
    mixed = [{"path": p, "loss": 2 + 0.01 * sum(map(str.__ne__, p, p[1:])), "kl": 0.02} for p in paths]
    return {
        "format": "sparse_gpt.bridge/1",
        "params_sha256": "ef" * 32,
        "dense_params_sha256": "12" * 32,
        "independent_params_sha256": "34" * 32 if linear else None,
        "step": 1000,
        "tokens": 8192,
        "dense_loss": 2.0,
        "sparse_loss": 2.1,
        "independent_loss": 2.05 if linear else None,
        "bridges": [
            {"dense": i, "sparse": i, "trained": measures(0.01), "untrained": measures(1.0)}
            | {"linear": measures(0.1) if linear else None}
            for i in range(boundaries)
        ],
        "mixtures": {"complete": True, "paths": mixed},
    }


def steering(task: str) -> Json:
    strengths = [i / 10 for i in range(11)]

    def curve(end: float) -> Json:
        answer, foil = [0.9 - 0.8 * end * s for s in strengths], [0.05 + end * s for s in strengths]
        share = [x / (x + y) for x, y in zip(foil, answer, strict=True)]
        return {"answer": answer, "foil": foil, "share": share}

    return {
        "format": "sparse_gpt.steering/1",
        "task": task,
        "params_sha256": "ef" * 32,
        "node": {"layer": 1, "site": "attn_in", "channel": 45},
        "dense": {"layer": 1, "site": "attn_in"},
        "pairs": 64,
        "strengths": strengths,
        "curves": {
            "sparse": curve(0.9),
            "dense": curve(0.71),
            "random": [curve(0.01 * i) for i in range(8)],
            "stream": curve(0.8),
            "random_stream": [curve(0.02 * i) for i in range(8)],
        },
        "candidates": [{"layer": 1, "site": "attn_in", "channel": 45, "difference": 2.1, "importance": 0.4}],
    }


def transport(task: str) -> Json:
    def outcome(task_loss: float) -> Json:
        return {"task_loss": task_loss, "accuracy": 0.5, "loss": 2 + task_loss / 10}

    return {
        "format": "sparse_gpt.transport/1",
        "task": task,
        "boundaries": [{"dense": 1, "sparse": 1, "channels": 3, "rank": 3, "width": 64}],
        "dense": outcome(0.02),
        "image": outcome(0.8125),
        "random": [outcome(0.03), outcome(0.05)],
        "sparse": {"full_model_task_loss": 0.012, "ablated_task_loss": 0.81},
    }
