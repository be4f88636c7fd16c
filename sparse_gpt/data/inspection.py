"""A corpus as a person would look at it: a table of counts and samples with token borders."""

from collections.abc import Iterator

from sparse_gpt.data.cleaning import SPLITS
from sparse_gpt.data.pipeline import Corpus

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
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in source["dropped"].items()) or "nothing"
        whole = " (all there is)" if source["exhausted"] else ""
        lines.append(f"  weight {source['weight']:.3g}; read {source['documents_read']:,}{whole}; left out: {dropped}")
    total = ", ".join(f"{split} {corpus.tokens(split):,}" for split in SPLITS)
    lines.append(f"tokens: {total}; vocabulary {corpus.tokenizer.vocab_size}; {len(corpus.manifest['shards'])} shards")
    return "\n".join(lines)


def show_tokens(corpus: Corpus, ids: list[int]) -> str:
    """Text with a border after every token; a line break is shown as ⏎ and kept."""
    pieces = (corpus.tokenizer.token_bytes(i).decode("utf-8", "backslashreplace") for i in ids)
    return BORDER.join(piece.replace("\r", "␍").replace("\n", "⏎\n") for piece in pieces)


def samples(corpus: Corpus, split: str, count: int, context: int, seed: int) -> Iterator[str]:
    """The first `count` windows of `context` tokens that training with this seed would read."""
    windows = corpus.windows(split, seed, context) if count else None
    for index in range(count):
        assert windows is not None
        ids = windows[index][:-1].tolist()
        yield f"--- {split} window {index} ({len(ids)} tokens)\n{show_tokens(corpus, ids)}"
