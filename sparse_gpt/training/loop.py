"""The training loop: everything with a side effect (files, clock, signals, progress) around the pure step.

Where the starting point comes from, in this order:
  1. resume: the newest readable checkpoint of the workdir;
  2. init_from: given parameters, fresh moments, step 0;
  3. scratch: config.train.seed.
Batch s is a pure function of the corpus, the data seed and s, so resuming needs nothing but the step.

The same loop runs on one device, on a mesh of them, and as one of several processes, where process 0 writes the files.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tensorboardX import SummaryWriter
from tqdm import tqdm

from sparse_gpt import estimate, interruption
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.io import read_bytes, write_atomic
from sparse_gpt.parameters import Params, abstract_params, flatten
from sparse_gpt.progress import ProgressBar, compiling
from sparse_gpt.records import MetricsRow
from sparse_gpt.training import distributed, manifest, schedules, sharding, step
from sparse_gpt.training.checkpoint import Checkpoints, full_disk
from sparse_gpt.training.claim import claim_workdir, has_begun, leave_as_found
from sparse_gpt.training.evaluation import Evaluate, evaluation


class NonFiniteLossError(InputError):
    """The loss became NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class Batches:
    """Where tokens come from: int32 arrays (rows, context + 1), the rows of the batch that this process holds (all of
    them when it is the only one, see sharding.row_block)."""

    train: Callable[[int], Iterator[np.ndarray]]  # batches from a given step on
    validation: list[np.ndarray]  # fixed batches


Advance = Callable[..., tuple[step.TrainState, dict[str, jax.Array]]]


@dataclasses.dataclass(frozen=True)
class Program:
    """What the loop runs on the devices.

    Attributes:
      abstract_state: shapes, dtypes and (on a mesh) shardings of the state, without computing anything.
      make_state: a fresh state from config.train.seed.
      compile_step: ``advance(state, tokens, lr, keep) -> (state, metrics)``, compiled for states that lie as
        `abstract_state` says, see step.train_step; further metrics (numbers or vectors) are logged under their own
        names.
      evaluate: entries for metrics.jsonl from a state and the validation batches: val_loss, dead_neurons, …
    """

    abstract_state: Callable[[], step.TrainState]
    make_state: Callable[[], step.TrainState]
    compile_step: Callable[[], Advance]
    evaluate: Evaluate


MakeProgram = Callable[[Config, Mesh | None], Program]


