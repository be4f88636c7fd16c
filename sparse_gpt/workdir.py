"""A workdir opened for looking around: what notebooks and scripts need of a trained or imported model."""

import dataclasses
import functools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sparse_gpt import config as configs
from sparse_gpt import records
from sparse_gpt.circuits import (
    FoundCircuit,
    Node,
    Problem,
    TaskSamples,
    find_circuit,
    pretraining_means,
    storage,
)
from sparse_gpt.circuits.circuit import Circuit, load
from sparse_gpt.circuits.evidence.card import card
from sparse_gpt.circuits.evidence.formation import Moment, formation
from sparse_gpt.circuits.evidence.max_activating import contexts
from sparse_gpt.circuits.nodes import GateArrays
from sparse_gpt.circuits.pipeline import search_again
from sparse_gpt.circuits.problem import LoadedModel
from sparse_gpt.circuits.run.ablation_values import RESAMPLED, pretraining_draws
from sparse_gpt.circuits.run.samples import FamilySamples, mixture
from sparse_gpt.circuits.run.task_batch import TaskBatch, rows
from sparse_gpt.circuits.run.wild import MOST, dealt_out, in_pairs, natural_samples, one_decision
from sparse_gpt.circuits.search.fresh import CHECKS, FRESH
from sparse_gpt.circuits.solved import full_task_loss
from sparse_gpt.config import Config
from sparse_gpt.data import Corpus, Tokenizer, corpus_folder
from sparse_gpt.errors import InputError
from sparse_gpt.model import Params, Transformer, build_exact
from sparse_gpt.records import Contexts
from sparse_gpt.training.checkpoint import kept_steps, load_params
from sparse_gpt.training.manifest import params_sha256

BATCH_SIZE = 32  # windows of tokens
MEAN_BATCHES = 16  # of them behind mean and resample ablation
WILD_BATCHES = 256  # of validation text in which a task's decision is sought
NATURAL_BATCHES = 1024  # of training text in which it is sought for the search
NATURAL_PAIRS = 32  # that a search on natural text needs at least
CONTEXT_BATCHES = 12  # of them in which the nodes' strongest contexts are sought


