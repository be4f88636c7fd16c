"""A trained model with everything that belongs to it, for notebooks and scripts."""

import contextlib
import dataclasses
import errno
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from sparse_gpt import config as configs
from sparse_gpt import paths, presets, stored, tasks
from sparse_gpt.api.given import AnyCircuit
from sparse_gpt.api.interventions import NodeTap
from sparse_gpt.api.losses import Losses, measure
from sparse_gpt.api.runs import Run, run_model
from sparse_gpt.circuits import keep_solved, storage
from sparse_gpt.circuits.circuit import Circuit, load
from sparse_gpt.circuits.pipeline import FoundCircuit
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.samples import TaskSamples, joint_sha256, share
from sparse_gpt.circuits.run.task_batch import TaskBatch, task_batch
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation import heldout, tasks_solved
from sparse_gpt.evaluation.samples import require_shareable, task_samples
from sparse_gpt.interop.workdirs import export_openai
from sparse_gpt.locks import writing
from sparse_gpt.model.taps import Tap, chain, identity
from sparse_gpt.page.notebook import view_circuit
from sparse_gpt.records import Manifest
from sparse_gpt.training import manifest
from sparse_gpt.training.run import train_on_corpus
from sparse_gpt.workdir import Workdir

Prompts = str | Sequence[str] | np.ndarray
Pair = tuple[str, str, str] | Mapping[str, str]  # prompt, answer, foil


def open_model(name: str | Path, workdir: str | Path | None = None) -> "Model":
    """Opens a workdir, or a stored model.

    Args:
        name: folder of a training run or an import; or one of `stored_models()`; or a file that launch.store wrote.
        workdir: the folder that a stored model becomes a workdir in; default: one in the user's cache.

    Raises:
        InputError: neither is there, or it holds no model; or the folder of a stored one cannot be written.

    Examples:
        >>> import sparse_gpt as sg
        >>> model = sg.open("laptop")
        >>> model.config.model.d_model
        192
    """
    if not isinstance(name, str | os.PathLike):
        raise InputError(f"sg.open({name!r}): give a folder, or a name from {', '.join(stored.names())}")
    for what, given in ((f"sg.open({str(name)!r})", name), (f"workdir={workdir}", workdir)):
        if given is not None and (found := paths.problem(str(given))):
            raise InputError(f"{what}: {found}")
    path = Path(name).expanduser()
    if path.is_dir():
        return Model(path)
    source = stored.find(str(name), f"sg.open({str(name)!r})")
    kept = _cache() / f"{source.stem}-{stored.fingerprint(str(name))[:12]}"
    folder = Path(workdir).expanduser() if workdir else kept
    _make_room(folder, f"workdir={workdir}" if workdir else str(kept))
    stored.unpack(str(name), folder)
    return Model(folder)


def stored_models() -> list[str]:
    """Names of the models that come with this package.

    Examples:
        >>> import sparse_gpt as sg
        >>> sg.stored_models()
        ['laptop', 'laptop_dense', 'laptop_half']
    """
    return stored.names()


def train(workdir: str | Path, preset: str = "quickstart", *, progress: bool = True, **overrides: object) -> "Model":
    """Trains a model, or resumes the run in a workdir, as `python -m launch.train` does.

    Args:
        workdir: folder of the run.
        preset: configuration to start from.
        progress: whether to show a bar.
        overrides: fields of the configuration, with two underscores for the dot: ``train__steps=100``.

    Raises:
        InputError: a field does not exist or has an impossible value; the workdir belongs to another configuration.

    Examples:
        >>> import sparse_gpt as sg
        >>> folder = getfixture("tmp_path") / "run"
        >>> model = sg.train(folder, "tiny", progress=False, train__steps=2, train__evaluate_tasks=False)
        >>> model.manifest.step
        2
    """
    fields = {name.replace("__", ".", 1): value for name, value in overrides.items()}
    config = configs.validate(configs.replace(presets.preset(preset), fields))
    folder = Path(workdir).expanduser().absolute()
    result = train_on_corpus(config, folder, rule=heldout.heldout_rule_for(config.data), progress=progress)
    model = Model(folder)
    if config.train.evaluate_tasks and not result.interrupted:
        tasks_solved.write(folder, config, model.params, model.params_sha256)
    return model


