"""The twenty tasks: what every sample of every task must be, whatever its templates say."""

import ast
import hashlib
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from sparse_gpt import tasks
from sparse_gpt.data import idioms
from sparse_gpt.data.tokenizer import Tokenizer, train_tokenizer
from sparse_gpt.evaluation import tasks_solved
from sparse_gpt.records import Evaluation
from sparse_gpt.records.run import TaskRow
from sparse_gpt.tasks import SPLITS, TASKS, VARIANTS, Pair, Sample, Task, TaskError, Template
from sparse_gpt.tasks.randomness import Randomness
from sparse_gpt.tasks.template import _CONTEXT_LINES, sides
from sparse_gpt.tasks.words import VOCABULARY
from tests import circuits_model as toy

NAMES = """
single_double_quote bracket_counting set_or_string set_or_string_fixedvarname final_kwarg class_init with_as
bracket_brace with_open for_while else_elif fstring_brace if_ternary var_swap indent_for lambda_func if_equals
enumerate_range var_if while_return_true
"""

GOLDEN = {
    "single_double_quote": "a24bafbd8006",
    "bracket_counting": "f3fe42186fb9",
    "bracket_brace": "fd4128f40d7a",
    "fstring_brace": "cefba736f089",
    "for_while": "c4b4724482b5",
    "indent_for": "ee074067be46",
    "enumerate_range": "7920dd14a52f",
    "while_return_true": "3adaab674319",
    "set_or_string": "fdc403b01dd0",
    "set_or_string_fixedvarname": "a5af9611b182",
    "class_init": "f1770044841b",
    "var_swap": "866d4ce0de23",
    "final_kwarg": "41935913d031",
    "lambda_func": "0735b2cdb48f",
    "with_as": "e82484e895e9",
    "with_open": "dc419d8b32be",
    "else_elif": "fdd5e65ff9ef",
    "if_ternary": "785575e43c98",
    "if_equals": "8a35f2f5ea3a",
    "var_if": "0a5bbff24d5d",
}
EVERY = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """2048 entries, trained on generated programs and some of the standard library."""
    library = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-h]*.py"))
    return train_tokenizer([*map(_read, library), *idioms.documents(0, 0, 2500)], 2048)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


@cache
def _pairs(name: str, split: str, variant: str, count: int = 40) -> list[Pair]:
    return TASKS[name].pairs(split, count, seed=7, variant=variant)


def _samples(task: Task, split: str, variant: str, count: int = 40) -> Iterator[Sample]:
    for pair in _pairs(task.name, split, variant, count):
        yield from (pair.first, pair.second)


def _all_samples(task: Task) -> Iterator[Sample]:
    for split in SPLITS:
        for variant in VARIANTS:
            yield from _samples(task, split, variant)


def _words(text: str) -> set[str]:
    return set(re.findall("[a-z]+", text.lower()))


def test_the_suite_has_the_twenty_tasks() -> None:
    assert sorted(TASKS) == sorted(NAMES.split())
    assert all(name == task.name and task.description for name, task in TASKS.items())


@EVERY
def test_golden_samples(task: Task) -> None:
    text = "\0".join(f"{sample}" for sample in _all_samples(task))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    assert digest == GOLDEN[task.name], (
        f"the samples of {task.name} changed ({digest}). If a template or word list was changed on purpose, update "
        "GOLDEN; otherwise results are no longer comparable between machines or versions."
    )


@EVERY
def test_pairs_depend_on_their_arguments_only(task: Task) -> None:
    for variant in VARIANTS:
        first = task.pairs("train", 30, 3, variant)
        assert first == task.pairs("train", 30, 3, variant)
        assert first[:11] == task.pairs("train", 11, 3, variant)
        assert len(set(first)) == 30
        assert not set(first) & set(task.pairs("heldout", 30, 3, variant))
        assert len(set(first) & set(task.pairs("train", 30, 4, variant))) < 5


@EVERY
def test_prompts_of_a_pair_differ_minimally(task: Task) -> None:
    """In at most six words and marks, of up to a hundred."""
    for variant in VARIANTS:
        for pair in _pairs(task.name, "heldout", variant):
            assert pair.first.prompt != pair.second.prompt
            assert (pair.first.answer, pair.first.foil) == (pair.second.foil, pair.second.answer)
            left, right = (Counter(re.findall(r"\w+|[^\w\s]", sample.prompt)) for sample in (pair.first, pair.second))
            assert max((left - right).total(), (right - left).total()) <= 6, (pair.first.prompt, pair.second.prompt)


