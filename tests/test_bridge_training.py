"""Bridged runs: what the loop trains, logs, checkpoints and resumes; launch.bridge as a user runs it."""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.bridges import dense as dense_models
from sparse_gpt.bridges import evaluation, least_squares, training
from sparse_gpt.bridges.dense import DenseModel
from sparse_gpt.bridges.hybrids import plain_pass
from sparse_gpt.bridges.least_squares import Independent, load_independent
from sparse_gpt.circuits import Node
from sparse_gpt.circuits.circuit import Circuit
from sparse_gpt.circuits.nodes import empty
from sparse_gpt.config import Config
from sparse_gpt.costs import aot
from sparse_gpt.data import idioms, train_tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.io import write_json
from sparse_gpt.model import build
from sparse_gpt.parameters import flatten
from sparse_gpt.records import Bridge, read_workdir
from sparse_gpt.training import loop, run, schedules, sharding, step
from sparse_gpt.training.checkpoint import load_params, save_params
from sparse_gpt.training.manifest import params_sha256
from tests.broken_off import BrokenOffError, after
from tests.inprocess import launch_here

SLOW_FIXTURES = {"finished", "recorded"}  # a bridged run: tests/budget.py
Launch = Callable[..., "subprocess.CompletedProcess[str]"]
STEPS = 12


def config(**overrides: Any) -> Config:
    base = {
        "model.vocab_size": 32, "model.context": 8, "model.d_model": 16, "model.d_mlp": 32, "model.n_head": 2,
        "model.n_layer": 1, "train.steps": STEPS, "train.batch_size": 8, "train.log_every": 1, "train.eval_every": 1,
        "train.checkpoint_every": 4, "sparsity.density": 0.5, "bridge.dense_d_model": 8, "bridge.sampled": 2,
        "sparsity.revive_every": 2,  # which bridged runs pass over
    }  # fmt: skip
    names = {name.replace("__", "."): value for name, value in overrides.items()}
    return configs.validate(configs.replace(presets.tiny(), base | names))


@pytest.fixture(scope="module")
def dense() -> DenseModel:
    """A dense model of width 8 with random parameters."""
    c = dense_models.dense_config(config())
    params = jax.tree.map(np.asarray, step.make_state(c).params)
    return DenseModel(c, params, params_sha256(params))


TOKENS = np.random.default_rng(0).integers(0, 32, (STEPS, 8, 9)).astype(np.int32)


@pytest.fixture(scope="module")
def objective(dense: DenseModel) -> training.BridgeObjective:
    """For one device; shared, so that it is compiled once."""
    return training.BridgeObjective(config(), None, dense)


def train(workdir: Path, objective: training.BridgeObjective, stop_after: int = 0) -> None:
    """The loop on one device; an error ends it after `stop_after` steps."""
    mesh = sharding.make_mesh(config(), jax.devices()[:1])
    batches = run.given_batches(TOKENS, mesh)
    options: dict[str, Any] = {
        "mesh": mesh,
        "progress": False,
        "objective": objective,
        "at_step": after(stop_after or None),
    }
    with pytest.raises(BrokenOffError) if stop_after else contextlib.nullcontext():
        loop.train(config(), workdir, batches, **options)


def lines(workdir: Path) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in entry.items() if k != "tokens_per_second"} for entry in entries]


