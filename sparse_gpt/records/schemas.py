"""What the report reads from each JSON file, as tables for records.check."""

from sparse_gpt.config import NODE_SITES
from sparse_gpt.schema import ANY, INDEX, INTERVAL, LOSSES, MAYBE, NUMBER, NUMBERS, PLAIN, TEXT, Leaf

SITE = Leaf("one of " + ", ".join(NODE_SITES), lambda value: value in NODE_SITES)

CONFIG = {
    "model?": {"d_head?": INDEX},
    "sparsity?": {"density?": NUMBER},
    "train?": {},
    "data?": {},
}
CIRCUIT = {
    "task": TEXT,
    "params_sha256?": TEXT,
    "target_loss?": MAYBE,
    "calibration?": {"scale?": NUMBER, "shift?": [[ANY, NUMBER]]},
    "nodes": [{"layer": INDEX, "site": SITE, "channel": INDEX}],
    "edges": [{"from": [INDEX, SITE, INDEX], "to": [INDEX, SITE, INDEX], "weight": NUMBER}],
    "metrics?": {"random_circuit_task_loss?": LOSSES, "*": MAYBE},
    "tie_qk?": PLAIN,
    "tasks?": [{"task": TEXT, "*": MAYBE}],
    "bookkeeping?": {
        "nodes?": [
            {"layer": INDEX, "site": SITE, "channel": INDEX, "fraction": MAYBE}
            | {"used_edges": MAYBE, "total_edges": MAYBE}
        ],
        "paths?": {
            "count?": MAYBE,
            "chains?": MAYBE,
            "strongest?": [
                {"token_id": INDEX, "answer_id": INDEX, "nodes": [[INDEX, SITE, INDEX]], "strength": MAYBE}
                | {"token?": TEXT, "answer?": TEXT}
            ],
        },
    },
}
_CONTEXT = {"tokens": [TEXT], "at": INDEX, "value": NUMBER}
CONTEXTS = {
    "tokens": INDEX,
    "nodes": [{"layer": INDEX, "site": SITE, "channel": INDEX, "top": [_CONTEXT], "bottom": [_CONTEXT]}],
}
_ENTRY = {"token": TEXT, "token_id": INDEX, "channel": INDEX, "weight": NUMBER}
TRACES = {
    "d_head?": INDEX,
    "site_widths?": {"*": INDEX},
    "samples": [
        {
            "tokens": [TEXT],
            "answer": TEXT,
            "foil": TEXT,
            "split?": TEXT,
            "logit_difference_full?": MAYBE,
            "logit_difference_circuit?": MAYBE,
            "values": {"*": [MAYBE]},
            "attention?": {"*": [[MAYBE]]},
        }
    ],
    "embedding?": [_ENTRY],
    "unembedding?": [_ENTRY],
}
_CONTROL = {"draws?": MAYBE, "quantiles?": {"task_loss?": [MAYBE], "task_loss_calibrated?": [MAYBE]}}
_CURVE = [{"nodes": NUMBER, "edges": NUMBER, "task_loss": NUMBER, "ablated_task_loss?": MAYBE}]
_POINTS = [{"target_loss": NUMBER, "nodes": NUMBER, "edges": NUMBER, "task_loss": MAYBE, "reached": PLAIN}]
RANKINGS = {"rankings": [{"ranking": TEXT, "points": _POINTS}]}
SEARCH = {
    "samples_sha256?": TEXT,
    "trials": [{"*": PLAIN}],
    "best_trial?": MAYBE,
    "refined_from?": TEXT,
    "steps?": MAYBE,
    "batch_pairs?": MAYBE,
    "seconds?": MAYBE,
    "hyperparameters?": {"*": PLAIN},
    "history?": [{"step": NUMBER, "loss": [MAYBE], "open_nodes": [MAYBE]}],
    "loss_versus_size?": _CURVE,
    "baselines?": [
        {"ranking": TEXT, "nodes": NUMBER, "edges": NUMBER, "task_loss": MAYBE, "reached": PLAIN}
        | {"loss_versus_size?": _CURVE}
    ],
    "random_circuit?": {"task_loss?": [MAYBE], **_CONTROL},
    "redrawn_values?": _CONTROL,
    "overlap?": {
        "searches?": MAYBE,
        "mean_jaccard?": MAYBE,
        "interval?": INTERVAL,
        "random_jaccard?": MAYBE,
    },
    "stages?": [{"stage": TEXT, "*": PLAIN}],
    "size_versus_target?": {
        "points": _POINTS,
        "*": MAYBE,
    },
    "importance?": {
        "nodes?": [{"layer": INDEX, "site": SITE, "channel": INDEX, "task_loss": MAYBE}],
        "edges?": [{"from": [INDEX, SITE, INDEX], "to": [INDEX, SITE, INDEX], "task_loss": MAYBE}],
    },
}
_MEASURES = {"*": MAYBE}
BRIDGE = {
    "params_sha256?": TEXT,
    "dense_loss": NUMBER,
    "sparse_loss": NUMBER,
    "independent_loss?": MAYBE,
    "tokens?": MAYBE,
    "bridges": [{"dense": INDEX, "sparse": INDEX, "trained": _MEASURES, "untrained": _MEASURES, "linear?": NUMBERS}],
    "mixtures?": {"complete": PLAIN, "paths": [{"path": TEXT, "loss": NUMBER, "kl": NUMBER}]},
}
_STEERED = {"answer": [NUMBER], "foil": [NUMBER], "share": [NUMBER]}
_NODE = {"layer": INDEX, "site": SITE, "channel": INDEX}
STEERING = {
    "task": TEXT,
    "node": _NODE,
    "dense": {"layer": INDEX, "site": SITE},
    "pairs": INDEX,
    "strengths": [NUMBER],
    "curves": {
        **dict.fromkeys(("sparse", "dense", "stream"), _STEERED),
        **{name: [_STEERED] for name in ("random", "random_stream")},
    },
    "candidates?": [{**_NODE, "*": MAYBE}],
}
_OUTCOME = {"task_loss": NUMBER, "accuracy": NUMBER, "loss": NUMBER}
TRANSPORT = {
    "task": TEXT,
    "boundaries": [{"dense": INDEX, "sparse": INDEX, "channels": INDEX, "rank": INDEX, "width": INDEX}],
    "dense": _OUTCOME,
    "image?": NUMBERS,
    "random": [_OUTCOME],
    "sparse?": {"*": MAYBE},
}
EVALUATION = {"tasks": [{"task": TEXT, "reason?": TEXT, "*": MAYBE}]}