class Workdir:
    """The newest parameters of a workdir and what belongs to them; parts are read when first asked for.

    Raises InputError, here or then, naming what the folder lacks.
    """

    def __init__(self, folder: str | Path, config: Config | None = None):
        """`config` replaces the stored one; it must describe the same model."""
        self.folder = Path(folder).expanduser().absolute()
        self.config = config or configs.load(self.folder)

    def at_step(self, step: int) -> "Workdir":
        """The same run with the weights of another of its kept checkpoints. InputError if it cannot be read."""
        other = Workdir(self.folder, self.config)
        other.__dict__["params"] = load_params(self.folder, self.config.model, step)[0]
        return other

    @functools.cached_property
    def params(self) -> Params:
        """Nested dict of float32 numpy arrays."""
        return load_params(self.folder, self.config.model)[0]

    @functools.cached_property
    def params_sha256(self) -> str:
        """Fingerprint of the parameters, as in manifest.json."""
        return params_sha256(self.params)

    @functools.cached_property
    def model(self) -> Transformer:
        """``model.apply({"params": params}, tokens, tap=...)`` gives logits; in float32, whatever training used."""
        return build_exact(self.config)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer the model was trained with."""
        return Tokenizer.load(self.folder / "tokenizer")

    @functools.cached_property
    def corpus(self) -> Corpus:
        """The corpus the model was trained on, or that config.data.corpus names."""
        return Corpus.open(corpus_folder(self.folder, self.config))

    def token_text(self, token: int) -> str:
        """Text of one token id; bytes that are only a part of a character stand as ``<E2>``."""
        return self.tokenizer.token_text(token)

    def node_means(self) -> GateArrays:
        """Mean activation of every node over training text: site -> (n_layer, width)."""
        return pretraining_means(self.model, self.params, self.text("train", MEAN_BATCHES))

    def pretraining_activations(self) -> GateArrays | None:
        """What prune.ablation takes from training text: means, draws, see ablation_values.py, or None."""
        prune = self.config.prune
        if prune.ablation != "resample":
            return self.node_means() if prune.ablation == "mean" else None
        count = 1 + RESAMPLED + prune.random_draws
        return pretraining_draws(self.model, self.params, self.text("train", MEAN_BATCHES), count, prune.seed)

    def search_circuit(
        self, samples: TaskSamples, activations: GateArrays | None, *, progress: bool = True
    ) -> FoundCircuit:
        """Searches the circuit that samples ask for, and puts it with its nodes' contexts into circuits/TASK/.

        Args:
            samples: of a task, or of several that are to share one circuit.
            activations: from `pretraining_activations`.
            progress: whether to show bars.

        Raises:
            InputError: as `Problem.build` and `find_circuit`.
        """
        problem = Problem.build(self, self.with_natural(samples), activations)
        unfinished = self.folder / "searches" / problem.task
        found = find_circuit(problem, unfinished=unfinished, progress=progress)
        found = dataclasses.replace(found, contexts=self.contexts(found.circuit.nodes))
        storage.finish(found, unfinished, self.folder / "circuits" / problem.task)
        return found

    def judge_circuit(
        self, samples: TaskSamples, rows: Sequence[str] | None = None, *, progress: bool = True
    ) -> records.Card:
        """Measures rows of the report card of the circuit in circuits/TASK/, and writes card.json beside it; rows that
        an older card of the same circuit has are kept.

        Args:
            samples: of its task, or of the several that share it, under the configuration's `prune` group.
            rows: their names; default: the cheap ones.
            progress: whether to show a bar.

        Raises:
            InputError: there is no such circuit, it belongs to other weights, or a row is unknown.
        """
        names = card.rows_of("cheap") if rows is None else card.select_rows(rows)
        folder = self.folder / "circuits" / "+".join(samples.names)
        circuit = load(folder, self.params_sha256, self.config.model)
        drawn = circuit.ablation == "resample"  # its one set of values stands in circuit.values
        config = searched_under(self.config, circuit)
        prune = dataclasses.replace(config.prune, ablation="mean") if drawn else config.prune
        model = LoadedModel(dataclasses.replace(config, prune=prune), self.params, self.params_sha256, self.token_text)
        problem = Problem.build(model, self.with_natural(samples), circuit.values)
        find = None if drawn else search_again
        with tqdm(desc="card", bar_format="{desc} [{elapsed}]{postfix}", disable=not progress) as bar:
            new = card.judge(problem, circuit, names, find=find, report=bar.set_postfix_str)
        found = card.merged(card.read(folder / "card.json"), new)
        found.write(folder / "card.json")
        return found

    def formation(self, samples: TaskSamples, *, progress: bool = True) -> records.Formation:
        """Searches the circuits of earlier checkpoints that led to the one in circuits/TASK/, and writes formation.json
        beside it; a call that was interrupted goes on.

        Args:
            samples: of its task, or of the several that share it, under the configuration's `prune` group.
            progress: whether to show a bar.

        Raises:
            InputError: there is no such circuit, it belongs to other weights, or no earlier checkpoint was kept.
        """
        name = "+".join(samples.names)
        folder, unfinished = self.folder / "circuits" / name, self.folder / "searches" / f"{name}.formation"
        circuit, steps = load(folder, self.params_sha256, self.config.model), kept_steps(self.folder)
        if len(steps) < 2:
            raise InputError(
                f"{self.folder / 'checkpoints'}: step {steps[0]} alone is kept; train with --config.train.keep_every=N "
                "(a multiple of train.checkpoint_every) to keep earlier ones too"
            )

        searched = Workdir(self.folder, searched_under(self.config, circuit))
        samples = self.with_natural(samples) if samples.natural else samples

        def problem(step: int) -> Problem:
            run = searched.at_step(step)
            return Problem.build(run, samples, run.pretraining_activations())

        tokens = self.config.train.batch_size * self.config.model.context
        moments = [Moment(step, step * tokens, functools.partial(problem, step)) for step in steps]
        found = formation(moments, circuit, unfinished, progress=progress)
        found.write(folder / "formation.json")
        shutil.rmtree(unfinished)
        return found

    def with_natural(self, samples: TaskSamples) -> TaskSamples:
        """Samples with what validation text has of their task's decision, to be judged by; and, where `samples.natural`
        asks for it, with one more family to be searched on: what training text has of it.

        That is left out, and said why, where samples do not all decide between the same two tokens, where there is no
        training text, or fewer than NATURAL_PAIRS pairs in it, and where the model cannot do them.
        """
        samples = dataclasses.replace(samples, wild=self.natural_samples(samples.train))
        name = samples.natural
        if not name:
            return samples
        try:
            family = self._natural_family(samples)
        except InputError as error:
            print(f"task {samples.names[0]}: family {name} is left out: {error}")
            return samples
        loss, target = full_task_loss(self.config, self.params, family.validation), self.config.prune.target_loss
        if not loss <= target:
            print(f"task {samples.names[0]}: family {name} is left out: the model has {loss:.3g}, above {target:g}")
            return samples
        return mixture(samples, {**samples.families, name: family})

    def _natural_family(self, samples: TaskSamples) -> FamilySamples:
        """From training text, as many pairs as the other families have, used again where text has fewer; each in one
        of the three splits, and of training samples in one of the selection's and those of each check on fresh ones.
        InputError as `_occurrences`, and where text has too few."""
        (like, *_) = samples.families.values()
        found = self._occurrences(samples.train, NATURAL_BATCHES, 2 * MOST, "train")
        pairs = None if found is None else in_pairs(found, self.config.prune.seed)
        if pairs is None or len(pairs.positions) < 2 * NATURAL_PAIRS:
            raise InputError("text has too few of its decisions")
        part = len(pairs.positions) // 8 * 2  # rows of a quarter of the pairs
        validation = _as_many(rows(pairs, slice(part)), like.validation)
        heldout = _as_many(rows(pairs, slice(part, 2 * part)), like.heldout)
        # How much the selection takes of them is the same whatever the training samples are.
        others = like._replace(validation=validation, heldout=heldout)
        taken, every = mixture(samples, {**samples.families, samples.natural: others}), len(samples.families) + 1
        ends = [(taken.further + FRESH * check) // (2 * every) for check in range(CHECKS + 1)]
        train = dealt_out(rows(pairs, slice(2 * part, None)), len(like.train.positions) // 2, ends)
        return FamilySamples(train, validation, heldout)

    def natural_samples(
        self, train: TaskBatch, batches: int = WILD_BATCHES, most: int = MOST, split: str = "validation"
    ) -> TaskBatch | None:
        """Occurrences of a task's decision in text, see `wild.natural_samples`. None where samples do not all decide
        between the same two tokens, and where the workdir has no such text.

        Args:
            train: samples of the task.
            batches: of text to look through.
            most: samples.
            split: of the corpus.
        """
        try:
            return self._occurrences(train, batches, most, split)
        except InputError:  # of text it is said where contexts are made
            return None

    def _occurrences(self, train: TaskBatch, batches: int, most: int, split: str) -> TaskBatch | None:
        """`natural_samples`, with an InputError that says why they cannot be sought; None where none is found."""
        tokens = one_decision(train)
        if tokens is None:
            raise InputError("its samples do not all decide between the same two tokens")
        windows = self.text(split, batches, once=True)
        return natural_samples(self.model, self.params, windows, tokens, most)

    def contexts(self, nodes: Sequence[Node]) -> Contexts | None:
        """Text in which nodes have their largest and smallest values. None, and said, where
        the workdir has no text."""
        try:
            windows = self.text("validation", CONTEXT_BATCHES, once=True)
        except InputError as error:
            print(f"no contexts of the circuit's nodes: {error}")
            return None
        return contexts(self.model, self.params, nodes, windows, "validation", self.token_text)

    def text(self, split: str, batches: int, once: bool = False) -> Iterator[np.ndarray]:
        """Windows of a split of the corpus, the first `batches` batches of them: int32 (BATCH_SIZE, context) each.

        With `once` it ends where every window has come: what is sought in text is not found by reading it again.
        InputError at once, not at the first batch, where there is no such text.
        """
        seed, context, corpus = self.config.data.seed, self.config.model.context, self.corpus
        every = -(-corpus.epoch(split, context) // BATCH_SIZE)
        return (
            corpus.batch(split, seed, step, BATCH_SIZE, context)[:, :-1].astype(np.int32)
            for step in range(min(batches, every) if once else batches)
        )


def _as_many(batch: TaskBatch, like: TaskBatch) -> TaskBatch:
    """Pairs of a batch as often as another has rows."""
    pairs = np.resize(np.arange(len(batch.positions) // 2), len(like.positions) // 2)
    return rows(batch, np.stack([2 * pairs, 2 * pairs + 1], axis=1).reshape(-1))


def searched_under(config: Config, circuit: Circuit) -> Config:
    """A configuration with what a circuit says of its own search."""
    prune = dataclasses.replace(
        config.prune,
        target_loss=circuit.target_loss or config.prune.target_loss,
        ablation=circuit.ablation,
        norm=circuit.norm,
        tie_qk=circuit.tie_qk,
    )
    return dataclasses.replace(config, prune=prune)
