"""What a tokenizer makes of samples, and what is refused; which tasks a flag names."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from sparse_gpt import tasks
from sparse_gpt.data import Tokenizer
from sparse_gpt.tasks import SPLITS, TASKS, Pair, Sample, Task, TaskError, Template
from sparse_gpt.tasks.words import VOCABULARY


class _Bytes:
    """A tokenizer of single bytes, except for some tokens of its own."""

    vocab_size = 256

    def __init__(self, *extra: str) -> None:
        self._extra = extra

    def encode(self, text: str) -> list[int]:
        pattern = "|".join([*map(re.escape, self._extra), "(?s:.)"])
        return [self._id(token) for token in re.findall(pattern, text)]

    def _id(self, token: str) -> int:
        return 256 + self._extra.index(token) if token in self._extra else ord(token)

    def decode(self, ids: list[int]) -> str:
        return "".join(self._extra[i - 256] if i >= 256 else chr(i) for i in ids)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ((" in",), r"^task for_while: answer ':\\n' is 2 tokens after .*\(':' \| '\\n'\) .*256 entries.*larger"),
        ((":\n",), r"^task for_while: answer ' in' is 3 tokens after .*\(' ' \| 'i' \| 'n'\)"),
    ],
)
def test_check_says_how_an_answer_is_split(extra: tuple[str, ...], message: str) -> None:
    with pytest.raises(TaskError, match=message) as error:
        tasks.check(TASKS["for_while"], _Bytes(*extra))
    assert "\n" not in str(error.value)


def test_check_accepts_what_can_be_expressed() -> None:
    tasks.check(TASKS["for_while"], _Bytes(" in", ":\n"))


def test_encode_refuses_tokens_across_the_border_and_equal_tokens() -> None:
    merged = Pair(Sample("a)", "\n", "b"), Sample("c)", "b", "\n"))
    with pytest.raises(TaskError, match="merges with the end of the prompt"):
        tasks.encode([merged], _Bytes(")\n"))
    same = Pair(Sample("a", "b", "b"), Sample("c", "b", "b"))
    with pytest.raises(TaskError, match="same token"):
        tasks.encode([same], _Bytes())
    with pytest.raises(TaskError, match="no samples"):
        tasks.encode([], _Bytes())


def test_names_to_copy_must_be_single_tokens() -> None:
    with pytest.raises(TaskError, match=r"class_init: only 1 of the \d+ train names .* 5 are needed; use a larger"):
        TASKS["class_init"].pairs("train", 1, tokenizer=_Bytes(" name"))
    words = [f" {word}" for word in VOCABULARY["train"].copies[:5]]
    for pair in TASKS["class_init"].pairs("train", 10, tokenizer=_Bytes(*words)):
        assert {pair.first.answer, pair.second.answer} <= set(words)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test", 1), "split 'test': unknown; choose train, validation, heldout"),
        (("train", 1, 0, "other"), "variant 'other': unknown; choose main, shifted"),
        (("train", -1), "-1 pairs"),
    ],
)
def test_pairs_refuses(arguments: tuple, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        TASKS["for_while"].pairs(*arguments)


def test_more_pairs_than_there_are() -> None:
    task = Task("t", "", ("c", "d"), (Template("<<a|b>>{boolean}"),), (Template("<<a|b>>"),))
    with pytest.raises(TaskError, match=r"task t: only 4 distinct train pairs \(main\); ask for fewer"):
        task.pairs("train", 9)
    assert task.pairs("train", 0) == []


def test_task_definitions_are_checked() -> None:
    with pytest.raises(TaskError, match=r"task t: unknown slot \{nam\}; known are word, name"):
        Task("t", "", ("c", "d"), (Template("<<a|b>>{nam}"),), ())
    with pytest.raises(TaskError, match=r"task t: template 'a \{name\}' has no contrast"):
        Task("t", "", ("c", "d"), (Template("a {name}"),), ())


def test_select() -> None:
    assert [task.name for task in tasks.select("all")] == list(TASKS)
    assert [task.name for task in tasks.select("var_if, for_while,var_if")] == ["var_if", "for_while"]
    with pytest.raises(TaskError, match=r"unknown task 'for'; choose all, or some of .*for_while"):
        tasks.select("for_while,for")
    with pytest.raises(TaskError, match="no task named"):
        tasks.select(" ,")
    with pytest.raises(TaskError, match=r"^all stands alone, not beside other tasks; choose all, or some of"):
        tasks.select("all,for_while")


def test_select_circuits() -> None:
    def names(text: str) -> list[list[str]]:
        return [[task.name for task in circuit] for circuit in tasks.select_circuits(text)]

    assert names("for_while") == names(" for_while, ,") == [["for_while"]]
    assert names("for_while+var_if, class_init") == [["for_while", "var_if"], ["class_init"]]
    assert names("all") == []
    for none in ("", ",", "for_while+", "a,+"):
        with pytest.raises(TaskError, match="no task named in"):
            names(none)
    for several in ("all,for_while", "for_while+all"):
        with pytest.raises(TaskError, match=r"^all stands alone, not beside other tasks; choose all, or some of"):
            names(several)


@pytest.mark.parametrize("name", ["for_while", "single_double_quote", "bracket_counting"])
def test_rows_are_no_longer_than_the_context(name: str, tokenizer_of_1024: Tokenizer) -> None:
    """Prompts are padded to a multiple of 8, and a context may be none."""

    def drawn(context: int) -> tasks.EncodedTask:
        return tasks.sample(TASKS[name], tokenizer_of_1024, "train", 40, context=context)

    whole = drawn(128)
    longest = int(whole.lengths.max())
    for context in range(longest, longest + 9):
        tokens = drawn(context).tokens
        assert tokens.shape[1] == min(context, whole.tokens.shape[1])
        np.testing.assert_array_equal(tokens, whole.tokens[:, :context])
    with pytest.raises(TaskError, match=f"exceed the model's context {longest - 1}"):
        drawn(longest - 1)


def test_one_long_pair_of_few_is_passed_over(tmp_path: Path, tokenizer_of_1024: Tokenizer) -> None:
    """Of a family of one's own file with fewer pairs than are asked for; of more than a fifth the longest is named."""

    def pair(split: str, family: str, i: int, before: str = "") -> list[dict[str, str]]:
        rows = [("for", "while"), ("while", "for")]
        return [
            {"prompt": f"{before}{split} = {family} + {i}\n{answer}s\n", "answer": answer, "foil": foil, "split": split,
             "family": family}
            for answer, foil in rows
        ]  # fmt: skip

    pairs = [pair(split, family, i) for split in SPLITS for family in ("alpha", "beta") for i in range(10)]
    pairs += [pair("heldout", "beta", 10, "x = 1\n" * 60)]

    def drawn(count: int, pairs: list[list[dict[str, str]]]) -> int:
        path = tmp_path / "own.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for pair in pairs for row in pair))
        found = tasks.sample(tasks.find(str(path)), tokenizer_of_1024, "heldout", count, 0, "beta", 100)
        return len(found.lengths) // 2

    assert [drawn(count, pairs) for count in (4, 8, 11, 20)] == [4, 8, 10, 10]
    several = [pair("heldout", "beta", i, "x = 1\n" * 60) for i in (11, 12)]
    with pytest.raises(TaskError, match="exceed the model's context 100"):
        drawn(20, pairs + several)