class Model(Workdir):
    """A trained model, its tokenizer and the files of its workdir.

    Attributes:
        config: the configuration it was trained with.
        params: nested dict of float32 arrays.
        model: the Flax module: ``model.apply({"params": params}, tokens, tap=...)`` gives logits, in float32
            after a training in bfloat16 too.
        tokenizer: with `encode` and `decode`.
        folder: of the workdir.
    """

    def __repr__(self) -> str:
        m = self.config.model
        return f"Model({self.folder.name}: {m.n_layer} layers, d_model {m.d_model}, vocabulary {m.vocab_size})"

    @functools.cached_property
    def manifest(self) -> Manifest:
        """What manifest.json holds."""
        return manifest.read(self.folder)

    def run(self, prompts: Prompts, *taps: Tap, record: Iterable[str] = ()) -> Run:
        """Runs the model on prompts.

        Args:
            prompts: a text, several texts, or token ids (B, T).
            taps: what happens at the node sites, in this order: `ablate`, `keep`, `patch`, `steer`, or any tap.
            record: a node site, or several, whose activations are kept, after the taps.

        Raises:
            InputError: an empty prompt, one longer than the model's context, an unknown site, or a tap for nodes that
                the model does not have.

        Examples:
            >>> run = model.run("x = 'hello", record=["mlp_out"])
            >>> "'" in run.most_likely()[0][0]
            True
            >>> run["mlp_out", 0].shape[-1]
            192
        """
        for tap in taps:
            if not callable(tap):
                raise InputError(f"{tap!r:.80}: not a tap; sg.ablate, sg.keep, sg.patch and sg.steer make one")
            if isinstance(tap, NodeTap):
                tap.require_fit(self.config.model)
        return run_model(self.model, self.params, self.tokenizer, prompts, chain(*taps) if taps else identity, record)

    def sample(self, task: str | Path, split: str = "heldout", pairs: int = 64, seed: int = 0) -> TaskBatch:
        """Samples of a task in this model's tokens; rows 2 i and 2 i + 1 are a pair.

        Examples:
            >>> batch = model.sample("for_while", pairs=4)
            >>> batch.tokens.shape[0], len(batch.positions)
            (8, 8)
        """
        context = self.config.model.context
        with _input_errors():
            return task_batch(tasks.sample(tasks.find(str(task)), self.tokenizer, split, pairs, seed, context=context))

    def evaluate(self, what: str | Path | Sequence[Pair], circuit: AnyCircuit | None = None) -> Losses:
        """Task loss, accuracy and the loss of every prompt, of the model or of a circuit in it.

        Args:
            what: name of a task, or a file of pairs: its held-out samples; or a list of (prompt, answer, foil), or of
                dicts with these keys.
            circuit: with it, the circuit's losses; else the model's.

        Raises:
            InputError: an answer or a foil is not one token after its prompt; the circuit does not fit this model.

        Examples:
            >>> model.evaluate([("x = 'hello", "'", '"'), ('x = "hello', '"', "'")]).accuracy
            1.0
        """
        batch = self.sample(what) if isinstance(what, str | Path) else self._pairs(what)
        return measure(self.config, self.params, batch, circuit)

    def problem(self, task: str | Path | Sequence[str | Path], **settings: object) -> Problem:
        """What a circuit is searched on; its stages can be called one by one, see circuits/pipeline.py.

        Args:
            task: a task, or several that are to share one circuit; a file of pairs is one too.
            settings: fields of the configuration's `prune` group.

        Examples:
            >>> problem = model.problem("single_double_quote", ablation="zero", target_loss=0.2)
            >>> problem.task, problem.settings.target_loss
            ('single_double_quote', 0.2)
        """
        searched = self._with(settings)
        return Problem.build(searched, _samples(searched, _find_tasks(task)), searched.pretraining_activations())

    def find_circuit(
        self, task: str | Path | Sequence[str | Path], *, progress: bool = True, **settings: object
    ) -> FoundCircuit:
        """Searches the circuit of a task, saves it in the workdir's circuits/TASK/, and returns it; one that is there
        for the same weights and settings is returned at once.

        Args:
            task: a task, or several that are to share one circuit; a file of pairs is one too.
            progress: whether to show bars.
            settings: fields of the configuration's `prune` group.

        Raises:
            InputError: an unknown task or setting, or one that the model does not solve.

        Examples:
            >>> few = dict(steps=5, evaluation_pairs=16, random_draws=2, refine_most=1, target_loss=1.0)
            >>> found = model.find_circuit("single_double_quote", progress=False, **few)
            >>> found.circuit.task
            'single_double_quote'
        """
        searched = self._with(settings)
        chosen = _find_tasks(task)
        name, sha256 = "+".join(each.name for each in chosen), joint_sha256([each.samples_sha256 for each in chosen])
        folder = self.folder / "circuits" / name
        if storage.is_complete(folder, searched.params_sha256, searched.config.prune, sha256):
            found = storage.load_found(folder)
        else:
            with writing(self.folder):
                found = searched.search_circuit(
                    _samples(searched, chosen), searched.pretraining_activations(), progress=progress
                )
        return dataclasses.replace(found, circuit=self._with_view(found.circuit))

    def circuit(self, task: str) -> Circuit:
        """The circuit that circuits/TASK/ holds. InputError if there is none, or it belongs to other weights.

        Examples:
            >>> model.circuit("single_double_quote").task
            'single_double_quote'
        """
        if not isinstance(task, str | Path):
            raise InputError(f"circuit {task!r:.80}: give the name of a task, or its file of pairs")
        name = Path(task).stem if Path(task).suffix in tasks.SUFFIXES else task
        return self._with_view(load(self.folder / "circuits" / name, self.params_sha256, self.config.model))

    def export_openai(self, folder: str | Path) -> Path:
        """Writes the model in the reference's checkpoint format, and returns the folder.

        Examples:
            >>> (model.export_openai(getfixture("tmp_path") / "exported") / "beeg_config.json").is_file()
            True
        """
        folder = Path(folder).expanduser().absolute()
        export_openai(self.folder, folder, False)
        return folder

    def _with_view(self, circuit: Circuit) -> Circuit:
        return dataclasses.replace(circuit, viewer=functools.partial(view_circuit, self))

    def _with(self, settings: Mapping[str, object]) -> "Model":
        """This model with other settings of a search; what was read of it is not read again."""
        fields = {f"prune.{name}": value for name, value in settings.items()}
        config: Config = configs.validate(configs.replace(self.config, fields))
        other = Model(self.folder, config)
        for part in ("params", "params_sha256", "model", "tokenizer"):
            other.__dict__[part] = getattr(self, part)
        return other

    def _pairs(self, pairs: Sequence[Pair]) -> TaskBatch:
        """Prompts of one's own as a batch."""
        samples = [_sample(pair) for pair in pairs] if isinstance(pairs, Iterable) else []
        if not samples:
            raise InputError("no prompts to evaluate; give (prompt, answer, foil) at least once")
        with _input_errors():
            encoded = tasks.encode_samples(samples, self.tokenizer)
        shortest, longest, context = encoded.lengths.min(), encoded.lengths.max(), self.config.model.context
        if shortest < 1 or longest > context:
            raise InputError(f"prompts of {shortest} to {longest} tokens; the model takes 1 to its context, {context}")
        return task_batch(encoded)


