"""A task from a file: what is read, how it is refused, and that it goes wherever a task of the table goes."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from sparse_gpt import tasks
from sparse_gpt.circuits.run.samples import TaskSamples, joint_sha256, share
from sparse_gpt.config import Config, ModelConfig, PruneConfig
from sparse_gpt.data.tokenizer import Tokenizer, train_tokenizer
from sparse_gpt.evaluation.samples import task_samples
from sparse_gpt.tasks import TaskError, own, rows
from tests.inprocess import launch_here
from tests.own_files import (
    FORMATS,
    GOOD,
    HOSTILE,
    READ_ALIKE,
    WORDS,
    changed,
    csv_bytes,
    entries,
    jsonl,
    split_entries,
    write,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [f"for {word} in {word}_list:\n    pass\nwhile {word}:\n    pass\n" for word in WORDS]
    return train_tokenizer(texts, 300)


def test_jsonl_and_csv_say_the_same(tmp_path: Path) -> None:
    one, two = (tasks.find(write(tmp_path / name, data(split_entries()))) for name, data in FORMATS.items())
    assert (one.name, two.name) == ("a", "b.c")
    assert one.source == str(tmp_path / "a.jsonl")
    assert one.samples_sha256 == hashlib.sha256(jsonl(split_entries())).hexdigest()
    assert one.parts == two.parts
    for split, variant in one.parts:
        assert one.pairs(split, 99, 1, variant) == two.pairs(split, 99, 1, variant)


@pytest.mark.parametrize("case", READ_ALIKE)
def test_what_files_may_look_like(tmp_path: Path, case: str) -> None:
    name, data = READ_ALIKE[case]
    plain, found = (
        tasks.find(write(tmp_path / "a.jsonl", jsonl(entries()))),
        own.load(write(tmp_path / name, data(entries()))),
    )
    for split, variant in plain.parts:
        expected = {frozenset((p.first, p.second)) for p in plain.pairs(split, 99, 0, variant)}
        assert {frozenset((p.first, p.second)) for p in found.pairs(split, 99, 0, variant)} == expected
    assert found.parts == plain.parts


def test_pairs_of_a_file_are_divided_by_their_prompts(tmp_path: Path) -> None:
    values = entries(41)
    task = own.load(write(tmp_path / "a.jsonl", jsonl(values)))
    assert [len(task.pairs(split, 99)) for split, _ in task.parts] == [21, 10, 10]
    turned = [value for i in range(80, -1, -2) for value in (values[i + 1], values[i])]
    other = own.load(write(tmp_path / "b.jsonl", jsonl(turned)))
    for split in tasks.SPLITS:
        prompts = [{s.prompt for p in each.pairs(split, 99) for s in (p.first, p.second)} for each in (task, other)]
        assert prompts[0] == prompts[1]
    first = task.pairs("train", 21)
    assert task.pairs("train", 5) == first[:5]
    assert task.pairs("train", 21, seed=1) != first
    assert set(task.pairs("train", 21, seed=1)) == set(first)


def test_held_out_families_are_the_shifted_variant(tmp_path: Path) -> None:
    task = own.load(write(tmp_path / "a.jsonl", jsonl(split_entries())))
    assert task.parts == (*((split, "main") for split in tasks.SPLITS), ("heldout", "shifted"))
    assert {p.first.family for p in task.pairs("heldout", 99, variant="shifted")} == {"new"}
    assert {p.second.family for p in task.pairs("heldout", 99)} == {"plain"}
    fewer = own.load(write(tmp_path / "b.jsonl", jsonl(split_entries()[:-2])))  # seven pairs of the new family
    assert fewer.parts == tuple((split, "main") for split in tasks.SPLITS)
    assert len(fewer.pairs("heldout", 99)) == 17
    with pytest.raises(TaskError, match="task b: the file has no heldout pairs of 'shifted'; rows name their"):
        fewer.pairs("heldout", 1, variant="shifted")
    with pytest.raises(TaskError, match="split 'test': unknown"):
        fewer.pairs("test", 1)


def test_pairs_without_a_family_are_in_the_main_variant(tmp_path: Path) -> None:
    parts = {"train": (0, 10), "validation": (10, 9), "heldout": (19, 10)}
    named = [e for split, (at, n) in parts.items() for e in entries(n, at, split=split, family="plain")]
    unnamed = entries(9, 29, split="heldout")
    task = own.load(write(tmp_path / "a.jsonl", jsonl(named + unnamed)))
    assert (task.novel, task.parts) == ((), tuple((split, "main") for split in tasks.SPLITS))
    assert len(task.pairs("heldout", 99)) == 19
    task = own.load(write(tmp_path / "b.jsonl", jsonl(named + unnamed + entries(8, 38, split="heldout", family="new"))))
    assert (task.novel, len(task.pairs("heldout", 99))) == (("new",), 19)
    assert len(task.pairs("heldout", 99, variant="shifted")) == 8


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_refused(tmp_path: Path, case: str) -> None:
    name, data, line, message = HOSTILE[case]
    path = write(tmp_path / name, data)
    with pytest.raises(TaskError) as refused:
        tasks.find(path)
    text = str(refused.value)
    assert text.startswith(f"{path}{line}: ")
    assert message in text
    assert "\n" not in text
    assert len(text) < len(path) + 400


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    write(tmp_path / "large.csv", b"x" * 11)
    write(tmp_path / "long.jsonl", GOOD)
    monkeypatch.setattr(rows, "MOST_ROWS", 79)
    refused = {
        "folder.csv": r"folder.csv: is a folder; name a file of prompts",
        "pipe.csv": r"pipe.csv: is a pipe or device; name a file",
        "none.csv": r"none.csv: cannot be read \(No such file or directory\); name a file",
        "loop.csv": r"loop.csv: cannot be read \(Too many levels",
        "long.jsonl": r"long.jsonl:80: more than 79 rows; leave some out",
        "a\0.csv": r"a task cannot be named 'a\\x00'",
    }
    for name, message in refused.items():
        with pytest.raises(TaskError, match=message):
            tasks.find(str(tmp_path / name))
    monkeypatch.setattr(rows, "MOST_BYTES", 10)
    with pytest.raises(TaskError, match=r"large.csv: 11 bytes, more than the 10 that are read; shorten it"):
        tasks.find(str(tmp_path / "large.csv"))


def test_files_in_a_list_of_tasks(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    one, two, other = (write(tmp_path / name, GOOD) for name in ("a.csv.jsonl", "a.jsonl", "b/a.jsonl"))
    assert [task.name for task in tasks.select(f"for_while, {one},{two},{two}")] == ["for_while", "a.csv", "a"]
    with pytest.raises(TaskError, match=r"b/a\.jsonl: both are named a; rename one of the files"):
        tasks.select(f"{two},{other}")
    with pytest.raises(TaskError, match=r"unknown task 'pairs'; choose all, or some of .*\(\.jsonl, \.csv\)"):
        tasks.find("pairs")
    assert not set(tasks.TASKS) & {"a", "a.csv"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"answer": " in_list"}, r"a.jsonl:1: answer ' in_list' is \d tokens after 'for an'"),
        ({"prompt": "for an ", "answer": "in"}, r"a.jsonl:1: answer 'in' is not a token of its own .* merges with"),
        ({"prompt": "for an" * 9}, r"a.jsonl:1: prompts of \d+ tokens exceed the model's context 16"),
    ],
)
def test_what_a_tokenizer_refuses(tmp_path: Path, tokenizer: Tokenizer, values: dict[str, str], message: str) -> None:
    found = entries()
    found[0] |= values
    found[1] |= {"foil": found[0]["answer"]}
    task = own.load(write(tmp_path / "a.jsonl", jsonl(found)))
    (split,) = (s for s in tasks.SPLITS if found[0]["prompt"] in {p.first.prompt for p in task.pairs(s, 99)})
    with pytest.raises(TaskError, match=f"^task a: .*{message}"):
        tasks.sample(task, tokenizer, split, 99, context=16)
    if "tokens exceed" not in message:
        with pytest.raises(TaskError, match=message):
            tasks.check(task, tokenizer)


def test_a_check_looks_at_every_row(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found = entries(56)
    last = own.load(write(tmp_path / "a.jsonl", jsonl(found))).pairs("train", 99)[-1]  # of 28, after those that suffice
    at = next(i for i, entry in enumerate(found) if entry["prompt"] == last.first.prompt)
    found[at] |= {"answer": " in_list"}
    found[at + 1] |= {"foil": " in_list"}
    with pytest.raises(TaskError, match=f"a.jsonl:{at + 1}: answer ' in_list' is "):
        tasks.check(own.load(write(tmp_path / "a.jsonl", jsonl(found))), tokenizer)


def _config(steps: int = 8) -> Config:
    return Config(
        model=ModelConfig(vocab_size=300, context=16),
        prune=PruneConfig(steps=steps, batch_pairs=4, evaluation_pairs=9),
    )


def test_samples_for_the_mask_search(tmp_path: Path, tokenizer: Tokenizer) -> None:
    task = own.load(write(tmp_path / "a.csv", csv_bytes(split_entries())))
    found = task_samples(task, tokenizer, _config())
    assert found.sha256 == task.samples_sha256
    assert found.shifted is not None
    batches = (found.train, found.validation, found.heldout, found.shifted)
    assert [len(batch.positions) for batch in batches] == [40, 18, 18, 16]  # all 20 pairs, 9 of 9, 9 of 10, all 8
    assert len(task_samples(task, tokenizer, _config(steps=1)).train.positions) == 8
    for batch, (split, variant) in zip(batches, task.parts, strict=True):
        pairs = task.pairs(split, len(batch.positions) // 2, PruneConfig().seed, variant)
        for i, sample in enumerate(sample for pair in pairs for sample in (pair.first, pair.second)):
            ids = tokenizer.encode(sample.prompt)
            assert batch.tokens[i, : batch.positions[i] + 1].tolist() == ids
            assert [int(batch.answer[i])] == tokenizer.encode(sample.prompt + sample.answer)[len(ids) :]
        np.testing.assert_array_equal(batch.answer.reshape(-1, 2), batch.foil.reshape(-1, 2)[:, ::-1])


def test_several_files_have_one_identity(tmp_path: Path, tokenizer: Tokenizer) -> None:
    one = task_samples(own.load(write(tmp_path / "a.jsonl", GOOD)), tokenizer, _config())
    assert one.shifted is None
    table = dataclasses.replace(one, sha256="")
    assert share({"x": table, "y": table}).sha256 == ""
    both: TaskSamples = share({"x": table, "a": one})
    assert both.sha256 == joint_sha256(["", one.sha256])
    assert len({both.sha256, joint_sha256([one.sha256, ""]), joint_sha256([one.sha256]), ""}) == 4
    assert joint_sha256([one.sha256]) == one.sha256


def test_show_and_export(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    path, target = write(tmp_path / "my-pairs.csv", csv_bytes(split_entries())), tmp_path / "samples.jsonl"
    flags = (f"--tokenizer={tmp_path / 'tokenizer'}", f"--task={path}")
    done = launch_here("tasks", *flags, "--show=1", f"--export={target}", "--pairs=9")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        f"my-pairs: pairs of {path}: 20 train (main), 9 validation (main), 10 heldout (main), 8"
    )
    assert "  train, main, pair 1: answer " in done.stdout
    assert f"{target}: 70 samples of 1 tasks" in done.stdout
    written = [json.loads(line) for line in target.read_text().splitlines()]
    assert [entry["split"] for entry in written[::2]] == ["train"] * 9 + ["validation"] * 9 + ["heldout"] * 17
    assert {(entry["variant"], entry["family"]) for entry in written} == {("main", "plain"), ("shifted", "new")}
    assert {entry["task"] for entry in written} == {"my-pairs"}


def test_samples_are_not_written_over_the_pairs(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    path = Path(write(tmp_path / "pairs.jsonl", GOOD))
    before, flags = path.read_bytes(), (f"--tokenizer={tmp_path / 'tokenizer'}", f"--task=for_while, {path}")
    done = launch_here("tasks", *flags, f"--export={tmp_path}/tokenizer/../pairs.jsonl")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is a file of --task too; name another file" in done.stderr
    assert path.read_bytes() == before


def test_launch_refuses_in_one_line(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    (tmp_path / "circuits").mkdir()
    path = write(tmp_path / "pairs.jsonl", changed(4, answer=3))
    for script in ("tasks", "prune", "steer", "reproduce"):
        more = ("--experiment=necessity",) if script == "reproduce" else ()
        done = launch_here(script, f"--workdir={tmp_path}", f"--task={path}", *more)
        assert (done.returncode, done.stdout) == (2, ""), script
        assert done.stderr == f"error: {path}:5: answer is 3; give a string\n"
