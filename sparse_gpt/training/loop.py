"""The training loop: everything with a side effect (files, clock, signals, progress) around the pure step.

Where the starting point comes from, in this order:
  1. resume: the newest readable checkpoint of the workdir;
  2. init_from: given parameters, fresh moments, step 0;
  3. scratch: config.train.seed.
Batch s is a pure function of the corpus, the data seed and s, so resuming needs nothing but the step.

The same loop runs on one device, on a mesh of them, and as one of several processes, where process 0 writes the files.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from sparse_gpt import estimate, interruption
from sparse_gpt.config import Config, check_trainable
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree
from sparse_gpt.parameters import Params, abstract_params, flatten
from sparse_gpt.progress import ProgressBar, compiling
from sparse_gpt.training import distributed, manifest, revival, schedules, sharding, step
from sparse_gpt.training.checkpoint import Checkpoints, full_disk
from sparse_gpt.training.claim import claim_workdir, follow_corpus, has_begun, leave_as_found
from sparse_gpt.training.metrics_log import MetricsLog
from sparse_gpt.training.objective import Advance, LanguageModel, Objective
from sparse_gpt.training.step import TrainState


class NonFiniteLossError(InputError):
    """The loss became NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class Batches:
    """Where tokens come from: int32 arrays (rows, context + 1), the rows of the batch that this process holds (all of
    them when it is the only one, see sharding.row_block). All have the same shape; given rows may be shorter."""

    train: Callable[[int], Iterator[np.ndarray]]  # batches from a given step on
    validation: list[np.ndarray]  # fixed batches, at least one

    @property
    def row(self) -> int:
        """Tokens of a row, the last of which is only a target."""
        return self.validation[0].shape[1]


AtStep = Callable[[int, Params], None]


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended: `step` steps are done; `interrupted` by a signal (resumable) or complete. Parameters are whole
    numpy arrays."""

    params: Params
    step: int
    interrupted: bool


# More than six parameters: each optional one replaces one part of the loop, and no two of them go together elsewhere.
def train(
    config: Config,
    workdir: Path,
    batches: Batches,
    *,
    init_from: Params | None = None,
    facts: Mapping[str, object] | None = None,
    at_step: AtStep | None = None,
    progress: bool = True,
    mesh: Mesh | None = None,
    objective: Objective | None = None,
) -> Result:
    """Trains to the end, or until a signal (see interruption.py), when it saves and returns with `interrupted` set.

    What it refuses before the first step leaves the workdir as it was.

    Args:
      config: validated.
      workdir: receives config.json, manifest.json, metrics.jsonl, checkpoints/ and tensorboard/.
      batches: training and validation tokens.
      init_from: initial parameters; used only when there is nothing to resume.
      facts: further entries of the manifest (corpus and tokenizer hashes).
      at_step: called with (finished steps, params) at the start, which is 0 or what the run resumes after, and after
        every step; must not keep the params (they are donated).
      progress: whether to show a bar.
      mesh: devices to run on, with the axes of sharding.AXES; default: config.train.mesh over all of them.
      objective: what is trained; default: a language model.

    Raises:
      InputError: AbsTopK would keep no channel, the workdir belongs to another configuration or another process is
        writing to it, the mesh does not fit, this machine is too small, the disk is full, the checkpoints are all
        damaged or of another model.
      NonFiniteLossError: names the window of steps; the last good checkpoint stays.
      interruption.Interrupted: a signal came when there was nothing to save.
    """
    check_trainable(config)
    mesh = sharding.make_mesh(config) if mesh is None else mesh
    estimate.check_here(config)
    objective = LanguageModel(config, sharding.spread(mesh), batches.row) if objective is None else objective
    progress = progress and distributed.is_first()
    with distributed.writing(workdir), leave_as_found(workdir), full_disk(workdir):
        distributed.first_does(lambda: _claim(config, workdir, facts or {}))
        with Checkpoints(workdir, config.train.keep_last, config.train.keep_every, config) as checkpoints:
            fresh = functools.partial(_fresh_state, config, batches, init_from, objective)
            start, state, advance = _ready(config, checkpoints, fresh, objective, progress)
            run = Run(config, batches, checkpoints, objective, advance, sharding.spread(mesh), at_step)
            with interruption.deferred(functools.partial(patience, run)):
                result = _run(run, workdir, start, state, progress)
                checkpoints.wait()
        if not result.interrupted:
            if distributed.is_first():
                manifest.update(workdir, _ending(result))
            interruption.check()  # a signal after the last step
    return result


def _claim(config: Config, workdir: Path, facts: Mapping[str, object]) -> None:
    """Makes the workdir this run's, and writes what the manifest says of a run that begins."""
    claim_workdir(config, workdir)
    if "corpus_sha256" in facts:  # not of given batches: they are of no corpus
        follow_corpus(config, workdir)
    if has_begun(workdir) and (note := manifest.other_machine(workdir)):
        tqdm.write(note)
    seeds = {"train": config.train.seed, "data": config.data.seed}
    manifest.update(workdir, manifest.describe({"seeds": seeds, **facts}).tree())