def language_model(config: Config, mesh: Mesh | None) -> Program:
    """Training of a (sparse) language model; `mesh` is None on a single device."""

    def abstract_state() -> step.TrainState:
        state = step.abstract_state(config, mesh)
        return step.on_one_device(state) if mesh is None else state

    def compile_step() -> Advance:
        lowered = step.compile_step(config, mesh).lower(abstract_state(), *step.abstract_inputs(config))
        compiled: Advance = lowered.compile()
        return compiled

    return Program(abstract_state, lambda: step.make_state(config, mesh), compile_step, evaluation(config, mesh))


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended: `step` steps are done; `interrupted` by a signal (resumable) or complete. Parameters are whole
    numpy arrays."""

    params: Params
    step: int
    interrupted: bool


def train(
    config: Config,
    workdir: Path,
    batches: Batches,
    *,
    init_from: Params | None = None,
    facts: Mapping[str, Any] | None = None,
    at_step: Callable[[int, Params], None] | None = None,
    progress: bool = True,
    mesh: Mesh | None = None,
    make_program: MakeProgram = language_model,
) -> Result:
    """Trains to the end, or until a signal (see interruption.py), when it saves and returns with `interrupted` set.

    What it refuses before the first step leaves the workdir as it was.

    Args:
      config: validated.
      workdir: receives config.json, manifest.json, metrics.jsonl, checkpoints/ and tensorboard/.
      batches: training and validation tokens.
      init_from: initial parameters; used only when there is nothing to resume.
      facts: further entries of the manifest (corpus and tokenizer hashes).
      at_step: called with (finished steps, params) after every step; must not keep the params (they are donated).
      progress: whether to show a bar.
      mesh: devices to run on, with the axes of sharding.AXES; default: config.train.mesh over all of them.
      make_program: what is trained, and how.

    Raises:
      InputError: the workdir belongs to another configuration or another process is writing to it, the mesh does not
        fit, this machine is too small, the disk is full, the checkpoints are all damaged or of another model.
      NonFiniteLossError: names the window of steps; the last good checkpoint stays.
      interruption.Interrupted: a signal came when there was nothing to save.
    """
    mesh = sharding.make_mesh(config) if mesh is None else mesh
    estimate.check_here(config)
    devices = None if mesh.size == 1 else mesh  # one device needs no shardings
    seeds = {"seeds": {"train": config.train.seed, "data": config.data.seed}}

    def claim() -> None:
        claim_workdir(config, workdir)
        if has_begun(workdir) and (note := manifest.other_machine(workdir)):
            tqdm.write(note)
        manifest.update(workdir, manifest.describe({**seeds, **(facts or {})}).tree())

    with distributed.writing(workdir), leave_as_found(workdir), full_disk(workdir):
        distributed.first_does(claim)
        with Checkpoints(workdir, config.train.keep_last, config.train.keep_every, config) as checkpoints:
            program = make_program(config, devices)
            start, state, advance = _ready(config, checkpoints, init_from, program, progress)
            running = _Run(config, workdir, batches, checkpoints, at_step, progress, advance, program.evaluate, devices)
            with interruption.deferred(running.patience):
                result = running.run(start, state)
                checkpoints.wait()
        if not result.interrupted:
            if distributed.is_first():
                manifest.update(workdir, _ending(result))
            interruption.check()  # a signal after the last step
    return result


def _ending(result: Result) -> dict[str, Any]:
    """What the manifest says of a finished run."""
    counts, sha256 = manifest.nonzeros(result.params), manifest.params_sha256(result.params)
    return {"params_sha256": sha256, "step": result.step, "nonzeros": counts}


def _ready(
    config: Config,
    checkpoints: Checkpoints,
    init_from: Params | None,
    program: Program,
    progress: bool,
) -> tuple[int, step.TrainState, Advance]:
    """(finished steps, state, compiled step). The step compiles while the state is made or read."""
    steps = checkpoints.steps()
    if steps and steps[-1] >= schedules.iterations(config):  # nothing is left to do
        return *_starting_point(config, checkpoints, init_from, program), lambda *args: program.compile_step()(*args)
    with ThreadPoolExecutor(1) as pool:
        compiled = pool.submit(program.compile_step)
        start, state = _starting_point(config, checkpoints, init_from, program)
        with compiling("the train step", progress and distributed.is_first()):
            return start, state, compiled.result()


def _starting_point(
    config: Config, checkpoints: Checkpoints, init_from: Params | None, program: Program
) -> tuple[int, step.TrainState]:
    """(finished steps, state), by the precedence at the top of this file."""
    abstract = program.abstract_state()
    restored = checkpoints.restore_newest(abstract.params, abstract.optimizer)
    if restored is not None:
        finished, params, moments, notes = restored
        for note in notes if distributed.is_first() else []:
            tqdm.write(note)
        return finished, step.TrainState(params, moments)
    state = program.make_state()
    if init_from is not None:
        check_params(config, init_from)
        params = jax.tree.map(
            lambda new, old: jax.device_put(np.asarray(new, np.float32), old.sharding), init_from, state.params
        )
        return 0, step.TrainState(params, state.optimizer)
    return 0, state


def check_params(config: Config, params: Params) -> None:
    """InputError unless `params` has exactly the tensors and shapes of the configured model."""
    wanted, found = flatten(abstract_params(config.model)), flatten(params)
    for path in sorted(wanted.keys() ^ found.keys()):
        raise InputError(
            f"initial parameters: tensor {'/'.join(path)} is {'missing' if path in wanted else 'not in this model'}"
        )
    for path, leaf in wanted.items():
        if leaf.shape != found[path].shape:
            raise InputError(
                f"initial parameters: {'/'.join(path)} has shape {found[path].shape}, expected {leaf.shape}"
            )


class _Run:
    """State of one run of the loop that is not part of the trained state."""

    def __init__(
        self,
        config: Config,
        workdir: Path,
        batches: Batches,
        checkpoints: Checkpoints,
        at_step: Callable[[int, Params], None] | None,
        progress: bool,
        advance: Advance,
        evaluate: Evaluate,
        mesh: Mesh | None,
    ):
        self.config, self.batches, self.checkpoints = config, batches, checkpoints
        self.at_step, self.mesh = at_step, mesh
        self.writes = distributed.is_first()
        self.progress = progress and self.writes
        self.metrics_path = workdir / "metrics.jsonl"
        self.tensorboard = SummaryWriter(str(workdir / "tensorboard")) if self.writes else None
        self.advance, self.evaluate = advance, evaluate
        self.pending: list[tuple[int, dict[str, Any]]] = []  # device metrics of steps not yet looked at
        self.dead_neurons: int | None = None
        self.unsaved_since: float | None = None  # time.monotonic() of the first step that no checkpoint has

    def run(self, start: int, state: step.TrainState) -> Result:
        total = schedules.iterations(self.config)
        if self.writes:
            self._forget_metrics_after(start)
        bar = ProgressBar(total=total, initial=start, unit="step", desc="train", disable=not self.progress)
        try:
            finished, state = self._steps(start, total, state, bar)
        finally:
            bar.close()
            if self.tensorboard:
                self.tensorboard.close()
        return Result(sharding.to_host(state.params), finished, finished < total)

    def _steps(self, start: int, total: int, state: step.TrainState, bar: Any) -> tuple[int, step.TrainState]:
        t = self.config.train
        stream = self.batches.train(start)
        self.mark, self.marked_step = time.perf_counter(), start
        for s in range(start, total):
            told = schedules.settings(self.config, s)
            tokens = sharding.put_batch(self.mesh, t.batch_size, next(stream))
            state, metrics = self.advance(state, tokens, np.float32(told.learning_rate), told.keep)
            self.unsaved_since = self.unsaved_since or time.monotonic()
            self.pending.append((s, metrics))
            if self.at_step:
                self.at_step(s + 1, state.params)
            last = s + 1 == total
            if s % t.log_every == 0 or last:
                evaluates = self._evaluates(s, total)
                evaluated = self.evaluate(state, self.batches.validation) if evaluates else {}
                self._log(s, told, step.nonzeros(state.params, self.mesh), evaluated, bar)
            bar.update()
            stop = self._stops(s)
            if (s + 1) % t.checkpoint_every == 0 or last or stop:
                self._check_finite()
                self.checkpoints.save(s + 1, state.params, state.optimizer)
                self.unsaved_since = None
            if stop:
                return s + 1, state
        return total, state

    def _stops(self, s: int) -> bool:
        """Whether a signal asks to stop after step s. Several processes agree on it, but only at logged steps, where
        they wait for the devices anyhow."""
        if jax.process_count() == 1:
            return interruption.requested()
        return s % self.config.train.log_every == 0 and distributed.any_process(interruption.requested())

    def patience(self, at: float) -> float:
        """Seconds that a process told to end at `at` waits for a checkpoint: as long as the work took that it would
        have. Several processes have to end together, and wait for each other."""
        if jax.process_count() > 1:
            return math.inf
        if self.checkpoints.is_saving():
            return math.inf
        return at - self.unsaved_since if self.unsaved_since else 0.0

    def _evaluates(self, s: int, total: int) -> bool:
        every = math.ceil(self.config.train.eval_every / self.config.train.log_every) * self.config.train.log_every
        return (s % every == 0 and s > 0) or s + 1 == total  # untrained parameters tell nothing

    def _log(
        self, s: int, told: schedules.StepSettings, nonzeros: dict[str, int], evaluated: dict[str, Any], bar: Any
    ) -> None:
        newest = self._check_finite()
        now, tokens_per_step = time.perf_counter(), self.config.train.batch_size * self.config.model.context
        entry = {
            "step": s,
            "tokens": (s + 1) * tokens_per_step,
            "loss": float(newest["loss"]),
            "lr": told.learning_rate,
            "density": told.density,
            "grad_rms": float(newest["grad_rms"]),
            "tokens_per_second": (s + 1 - self.marked_step) * tokens_per_step / max(now - self.mark, 1e-9),
            "nonzeros": nonzeros,
        }
        entry |= {name: _plain(newest[name]) for name in sorted(newest.keys() - {"loss", "grad_rms"})}
        self.dead_neurons = evaluated.get("dead_neurons", self.dead_neurons)
        entry |= {**{name: _plain(value) for name, value in evaluated.items()}, "dead_neurons": self.dead_neurons}
        self.mark, self.marked_step = time.perf_counter(), s + 1
        if self.tensorboard is None:
            return
        with self.metrics_path.open("a") as file:
            file.write(_line(MetricsRow.from_tree(entry)))
        for name, value in entry.items():
            if isinstance(value, int | float) and name != "step":
                self.tensorboard.add_scalar(name, value, s)
        bar.set_postfix_str(f"loss {entry['loss']:.3f}, density {told.density:.3f}")

    def _check_finite(self) -> dict[str, Any]:
        """Fetches the metrics of all steps since the last look; raises if a loss was not finite. Returns the newest."""
        fetched = [(s, jax.device_get(metrics)) for s, metrics in self.pending]
        for s, metrics in fetched:
            if not np.isfinite(metrics["loss"]) or not np.isfinite(metrics["grad_rms"]):
                kept = self.checkpoints.steps()
                where = (
                    f"the checkpoint of step {kept[-1]} is the last good one"
                    if kept
                    else "no checkpoint was written yet"
                )
                raise NonFiniteLossError(
                    f"loss {metrics['loss']} and gradient RMS {metrics['grad_rms']} at step {s} (looking at steps "
                    f"{fetched[0][0]} to {fetched[-1][0]}); {where}; lower --config.optimizer.learning_rate"
                )
        self.pending = []
        if fetched:
            self.newest = fetched[-1][1]
        return self.newest

    def _forget_metrics_after(self, start: int) -> None:
        """Drops log lines of steps that will be done again, and a line cut short by a kill."""
        if not self.metrics_path.is_file():
            return
        kept, dropped = [], 0
        lines = read_bytes(self.metrics_path).split(b"\n")
        for number, line in enumerate(lines, start=1):
            try:
                row = MetricsRow.parse(line, f"{self.metrics_path}: line {number}")
            except InputError:
                dropped += number < len(lines)  # what is after the last line break was cut short by a kill
                continue
            if row.step < start:
                kept.append(_line(row))
                self.dead_neurons = row.dead_neurons
        if dropped:
            tqdm.write(f"{self.metrics_path}: {dropped} damaged lines are left out")
        write_atomic(self.metrics_path, "".join(kept).encode())


def _line(row: MetricsRow) -> str:
    """As it stands in metrics.jsonl."""
    return json.dumps(row.tree(), allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """A number or a list of numbers as JSON has them; None for what was not measured (NaN) or is infinite."""
    listed = np.asarray(value, np.float64).tolist()
    if isinstance(listed, list):
        return [_plain(number) for number in listed]
    return listed if math.isfinite(listed) else None
