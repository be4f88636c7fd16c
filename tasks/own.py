"""A task of one's own, from a file: `--task=pairs.jsonl` or `--task=pairs.csv`; its name is the file's, `pairs`.

Every row is a prompt with its answer and its foil (see tasks.rows). Two rows are a pair: those with one value of
`pair`, or where no row has one, every two consecutive rows. Their prompts differ, and each one's answer is the other's
foil.

Every row names its `split` (train, validation or heldout), or none does; then the pairs are ordered by a hash of their
prompts, and the first quarter is validation, the second is heldout, the rest is train. No prompt may be in two splits.

Where rows name both `split` and `family` (of templates), held-out pairs of a family that no other split has are the
"shifted" variant, as long as enough other pairs are held out too. Pairs without a family are in the "main" variant.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .copies import Tokenizer
from .rows import SUFFIXES, Row, read_rows, shown
from .task import VARIANTS, Pair, Part, Sample, TaskError, check_request
from .words import SPLITS

FEWEST_PAIRS = 8  # of every split

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_RESERVED = ("all", "all-that-work")  # what --task says for many tasks


@dataclass(frozen=True)
class OwnTask:
    """A task whose pairs stand in a file; used as `Task` is.

    Attributes:
        name: the file's, without folder and suffix.
        source: absolute path of the file, which --task takes.
        samples_sha256: of the file's bytes.
        by_part: the pairs of every (split, variant) that has some, in the order of the file.
    """

    name: str
    source: str
    samples_sha256: str
    by_part: Mapping[Part, tuple[Pair, ...]]

    @property
    def description(self) -> str:
        """Where the pairs are from, and how many of each split there are."""
        counts = (f"{len(pairs)} {split} ({variant})" for (split, variant), pairs in self.by_part.items())
        return f"pairs of {self.source}: {', '.join(counts)}"

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every (split, variant) that has pairs."""
        return tuple(self.by_part)

    @property
    def families(self) -> tuple[str, ...]:
        """Families with FEWEST_PAIRS pairs in every split, where there are two or more; else `main`, which is all."""
        each = (dict.fromkeys(pair.first.family for pair in self.by_part[split, "main"]) for split in SPLITS)
        names = [name for name in next(each) if name]
        enough = [name for name in names if min(len(self._of_family(split, name)) for split in SPLITS) >= FEWEST_PAIRS]
        return tuple(enough) if len(enough) > 1 else ("main",)

    @property
    def novel(self) -> tuple[str, ...]:
        """Families of the shifted variant with FEWEST_PAIRS pairs; where none has so many, the variant itself."""
        pairs = self.by_part.get(("heldout", "shifted"), ())
        names = dict.fromkeys(pair.first.family for pair in pairs)
        enough = tuple(name for name in names if len(self._of_family("heldout", name)) >= FEWEST_PAIRS)
        return enough or (("shifted",) if pairs else ())

    @property
    def checked_pairs(self) -> int:
        """Pairs of a part that a check against a tokenizer looks at: all."""
        return max(map(len, self.by_part.values()))

    def free_words(self, tokenizer: Tokenizer) -> frozenset[str]:
        """None: a file does not say what of its prompts is a template."""
        return frozenset()

    def pairs(
        self, split: str, count: int, seed: int = 0, variant: str = "main", tokenizer: Tokenizer | None = None
    ) -> list[Pair]:
        """`count` pairs of the file, or all of a split that has fewer, in an order that depends on `seed`.

        Raises:
            TaskError: unknown split or variant, or one that the file has no pairs of.
        """
        check_request(self, split, count, variant)
        found = self.by_part.get((split, variant)) if variant in VARIANTS else self._of_family(split, variant)
        if not found:
            there = [each for each in SPLITS if self.by_part.get((each, variant)) or self._of_family(each, variant)]
            ways = f"it has {', '.join(there)} ones" if there else "rows name their family and their split for that"
            raise TaskError(f"task {self.name}: the file has no {split} pairs of {variant!r}; {ways}")
        return sorted(found, key=lambda pair: _hash(pair, str(seed)))[:count]

    def _of_family(self, split: str, family: str) -> list[Pair]:
        """All pairs of a family in a split."""
        parts = (self.by_part.get((split, variant), ()) for variant in VARIANTS)
        return [pair for part in parts for pair in part if pair.first.family == family]


def load(path: str, built_in: Sequence[str] = ()) -> OwnTask:
    """The task of a file.

    Args:
        path: ends in .jsonl or .csv.
        built_in: names that it may not have.

    Raises:
        TaskError: one line that names the file, the line in it and the way out.
    """
    path = os.path.expanduser(path)
    name = _name(path, built_in)
    rows, sha256 = read_rows(path)
    pairs, stated = _paired(rows), any(row.split for row in rows)
    by_split = _stated(pairs) if stated else _divided(pairs)
    _check_counts(path, by_split, stated)
    _check_disjoint(by_split)
    parts: dict[Part, list[Pair]] = {(split, "main"): found for split, found in by_split.items()}
    if stated:
        parts |= _by_variant(by_split)
    return OwnTask(name, os.path.abspath(path), sha256, {part: tuple(found) for part, found in parts.items()})


