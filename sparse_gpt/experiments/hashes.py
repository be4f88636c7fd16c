"""Experiment: corpora, tokenizers and parameters have the bytes that expected.py states."""

from pathlib import Path

from sparse_gpt.data import Corpus
from sparse_gpt.experiments import expected
from sparse_gpt.experiments.harness import Check, equal, finish, manifest, reported


def check_hashes(folder: Path) -> list[Check]:
    """Corpora and tokenizers of presets against the hashes they have everywhere, and parameters of preset tiny against
    those that it has on machines of this kind, if one is known."""
    checks = []
    for preset, wanted in expected.CORPORA.items():
        finish("data", f"--preset={preset}", f"--workdir={folder / preset}")
        corpus = Corpus.open(folder / preset / "corpus")
        checks.append(equal(f"{preset}: corpus SHA-256", corpus.sha256, wanted.corpus))
        checks.append(equal(f"{preset}: tokenizer SHA-256", corpus.tokenizer.sha256, wanted.tokenizer))
    trained = folder / "tiny_trained"
    finish("train", "--preset=tiny", f"--workdir={trained}", f"--config.data.corpus={folder / 'tiny' / 'corpus'}")
    return [*checks, check_parameters("tiny", trained)]


def check_parameters(preset: str, workdir: Path) -> Check:
    """Whether a trained preset has the parameters that it has on machines of this kind; reported if none are known."""
    facts = manifest(workdir)
    where, sha256, threads = expected.platform(facts), facts.params_sha256, facts.machine and facts.machine.threads
    name = f"{preset}: params_sha256 on {' '.join(where)}, {threads} threads"
    known = expected.PARAMETERS.get((preset, where))
    return equal(name, sha256, known) if known else reported(name, sha256)