@pytest.fixture(scope="module")
def finished(objective: training.BridgeObjective, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished bridged run."""
    workdir = tmp_path_factory.mktemp("bridges") / "work dir"
    train(workdir, objective)
    return workdir


@pytest.mark.slow
def test_a_bridged_run_logs_every_bridge_and_is_sparse_as_scheduled(finished: Path, dense: DenseModel) -> None:
    entries = lines(finished)
    assert [entry["step"] for entry in entries] == list(range(STEPS))
    ran = {tuple(value is not None for value in entry["kl_to_dense"]) for entry in entries}
    assert ran == {(True, False, True), (False, True, True)}, "one of the first two bridges, and always the third"
    for entry in entries:
        assert len(entry["nmse_encoder"]) == len(entry["kl_to_sparse"]) == 3
    for name in ("val_loss", "val_dense_loss", "val_kl_to_sparse", "val_loss_to_dense", "dead_neurons"):
        assert name in entries[-1], name
    assert None not in entries[-1]["val_kl_to_sparse"]
    for name in ("val_nmse_encoder", "val_nmse_decoder"):
        assert all(np.array(entries[-1][name]) < entries[1][name]), name
    last = schedules.settings(config(), STEPS - 1)
    for path, keep in zip(schedules.projected_tensors(config()), last.keep, strict=True):
        assert entries[-1]["nonzeros"]["/".join(path)] == keep
    assert entries[0]["dense_loss"] != entries[1]["dense_loss"]  # other tokens ...
    assert entries[1]["val_dense_loss"] == entries[-1]["val_dense_loss"]  # ... but the same model
    params, at = load_params(finished, config().model)  # as any other workdir
    assert at == STEPS
    assert json.loads((finished / "manifest.json").read_text())["params_sha256"] == params_sha256(params)


@pytest.mark.slow
def test_stopping_and_resuming_gives_the_same_bits(
    finished: Path, dense: DenseModel, objective: training.BridgeObjective, workdir: Path
) -> None:
    train(workdir, objective, stop_after=7)
    train(workdir, objective)
    reader = training.BridgeProgram(config(), None, dense.config)
    for part in (lambda state: state.params, lambda state: state.optimizer.bridges):
        straight, resumed = (flatten(part(training.restore(folder, reader)[1])) for folder in (finished, workdir))
        assert straight.keys() == resumed.keys()
        assert all(np.array_equal(straight[path], resumed[path]) for path in straight)
    assert lines(finished) == lines(workdir)


@pytest.mark.slow
def test_on_a_mesh_the_steps_are_the_same(finished: Path, dense: DenseModel) -> None:
    c = config(train__mesh="data=2,fsdp=2,tensor=2")
    mesh = sharding.make_mesh(c)
    program = training.BridgeProgram(c, mesh, dense.config)
    state, held = program.make_state(), program.place(dense.params)
    advance = aot.compile_bridge(c, mesh)  # from shapes alone: what is compiled for absent devices is what runs
    encoder = state.optimizer.bridges["encoder_1"]["kernel"]
    assert {shard.data.shape for shard in encoder.addressable_shards} == {(8 // 4, 16)}, "kept in parts"
    for s, logged in enumerate(lines(finished)[:2]):
        reported = schedules.settings(config(), s)
        tokens = sharding.put_batch(mesh, 8, TOKENS[s])
        state, metrics = advance(state, held, tokens, np.float32(reported.learning_rate), reported.keep)
        for name in ("objective", "loss", "grad_rms", "nmse_encoder", "nmse_decoder", "kl_to_dense"):
            wanted = np.array(logged[name], np.float64)  # None, of hybrids that were not run, becomes NaN
            np.testing.assert_allclose(np.asarray(metrics[name]), wanted, rtol=1e-4, err_msg=name)
        assert step.nonzeros(state.params, mesh) == logged["nonzeros"]


@pytest.fixture(scope="module")
def recorded(finished: Path, dense: DenseModel) -> dict[str, Any]:
    """bridge.json of the finished run, with both controls."""
    params = jax.tree.map(np.asarray, step.make_state(configs.replace(config(), {"train.seed": 1})).params)
    independent = Independent(config(), params, "apart")
    restored = training.restore(finished, training.BridgeProgram(config(), None, dense.config))
    found = evaluation.write(finished, config(), dense, restored, [TOKENS[0]], (independent, [TOKENS[0]]))
    assert found == Bridge.read(finished / "bridge.json")
    assert (found.independent_params_sha256, found.step) == ("apart", STEPS)
    tree: dict[str, Any] = json.loads((finished / "bridge.json").read_text())
    return tree


@pytest.mark.slow
def test_the_record_compares_with_untrained_bridges(finished: Path, recorded: dict[str, Any]) -> None:
    logged = lines(finished)[-1]
    assert [(b["dense"], b["sparse"]) for b in recorded["bridges"]] == [(0, 0), (1, 1), (2, 2)]
    for i, bridge in enumerate(recorded["bridges"]):
        for name, value in bridge["trained"].items():
            assert value == pytest.approx(logged[f"val_{name}"][i], rel=1e-5), name
        assert bridge["trained"]["nmse_encoder"] < bridge["untrained"]["nmse_encoder"]
    worst = max(max(b["trained"][n] for n in ("loss_to_sparse", "loss_to_dense")) for b in recorded["bridges"])
    assert f"within {worst - recorded['dense_loss']:.3f} nats" in evaluation.describe(Bridge.from_tree(recorded))


def test_mixtures_hold_the_single_switches(recorded: dict[str, Any]) -> None:
    paths = {entry["path"]: entry for entry in recorded["mixtures"]["paths"]}
    assert paths["dddd"]["loss"] == pytest.approx(recorded["dense_loss"], rel=1e-5)
    assert paths["ssss"]["loss"] == pytest.approx(recorded["sparse_loss"], rel=1e-5)
    for i, bridge in enumerate(recorded["bridges"]):
        for name, path in (("to_sparse", "d" * (i + 1) + "s" * (3 - i)), ("to_dense", "s" * (i + 1) + "d" * (3 - i))):
            assert paths[path]["loss"] == pytest.approx(bridge["trained"][f"loss_{name}"], rel=1e-5)
            assert paths[path]["kl"] == pytest.approx(bridge["trained"][f"kl_{name}"], rel=1e-3, abs=1e-6)


@pytest.mark.slow
def test_linear_maps_to_an_independent_model_have_the_least_error(recorded: dict[str, Any], dense: DenseModel) -> None:
    """On the very tokens they were fitted on: the residual of numpy's least squares on whole streams."""
    for bridge, h_dense, h_sparse in zip(recorded["bridges"], *streams(dense, other_params()), strict=True):
        for name, x, y in (("nmse_encoder", h_dense, h_sparse), ("nmse_decoder", h_sparse, h_dense)):
            design = np.concatenate([x, np.ones((len(x), 1))], axis=1)
            residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
            assert bridge["linear"][name] == pytest.approx((residual**2).sum() / (y**2).sum(), rel=1e-3, abs=1e-9)
            assert bridge["linear"][name] < bridge["untrained"][name]


@pytest.mark.slow
def test_bridges_to_a_trained_model_start_as_least_squares_without_bias(dense: DenseModel) -> None:
    params = other_params()
    maps = least_squares.starting(config(), dense, params, [TOKENS[0]])
    for i, (h_dense, h_sparse) in enumerate(zip(*streams(dense, params), strict=True)):
        for name, x, y in ((f"encoder_{i}", h_dense, h_sparse), (f"decoder_{i}", h_sparse, h_dense)):
            expected = x @ np.linalg.lstsq(x, y, rcond=None)[0]
            np.testing.assert_allclose(x @ maps[name]["kernel"], expected, atol=1e-4 * np.abs(y).max())
    objective = training.BridgeObjective(config(), None, dense, lambda: maps)
    begun = objective.make_state().optimizer.bridges
    jax.tree.map(np.testing.assert_array_equal, begun, maps)


def other_params() -> Any:
    """Of a sparse model from another seed."""
    return step.make_state(configs.replace(config(), {"train.seed": 1})).params


def streams(dense: DenseModel, params: Any) -> list[list[np.ndarray]]:
    """The streams (tokens, width) of the dense model and of a sparse one at every boundary, on the first batch."""
    tokens = TOKENS[0][:, :-1]
    both = dense.config, config()
    passes = jax.jit(
        lambda *given: [plain_pass(build(c), p, tokens, (0, 1, 2))[0] for c, p in zip(both, given, strict=True)]
    )
    found: list[list[np.ndarray]] = jax.tree.map(
        lambda h: np.asarray(h, np.float64).reshape(tokens.size, -1), passes(dense.params, params)
    )
    return found


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("vocab_size", 40, "its vocab_size is 40"),
        ("n_layer", 2, "its n_layer is 2"),
        ("context", 4, "its context is 4"),
    ],
)
def test_independent_models_that_do_not_fit(field: str, value: int, message: str, tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", configs.to_dict(config(**{f"model__{field}": value})))
    with pytest.raises(InputError, match=message):
        load_independent(tmp_path, config())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model__vocab_size": 40}, "the dense model has a vocabulary of 32"),
        ({"model__context": 16}, "the dense model reads at most 8"),
        ({"model__n_layer": 2}, "say which boundaries belong together"),
        ({"bridge__boundaries": "0:0,1:3"}, "boundaries 0 to 2, not 3"),
        ({"bridge__sampled": 4}, "only 3 bridges"),
        ({"bridge__nmse": -1.0}, r"bridge\.nmse=-1\.0: must be at least 0"),
    ],
    ids=str,
)
def test_models_that_cannot_be_bridged(overrides: dict[str, Any], message: str, dense: DenseModel) -> None:
    with pytest.raises(InputError, match=message):
        dense_models.check_pair(dense.config, config(**overrides))


