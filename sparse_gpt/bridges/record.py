"""bridge.json: how well the bridges of a finished run join the two models, beside untrained bridges.

Format "sparse_gpt.bridge/1": params_sha256, dense_params_sha256, step, tokens (of the validation split; every number
is a mean over them), dense_loss, sparse_loss, and bridges: [{dense, sparse, trained: MEASURES, untrained: MEASURES}],
one for each bridged pair of boundaries. MEASURES are nmse_encoder and nmse_decoder (fractions), kl_to_sparse and
kl_to_dense (against the dense model, nats), loss_to_sparse and loss_to_dense (cross-entropies of the two single-switch
hybrids, the one that ends in the sparse and the one that ends in the dense model, nats).
"""

from pathlib import Path
from typing import Any

import numpy as np

from sparse_gpt.bridges.dense import DenseModel
from sparse_gpt.bridges.training import PER_GROUP, BridgeProgram, restore
from sparse_gpt.config import Config
from sparse_gpt.training.manifest import params_sha256, write_json

MEASURES = ("nmse_encoder", "nmse_decoder", *PER_GROUP)


def write(workdir: Path, config: Config, dense: DenseModel, validation: list[np.ndarray]) -> dict[str, Any]:
    """Evaluates the newest checkpoint of a bridged run on one device, writes bridge.json, and returns it.

    Args:
      workdir, config, dense: of the run.
      validation: batches (rows, context + 1).

    Raises:
      InputError: the workdir has no checkpoint of such a run.
    """
    program = BridgeProgram(config, None, dense)
    step, state = restore(workdir, program)
    evaluate = program.evaluation()
    trained = evaluate(state, validation)
    control = state.replace(optimizer=state.optimizer._replace(bridges=program.init_bridges()))  # type: ignore[attr-defined]
    untrained = evaluate(control, validation)

    def measures(found: dict[str, Any], i: int) -> dict[str, float]:
        return {name: found[f"val_{name}"][i] for name in MEASURES}

    result = {
        "format": "sparse_gpt.bridge/1",
        "params_sha256": params_sha256(state.params),
        "dense_params_sha256": dense.params_sha256,
        "step": step,
        "tokens": sum(batch[:, 1:].size for batch in validation),
        "dense_loss": trained["val_dense_loss"],
        "sparse_loss": trained["val_loss"],
        "bridges": [
            {**pair._asdict(), "trained": measures(trained, i), "untrained": measures(untrained, i)}
            for i, pair in enumerate(program.bridged.pairs)
        ],
    }
    write_json(workdir / "bridge.json", result)
    return result


def describe(result: dict[str, Any]) -> str:
    """One line for a person: the hybrid that is furthest from the dense model, with and without training."""

    def worst(kind: str) -> float:
        losses = [bridge[kind][name] for bridge in result["bridges"] for name in ("loss_to_sparse", "loss_to_dense")]
        return float(max(losses)) - float(result["dense_loss"])

    return (
        f"validation loss {result['dense_loss']:.3f} dense, {result['sparse_loss']:.3f} sparse; every hybrid within "
        f"{worst('trained'):.3f} nats of the dense model (untrained bridges: {worst('untrained'):.3f}); bridge.json"
    )