def _name(path: str, built_in: Sequence[str]) -> str:
    name, suffix = Path(path).stem, Path(path).suffix
    if suffix.lower() not in SUFFIXES:
        raise TaskError(f"{path}: a task of your own is a file that ends in {' or '.join(SUFFIXES)}; rename it")
    if not _NAME.fullmatch(name):
        raise TaskError(
            f"{path}: a task cannot be named {shown(name)}; rename the file: "
            "at most 100 letters, digits, _ . - and neither . nor - first"
        )
    if name in built_in or name in _RESERVED:
        raise TaskError(f"{path}: {name} is the name of a task that is there already; rename the file")
    return name


def _paired(rows: list[Row]) -> list[tuple[Row, Row]]:
    """Rows two by two. TaskError naming the row that has no other row."""
    unnamed = [row for row in rows if not row.pair]
    if unnamed and len(unnamed) < len(rows):
        raise TaskError(
            f"{unnamed[0].where}: no pair, but other rows name theirs; fill it in, or leave it out everywhere"
        )
    groups: dict[str, list[Row]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row.pair or str(i // 2), []).append(row)
    found = []
    for name, group in groups.items():
        if len(group) != 2:
            which = (
                f"pair {shown(name)} has {len(group)} rows" if not unnamed else "has no row after it to be paired with"
            )
            raise TaskError(f"{group[0].where}: {which}; a pair is two rows whose answer and foil are swapped")
        _check_pair(*group)
        found.append((group[0], group[1]))
    return found


def _check_pair(first: Row, second: Row) -> None:
    where, other = first.where, f"line {second.where.rpartition(':')[2]}"
    if (first.answer, first.foil) != (second.foil, second.answer):
        raise TaskError(
            f"{where}: cannot be paired with {other}: answer and foil are {shown(first.answer)}, {shown(first.foil)}, "
            f"there {shown(second.answer)}, {shown(second.foil)}, and must be swapped; put the rows of a pair on "
            "consecutive lines, or give both the same `pair`"
        )
    if first.prompt == second.prompt:
        raise TaskError(f"{where}: has the prompt of {other}, its pair; give the prompt that the foil follows")
    for name in ("split", "family"):
        one, two = getattr(first, name), getattr(second, name)
        if one != two:
            raise TaskError(f"{where}: {name} {shown(one)}, but {shown(two)} in {other}, its pair; give both the same")


def _stated(pairs: list[tuple[Row, Row]]) -> dict[str, list[Pair]]:
    """Pairs by the split that they name."""
    found: dict[str, list[Pair]] = {split: [] for split in SPLITS}
    for first, second in pairs:
        if not first.split:
            raise TaskError(
                f"{first.where}: no split, but other rows name theirs; fill it in, or leave it out everywhere"
            )
        found[first.split].append(_pair(first, second))
    return found


def _divided(pairs: list[tuple[Row, Row]]) -> dict[str, list[Pair]]:
    """Pairs by split, a quarter for validation, a quarter held out, by a hash of the prompts."""
    order = sorted((_pair(*rows) for rows in pairs), key=_hash)
    quarter = len(order) // 4
    return {
        "train": order[2 * quarter :],
        "validation": order[:quarter],
        "heldout": order[quarter : 2 * quarter],
    }


def _by_variant(by_split: dict[str, list[Pair]]) -> dict[Part, list[Pair]]:
    """Held-out pairs by variant; {} where that would leave too few of either."""
    known = {"", *(pair.first.family for split in ("train", "validation") for pair in by_split[split])}
    new = [pair for pair in by_split["heldout"] if pair.first.family not in known]
    main = [pair for pair in by_split["heldout"] if pair.first.family in known]
    if min(len(new), len(main)) < FEWEST_PAIRS:
        return {}
    return {("heldout", "main"): main, ("heldout", "shifted"): new}


def _pair(first: Row, second: Row) -> Pair:
    return Pair(*(Sample(r.prompt, r.answer, r.foil, family=r.family, where=r.where) for r in (first, second)))


def _hash(pair: Pair, key: str = "") -> bytes:
    prompts = "\0".join([key, *sorted((pair.first.prompt, pair.second.prompt))])
    return hashlib.sha256(prompts.encode()).digest()


def _check_counts(path: str, by_split: dict[str, list[Pair]], stated: bool) -> None:
    counts = {split: len(found) for split, found in by_split.items()}
    if min(counts.values()) < FEWEST_PAIRS:
        listed = ", ".join(f"{count} {split}" for split, count in counts.items())
        way_out = "add pairs" if stated else f"give {4 * FEWEST_PAIRS} or more, or every row its split"
        raise TaskError(f"{path}: pairs are {listed}, but every split needs at least {FEWEST_PAIRS}; {way_out}")


def _check_disjoint(by_split: dict[str, list[Pair]]) -> None:
    """TaskError if a prompt is in two splits."""
    seen: dict[str, tuple[str, Sample]] = {}
    for split, found in by_split.items():
        for sample in (sample for pair in found for sample in (pair.first, pair.second)):
            before, first = seen.setdefault(sample.prompt, (split, sample))
            if before != split:
                raise TaskError(
                    f"{sample.where}: its prompt is in {split}, but in {before} too (line "
                    f"{first.where.rpartition(':')[2]}); change or remove one, or name the split in every row"
                )
