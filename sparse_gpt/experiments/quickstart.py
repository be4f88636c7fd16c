"""Experiment: preset quickstart learns the quote task, and its circuit is small, sufficient and necessary."""

from pathlib import Path

from sparse_gpt.experiments.harness import Check, at_least, at_most, finish, prune
from sparse_gpt.experiments.hashes import check_parameters


def quickstart(folder: Path) -> list[Check]:
    """Three seeds of the preset, on one corpus."""
    checks = []
    for seed in range(3):
        workdir = folder / f"seed_{seed}"
        corpus = [] if seed == 0 else [f"--config.data.corpus={folder / 'seed_0' / 'corpus'}"]
        finish("train", "--preset=quickstart", f"--workdir={workdir}", f"--config.train.seed={seed}", *corpus)
        checks += [check_parameters("quickstart", workdir)] if seed == 0 else []
        metrics = prune(workdir, "single_double_quote").metrics
        checks += [
            at_most(f"seed {seed}: task loss of the full model", metrics.full_model_task_loss, 0.05),
            at_most(f"seed {seed}: edges of the circuit", metrics.edges, 40),
            at_most(f"seed {seed}: held-out task loss of the circuit", metrics.task_loss, 0.15),
            at_least(f"seed {seed}: task loss without the circuit", metrics.ablated_task_loss, 0.69),
            at_least(f"seed {seed}: task loss of random circuits", metrics.random_circuit, 0.69),
        ]
    return checks
