"""What a GPU computes against this machine's CPU, part by part, to stated tolerances. A part of run.py.

Selection has no tolerance: the same entries, bit for bit. Sums in another order differ in float32's last digits, so
training and search are compared over a few steps, with matrix products in full float32; where two entries are nearly
equal the last digit decides which is kept, so weights are compared that both keep.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.config import Config
from sparse_gpt.costs.circuit_benchmark import search_runner
from sparse_gpt.sparsity import accelerators
from sparse_gpt.sparsity.topk import abs_topk
from sparse_gpt.training import schedules, step
from tests.gpu_check.kit import tell

STEPS = 5
LOSS, LOSS_BFLOAT16 = 1e-4, 2e-2  # relative, at every step
WEIGHTS, FLIPPED = 1e-3, 1e-3  # relative norm of the difference; share of weights that are zero in one only
SEARCH = 1e-2  # relative norm, of the gates' parameters and their moments after a chunk


def devices() -> tuple[jax.Device, jax.Device]:
    """The one to check, and the CPU; without a GPU the CPU twice, to try this."""
    return jax.devices()[0], jax.devices("cpu")[0]


def on(device: jax.Device, function: Callable[[], Any]) -> Any:
    """Results of a function as numpy arrays, computed on a device."""
    with jax.default_device(device):
        return jax.tree.map(np.asarray, function())


def awkward(shape: tuple[int, int]) -> np.ndarray:
    """Rows with ties, zeros, infinities and NaN."""
    random = np.random.default_rng(0)
    x = random.normal(size=shape).astype(np.float32)
    x[1::5] = np.round(x[1::5])
    x[2::5] = np.maximum(x[2::5], 0)
    x[3::5, 0::7], x[3::5, 1::7], x[3::5, 2::7] = np.nan, np.inf, -np.inf
    x[4::5] = 1
    return x


def rows(small: bool) -> tuple[float, float, str]:
    """AbsTopK and its gradient's mask, at the widths of the paper's models and in both dtypes."""
    wrong = 0
    for width in (128,) if small else (128, 1024, 2048, 8192):
        for dtype in (jnp.float32, jnp.bfloat16):
            x = jnp.asarray(awkward((64, width))).astype(dtype)

            def select(x: Any = x, width: int = width) -> Any:
                y, pull = jax.vjp(lambda x: abs_topk(x, width // 4), jnp.asarray(np.asarray(x)))
                return y, pull(jnp.ones_like(y))[0]

            found, expected = (on(device, jax.jit(select)) for device in devices())
            bits = {2: np.uint16, 4: np.uint32}[x.dtype.itemsize]
            wrong += sum(int((a.view(bits) != b.view(bits)).sum()) for a, b in zip(found, expected, strict=True))
    return wrong, 0, "entries with other bits"


def model(small: bool) -> Config:
    """Small, and wide enough for the kernels."""
    width = 64 if small else 256
    sizes = {"n_layer": 2, "d_model": width, "n_head": width // 16, "d_head": 16, "d_mlp": 4 * width, "context": 64}
    overrides = {f"model.{name}": size for name, size in sizes.items()} | {"train.steps": 200}
    return configs.validate(configs.replace(presets.tiny(), overrides))


def projection(small: bool) -> tuple[float, float, str]:
    """All tensors of a model, with ties, and min-alive entries first."""
    config = model(small)
    state = on(devices()[1], lambda: step.make_state(config)).params
    params = jax.tree.map(lambda x: np.round(50 * x).astype(np.float32) / 50, state)
    keep = schedules.keep_counts(config, 180)
    project = jax.jit(step.projection(config))
    found, expected = (on(device, lambda: project(params, keep)) for device in devices())
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return sum(int((a != b).sum()) for a, b in pairs), 0, "entries that differ"


def _train(config: Config, device: jax.Device, start: Any) -> tuple[np.ndarray, Any]:
    """Losses of a few steps near the end of annealing, and the parameters then."""
    tokens = np.random.default_rng(1).integers(0, config.model.vocab_size, (STEPS, 8, config.model.context + 1))
    with jax.default_device(device):
        state, advance, losses = jax.tree.map(jnp.asarray, start), step.compile_step(config), []
        for i in range(STEPS):
            told = schedules.settings(config, 90 + i)
            state, metrics = advance(state, tokens[i].astype(np.int32), np.float32(told.learning_rate), told.keep)
            losses.append(float(metrics["loss"]))
    return np.array(losses), jax.tree.map(np.asarray, state.params)


def training(small: bool, dtype: str) -> list[tuple[str, float, float, str]]:
    """Losses of five steps and what they leave, from one start."""
    config = configs.replace(model(small), {"train.dtype": dtype})
    start = on(devices()[1], lambda: step.make_state(config))
    (losses, params), (expected, wanted) = (_train(config, device, start) for device in devices())
    off = float(np.max(np.abs(losses / expected - 1)))
    if dtype == "bfloat16":
        return [("train steps, bfloat16", off, LOSS_BFLOAT16, "loss, relative")]
    a, b = (np.concatenate([x.ravel() for x in jax.tree.leaves(tree)]) for tree in (params, wanted))
    both = (a != 0) & (b != 0)
    return [
        ("train steps, float32", off, LOSS, "loss, relative"),
        ("train steps, float32", float(np.mean((a == 0) != (b == 0))), FLIPPED, "share of weights zero in one only"),
        ("train steps, float32", _relative(a[both], b[both]), WEIGHTS, "weights of both, relative norm"),
    ]


def search(small: bool) -> tuple[float, float, str]:
    """A chunk of a population of mask searches."""
    config = model(small)

    def run() -> Any:
        return search_runner(config, time_steps=16, pairs=8)(2)()

    found, expected = (on(device, run) for device in devices())
    a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]).astype(float) for tree in (found, expected))
    return _relative(a, b), SEARCH, "gates and losses, relative norm"


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def main() -> int:
    """Every check; 1 when one fails."""
    small, failed = "--small" in sys.argv, 0
    jax.config.update("jax_default_matmul_precision", "highest")
    tell(device=devices()[0].device_kind, jax=jax.__version__, kernels=accelerators.target() or "plain")
    checks: list[tuple[str, Callable[[], Any]]] = [
        ("AbsTopK", lambda: rows(small)),
        ("projection", lambda: projection(small)),
        ("training", lambda: training(small, "float32")),
        ("mask search", lambda: search(small)),
        ("training in bfloat16", lambda: training(small, "bfloat16")),
    ]
    for name, check in checks:
        started = time.monotonic()
        try:
            found = check()
        except Exception as error:  # the other checks are worth as much
            tell(
                check=name,
                ok=False,
                of=f"{type(error).__name__}: {str(error)[:300]}",
                seconds=time.monotonic() - started,
            )
            failed += 1
            continue
        for what, off, limit, of in found if isinstance(found, list) else [(name, *found)]:
            ok = bool(off <= limit)  # NaN is not
            failed += not ok
            tell(check=what, ok=ok, off=float(off), limit=limit, of=of, seconds=time.monotonic() - started)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
