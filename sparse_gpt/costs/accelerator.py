"""What launch.benchmark measures of one accelerator: its own rates, selection by kernels and by the plain form, and the
train step at the paper's widths, each beside its floor.

The floor of a program is the time of its matrix products at the rate that this device reached, and of the bytes that it
must move at the bandwidth that it reached: no version of it runs much faster. On a CPU all sizes are tiny, to try it.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.config import Config
from sparse_gpt.costs.benchmark import compiled_step, side_by_side
from sparse_gpt.io import Tree
from sparse_gpt.parameters import MATRIX, PyTree, parameter_table, unflatten
from sparse_gpt.sparsity.accelerators import OFF
from sparse_gpt.sparsity.topk import abs_topk
from sparse_gpt.training import schedules, step

Row = Tree
WIDTHS = (1024, 2048)
_TINY = {"model.n_layer": 2, "model.d_model": 128, "model.n_head": 8, "model.d_mlp": 512, "train.batch_size": 4}


@dataclasses.dataclass(frozen=True)
class Rates:
    """What the device reaches: operations a second of matrix products in bfloat16, and bytes a second."""

    matmul: float
    bandwidth: float

    def floor_ms(self, operations: float, traffic: float) -> float:
        """Milliseconds."""
        return 1e3 * (operations / self.matmul + traffic / self.bandwidth)


def on_cpu() -> bool:
    """Whether this is a trial without an accelerator."""
    return jax.default_backend() == "cpu"


def width_config(width: int, small: bool) -> Config:
    """The paper's model of a width, 8 layers in bfloat16, on one device: 64 x 256 tokens a step, no sinks. A tiny one
    in its place if `small`."""
    paper = presets.preset({1024: "paper_118m", 2048: "paper_475m"}[width])
    one = {"train.mesh": "", "train.batch_size": 64, "model.attention_sink": False}
    return configs.replace(paper, {**one, **(_TINY if small else {})})


@functools.cache
def rates(rounds: int) -> Rates:
    """Measured once, on random numbers: zeros would run faster."""
    side, entries = (256, 2**20) if on_cpu() else (8192, 2**29)
    keys = jax.random.split(jax.random.key(0), 2)
    a, b = (jax.random.normal(key, (side, side), jnp.bfloat16) for key in keys)
    x = jax.random.normal(keys[0], (entries,), jnp.float32)
    product, copy = jax.jit(lambda a, b: a @ b), jax.jit(lambda x: x + 1)
    seconds = side_by_side({"product": lambda: product(a, b), "copy": lambda: copy(x)}, rounds)
    return Rates(2 * side**3 / seconds["product"], 2 * x.nbytes / seconds["copy"])


def device_rates(rounds: int) -> list[Row]:
    """A row for each rate."""
    found = rates(rounds)
    return [
        _row("matrix products in bfloat16", note=f"{found.matmul / 1e12:.1f} TFLOP/s"),
        _row("memory, read and written", note=f"{found.bandwidth / 1e12:.3f} TB/s"),
    ]


def rows_selection(rounds: int, width: int) -> list[Row]:
    """AbsTopK over the rows of one site of a step, in both forms, against `lax.top_k` with a scatter."""
    tokens, width = (64, 256) if on_cpu() else (64 * 256, width)
    x = jax.random.normal(jax.random.key(0), (tokens, width), jnp.bfloat16)
    k = width // 4

    def by_top_k(x: jax.Array) -> jax.Array:
        _, index = jax.lax.top_k(jnp.abs(x), k)
        rows = jnp.arange(len(x))[:, None]
        return jnp.zeros_like(x).at[rows, index].set(x[rows, index])

    forms: dict[str, Callable[..., PyTree]] = {
        "kernel": jax.jit(lambda x: abs_topk(x, k)),
        "plain": _plain(jax.jit(lambda x: abs_topk(x, k)), x),
        "lax.top_k": jax.jit(by_top_k),
    }
    _check_same({name: form(x) for name, form in forms.items() if name != "lax.top_k"})
    seconds = side_by_side({name: functools.partial(form, x) for name, form in forms.items()}, rounds)
    floor = rates(rounds).floor_ms(0, 2 * x.nbytes)
    return [_row(f"AbsTopK of {tokens} x {width}, {name}", 1e3 * s, floor) for name, s in seconds.items()]


def projection(rounds: int, width: int) -> list[Row]:
    """The projection of all weights of a step, in both forms."""
    config = width_config(width, on_cpu())
    keep = jnp.asarray(schedules.keep_counts(config, config.train.steps - 1))
    table = parameter_table(config.model)

    @jax.jit
    def weights() -> PyTree:
        keys = (jax.random.fold_in(jax.random.key(0), i) for i in range(len(table)))
        return unflatten({path: jax.random.normal(next(keys), spec.shape) for path, spec in table.items()})

    params = weights()
    forms: dict[str, Callable[..., PyTree]] = {
        "kernel": jax.jit(step.projection(config)),
        "plain": _plain(jax.jit(step.projection(config)), params, keep),
    }
    _check_same({name: form(params, keep) for name, form in forms.items()})
    seconds = side_by_side({name: functools.partial(form, params, keep) for name, form in forms.items()}, rounds)
    floor = rates(rounds).floor_ms(0, 2 * 4 * sum(spec.size for spec in table.values()))
    return [_row(f"projection, d={config.model.d_model}, {name}", 1e3 * s, floor) for name, s in seconds.items()]


def train_step(rounds: int, width: int) -> Row:
    """A whole step in bfloat16 at the final density."""
    config = width_config(width, on_cpu())
    seconds = side_by_side({"step": compiled_step(config, project=True)}, rounds)["step"]
    tokens = config.train.batch_size * config.model.context
    floor = rates(rounds).floor_ms(*step_work(config))
    return _row(f"train step, d={config.model.d_model}", 1e3 * seconds, floor, note=f"{tokens / seconds:,.0f} tokens/s")


def step_work(config: Config) -> tuple[float, float]:
    """(operations, bytes) that a step cannot do without: products with every matrix and between queries and keys, three
    times for forward and backward; float32 weights, moments and gradients in and out once, and activations at the node
    sites in and out once forward and once backward, in bfloat16."""
    m, tokens = config.model, config.train.batch_size * config.model.context
    table = parameter_table(m)
    inner = m.n_head * m.d_head
    matrices = sum(spec.size for spec in table.values() if spec.kind == MATRIX) + m.d_model * m.vocab_size
    operations = 6 * tokens * (matrices + m.n_layer * inner * m.context)
    activations = tokens * m.n_layer * (4 * m.d_model + 3 * inner + m.d_mlp)
    return operations, 4 * 8 * sum(spec.size for spec in table.values()) + 2 * 4 * activations


def plan(rounds: int) -> Iterator[Callable[[], list[Row] | Row]]:
    """The calls in the order of their worth, should time run out."""
    yield functools.partial(device_rates, rounds)
    yield functools.partial(train_step, rounds, WIDTHS[0])
    for width in (WIDTHS[0], 4 * WIDTHS[1]):
        yield functools.partial(rows_selection, rounds, width)
    yield functools.partial(train_step, rounds, WIDTHS[1])
    yield functools.partial(projection, rounds, WIDTHS[1])


def _row(what: str, ms: float | None = None, floor_ms: float | None = None, note: str = "") -> Row:
    ratio = None if ms is None or not floor_ms else ms / floor_ms
    return {"what": what, "ms": ms, "floor_ms": floor_ms, "times_floor": ratio, "note": note}


def _plain(function: jax.stages.Wrapped, *args: PyTree) -> Callable[..., PyTree]:
    """`function` compiled with the plain forms of all kernels. What it is made of must not be traced already."""
    jax.clear_caches()
    before = os.environ.get(OFF)
    os.environ[OFF] = "plain"
    try:
        compiled: Callable[..., PyTree] = function.lower(*args).compile()
        return compiled
    finally:
        os.environ.pop(OFF)
        if before is not None:
            os.environ[OFF] = before
        jax.clear_caches()


def _check_same(results: dict[str, PyTree]) -> None:
    first, *others = (jax.tree.leaves(result) for result in results.values())
    if not all(bool(jnp.array_equal(a, b)) for other in others for a, b in zip(first, other, strict=True)):
        raise AssertionError(f"{' and '.join(results)} disagree")
