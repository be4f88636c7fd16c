"""What the report reads from each JSON file, as data, and a check against it that names the place of a mistake.

A schema is one of
  * a dict: an object with these keys; "key?" may be absent; "*" stands for all other keys, which are otherwise ignored;
  * a list of one schema: a list of such values; of several schemas: a list of exactly these;
  * a `Leaf`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from sparse_gpt.config import NODE_SITES
from sparse_gpt.errors import InputError


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A value that is no container: `ok` accepts it, `name` says what is wanted."""

    name: str
    ok: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


MOST = 10**6  # layers and channels
NUMBER = Leaf("a number", _is_number)
MAYBE = Leaf("a number or null", lambda value: value is None or _is_number(value))  # NaN is a number, too
LOSSES = Leaf(
    "a number, null or a list of numbers",
    lambda value: all(map(MAYBE.ok, value if isinstance(value, list) else [value])),
)
INTERVAL = Leaf(
    "null or two numbers",
    lambda value: value is None or (isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))),
)
COUNTS = Leaf(
    "a number, null or an object of numbers",
    lambda value: all(map(MAYBE.ok, value.values() if isinstance(value, dict) else [value])),
)
NUMBERS = Leaf(
    "null or an object of numbers", lambda value: value is None or (isinstance(value, dict) and COUNTS.ok(value))
)
INDEX = Leaf(f"a whole number from 0 to {MOST}", lambda value: type(value) is int and 0 <= value <= MOST)
TEXT = Leaf("a string", lambda value: isinstance(value, str))
SITE = Leaf("one of " + ", ".join(NODE_SITES), lambda value: value in NODE_SITES)
ANY = Leaf("anything", lambda value: True)
PLAIN = Leaf("a string, number, boolean or null", lambda value: not isinstance(value, dict | list))

CONFIG = {
    "model?": {"d_head?": INDEX},
    "sparsity?": {"density?": NUMBER},
    "train?": {},
    "data?": {},
}
MANIFEST = {"step?": MAYBE, "*": ANY}
METRICS_ROW = {"step": INDEX, "nonzeros?": COUNTS, "*": ANY}
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


def check(value: Any, schema: Any, place: str = "") -> None:
    """Raises InputError, with the place and what is wanted there, if `value` is not as `schema` says."""
    where = place or "the file"
    if isinstance(schema, Leaf):
        if not schema.ok(value):
            raise InputError(f"{where} is {_short(value)}, expected {schema.name}")
    elif isinstance(schema, dict):
        if not isinstance(value, dict):
            raise InputError(f"{where} is {_short(value)}, expected an object")
        _check_object(value, schema, place)
    else:
        if not isinstance(value, list):
            raise InputError(f"{where} is {_short(value)}, expected a list")
        if len(schema) > 1 and len(value) != len(schema):
            raise InputError(f"{where} has {len(value)} items, expected {len(schema)}")
        for i, item in enumerate(value):
            check(item, schema[i if len(schema) > 1 else 0], f"{place}[{i}]")


def _check_object(value: dict[str, Any], schema: dict[str, Any], place: str) -> None:
    prefix = f"{place}." if place else ""
    for name, inner in schema.items():
        key = name.removesuffix("?")
        if key in value and key != "*":
            check(value[key], inner, prefix + key)
        elif name == key != "*":
            raise InputError(f"{prefix}{key} is missing")
    if "*" in schema:
        named = {name.removesuffix("?") for name in schema}
        for key in value.keys() - named - {"format"}:
            check(value[key], schema["*"], prefix + key)


def _short(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return ascii(value)[:40]
