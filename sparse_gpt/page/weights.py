"""A model as the page carries it: named arrays in one gzip file, without the entries that are zero.

The file is a header's length (uint32, little-endian), the header (JSON) and the arrays one after the other. Of an array
it has one bit per entry that says whether the entry is there (big-endian within a byte), then the values of those as
planes of bytes, first bytes first: like bytes beside each other compress better. Values are float32, every bit of them;
of tables rounded to bfloat16 two planes are zero and compress to nothing.
"""

import dataclasses
import gzip
import json
import struct
from collections.abc import Mapping

import numpy as np

from sparse_gpt.config import Config, activation_sites
from sparse_gpt.data import Tokenizer
from sparse_gpt.io import Json, Tree
from sparse_gpt.model.transformer import sinusoids
from sparse_gpt.parameters import Params, flatten

FORMAT = "sparse_gpt.page_weights/1"


def pack_model(
    config: Config,
    params: Params,
    tokenizer: Tokenizer,
    ablation: Mapping[str, np.ndarray],
    others: Tree | None = None,
) -> bytes:
    """The model, its vocabulary and ablation values as a file that engine/tensors.js reads.

    Args:
      config: of the model.
      params: nested dict of float32 arrays.
      tokenizer: whose vocabulary is carried.
      ablation: ablation values (n_layer, width) by their names in the file; the page of one circuit calls those of a
        site ablation/SITE.
      others: what else the header is to have.
    """
    arrays = {"/".join(path): np.asarray(leaf, np.float32) for path, leaf in flatten(params).items()}
    if config.model.position == "sinusoidal":  # no parameter; the page does not compute it anew
        arrays["wpe"] = sinusoids(config.model.context, config.model.d_position)
    arrays |= {name: np.asarray(values, np.float32) for name, values in ablation.items()}
    facts: Tree = dataclasses.asdict(config.model)
    facts["activation_fraction"] = config.sparsity.activation_fraction
    facts["activation_sites"] = activation_sites(config.sparsity)
    return pack_arrays(arrays, {**(others or {}), "config": facts, **vocabulary(tokenizer)})


def as_text(data: bytes) -> str:
    """Bytes as text that stands in a page's script element as it is: seven bits a character, one byte of UTF-8 each.

    Base64 has six. The three characters that HTML would change or take for the element's end (NUL, carriage return, <)
    lie 0x100 higher, and take two bytes.
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    groups = np.pad(bits, (0, -len(bits) % 7)).reshape(-1, 7)
    codes = groups @ (1 << np.arange(6, -1, -1))
    codes[np.isin(codes, [0, ord("\r"), ord("<")])] += 0x100
    return codes.astype("<u2").tobytes().decode("utf-16-le")


def vocabulary(tokenizer: Tokenizer) -> Tree:
    """Bytes of every id as a text of characters up to U+00FF, and the ids of special tokens."""
    tokens = [tokenizer.token_bytes(i).decode("latin-1") for i in range(tokenizer.vocab_size)]
    return {"vocabulary": tokens, "special": sorted(tokenizer.special_ids)}


def pack_arrays(arrays: Mapping[str, np.ndarray], header: Mapping[str, Json]) -> bytes:
    """Float32 arrays by name, and what else the header is to have. Equal content gives equal bytes."""
    entries, body = [], []
    for name, value in arrays.items():
        words = np.ascontiguousarray(value, np.float32).ravel().view(np.uint32)
        there = words != 0  # a negative zero is kept too
        kept = words[there]
        entries.append({"name": name, "shape": list(value.shape), "count": len(kept)})
        body += [np.packbits(there).tobytes(), kept.astype("<u4").view(np.uint8).reshape(-1, 4).T.tobytes()]
    text = json.dumps({"format": FORMAT, **header, "tensors": entries}).encode()
    return gzip.compress(b"".join([struct.pack("<I", len(text)), text, *body]), mtime=0)
