"""The rule that keeps held-out samples out: exactly the texts that contain one, however many there are."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_gpt import tasks
from sparse_gpt.data import idioms
from sparse_gpt.data.leakage import contains_any
from sparse_gpt.evaluation.heldout import heldout_rule

TEXT = st.text(alphabet="ab \n", min_size=8, max_size=14)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(samples=st.lists(TEXT, max_size=6), text=st.text(alphabet="ab \n", max_size=60))
def test_long_samples_are_found_wherever_they_are(samples: list[str], text: str) -> None:
    assert contains_any(samples)(text) == any(sample in text for sample in samples)
    for sample in samples:
        assert contains_any(samples)(text + sample + text)


def test_short_samples_stand_as_words() -> None:
    occurs = contains_any(["if fox"])
    assert occurs("    if fox:\n")
    assert not occurs("    if foxes:\n")
    assert not occurs("elif fox:\n")


def test_nothing_to_find() -> None:
    assert not contains_any([])("any text at all")


def test_heldout_samples_of_every_task_are_rejected_and_training_ones_are_not() -> None:
    reject, name = heldout_rule()
    assert name.startswith("held-out task samples ")
    for task in tasks.TASKS.values():
        for variant in ("main", "shifted"):
            for pair in task.pairs("heldout", 20, 0, variant):
                assert reject(f"import os\n{pair.first.prompt}{pair.first.answer}\n")
        assert not any(reject(pair.first.prompt) for pair in task.pairs("train", 20, 0))


def test_generated_programs_contain_none() -> None:
    reject, _ = heldout_rule()
    assert not any(reject(program) for program in idioms.documents(0, 0, 2000))