@EVERY
def test_answers_are_balanced(task: Task) -> None:
    """Both answers equally often, wherever in the pair, and so many prompts of so many lengths."""
    pairs = _pairs(task.name, "train", "main", 400)
    if "{" not in "".join(task.answers):
        share = np.mean([pair.first.answer == task.answers[0] for pair in pairs])
        assert 0.4 < share < 0.6
    lengths = [len(pair.first.prompt) for pair in pairs]
    assert len(set(lengths)) >= 20
    assert max(lengths) > 1.5 * min(lengths)


@EVERY
def test_prompt_answer_and_rest_are_python(task: Task) -> None:
    for sample in _all_samples(task):
        compile(sample.prompt + sample.answer + sample.rest, "sample", "exec")


@pytest.mark.parametrize("variant", ["main", "shifted", "finished", "assigned"])
def test_no_parameter_has_the_compound_name_of_another(variant: str) -> None:
    """Two words of the split made by two slots, and one name of two words made by one."""
    for pair in _pairs("final_kwarg", "heldout" if variant in ("shifted", "assigned") else "train", variant, 300):
        for sample in (pair.first, pair.second):
            compile(sample.prompt + sample.answer + sample.rest, "sample", "exec")


def test_vocabularies_are_disjoint() -> None:
    for one, other in (("train", "validation"), ("train", "heldout"), ("validation", "heldout")):
        a, b = VOCABULARY[one], VOCABULARY[other]
        assert not _words(" ".join(a.all_words())) & _words(" ".join(b.all_words()))
        assert not set(a.digits) & set(b.digits)


@EVERY
def test_samples_hold_words_and_numbers_of_their_split_only(task: Task) -> None:
    templates = (*task.main, *task.shifted)
    lines = [line for variant in VARIANTS for line in _CONTEXT_LINES[variant]]
    fixed = " ".join([*(t.prompt for t in templates), *task.answers, *lines, "not in True False"])
    fixed_words = _words(re.sub(r"\{[A-Za-z]+\d*\}", " ", fixed))
    for split in SPLITS:
        own = _words(" ".join(VOCABULARY[split].all_words()))
        for variant in VARIANTS:
            for sample in _samples(task, split, variant):
                assert _words(sample.prompt + sample.answer) <= own | fixed_words
                numbers = re.findall(r"\d+", sample.prompt)
                assert {int(number) % 10 for number in numbers} <= set(VOCABULARY[split].digits)


@pytest.mark.slow
@EVERY
def test_every_heldout_sample_has_a_reserved_word_and_no_other_has(task: Task) -> None:
    for split in SPLITS:
        for variant in VARIANTS:
            for sample in _samples(task, split, variant, 100):
                text = (sample.prompt + sample.answer).encode()
                assert tasks.has_heldout_word(text) == (split == "heldout"), sample.prompt


def test_has_heldout_word() -> None:
    assert tasks.has_heldout_word(b"x = 1\nclass Raven_2(A): ...")
    assert tasks.has_heldout_word("# é MOSS".encode())
    assert not tasks.has_heldout_word(b"class Ravenous: mossy = 1")
    assert not tasks.has_heldout_word(b"")
    assert "raven" in tasks.heldout_words()


