"""Hostile values for every field, damage for every file, hostile folders for every script; a fixed seed repeats all.

python -m tests.fuzz --cases=100000 --seed=0
python -m tests.fuzz --only=scripts/12

A case passes when what it is given is refused with one line (InputError), or taken and finite. First come the listed
cases, every one once; what `--cases` asks for beyond them is drawn: pairs of fields, and bytes flipped, cut and put in.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.errors import InputError
from tests import fuzz_scripts, hostile
from tests.archive_readers import READERS, Reader
from tests.damaged_archives import OBSTACLES

LONGEST_LINE = 2000
HANG_S = 60  # no case takes a second on an idle machine


class Case(NamedTuple):
    """`run` gets an empty folder and raises when the case fails. The name repeats it: --only=NAME."""

    name: str
    what: str
    run: Callable[[Path], object]


class Hung(BaseException):
    """A case waits for something, such as the other end of a pipe. No handler of errors takes it for one."""


def listed(scripts: bool = True) -> Iterator[Case]:
    """Every field with every value as a flag and in a file, every reader with every damage, every script."""
    fields = [(group, field) for group, rules in configs.RULES.items() for field in rules]
    for index, ((group, field), value) in enumerate(itertools.product(fields, hostile.VALUES)):
        tree = {group: {field: value.value}}
        for way, make in (("flags", _from_flags), ("files", _from_file)):
            yield Case(f"{way}/{index}", f"{group}.{field} = {value.name}", _Field(make, tree))
    for index, tree_case in enumerate(hostile.TREES):
        yield Case(f"trees/{index}", tree_case.name, _Field(_from_file, tree_case.value))
    for reader in READERS:
        for index, damage in enumerate(reader.damages):
            yield Case(f"{reader.name}/{index}", damage.name, _File(reader, damage.of(reader.sound)))
        for obstacle in OBSTACLES:
            yield Case(f"{reader.name}/{obstacle.name}", obstacle.name, _File(reader, obstacle.at))
    if scripts:
        for index, (script, flag, value) in enumerate(fuzz_scripts.combinations()):
            shown = value.name if isinstance(value, fuzz_scripts.Place) else repr(value[:20])
            yield Case(f"scripts/{index}", f"{script} --{flag}: {shown}", _Script(script, flag, value))


def drawn(seed: int) -> Iterator[Case]:
    """Random cases without end, each from a generator of its own, so that one can be repeated alone."""
    fields = [(group, field) for group, rules in configs.RULES.items() for field in rules]
    for index in itertools.count():
        name = f"drawn/{seed}/{index}"
        rng = random.Random(name)
        if index % 2:
            tree: dict[str, dict[str, Any]] = {}
            values = [value for value in hostile.VALUES if len(str(value.name)) and value.name != "long text"]
            chosen = [(*rng.choice(fields), rng.choice(values)) for _ in range(rng.randint(2, 4))]
            for group, field, value in chosen:
                tree.setdefault(group, {})[field] = value.value
            what = ", ".join(f"{group}.{field} = {value.name}" for group, field, value in chosen)
            yield Case(name, what, _Field(rng.choice((_from_flags, _from_file)), tree))
        else:
            reader = rng.choice(READERS)
            yield Case(name, reader.name, _File(reader, _mutated(reader.sound, rng)))


def _print(line: str) -> None:
    print(line, flush=True)


def run(cases: Iterator[Case], say: Callable[[str], object] = _print) -> tuple[int, list[str]]:
    """Runs the cases and returns how many there were and one line for each that failed."""
    count, failed = 0, []
    for case in cases:
        count += 1
        problem = outcome(case)
        if problem:
            failed.append(f"--only={case.name!r}: {case.what}: {problem}")
            say(failed[-1])
    return count, failed


def outcome(case: Case) -> str:
    """Why a case fails, in one line; "" if it does not."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        with _alarm():
            case.run(folder)
    except InputError as error:
        text = str(error)
        if "\n" in text or len(text) > LONGEST_LINE:
            return f"the message has {len(text)} characters in {len(text.splitlines())} lines: {text[:200]!r}"
    except (Exception, Hung) as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
        return f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:400]}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ""


class _Field(NamedTuple):
    """A configuration made of a tree of hostile values: refused, or all of it is finite."""

    make: Callable[[Any], configs.Config]
    tree: Any

    def __call__(self, folder: Path) -> None:
        config = self.make(self.tree)
        again = configs.from_dict(json.loads(json.dumps(configs.to_dict(config), allow_nan=False)))
        assert again == config, "what is written is not what is read"


class _File(NamedTuple):
    """A reader of a file with this content, or of what a function puts there."""

    reader: Reader
    content: bytes | Callable[[Path], object]

    def __call__(self, folder: Path) -> None:
        path = folder / self.reader.file
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            self.content(path)
        self.reader.read(path)


class _Script(NamedTuple):
    """A script with a hostile folder or path."""

    script: str
    flag: str
    value: "fuzz_scripts.Place | str"

    def __call__(self, folder: Path) -> None:
        try:
            fuzz_scripts.check(self.script, self.flag, self.value, folder)
        except InputError as error:  # of this test's own preparations
            raise AssertionError(str(error)) from error


def _from_flags(tree: dict[str, dict[str, Any]]) -> configs.Config:
    flat = {f"{group}.{field}": value for group, held in tree.items() for field, value in held.items()}
    return configs.validate(configs.replace(presets.preset("tiny"), flat))


def _from_file(tree: Any) -> configs.Config:
    return configs.validate(configs.from_dict(tree, "config.json"))


def _mutated(content: bytes, rng: random.Random) -> bytes:
    """One to four bytes flipped, stretches cut out, put in or doubled."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(changed) + 1), rng.choice((1, 1, 2, 4, 8, 64))
        match rng.randrange(5):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = rng.randbytes(length)
            case 3:
                changed[at:at] = changed[at : at + length]
            case _:
                changed[at : at + length] = rng.choice((b"\x00", b"\xff")) * length
    return bytes(changed)


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    """Raises Hung where a case has waited for HANG_S."""

    def ring(number: int, frame: FrameType | None) -> NoReturn:
        raise Hung(f"still running after {HANG_S} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(HANG_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    """As many cases as asked for; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="names of cases that begin so: scripts/, flags/12, drawn/0/77")
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    cases = itertools.islice(itertools.chain(listed(), drawn(options.seed)), options.cases)
    if options.only:
        cases = (case for case in cases if case.name.startswith(options.only))
    started = time.monotonic()
    count, failed = run(cases)
    print(f"{count} cases with seed {options.seed} in {time.monotonic() - started:.0f} s, {len(failed)} failed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