def _ending(result: Result) -> Tree:
    """What the manifest says of a finished run."""
    counts, sha256 = manifest.nonzeros(result.params), manifest.params_sha256(result.params)
    return {"params_sha256": sha256, "step": result.step, "nonzeros": counts}


# ---------------------------------------------------------------------------------------------------------------------
# Where a run starts


def _ready(
    config: Config, checkpoints: Checkpoints, fresh: Callable[[], TrainState], objective: Objective, progress: bool
) -> tuple[int, TrainState, Advance]:
    """(finished steps, state, compiled step). The step compiles while the state is made or read."""
    steps = checkpoints.steps()
    if steps and steps[-1] >= schedules.iterations(config):  # nothing is left to do
        return *_starting_point(checkpoints, fresh, objective), lambda *args: objective.compile_step()(*args)
    with ThreadPoolExecutor(1) as pool:
        compiled = pool.submit(objective.compile_step)
        start, state = _starting_point(checkpoints, fresh, objective)
        with compiling("the train step", progress):
            return start, state, compiled.result()


def _starting_point(
    checkpoints: Checkpoints, fresh: Callable[[], TrainState], objective: Objective
) -> tuple[int, TrainState]:
    """(finished steps, state), by the precedence at the top of this file."""
    abstract = objective.abstract_state()
    restored = checkpoints.restore_newest(abstract.params, abstract.optimizer)
    if restored is None:
        return 0, fresh()
    finished, params, moments, notes = restored
    for note in notes if distributed.is_first() else []:
        tqdm.write(note)
    return finished, TrainState(params, moments)


def _fresh_state(config: Config, batches: Batches, init_from: Params | None, objective: Objective) -> TrainState:
    """Where a run starts that has no checkpoint: given parameters, or those of its seed."""
    state = objective.make_state()
    if init_from is not None:
        check_params(config, init_from)
        params = jax.tree.map(
            lambda new, old: jax.device_put(np.asarray(new, np.float32), old.sharding), init_from, state.params
        )
        return TrainState(params, state.optimizer)
    return state


def check_params(config: Config, params: Params) -> None:
    """InputError unless `params` has exactly the tensors and shapes of the configured model."""
    wanted, found = flatten(abstract_params(config.model)), flatten(params)
    for path in sorted(wanted.keys() ^ found.keys()):
        raise InputError(
            f"initial parameters: tensor {'/'.join(path)} is {'missing' if path in wanted else 'not in this model'}; "
            "train them with the preset, or the model fields, that they have"
        )
    for path, leaf in wanted.items():
        if leaf.shape != found[path].shape:
            raise InputError(
                f"initial parameters: {'/'.join(path)} has shape {found[path].shape}, expected {leaf.shape}; "
                "train them with the preset, or the model fields, that they have"
            )


# ---------------------------------------------------------------------------------------------------------------------
# From step to step


@dataclasses.dataclass
class Run:
    """What a run carries beside the trained state."""

    config: Config
    batches: Batches
    checkpoints: Checkpoints
    objective: Objective
    advance: Advance
    mesh: Mesh | None
    at_step: AtStep | None
    pending: list[tuple[int, Tree]] = dataclasses.field(default_factory=list)  # metrics not yet looked at
    newest: Tree = dataclasses.field(default_factory=dict)  # the last ones that were
    unsaved_since: float | None = None  # time.monotonic() of the first step that no checkpoint has


