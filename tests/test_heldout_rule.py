"""The rule that keeps held-out samples out of corpora: every one has a word that it looks for."""

import pytest

from sparse_gpt import tasks
from sparse_gpt.data import Tokenizer, idioms
from sparse_gpt.evaluation.heldout import heldout_rule


@pytest.mark.parametrize("task", tasks.TASKS.values(), ids=tasks.TASKS.keys())
def test_heldout_samples_are_rejected_and_training_ones_are_not(task: tasks.Task, tokenizer_of_1024: Tokenizer) -> None:
    """Also those that are drawn for a tokenizer, which are others."""
    reject, name = heldout_rule()
    assert name == "held-out task samples a4b8d886dfd14b5a"  # corpora that are prepared already have this one
    for tokenizer in (None, tokenizer_of_1024):
        for variant in ("main", "shifted"):
            for pair in task.pairs("heldout", 20, 0, variant, tokenizer):
                assert reject(f"import os\n{pair.first.prompt}{pair.first.answer}\n")
        assert not any(reject(pair.first.prompt) for pair in task.pairs("train", 20, 0, "main", tokenizer))


def test_generated_programs_contain_none() -> None:
    reject, _ = heldout_rule()
    assert not any(reject(program) for program in idioms.documents(0, 0, 2000))


def test_any_text_can_be_looked_at() -> None:
    reject, _ = heldout_rule()
    assert not reject("")
    assert not reject("\ud800 é")
    assert reject("\ud800 class Raven: ...")
