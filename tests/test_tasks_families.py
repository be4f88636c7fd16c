"""Template families of the twenty tasks: enough of them, valid, disjoint in their words, and novel ones kept apart."""

import ast
import keyword
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from sparse_gpt import tasks
from sparse_gpt.circuits.evidence.card.words import clusters, free_words
from sparse_gpt.circuits.run.task_batch import TaskBatch
from sparse_gpt.data import idioms, train_tokenizer
from sparse_gpt.data.tokenizer import Tokenizer
from sparse_gpt.evaluation.heldout import heldout_rule
from sparse_gpt.tasks import SPLITS, TASKS, VARIANTS, Family, Sample, Task, TaskError, Template
from sparse_gpt.tasks.copies import single_tokens
from sparse_gpt.tasks.made_up import FAMILY_VOCABULARY, MADE_UP
from sparse_gpt.tasks.template import _CONTEXT_LINES, kinds
from sparse_gpt.tasks.words import VOCABULARY

EVERY = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())


def _families(task: Task) -> Iterator[tuple[str, str]]:
    """Every (split, family) with templates and words of its own."""
    yield from ((split, name) for split, name in task.parts if name not in VARIANTS)


@cache
def _samples(name: str, split: str, family: str, count: int = 40) -> list[Sample]:
    pairs = TASKS[name].pairs(split, count, 3, family)
    return [sample for pair in pairs for sample in (pair.first, pair.second)]


def _words(text: str) -> set[str]:
    return set(re.findall("[a-z]+", text.lower()))


@EVERY
def test_every_task_has_four_families_to_search_and_two_novel_ones(task: Task) -> None:
    assert task.families[:2] == ("main", "elsewhere")
    assert len(task.families) >= 4
    assert len(task.novel) >= 2
    assert not set(task.families) & set(task.novel)
    prompts = [template.prompt for family in (*task.selection, *task.unseen) for template in family.templates]
    prompts += [template.prompt for template in (*task.main, *task.shifted)]
    assert len(set(prompts)) == len(prompts)
    for name in task.novel:
        with pytest.raises(TaskError, match=f"family {name} is novel, so it has held-out pairs only, no validation"):
            task.pairs("validation", 1, variant=name)


@EVERY
def test_samples_of_families(task: Task) -> None:
    """Valid Python, minimal pairs, both answers, words of the split only, and held-out ones are reserved."""
    templates = [template for family in (*task.selection, *task.unseen) for template in family.templates]
    lines = [line for group in _CONTEXT_LINES.values() for line in group]
    texts = [*(t.prompt for t in (*task.shifted, *templates)), *task.answers, *lines, "not in True False"]
    fixed = _words(re.sub(r"\{[A-Za-z]+\d*\}", " ", " ".join(texts)))
    for split, family in _families(task):
        own, samples = _words(" ".join(FAMILY_VOCABULARY[split].all_words())), _samples(task.name, split, family)
        for sample in samples:
            ast.parse(sample.prompt + sample.answer + sample.rest)
            assert sample.family == family
            assert _words(sample.prompt + sample.answer) <= own | fixed
            assert tasks.has_made_up_word(sample.prompt.encode()) or split != "heldout"
        for first, second in zip(samples[::2], samples[1::2], strict=True):
            assert (first.answer, first.foil) == (second.foil, second.answer)
            left, right = (Counter(re.findall(r"\w+|[^\w\s]", each.prompt)) for each in (first, second))
            assert first.prompt != second.prompt
            assert max((left - right).total(), (right - left).total()) <= 6, (first.prompt, second.prompt)


def test_words_of_families_are_many_and_disjoint() -> None:
    assert len(MADE_UP["heldout"]) >= 300
    for one, other in (("train", "validation"), ("train", "heldout"), ("validation", "heldout")):
        a, b = FAMILY_VOCABULARY[one], FAMILY_VOCABULARY[other]
        assert not _words(" ".join(a.all_words())) & _words(" ".join(b.all_words()))
    everyday = {word for words in VOCABULARY.values() for word in words.all_words()}
    assert not everyday & {word for words in MADE_UP.values() for word in words}


