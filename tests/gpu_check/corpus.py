"""Makes a corpus of generated programs with all cores: parts by processes of their own, joined; a part of train.py.

A preparation is one process, because what it has seen decides what it leaves out. Here every part has a seed of its own
and knows nothing of the others; they share a tokenizer, and become as many sources of one corpus, mixed evenly. The
result depends on the number of parts, not on the number of cores.
"""

import argparse
import dataclasses
import multiprocessing
import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from sparse_gpt.config import DataConfig
from sparse_gpt.data import Corpus, prepare_corpus
from sparse_gpt.data.corpus import Work
from sparse_gpt.data.shards import MANIFEST, Shard, read_manifest
from sparse_gpt.evaluation.heldout import heldout_rule
from sparse_gpt.io import write_json

SOURCE = "idioms:1"
FOR_TOKENIZER = 2_000_000  # tokens of the preparation that trains it


@dataclasses.dataclass(frozen=True)
class PartOf:
    """One preparation."""

    folder: Path
    seed: int
    tokens: int
    vocab_size: int
    tokenizer: str = ""


def prepare(part: PartOf) -> Path:
    """Its folder, a whole corpus."""
    data = DataConfig(sources=SOURCE, seed=part.seed, tokens=part.tokens, tokenizer=part.tokenizer)
    prepare_corpus(part.folder, data, part.vocab_size, heldout_rule(), progress=False, work=Work(workers=1))
    return part.folder


def join(parts: Sequence[Path], folder: Path) -> None:
    """One corpus of several with the same tokenizer; its manifest comes last."""
    sources: list[dict[str, Any]] = []
    shards: list[dict[str, Any]] = []
    (folder / "shards").mkdir(parents=True)
    shutil.copytree(parts[0] / "tokenizer", folder / "tokenizer")
    for number, part in enumerate(parts):
        manifest = read_manifest(part)
        (source,) = manifest["sources"]
        sources.append({**source, "weight": 1 / len(parts)})
        for entry in manifest["shards"]:
            shard = Shard(**entry)
            name = f"{number:02d}{shard.name[shard.name.index('-') :]}"
            (part / "shards" / shard.name).rename(folder / "shards" / name)
            shards.append(shard._replace(name=name, source=number)._asdict())
    settings = {**manifest["settings"], "tokens": sum(s["tokens"] for s in shards if s["split"] == "train")}
    write_json(folder / MANIFEST, {**manifest, "settings": settings, "sources": sources, "shards": shards}, alone=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Flags to one corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--vocab_size", type=int, required=True)
    parser.add_argument("--parts", type=int, default=16)
    args = parser.parse_args(argv)
    scratch = args.folder.with_name(args.folder.name + ".parts")
    first = PartOf(scratch / "tokenizer", 10_000, min(FOR_TOKENIZER, args.tokens), args.vocab_size)
    tokenizer = str(prepare(first) / "tokenizer")
    parts = [
        PartOf(scratch / str(i), i, args.tokens // args.parts, args.vocab_size, tokenizer) for i in range(args.parts)
    ]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        join(list(pool.map(prepare, parts)), args.folder)
    shutil.rmtree(scratch)
    print(f"corpus: {Corpus.open(args.folder).tokens():,} tokens in {args.parts} parts", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
