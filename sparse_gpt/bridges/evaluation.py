"""bridge.json: how well the bridges of a finished run join the two models, beside two controls.

Untrained bridges are random ones, as a run without bridge.init_from begins with; linear ones are the best linear maps,
fitted after the fact, to a sparse model that was trained without bridges. What the file holds: records/bridge.py,
docs/formats/bridge.md.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from sparse_gpt.bridges import least_squares, mixtures
from sparse_gpt.bridges.dense import DenseModel
from sparse_gpt.bridges.least_squares import Independent
from sparse_gpt.bridges.training import PER_GROUP, exact_program
from sparse_gpt.config import Config
from sparse_gpt.records import Bridge
from sparse_gpt.records.base import finite
from sparse_gpt.records.bridge import BridgedBoundary, Measures
from sparse_gpt.training.manifest import params_sha256
from sparse_gpt.training.step import TrainState

MEASURES = ("nmse_encoder", "nmse_decoder", *PER_GROUP)


def write(
    workdir: Path,
    config: Config,
    dense: DenseModel,
    restored: tuple[int, TrainState],
    validation: list[np.ndarray],
    control: tuple[Independent, Iterable[np.ndarray]] | None = None,
) -> Bridge:
    """Evaluates a checkpoint of a bridged run on one device and in float32, writes bridge.json, and returns it.

    Args:
      workdir, config, dense: of the run.
      restored: its step and state, see `training.restore`.
      validation: batches (rows, context + 1).
      control: for the second control, a sparse model trained without bridges, and batches of the same kind, from the
        training split, that its linear maps are fitted on.
    """
    program = exact_program(config, dense.config)
    step, state = restored
    held = program.place(dense.params)
    evaluate = program.evaluation(held)
    random = state.replace(optimizer=state.optimizer._replace(bridges=program.init_bridges()))  # type: ignore[attr-defined]
    trained, untrained, linear = evaluate(state, validation), evaluate(random, validation), None
    independent, fitting = control or (None, ())
    if independent is not None:
        linear = least_squares.measure(config, dense, independent, fitting, validation)
    result = Bridge(
        params_sha256=params_sha256(state.params),
        dense_params_sha256=dense.params_sha256,
        independent_params_sha256=independent.params_sha256 if independent else None,
        step=step,
        tokens=sum(batch[:, 1:].size for batch in validation),
        dense_loss=trained["val_dense_loss"],
        sparse_loss=trained["val_loss"],
        independent_loss=finite(linear["val_loss"]) if linear else None,
        bridges=tuple(
            BridgedBoundary(
                dense=pair.dense,
                sparse=pair.sparse,
                linear=_measures(linear, i) if linear else None,
                trained=_measures(trained, i),
                untrained=_measures(untrained, i),
            )
            for i, pair in enumerate(program.bridged.pairs)
        ),
        mixtures=mixtures.evaluate(program.bridged, held, state.params, state.optimizer.bridges, validation),
    )
    result.write(workdir / Bridge.FILE)
    return result


def _measures(terms: Mapping[str, list[float]], i: int) -> Measures:
    """Those of bridge number i."""
    return Measures(**{name: finite(terms[f"val_{name}"][i]) for name in MEASURES})


def describe(result: Bridge) -> str:
    """A few lines for a person: the hybrids that are furthest from the dense model, beside the controls."""
    dense, paths = result.dense_loss, result.mixtures.paths

    def worst(bridges: Iterable[Measures]) -> float:
        return max(_largest(loss) for each in bridges for loss in (each.loss_to_sparse, each.loss_to_dense))

    trained = worst(each.trained for each in result.bridges) - dense
    untrained = worst(each.untrained for each in result.bridges) - dense
    fitted = "linear control: none, no --independent"
    if result.independent_params_sha256:
        linear = worst(each.linear for each in result.bridges if each.linear) - dense
        fitted = f"linear maps to an independent model: {linear:.3f}"
    furthest = max(paths, key=lambda entry: _largest(entry.loss))
    above = _largest(furthest.loss) - dense
    return (
        f"validation loss {dense:.3f} dense, {result.sparse_loss:.3f} sparse; every single-switch hybrid within "
        f"{trained:.3f} nats of the dense model (untrained bridges: {untrained:.3f}; {fitted})\n"
        f"{len(paths)} mixtures, the furthest ({furthest.path}) within {above:.3f}; bridge.json"
    )


def _largest(loss: float | None) -> float:
    """A loss that is not known was not finite: it is worse than all."""
    return math.inf if loss is None else loss