# ---------------------------------------------------------------------------------------------------------------------
# launch.bridge

TINY = (
    "--preset=tiny", "--config.model.n_layer=1", "--config.model.d_model=16", "--config.model.d_mlp=32",
    "--config.model.context=64", "--config.data.tokens=30000", "--config.train.steps=4",
    "--config.bridge.dense_steps=3", "--config.bridge.dense_d_model=8",
)  # fmt: skip


@pytest.mark.slow
def test_launch_bridge(launch: Launch, workdir: Path) -> None:
    """From nothing to bridge.json; with the dense model of the first run; then on to launch.steer."""
    done = launch("bridge", f"--workdir={workdir}", *TINY)
    assert done.returncode == 0, done.stderr
    first = json.loads((workdir / "bridge.json").read_text())
    held = json.loads((workdir / "manifest.json").read_text())
    dense = json.loads((workdir / "dense" / "manifest.json").read_text())
    assert held["dense_params_sha256"] == first["dense_params_sha256"] == dense["params_sha256"]
    assert held["params_sha256"] == first["params_sha256"]
    assert held["tokenizer_sha256"] == dense["tokenizer_sha256"]
    assert len(first["bridges"]) == 3
    given = launch("bridge", f"--workdir={workdir}-2", f"--dense={workdir / 'dense'}", *TINY)
    assert given.returncode == 0, given.stderr
    second = json.loads((Path(f"{workdir}-2") / "bridge.json").read_text())
    assert second == first, "the same dense model, batches and seeds"
    starts_from_a_trained_model(launch, workdir)
    other = launch_here("bridge", f"--workdir={workdir / 'dense'}", f"--dense={workdir / 'dense'}", *TINY)
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "holds a run without bridges" in other.stderr
    takes_a_circuit_to_the_dense_model(launch, workdir)


