"""A corpus as a person would look at it: a table of counts and samples with token borders."""

import itertools
import warnings
from collections.abc import Iterator

import numpy as np

from sparse_gpt.data import problems
from sparse_gpt.data.batches import Corpus
from sparse_gpt.data.cleaning import SPLITS
from sparse_gpt.data.idioms import CONSTRUCTS, construct_counts
from sparse_gpt.visible import SIGNS, visible

BORDER = "│"


def summary(corpus: Corpus) -> str:
    """Counts per source and split, what was left out and why, bytes per token."""
    lines = [f"{'source':40} {'split':10} {'documents':>10} {'MB':>9} {'tokens':>12} {'bytes/token':>11}"]
    for source in corpus.manifest["sources"]:
        for split in SPLITS:
            counts = source["splits"][split]
            ratio = counts["bytes"] / max(1, counts["tokens"])
            lines.append(
                f"{source['source'][:40]:40} {split:10} {counts['documents']:10,} {counts['bytes'] / 1e6:9.2f} "
                f"{counts['tokens']:12,} {ratio:11.2f}"
            )
        dropped = problems.counts(source["dropped"]) or "nothing"
        whole = " (all there is)" if source["exhausted"] else ""
        lines.append(f"  weight {source['weight']:.3g}; read {source['documents_read']:,}{whole}; left out: {dropped}")
        lines += [f"    {line}" for line in problems.advice(source["dropped"])]
    total = ", ".join(f"{split} {corpus.tokens(split):,}" for split in SPLITS)
    lines.append(f"tokens: {total}; vocabulary {corpus.tokenizer.vocab_size}; {len(corpus.manifest['shards'])} shards")
    return "\n".join(lines)


def documents(corpus: Corpus, source: int, split: str) -> Iterator[str]:
    """The texts of a source and split, in the order of the shards."""
    for shard in corpus.manifest["shards"]:
        if (shard["source"], shard["split"]) == (source, split):
            ids = np.memmap(corpus.folder / "shards" / shard["name"], corpus.manifest["dtype"], "r")
            start = 0
            for end in np.flatnonzero(ids == corpus.tokenizer.eot_id).tolist():
                yield corpus.tokenizer.decode(ids[start:end].tolist())
                start = end + 1


def construct_table(corpus: Corpus, count: int = 200) -> str:
    """How often each construct of the tasks' behaviors occurs per 100 kB of source, in the first training documents.

    Documents that are not valid Python are passed over.
    """
    columns = []
    for number in range(len(corpus.manifest["sources"])):
        totals, size = dict.fromkeys(CONSTRUCTS, 0), 0
        for text in itertools.islice(documents(corpus, number, "train"), count):
            with warnings.catch_warnings():  # real code has invalid escapes
                warnings.simplefilter("ignore")
                try:
                    counts = construct_counts(text)
                except (SyntaxError, ValueError, RecursionError):
                    continue
            size += len(text)
            totals = {name: totals[name] + counts[name] for name in CONSTRUCTS}
        columns.append({name: 1e5 * totals[name] / max(1, size) for name in CONSTRUCTS})
    names = [source["source"][:24] for source in corpus.manifest["sources"]]
    lines = [f"{'per 100 kB':24}" + "".join(f"{name:>25}" for name in names)]
    lines += [f"{name:24}" + "".join(f"{column[name]:25.1f}" for column in columns) for name in CONSTRUCTS]
    return "\n".join(lines)


def show_tokens(corpus: Corpus, ids: list[int]) -> str:
    """Text with a border after every token; spaces and printed characters stand as they are, line breaks are kept."""
    pieces = (visible(corpus.tokenizer.token_text(i)) for i in ids)
    return BORDER.join(piece.replace(SIGNS[" "], " ").replace(SIGNS["\n"], SIGNS["\n"] + "\n") for piece in pieces)


def samples(corpus: Corpus, split: str, count: int, context: int, seed: int) -> Iterator[str]:
    """The first `count` windows of `context` tokens that training with this seed would read."""
    windows = corpus.windows(split, seed, context) if count else None
    for index in range(count):
        assert windows is not None
        ids = windows[index][:-1].tolist()
        yield f"--- {split} window {index} ({len(ids)} tokens)\n{show_tokens(corpus, ids)}"
