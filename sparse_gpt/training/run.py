"""A whole training run as one call: corpus, tokenizer, batches, loop."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from sparse_gpt import config as configs
from sparse_gpt import estimate
from sparse_gpt.arrays import npy_shape, read_npy
from sparse_gpt.config import Config
from sparse_gpt.data import Corpus, Tokenizer, corpus_from_config
from sparse_gpt.data.cleaning import Rule
from sparse_gpt.errors import InputError
from sparse_gpt.folders import Snapshot
from sparse_gpt.parameters import Params
from sparse_gpt.records import Manifest
from sparse_gpt.training import claim, distributed, loop, schedules, sharding
from sparse_gpt.training.objective import Objective


# More than six parameters: those of loop.train that a caller may want, a rule and a check.
def train_on_corpus(
    config: Config,
    workdir: Path,
    *,
    rule: Rule | None = None,
    init_from: Params | None = None,
    at_step: loop.AtStep | None = None,
    progress: bool = True,
    objective: Objective | None = None,
    facts: Mapping[str, object] | None = None,
    check_tokenizer: Callable[[Tokenizer], None] | None = None,
) -> loop.Result:
    """Prepares (or opens) the corpus, writes the tokenizer into the workdir, and trains or resumes.

    Args:
      config: validated.
      workdir: see loop.train; additionally receives corpus/ (unless config.data.corpus names one) and tokenizer/.
      rule: documents to leave out of the corpus (those with held-out samples of tasks).
      init_from, at_step, progress, objective, facts: see loop.train.
      check_tokenizer: of a run that begins, called with the corpus's tokenizer; raises InputError if it is not that of
        `init_from`.

    Raises:
      InputError: as loop.train, `check_tokenizer` and `data.prepare_corpus`; also, before anything is written, if this
        machine is too small for the run; or if the run in the workdir has begun on another corpus (the same one may
        have moved).
    """
    configs.check_trainable(config)  # before anything is written, like the next three
    mesh = sharding.make_mesh(config)
    estimate.check_here(config)
    estimate.check_corpus(config, workdir)
    with distributed.writing(workdir):
        before = Snapshot(workdir)
        corpus = prepared_corpus(config, workdir, rule, progress=progress)
        facts = {**(facts or {}), "corpus_sha256": corpus.sha256, "tokenizer_sha256": corpus.tokenizer.sha256}

        def check() -> None:
            with before.restore_if_refused():  # takes away a corpus that was prepared for this call alone
                claim.check_corpus(workdir, corpus.folder, corpus.sha256)
                if check_tokenizer and not claim.has_begun(workdir):
                    check_tokenizer(corpus.tokenizer)

        distributed.first_does(check)
        with claim.leave_as_found(workdir, before):
            batches = corpus_batches(config, corpus, mesh)
            distributed.first_does(lambda: corpus.tokenizer.save(workdir / "tokenizer"))
            return loop.train(
                config,
                workdir,
                batches,
                init_from=init_from,
                facts=facts,
                at_step=at_step,
                progress=progress,
                mesh=mesh,
                objective=objective,
            )


def prepared_corpus(config: Config, workdir: Path, rule: Rule | None = None, *, progress: bool = True) -> Corpus:
    """The corpus of a run, which process 0 prepares while the others wait. Arguments and errors as in
    `train_on_corpus`; a preparation that fails is not undone where the same command can go on with it."""
    corpora: list[Corpus] = []

    def prepare() -> None:
        claim.check_workdir(config, workdir)
        corpora.append(opened())

    def opened() -> Corpus:
        shown = progress and distributed.is_first()
        return corpus_from_config(config.data, config.model.vocab_size, workdir / "corpus", rule, shown)

    with distributed.writing(workdir):
        distributed.first_does(prepare)
    return corpora[0] if corpora else opened()


def corpus_batches(config: Config, corpus: Corpus, mesh: Mesh) -> loop.Batches:
    """Training batches by step, and the first config.train.eval_batches validation batches: this process's rows."""
    seed, rows, context = config.data.seed, config.train.batch_size, config.model.context
    part = index, count = sharding.row_block(mesh, rows)

    def train(start: int) -> Iterator[np.ndarray]:
        return corpus.loader("train", seed, rows, context, start, part)

    validation = [corpus.batch("validation", seed, s, rows, context) for s in range(config.train.eval_batches)]
    return loop.Batches(train, [np.split(batch, count)[index] for batch in validation])


def read_batches(path: Path, config: Config) -> np.ndarray:
    """Given batches: int32 (steps, batch, time + 1) from an .npy file, one per optimizer step.

    Raises:
      InputError: not such an array, ids outside the vocabulary, longer than the context, or too few for the run.
    """
    tokens = read_npy(path, f"--batches={path}")
    if tokens.ndim != 3 or not np.issubdtype(tokens.dtype, np.integer) or tokens.size == 0:
        raise InputError(f"--batches={path}: {tokens.dtype} {tokens.shape}; expected integers (steps, batch, time + 1)")
    if tokens.min() < 0 or tokens.max() >= config.model.vocab_size:
        raise InputError(
            f"--batches={path}: ids {tokens.min()} to {tokens.max()}; model.vocab_size is {config.model.vocab_size}"
        )
    if tokens.shape[2] < 2 or tokens.shape[2] - 1 > config.model.context:
        raise InputError(
            f"--batches={path}: rows of {tokens.shape[2]} tokens; need 2 to context + 1 = {config.model.context + 1}"
        )
    need = schedules.iterations(config)
    if len(tokens) < need:
        raise InputError(f"--batches={path}: {len(tokens)} batches, the run needs {need}; lower --config.train.steps")
    return tokens.astype(np.int32)


def fit_to_batches(config: Config, path: Path, keep_steps: bool = False) -> Config:
    """The configuration with the batch size of an array of batches and, unless they are to be kept, as many steps as it
    has batches for. InputError if the file holds no such array."""
    shape = npy_shape(path, f"--batches={path}")
    if len(shape) != 3:
        raise InputError(f"--batches={path}: shape {shape}; expected (steps, batch, time + 1)")
    extra = config.optimizer.recipe == "openai_reference"  # it takes steps + 1 iterations
    steps = config.train.steps if keep_steps else shape[0] - extra
    train = dataclasses.replace(config.train, steps=steps, batch_size=shape[1])
    return configs.validate(dataclasses.replace(config, train=train))


def given_batches(tokens: np.ndarray, mesh: Mesh) -> loop.Batches:
    """Batches from an array, this process's rows of them; the first one also stands in for validation."""
    index, count = sharding.row_block(mesh, tokens.shape[1])
    tokens = np.split(tokens, count, axis=1)[index]
    return loop.Batches(lambda start: iter(tokens[start:]), [tokens[0]])


def describe(result: loop.Result, manifest: Manifest) -> str:
    """One paragraph for a person."""
    if result.interrupted:
        return f"interrupted after {result.step} steps; saved. The same command resumes."
    kept = sum((manifest.nonzeros or {}).values())
    return f"trained {result.step} steps; {kept:,} nonzero parameters; params_sha256 {manifest.params_sha256}"