def starts_from_a_trained_model(launch: Launch, workdir: Path) -> None:
    """With a learning rate of nearly nothing the sparse model stays what it was; it is the linear control too."""
    begun = Path(f"{workdir}-3")
    still = ("--config.optimizer.learning_rate=1e-12", "--config.train.log_every=1")
    flags = (f"--workdir={begun}", f"--dense={workdir / 'dense'}", *TINY, *still)
    done = launch("bridge", *flags, f"--config.bridge.init_from={workdir}")
    assert done.returncode == 0, done.stderr
    before, after = (flatten(load_params(place, configs.load(workdir).model)[0]) for place in (workdir, begun))
    for path, leaf in before.items():
        np.testing.assert_allclose(after[path], leaf, atol=1e-8, err_msg="/".join(path))
    assert json.loads((begun / "bridge.json").read_text())["bridges"][0]["linear"] is not None
    densities = [json.loads(line)["density"] for line in (begun / "metrics.jsonl").read_text().splitlines()]
    assert densities[1:] == [0.25] * 3  # of four steps; the first is the one that annealing begins at
    unknown = launch_here("bridge", *flags, "--config.bridge.init_from=nothing")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert "--config.bridge.init_from=nothing: no workdir" in unknown.stderr


def takes_a_circuit_to_the_dense_model(launch: Launch, workdir: Path) -> None:
    """launch.steer, without a circuit of one task and with one of three nodes; the report reads what it writes."""
    c, task = configs.load(workdir), "single_double_quote"
    circuit = Circuit(
        task=task,
        params_sha256=json.loads((workdir / "manifest.json").read_text())["params_sha256"],
        ablation="mean",
        norm="live",
        target_loss=0.15,
        scale=1.0,
        shift=(),
        edge_pruned=False,
        nodes=(Node(0, "attn_in", 3), Node(0, "mlp_in", 5), Node(0, "mlp_out", 7)),
        edges=(),
        metrics={"nodes": 3, "edges": 0, "task_loss": 0.1},
        values=empty(c.model),
    )
    circuit.save(workdir / "circuits" / "for_while+else_elif")  # shared by two tasks: not one to steer
    none = launch_here("steer", f"--workdir={workdir}")
    assert (none.returncode, none.stderr.count("\n")) == (2, 1)
    assert "no circuits; python -m launch.prune" in none.stderr
    shutil.rmtree(workdir / "circuits")
    circuit.save(workdir / "circuits" / task)
    done = launch("steer", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    head, losses, place = done.stdout.splitlines()
    assert head.startswith(f"{task}: node 0.")
    assert "without the circuit's image" in losses
    assert "without random images" in losses
    assert place == f"  -> {workdir / 'circuits' / task}"
    (held,) = read_workdir(workdir).circuits
    assert held.steering is not None
    assert {(each.site, each.channel) for each in held.steering.candidates} == {("attn_in", 3), ("mlp_in", 5)}
    assert held.steering.pairs == 64
    assert held.transport is not None
    assert [(each.sparse, each.rank) for each in held.transport.boundaries] == [(0, 1), (1, 1), (2, 1)]
    assert len(held.transport.random) == 20


@pytest.fixture
def untrained(dense: DenseModel, tmp_path: Path) -> Path:
    """The workdir of a dense model that fits TINY, with a tokenizer but without a checkpoint."""
    c = configs.replace(dense.config, {"model.vocab_size": 512, "model.context": 64})
    write_json(tmp_path / "dense" / "config.json", configs.to_dict(c))
    train_tokenizer(idioms.documents(0, 0, 200), 512).save(tmp_path / "dense" / "tokenizer")
    return tmp_path / "dense"


@pytest.mark.slow
def test_a_dense_model_that_cannot_be_used(untrained: Path, workdir: Path) -> None:
    """One line and exit code 2, before anything is written: no checkpoint; then a tokenizer that is not its own."""

    def refused(*extra: str) -> str:
        done = launch_here("bridge", f"--workdir={workdir}", f"--dense={untrained}", *TINY, *extra)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert not workdir.exists()
        return done.stderr

    assert "no checkpoints; train or import" in refused()
    save_params(untrained, step.make_state(configs.load(untrained)).params)
    train_tokenizer(idioms.documents(1, 0, 200), 512).save(untrained.parent / "other")
    assert "is not that of the dense model" in refused(f"--config.data.tokenizer={untrained.parent / 'other'}")