def test_reserved_words_cost_little_real_code() -> None:
    """Fewer than 1 in 200 files of the standard library would have to be left out."""
    files = list(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    hit = [path.name for path in files if tasks.has_heldout_word(path.read_bytes())]
    assert len(files) > 100
    assert len(hit) <= len(files) / 200, hit


def test_generated_programs_hold_no_prompt() -> None:
    text = "\n".join(idioms.documents(0, 0, 400))
    prompts = tasks.prompts(10)
    assert len(prompts) > 1500
    assert not [prompt for prompt in prompts if prompt in text]
    assert not tasks.has_heldout_word(text.encode())


@EVERY
def test_shifted_surroundings_are_others(task: Task) -> None:
    def skeleton(sample: Sample) -> str:
        return re.sub(r"[A-Za-z]+", lambda m: m.group() if m.group() in keywords else "N", sample.prompt)

    keywords = _words("def class for while if else elif with try return lambda import del assert not print")
    assert not {t.prompt for t in task.main} & {t.prompt for t in task.shifted}
    main = {skeleton(sample) for sample in _samples(task, "heldout", "main", 100)}
    shifted = {skeleton(sample) for sample in _samples(task, "heldout", "shifted", 100)}
    assert len(main & shifted) < 0.1 * len(shifted)


@pytest.mark.slow
@EVERY
def test_tokenizer_expresses_the_task(task: Task, tokenizer: Tokenizer) -> None:
    tasks.check(task, tokenizer)
    for variant in VARIANTS:
        pairs = task.pairs("heldout", 24, 0, variant, tokenizer)
        batch = tasks.sample(task, tokenizer, "heldout", 24, 0, variant)
        assert batch.tokens.dtype == batch.lengths.dtype == batch.answer_id.dtype == batch.foil_id.dtype == np.int32
        assert batch.tokens.shape[0] == 48
        assert batch.tokens.shape[1] % 8 == 0
        assert 0 <= batch.tokens.shape[1] - batch.lengths.max() < 8
        for i, sample in enumerate(sample for pair in pairs for sample in (pair.first, pair.second)):
            row, length = batch.tokens[i], batch.lengths[i]
            assert row[:length].tolist() == tokenizer.encode(sample.prompt)
            assert not row[length:].any()
            assert tokenizer.encode(sample.prompt + sample.answer) == [*row[:length].tolist(), batch.answer_id[i]]
            assert tokenizer.decode([int(batch.foil_id[i])]) == sample.foil
        np.testing.assert_array_equal(batch.answer_id[::2], batch.foil_id[1::2])
        np.testing.assert_array_equal(batch.answer_id[1::2], batch.foil_id[::2])


@EVERY
def test_prompts_of_a_pair_have_equal_length(task: Task, tokenizer: Tokenizer) -> None:
    batch = tasks.sample(task, tokenizer, "train", 200)
    equal = np.mean(batch.lengths[::2] == batch.lengths[1::2])
    assert equal > 0.95 or not task.same_length


def _position_features(sample: Sample, tokenizer: Tokenizer, borders: int = 80, lines: int = 6) -> np.ndarray:
    """What is seen of a prompt without reading it: its length, its lines' lengths, and where the line breaks are."""
    tokens = np.array(tokenizer.encode(sample.prompt))
    ends = np.flatnonzero(_has_break(tokenizer)[tokens])
    from_start, from_end = np.zeros(borders), np.zeros(borders)
    from_start[ends[ends < borders]] = 1
    from_end[(len(tokens) - 1 - ends)[len(tokens) - 1 - ends < borders]] = 1
    widths = np.diff(np.concatenate([[-1], ends, [len(tokens)]]))
    first, last = np.zeros(lines), np.zeros(lines)
    first[: len(widths)] = widths[:lines] / 5
    last[: len(widths)] = widths[::-1][:lines] / 5
    return np.concatenate([[1, len(tokens) / 10, len(ends)], from_start, from_end, first, last])


@cache
def _has_break(tokenizer: Tokenizer) -> np.ndarray:
    return np.array([b"\n" in tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)])


