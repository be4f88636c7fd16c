"""launch.data as a user runs it: prepare, look, and one clear line for bad input."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sparse_gpt.data import Corpus, idioms
from tests.inprocess import launch_here

Launch = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ("--preset=tiny", "--config.data.tokens=30000", "--config.model.vocab_size=300")


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    lines = result.stderr.strip().splitlines()
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1, result.stderr
    assert all(word in lines[0] for word in words), lines[0]


@pytest.mark.slow
def test_prepare_then_inspect(launch: Launch, workdir: Path) -> None:
    made = launch("data", f"--workdir={workdir}", *SMALL)
    assert made.returncode == 0, made.stderr
    corpus = Corpus.open(workdir / "corpus")
    assert corpus.sha256 in made.stdout
    assert corpus.manifest["settings"]["reject"].startswith("held-out task samples")
    assert "idioms" in made.stdout
    assert f"{corpus.tokens('train'):,}" in made.stdout

    seen = launch_here("data", f"--workdir={workdir}", "--inspect", "--show=2", "--split=validation", *SMALL)
    assert seen.returncode == 0, seen.stderr
    assert seen.stdout.count("--- validation window") == 2
    first = corpus.windows("validation", 0, 64)[0][:-1].tolist()
    sample = seen.stdout.split("tokens)\n")[1].split("--- ")[0]
    assert sample.count("│") == len(first) - 1
    assert sample.replace("│", "").replace("↵", "").rstrip("\n") == corpus.tokenizer.decode(first).rstrip("\n")

    refused(launch_here("data", f"--workdir={workdir}", *SMALL, "--config.data.tokens=31000"), "tokens=30000", "31000")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--config.data.sources=text={}/*.nothing",), ("text=", "no files found")),
        (("--config.data.sources=jsonl={}/a.jsonl#body",), ("no column 'body'", "there are: text")),
        (("--config.data.tokens=-1",), ("data.tokens", "-1")),
        (("--inspect",), ("no corpus there", "launch.data")),
        (("--show=-1", "--inspect"), ("show",)),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, flags: tuple[str, ...], words: tuple[str, ...]) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": idioms.generate(0, 0)}) + "\n")
    workdir = tmp_path / "workdir"
    refused(launch_here("data", f"--workdir={workdir}", *SMALL, *(flag.format(tmp_path) for flag in flags)), *words)
    assert not workdir.exists()