def _run(run: Run, workdir: Path, start: int, state: TrainState, progress: bool) -> Result:
    """The steps from `start` on, with their log and a bar."""
    total = schedules.iterations(run.config)
    if run.at_step:
        run.at_step(start, state.params)  # before anything is written, since it may refuse to go on
    tokens_per_step = run.config.train.batch_size * (run.batches.row - 1)
    with (
        MetricsLog(workdir, tokens_per_step, start) as log,
        ProgressBar(total=total, initial=start, unit="step", desc="train", disable=not progress) as bar,
    ):
        finished, state = _steps(run, start, state, log, bar)
    return Result(sharding.to_host(state.params), finished, finished < total)


def _steps(run: Run, start: int, state: TrainState, log: MetricsLog, bar: ProgressBar) -> tuple[int, TrainState]:
    """(finished steps, state) at the end, or after the step at which a signal asks to stop."""
    t, total = run.config.train, schedules.iterations(run.config)
    stream = run.batches.train(start)
    for s in range(start, total):
        settings = run.objective.settings(s)
        if revival.is_due(run.config, s):
            state = run.objective.revive(state, s)
        tokens = sharding.put_batch(run.mesh, t.batch_size, next(stream))
        state, metrics = run.advance(state, tokens, np.float32(settings.learning_rate), settings.keep)
        run.unsaved_since = run.unsaved_since or time.monotonic()
        run.pending.append((s, metrics))
        if run.at_step:
            run.at_step(s + 1, state.params)
        last = s + 1 == total
        if s % t.log_every == 0 or last:
            loss = _log(run, s, settings, state, log)
            bar.set_postfix_str(f"loss {loss:.3f}, density {settings.density:.3f}")
        bar.update()
        stop = _stops(run.config, s)
        if (s + 1) % t.checkpoint_every == 0 or last or stop:
            _check_finite(run)
            run.checkpoints.save(s + 1, state.params, state.optimizer)
            run.unsaved_since = None
        if stop:
            return s + 1, state
    return total, state


def _log(run: Run, s: int, settings: schedules.StepSettings, state: TrainState, log: MetricsLog) -> float:
    """Logs step s, evaluated where that is due; waits for the devices. Returns the loss."""
    due = _evaluates(run.config, s)
    evaluated = run.objective.evaluate(state, run.batches.validation) if due else {}
    nonzeros = step.nonzeros(state.params, run.mesh)
    metrics = _check_finite(run)
    log.write(s, settings, metrics, nonzeros, evaluated)
    return float(metrics["loss"])


def _evaluates(config: Config, s: int) -> bool:
    """Whether step s, which is logged, is followed by an evaluation."""
    every = math.ceil(config.train.eval_every / config.train.log_every) * config.train.log_every
    last = s + 1 == schedules.iterations(config)
    return (s % every == 0 and s > 0) or last  # untrained parameters tell nothing


def _check_finite(run: Run) -> Tree:
    """Fetches the metrics of all steps since the last look; raises if a loss was not finite. Returns the newest."""
    fetched = [(s, jax.device_get(metrics)) for s, metrics in run.pending]
    for s, metrics in fetched:
        if not np.isfinite(metrics["loss"]) or not np.isfinite(metrics["grad_rms"]):
            kept = run.checkpoints.steps()
            where = (
                f"the checkpoint of step {kept[-1]} is the last good one" if kept else "no checkpoint was written yet"
            )
            raise NonFiniteLossError(
                f"loss {metrics['loss']} and gradient RMS {metrics['grad_rms']} at step {s} (looking at steps "
                f"{fetched[0][0]} to {fetched[-1][0]}); {where}; lower --config.optimizer.learning_rate"
            )
    run.pending = []
    if fetched:
        run.newest = fetched[-1][1]
    return run.newest


def _stops(config: Config, s: int) -> bool:
    """Whether a signal asks to stop after step s. Several processes agree on it, but only at logged steps, where they
    wait for the devices anyhow."""
    if jax.process_count() == 1:
        return interruption.requested()
    return s % config.train.log_every == 0 and distributed.any_process(interruption.requested())


def patience(run: Run, at: float) -> float:
    """Seconds that a process asked to end at `at` waits for a checkpoint: as long as the work took that it would have.
    Several processes have to end together, and wait for each other."""
    if jax.process_count() > 1 or run.checkpoints.is_saving():
        return math.inf
    return at - run.unsaved_since if run.unsaved_since else 0.0