@pytest.mark.slow
def test_no_real_or_generated_text_has_a_made_up_word() -> None:
    """So corpora lose no document to them, and stay as they are. Of pinned sources and the standard library."""
    folders = (sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"])
    files = [path for folder in folders for path in Path(folder).glob("*/*.py")] + [*Path(folders[0]).glob("*.py")]
    assert len(files) > 500
    assert not [path for path in files if tasks.has_made_up_word(path.read_bytes())]
    assert not tasks.has_made_up_word("\n".join(idioms.documents(1, 0, 1000)).encode())


def test_corpora_leave_out_held_out_samples_of_families() -> None:
    reject, _ = heldout_rule()
    for task in TASKS.values():
        for split, family in _families(task):
            if split == "heldout":
                assert all(reject(sample.prompt) for sample in _samples(task.name, split, family))
    assert not reject("for item in items:\n    print(item)\n")


@EVERY
def test_a_tokenizer_expresses_every_family(task: Task, tokenizer_of_1024: Tokenizer) -> None:
    for split, family in _families(task):
        batch = tasks.sample(task, tokenizer_of_1024, split, 24, 0, family, context=128)
        assert len(batch.lengths) == 48
        np.testing.assert_array_equal(batch.answer_id[::2], batch.foil_id[1::2])


def test_names_to_copy_are_all_words_that_are_one_token(tokenizer_of_1024: Tokenizer) -> None:
    found = single_tokens(tokenizer_of_1024)
    assert not set(found["train"]) & set(found["heldout"])
    assert sum(map(len, found.values())) > 40
    assert {word for words in found.values() for word in words} - {
        word for words in VOCABULARY.values() for word in words.copies
    }
    for split in SPLITS:
        assert all(
            tokenizer_of_1024.encode(f" {word}") == tokenizer_of_1024.encode(f" {word}")[:1] for word in found[split]
        )
        assert "nam" not in found[split], "the beginning of name"
        others = {word for other in SPLITS if other != split for word in VOCABULARY[other].all_words()}
        assert not set(found[split]) & others
    for pair in TASKS["var_swap"].pairs("heldout", 20, 0, "tuples", tokenizer_of_1024):
        assert {pair.first.answer.strip(), pair.second.answer.strip()} <= set(found["heldout"])


@EVERY
def test_a_held_out_sample_s_cluster_is_a_word_that_fills_a_template(task: Task, tokenizer_of_1024: Tokenizer) -> None:
    """In every family, whichever of them the search saw; "True" and "in" are no such words."""
    known = task.free_words(tokenizer_of_1024)
    assert not known & (_words("True False in range enumerate") | set(keyword.kwlist))
    for name in (*task.families, *task.novel):
        prompts = [sample.prompt for sample in _samples(task.name, "heldout", name)]
        numbers = np.arange(len(prompts), dtype=np.int32)  # a whole prompt as one token
        batch = TaskBatch(numbers[:, None], 0 * numbers, numbers, numbers)
        found = clusters(batch, free_words(batch, set(), prompts.__getitem__, known), prompts.__getitem__)
        fills = FAMILY_VOCABULARY["heldout"].all_words() | VOCABULARY["heldout"].all_words()
        assert {word.lower() for word in found.tolist()} <= fills, name


def test_words_of_families_that_a_tokenizer_cannot_express_are_not_asked_for(tokenizer_of_1024: Tokenizer) -> None:
    small = train_tokenizer(["x = 1\n"], 258)
    task = TASKS["var_swap"]
    with pytest.raises(TaskError, match="names to copy are one token"):
        task.pairs("heldout", 1, variant="tuples", tokenizer=small)
    assert task.free_words(small) == frozenset()
    assert {"dovack", "Dovack", "raven"} <= task.free_words(tokenizer_of_1024)


@EVERY
def test_novel_distractors_are_in_another_form(task: Task) -> None:
    """Lines of a novel family, without their words, hardly ever occur in a family that is searched."""

    def skeletons(family: str) -> set[str]:
        lines = (line for sample in _samples(task.name, "heldout", family) for line in sample.prompt.splitlines()[:-1])
        return {"\n".join([re.sub(r"[a-z_]*\d*", "", line.lower())]) for line in lines}

    texts = [t.prompt for family in task.unseen for t in family.templates]
    assert all(kinds(text) for text in texts)
    seen = set().union(*(skeletons(name) for name in task.families if name != "main"))
    for name in task.novel:
        assert skeletons(name) - seen, name


def test_searched_families() -> None:
    task = TASKS["for_while"]
    assert tasks.searched_families(task, ()) == ("main",)
    assert tasks.searched_families(task, ("all",)) == task.families
    assert tasks.searched_families(task, ("finished", "main")) == ("finished", "main")
    with pytest.raises(TaskError, match="family broken is novel, no search sees it"):
        tasks.searched_families(task, ("main", "broken"))
    with pytest.raises(TaskError, match="for_while: no family 'other' to search on; choose all, or some of main"):
        tasks.searched_families(task, ("other",))


def test_names_of_families_are_checked() -> None:
    one = Family("shifted", (Template("<<a|b>>"),))
    with pytest.raises(TaskError, match="task t: a family cannot be named 'shifted'"):
        Task("t", "", ("c", "d"), (Template("<<a|b>>"),), (), selection=(one,))
