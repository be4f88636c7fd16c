"""bridge.json: how well the bridges of a finished run join the two models, beside two controls.

Format "sparse_gpt.bridge/1": params_sha256, dense_params_sha256, independent_params_sha256 (null without that control),
step, tokens (of the validation split; every number is a mean over them), dense_loss, sparse_loss, independent_loss,
bridges and mixtures.

bridges: [{dense, sparse, trained: MEASURES, untrained: MEASURES, linear: MEASURES or null}], one for each bridged pair
of boundaries. "untrained" are bridges as they were initialised; "linear" is the best linear map, fitted after the fact,
to a sparse model that was trained without bridges. MEASURES are nmse_encoder and nmse_decoder (fractions), kl_to_sparse
and kl_to_dense (against the dense model, nats), loss_to_sparse and loss_to_dense (cross-entropies of the two
single-switch hybrids, the one that ends in the sparse and the one that ends in the dense model, nats).

mixtures: {complete, paths: [{path, loss, kl}]}, hybrids with any number of switches (see mixtures.py); when not
complete, those with at most two.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sparse_gpt.bridges import least_squares, mixtures
from sparse_gpt.bridges.dense import DenseModel
from sparse_gpt.bridges.least_squares import Independent
from sparse_gpt.bridges.training import PER_GROUP, BridgeProgram
from sparse_gpt.config import Config
from sparse_gpt.io import write_json
from sparse_gpt.training.manifest import params_sha256
from sparse_gpt.training.step import TrainState

MEASURES = ("nmse_encoder", "nmse_decoder", *PER_GROUP)


def write(
    workdir: Path,
    config: Config,
    dense: DenseModel,
    restored: tuple[int, TrainState],
    validation: list[np.ndarray],
    independent: Independent | None = None,
    fitting: Iterable[np.ndarray] = (),
) -> dict[str, Any]:
    """Evaluates a checkpoint of a bridged run on one device, writes bridge.json, and returns it.

    Args:
      workdir, config, dense: of the run.
      restored: its step and state, see `training.restore`.
      validation: batches (rows, context + 1).
      independent: a sparse model trained without bridges, for the second control.
      fitting: batches of the same kind, from the training split, that its linear maps are fitted on.
    """
    program = BridgeProgram(config, None, dense.config)
    step, state = restored
    held = program.place(dense.params)
    evaluate = program.evaluation(held)
    control = state.replace(optimizer=state.optimizer._replace(bridges=program.init_bridges()))  # type: ignore[attr-defined]
    found = {"trained": evaluate(state, validation), "untrained": evaluate(control, validation)}
    if independent is not None:
        found["linear"] = least_squares.measure(config, dense, independent, fitting, validation)
    result = {
        "format": "sparse_gpt.bridge/1",
        "params_sha256": params_sha256(state.params),
        "dense_params_sha256": dense.params_sha256,
        "independent_params_sha256": independent and independent.params_sha256,
        "step": step,
        "tokens": sum(batch[:, 1:].size for batch in validation),
        "dense_loss": found["trained"]["val_dense_loss"],
        "sparse_loss": found["trained"]["val_loss"],
        "independent_loss": found["linear"]["val_loss"] if independent else None,
        "bridges": [
            {**pair._asdict(), "linear": None, **{kind: _measures(terms, i) for kind, terms in found.items()}}
            for i, pair in enumerate(program.bridged.pairs)
        ],
        "mixtures": mixtures.evaluate(program.bridged, held, state.params, state.optimizer.bridges, validation),
    }
    write_json(workdir / "bridge.json", result)
    return result


def _measures(terms: dict[str, Any], i: int) -> dict[str, float]:
    """MEASURES of bridge number i."""
    return {name: terms[f"val_{name}"][i] for name in MEASURES}


def describe(result: dict[str, Any]) -> str:
    """A few lines for a person: the hybrids that are furthest from the dense model, beside the controls."""
    bridges, dense = result["bridges"], result["dense_loss"]

    def worst(kind: str) -> float:
        losses = [bridge[kind][name] for bridge in bridges for name in ("loss_to_sparse", "loss_to_dense")]
        return float(max(losses)) - float(dense)

    fitted = "linear control: none, no --independent"
    if result["independent_params_sha256"]:
        fitted = f"linear maps to an independent model: {worst('linear'):.3f}"
    paths = result["mixtures"]["paths"]
    furthest = max(paths, key=lambda entry: entry["loss"])
    return (
        f"validation loss {dense:.3f} dense, {result['sparse_loss']:.3f} sparse; every single-switch hybrid within "
        f"{worst('trained'):.3f} nats of the dense model (untrained bridges: {worst('untrained'):.3f}; {fitted})\n"
        f"{len(paths)} mixtures, the furthest ({furthest['path']}) within {furthest['loss'] - dense:.3f}; bridge.json"
    )