def _sample(pair: object) -> tasks.Sample:
    """A prompt of one's own. InputError unless it is three texts."""
    texts = [pair.get(name) for name in ("prompt", "answer", "foil")] if isinstance(pair, Mapping) else pair
    if isinstance(texts, str) or not isinstance(texts, Iterable) or [isinstance(t, str) for t in texts] != [True] * 3:
        raise InputError(f"{pair!r:.80}: not a (prompt, answer, foil); give a list of such, each of three texts")
    return tasks.Sample(*texts)


def _samples(model: Model, chosen: Sequence[tasks.AnyTask]) -> TaskSamples:
    """Of one task, or of several that are to share one circuit."""
    with _input_errors():
        if len(chosen) > 1:
            require_shareable(chosen, model.config)
        found = {task.name: task_samples(task, model.tokenizer, model.config) for task in chosen}
    if model.config.prune.families:
        found = {name: keep_solved(model, samples) for name, samples in found.items()}
    return share(found) if len(found) > 1 else next(iter(found.values()))


def _find_tasks(names: str | Path | Sequence[str | Path]) -> list[tasks.AnyTask]:
    """Tasks by name, or files of pairs. InputError for what is neither, or for none."""
    if not isinstance(names, Iterable | Path):
        raise InputError(f"task {names!r:.80}: give the name of a task, or a file of pairs, or a list of these")
    with _input_errors():
        return tasks.select(str(names) if isinstance(names, str | Path) else ",".join(map(str, names)))


@contextlib.contextmanager
def _input_errors() -> Iterator[None]:
    """Turns the errors of tasks, which know nothing of this package, into its own."""
    try:
        yield
    except tasks.TaskError as error:
        raise InputError(str(error)) from error


def _make_room(folder: Path, named: str) -> None:
    """Makes what is above the folder of a stored model. InputError if the folder can then still not be made there."""
    reason = os.strerror(errno.EACCES)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists() or os.access(folder.parent, os.W_OK | os.X_OK):
            return
    except OSError as error:
        reason = error.strerror or str(error)
    raise InputError(f"{named}: cannot be made ({reason}); give a folder that can be written by workdir=FOLDER")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparse_gpt"
