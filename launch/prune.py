"""Finds the circuit of a task in a trained model: mask search, discretisation, calibration, controls.

python -m launch.prune --workdir=runs/quickstart
python -m launch.prune --workdir=runs/quickstart --task=bracket_counting,for_while --config.prune.target_loss=0.05
python -m launch.prune --workdir=runs/quickstart --task=all-that-work
"""

from pathlib import Path

from absl import flags

import tasks
from launch import cli
from sparse_gpt.circuits import SearchResult, TaskSamples, find_circuit, full_task_loss, pretraining_means, task_batch
from sparse_gpt.circuits.gated import padded
from sparse_gpt.circuits.gates import GateArrays
from sparse_gpt.config import Config
from sparse_gpt.data import Corpus, Tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.model import Params, build
from sparse_gpt.training.checkpoint import load_params
from sparse_gpt.training.manifest import params_sha256

ALL = "all-that-work"
MAX_TRAIN_PAIRS = 8192  # the search goes around them
MEAN_BATCHES, MEAN_BATCH_SIZE = 16, 32  # windows of pretraining tokens behind the mean ablation

cli.define_workdir()
cli.define_config()
flags.DEFINE_string("task", "single_double_quote", f"Task, comma list of tasks, or {ALL}: every task the model solves.")


def main(argv: list[str]) -> None:
    """Checks everything, then searches task after task and writes WORKDIR/circuits/TASK/."""
    del argv
    folder = cli.existing_workdir()
    config = cli.stored_config(folder, ("prune",))
    names = _task_names(flags.FLAGS.task)
    params, _ = load_params(folder, config.model)
    tokenizer = Tokenizer.load(folder / "tokenizer")
    means = _means(folder, config, params)
    solved = _solved(names, tokenizer, config, params, skip=flags.FLAGS.task == ALL)
    fingerprint = params_sha256(params)
    for name, samples in solved.items():
        result = find_circuit(
            config, params, name, samples, means, params_sha256=fingerprint, token_text=lambda i: tokenizer.decode([i])
        )
        result.save(folder / "circuits" / name)
        _print_summary(result, folder / "circuits" / name)


def _task_names(flag: str) -> list[str]:
    """Names in --task; InputError for an unknown one."""
    names = list(tasks.TASKS) if flag == ALL else list(dict.fromkeys(n.strip() for n in flag.split(",") if n.strip()))
    unknown = [name for name in names if name not in tasks.TASKS]
    if unknown or not names:
        found = f"unknown task {unknown[0]!r}" if unknown else "no task"
        raise InputError(f"--task={flag}: {found}; choose from {', '.join(tasks.TASKS)}, or {ALL}")
    return names


def _means(folder: Path, config: Config, params: Params) -> GateArrays | None:
    """Mean activations over the model's own training corpus, when the ablation asks for them."""
    if config.prune.ablation != "mean":
        return None
    corpus = Corpus.open(config.data.corpus or folder / "corpus")
    seed, context = config.data.seed, config.model.context
    batches = (
        corpus.batch("train", seed, step, MEAN_BATCH_SIZE, context)[:, :-1].astype("int32")
        for step in range(MEAN_BATCHES)
    )
    return pretraining_means(build(config), params, batches)


def _solved(
    names: list[str], tokenizer: Tokenizer, config: Config, params: Params, skip: bool
) -> dict[str, TaskSamples]:
    """Samples of the tasks that the tokenizer can express and the model can do; the others raise, or are told and
    skipped."""
    found = {}
    for name in names:
        try:
            samples = _samples(name, tokenizer, config)
            loss = full_task_loss(config, params, samples.validation)
            if not loss <= config.prune.target_loss:
                raise InputError(
                    f"task {name}: the model itself has task loss {loss:.3f} (chance is 0.693), above "
                    f"--config.prune.target_loss={config.prune.target_loss:g}; train it longer or raise the target"
                )
            found[name] = samples
        except (InputError, tasks.TaskError) as error:
            if not skip:
                raise
            print(f"left out: {error}")
    if not found:
        raise InputError(f"--task={flags.FLAGS.task}: the model solves none of the {len(names)} tasks; train it longer")
    return found


def _samples(name: str, tokenizer: Tokenizer, config: Config) -> TaskSamples:
    """Samples of a task; InputError if they do not fit the model's context."""
    task, prune = tasks.TASKS[name], config.prune
    tasks.check(task, tokenizer)
    counts = {
        "train": min(prune.steps * prune.batch_pairs, MAX_TRAIN_PAIRS),
        "validation": prune.evaluation_pairs,
        "heldout": prune.evaluation_pairs,
    }
    encoded = {split: tasks.sample(task, tokenizer, split, count, prune.seed) for split, count in counts.items()}
    shifted = tasks.sample(task, tokenizer, "heldout", prune.evaluation_pairs, prune.seed, "shifted")
    longest = max(int(e.lengths.max()) for e in encoded.values())
    if longest > config.model.context:
        raise InputError(f"task {name}: prompts of {longest} tokens exceed the model's context {config.model.context}")
    batches = {split: task_batch(e) for split, e in encoded.items()}
    length = max(batches[split].tokens.shape[1] for split in ("validation", "heldout"))  # one shape, one program
    if int(shifted.lengths.max()) > config.model.context:
        print(f"task {name}: its shifted samples exceed the model's context and are left out")
    return TaskSamples(
        batches["train"],
        padded(batches["validation"], length),
        padded(batches["heldout"], length),
        task_batch(shifted) if int(shifted.lengths.max()) <= config.model.context else None,
    )


def _print_summary(result: SearchResult, folder: Path) -> None:
    circuit, m = result.circuit, result.circuit.metrics
    if not result.reached:
        print(f"{circuit.task}: no circuit reached task loss {circuit.target_loss:g}; this is the best found")
    shifted = ""
    if "shifted_task_loss" in m:
        shifted = (
            f"  other templates: task loss {m['shifted_task_loss']:.3f} (full model "
            f"{m['shifted_full_model_task_loss']:.3f}), agreement {m['shifted_agreement']:.3f}\n"
        )
    print(
        f"{circuit.task}: {m['nodes']} nodes, {m['edges']} edges ({m['embedding_edges']} embedding, "
        f"{m['unembedding_edges']} unembedding), found in {result.search['seconds']:.0f} s\n"
        f"  held-out task loss {m['task_loss']:.3f} (uncalibrated {m['task_loss_uncalibrated']:.3f}, "
        f"full model {m['full_model_task_loss']:.3f}), accuracy {m['accuracy']:.3f}, "
        f"agreement with the full model {m['agreement']:.3f}\n"
        f"{shifted}  circuit ablated {m['ablated_task_loss']:.3f}, random circuits of its size "
        f"{m['random_circuit_task_loss']:.3f} (chance 0.693)\n"
        f"  -> {folder}"
    )


if __name__ == "__main__":
    cli.run(main)