def _probe_data(task: Task, tokenizer: Tokenizer, split: str, variant: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = task.pairs(split, 500, seed, variant, tokenizer)
    features = [_position_features(sample, tokenizer) for pair in pairs for sample in (pair.first, pair.second)]
    # Where answers are names that vary, a side is named by the order of the pair, which is random.
    sign = {task.answers[0]: 1.0, task.answers[1]: -1.0}
    labels = [
        sign.get(sample.answer, -sign.get(sample.foil, place))
        for pair in pairs
        for sample, place in ((pair.first, 1.0), (pair.second, -1.0))
    ]
    return np.array(features), np.array(labels)


def _accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    right = np.where(np.abs(scores) < 1e-9, 0.5, np.sign(scores) == labels)
    return float(right.mean())


@pytest.mark.slow
@EVERY
def test_positions_and_lengths_do_not_give_the_answer_away(task: Task, tokenizer: Tokenizer) -> None:
    """A linear probe that sees everything but the words learns next to nothing (chance is 0.5, two sigmas are 0.03)."""
    features, labels = _probe_data(task, tokenizer, "train", "main", 0)
    weights = np.linalg.solve(features.T @ features + 5 * np.eye(features.shape[1]), features.T @ labels)
    for split, variant in (("train", "main"), ("heldout", "main"), ("heldout", "shifted")):
        test_features, test_labels = _probe_data(task, tokenizer, split, variant, 1)
        accuracy = _accuracy(test_features @ weights, test_labels)
        assert accuracy < (0.55 if task.same_length else 0.61), (split, variant, accuracy)


@pytest.mark.slow
def test_the_probe_finds_a_shortcut_where_there_is_one(tokenizer: Tokenizer) -> None:
    leaky = Task(
        "leaky", "", ("1", "2"), (Template("{top}<<{word} = {word3} = {word4} = |>>{word2}("),), (Template("<<a|b>>"),)
    )
    features, labels = _probe_data(leaky, tokenizer, "train", "main", 0)
    weights = np.linalg.solve(features.T @ features + 5 * np.eye(features.shape[1]), features.T @ labels)
    test_features, test_labels = _probe_data(leaky, tokenizer, "train", "main", 1)
    assert _accuracy(test_features @ weights, test_labels) > 0.9


def test_randomness_is_fixed_and_even() -> None:
    stream = Randomness("a", 1)
    assert [stream.below(1000) for _ in range(10)] == [146, 695, 56, 802, 1, 690, 565, 611, 167, 490]
    assert Randomness("a", 2).below(10**9) != Randomness("a", 1).below(10**9)
    counts = np.bincount([stream.between(3, 7) for _ in range(5000)], minlength=9)
    assert counts[:3].sum() == counts[8] == 0
    assert np.all(np.abs(counts[3:8] - 1000) < 150)


def test_templates() -> None:
    assert sides("<<for|while>> x<<, y|>>") == ("for x, y", "while x")
    task = Task("t", "", (" {word}", "="), (Template("{word} <<{word2}|{word}>> {word}"),), (Template("<<a|b>>"),))
    (pair,) = task.pairs("train", 1)
    left = pair.first if pair.first.foil == "=" else pair.second
    first, second, third = left.prompt.split()
    assert first == third == left.answer.strip()
    assert second != first


def test_the_guide_for_a_twenty_first_task_works(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (tasks.__doc__ or "").splitlines()
    start = next(i for i, line in enumerate(lines) if "import TASKS" in line)
    stop = lines.index("    )", start)
    assert stop - start <= 12
    monkeypatch.setattr(tasks, "TASKS", dict(TASKS))
    exec("\n".join(line[4:] for line in lines[start : stop + 1]), {})
    (added,) = set(tasks.TASKS) - set(NAMES.split())
    tasks.check(tasks.TASKS[added], tokenizer)
    for family in ("main", "elsewhere", "imports"):
        for sample in (s for p in tasks.TASKS[added].pairs("train", 20, 0, family) for s in (p.first, p.second)):
            ast.parse(sample.prompt + sample.answer + sample.rest)


def test_a_shifted_variant_that_is_too_long_costs_no_main_loss(
    tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    def evaluated(context: int) -> TaskRow:
        config = toy.config(0.25, vocab_size=tokenizer.vocab_size, context=context)
        (row,) = tasks_solved.evaluate(config, toy.params(config, 1), tokenizer, ["for_while"]).tasks
        return row

    task = TASKS["for_while"]
    main, shifted = (
        int(tasks.sample(task, tokenizer, "heldout", tasks_solved.PAIRS, 0, variant).lengths.max())
        for variant in ("main", "shifted")
    )
    assert main < shifted
    row = evaluated(main)
    assert row.task_loss is not None
    assert (row.reason, row.shifted_task_loss, row.shifted_accuracy) == (None, None, None)
    assert "shifted samples left out: task for_while: " in capsys.readouterr().out
    assert "of 1 tasks" in tasks_solved.summary(Evaluation(tasks=(row,)))
    assert evaluated(shifted).shifted_task_loss is not None
    assert "exceed the model's context" in (evaluated(main - 1).reason or "")


def test_prompts_longer_than_the_context_are_refused(tokenizer: Tokenizer) -> None:
    task = TASKS["for_while"]
    longest = int(tasks.sample(task, tokenizer, "heldout", 8).lengths.max())
    assert len(tasks.sample(task, tokenizer, "heldout", 8, context=longest).lengths) == 16
    with pytest.raises(TaskError, match=f"for_while: prompts of {longest} tokens exceed the model's context"):
        tasks.sample(task, tokenizer, "heldout", 8, context=longest - 1)
