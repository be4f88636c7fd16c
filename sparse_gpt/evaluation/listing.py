"""Samples of tasks for people, token by token, and for other programs, as lines of JSON."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from sparse_gpt import tasks
from sparse_gpt.data.tokenizer import Tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree, replacing
from sparse_gpt.tasks import VARIANTS, AnyTask, Pair, Sample, TaskError
from sparse_gpt.visible import SIGNS, visible

_STRIPES = ("\033[48;5;254;38;5;16m", "\033[48;5;250;38;5;16m")
_PLAIN = "\033[0m"
_BREAK = SIGNS["\n"]


def require_all(chosen: list[AnyTask], tokenizer: Tokenizer, folder: Path) -> None:
    """Names every task that the tokenizer cannot express, then raises TaskError if there is one."""
    good, bad = [], []
    for task in tqdm(chosen, "checking", leave=False, disable=None):
        try:
            tasks.check(task, tokenizer)
            good.append(task.source)
        except TaskError as error:
            bad.append(task.name)
            tqdm.write(str(error), file=sys.stderr)
    if bad:
        others = f"or choose --task={','.join(good)}" if good else "or other tasks"
        raise TaskError(
            f"{len(bad)} of {len(chosen)} tasks ({', '.join(bad)}) cannot be expressed by the tokenizer {folder} "
            f"({tokenizer.vocab_size} entries); use a larger one, {others}"
        )


def show(task: AnyTask, pairs: Sequence[Pair], origin: str, tokenizer: Tokenizer, in_color: bool) -> str:
    """Pairs of a task, and where they are from; tokens marked off by | or by stripes of color, white space as signs."""
    lines = [f"{task.name}: {task.description}"]
    for number, pair in enumerate(pairs, 1):
        for sample in (pair.first, pair.second):
            answer, foil = (visible(text) for text in (sample.answer, sample.foil))
            lines.append(f"  {origin}, pair {number}: answer {answer}   foil {foil}")
            lines.extend("    " + line for line in _bordered(sample, tokenizer, in_color).split("\n"))
    return "\n".join(lines) + "\n"


def _bordered(sample: Sample, tokenizer: Tokenizer, in_color: bool) -> str:
    ids, answer, _ = tasks.encode_sample(sample, tokenizer)
    tokens = [visible(tokenizer.token_text(i)) for i in ids]
    if in_color:
        tokens = [_STRIPES[i % 2] + token + _PLAIN for i, token in enumerate(tokens)]
        text = "".join(tokens).replace(_BREAK + _PLAIN, _BREAK + _PLAIN + "\n")
        return f"{text} → {visible(tokenizer.token_text(answer))}"
    return "|".join(tokens).replace(_BREAK + "|", _BREAK + "\n") + f" → {visible(tokenizer.token_text(answer))}"


def objects(chosen: list[AnyTask], tokenizer: Tokenizer, count: int, seed: int) -> Iterator[Tree]:
    """Every sample of every split, variant and family, as --export writes it; `variant` names the family too."""
    parts = [(task, split, variant) for task in chosen for split, variant in task.parts]
    for task, split, variant in tqdm(parts, "exporting", leave=False, disable=None):
        try:
            pairs = task.pairs(split, count, seed, variant, tokenizer)
        except TaskError as error:
            if variant in VARIANTS:
                raise
            tqdm.write(f"family {variant} is left out: {error}", file=sys.stderr)
            continue
        for number, pair in enumerate(pairs):
            for sample in (pair.first, pair.second):
                tokens, answer_id, foil_id = tasks.encode_sample(sample, tokenizer)
                yield {
                    "task": task.name,
                    "split": split,
                    "variant": variant,
                    **({"family": sample.family} if sample.family else {}),
                    "pair": number,
                    "prompt": sample.prompt,
                    "answer": sample.answer,
                    "foil": sample.foil,
                    "tokens": tokens,
                    "answer_id": answer_id,
                    "foil_id": foil_id,
                }


def write(target: Path, entries: Iterator[Tree]) -> int:
    """Writes a line for each, the file whole or not at all, and returns their number."""
    count = 0
    try:
        with replacing(target) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
            for entry in entries:
                file.write(json.dumps(entry) + "\n")
                count += 1
    except OSError as error:
        raise InputError(f"--export={target}: cannot be written ({error.strerror})") from error
    return count
